"""The pages' language: the browser's, otherwise Spanish.

The texts are in ``texts/*.toml``, those of errors in ``texts/errors/*.toml``. The names of a backup's facts are in
``templates/backup.html`` in Spanish and English, and for further languages in ``texts/*.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from clinic_backups.base.tenant_word import AS_WRITTEN, TenantWords
from clinic_backups.base.text import one_line
from clinic_backups.notify.formats import Formats

FOLDER = Path(__file__).with_name("texts")
ERRORS = FOLDER / "errors"
LANGUAGES = ("es", "en")
"""The first one is used for browsers that ask for none of these."""
LONGEST_TEXT = 1000
PLURAL_FORMS = {"one", "other"}


def negotiate(accepted: str) -> str:
    """The preferred language in a header ``Accept-Language`` (RFC 9110, 12.5.4); of equals the first."""
    wishes: list[tuple[float, str]] = []
    for item in accepted.split(","):
        tag, _, parameter = item.partition(";")
        name, _, weight = parameter.replace(" ", "").partition("=")
        language = tag.strip().lower().partition("-")[0]
        try:
            quality = float(weight) if name == "q" else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and quality > 0:
            wishes.append((quality, language))
    return max(wishes, key=lambda wish: wish[0], default=(0.0, LANGUAGES[0]))[1]


def of_api(accepted: str | None) -> str:
    """The language of the API's errors: that of the header, or English for programs that send none."""
    return "en" if accepted is None else negotiate(accepted)


def tidy(value: str, longest: int = LONGEST_TEXT) -> str:
    """Text of others as one line that cannot reverse or hide the text around it."""
    line = one_line(value)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


@cache
def load(language: str, words: TenantWords = AS_WRITTEN) -> Mapping[str, str | Mapping[str, str]]:
    """The texts by their dotted keys. A text with plural forms is a mapping from CLDR's category.

    :param words: what a clinic is called in them.
    """
    return dict(_flat("", read(FOLDER / f"{language}.toml", language, words)))


def read(path: Path, language: str, words: TenantWords) -> dict[str, Any]:
    """A file of texts, with the words for a clinic in its values."""

    def spoken(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spoken(item) for name, item in value.items()}
        return words.text(language, value)

    found: dict[str, Any] = spoken(tomllib.loads(path.read_text(encoding="utf-8")))
    return found


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str | Mapping[str, str]]]:
    for name, value in table.items():
        if isinstance(value, str) or value.keys() == PLURAL_FORMS:
            yield prefix + name, value
        else:
            yield from _flat(f"{prefix}{name}.", value)


class Texts:
    """The texts of one language."""

    def __init__(self, language: str, formats: Formats, words: TenantWords = AS_WRITTEN) -> None:
        self._language, self._texts, self._formats, self._words = language, load(language, words), formats, words
        self._plain = {key: escape(text) for key, text in self._texts.items() if isinstance(text, str)}

    def __call__(self, key: str, /, **values: Any) -> Markup:
        """A text for HTML with its ``{placeholders}`` filled and escaped. ``n`` chooses the plural form."""
        if not values:
            return self._plain[key]
        found = self._texts[key]
        if not isinstance(found, str):
            found = found.get(self._formats.locale.plural_form(values["n"]), found["other"])
        return escape(found).format(**{name: self._shown(value) for name, value in values.items()})

    def label(self, **languages: str) -> Markup:
        """The name of a fact that one template shows: ``t.label(es=…, en=…)``.

        A further language has it in its file, in the table ``labels``, by the English name.
        """
        if self._language in languages:
            return escape(self._words.text(self._language, languages[self._language]))
        return self._plain[f"labels.{languages['en']}"]

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def _shown(self, value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return tidy(value) if isinstance(value, str) else self._formats.number(value)
