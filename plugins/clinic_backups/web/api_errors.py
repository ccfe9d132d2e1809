"""The errors of the API and the pages in other languages than English.

The code says each error in English. ``texts/errors/<language>.toml`` has the translation of each sentence. A test finds
missing ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from clinic_backups.base.tenant_word import AS_WRITTEN, TenantWords
from clinic_backups.web.language import ERRORS, LANGUAGES, read


class ErrorTexts(BaseModel):
    """The texts of one language. Names in braces are placeholders.

    :param unknown: quotes a message of another part of the system.
    :param joins: what ``or`` is, with its blanks.
    :param titles: by HTTP status.
    :param sentences: messages and remedies, by the English ones.
    :param words: words for the placeholders, by the English ones.
    :param beginnings: the same, if a number follows.
    :param values: the fault of a value, by the type of pydantic's error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unknown: str
    joins: str = Field(alias="or")
    titles: Mapping[int, str]
    sentences: Mapping[str, str]
    words: Mapping[str, str]
    beginnings: Mapping[str, str]
    values: Mapping[str, str]
    _patterns: list[tuple[re.Pattern[str], str]] = PrivateAttr()

    def model_post_init(self, _: object) -> None:
        # Patterns with fewer placeholders come first, because they are more specific.
        ordered = sorted(self.sentences.items(), key=lambda pair: -len(re.sub(r"\{\w+\}", "", pair[0])))
        self._patterns = [(pattern_of(english), translated) for english, translated in ordered]

    def sentence(self, english: str) -> str:
        """A message or remedy. Messages of other parts of the system are quoted in English."""
        if not english:
            return ""
        said = self.known(english)
        return self.unknown.format(english=english) if said is None else said

    def known(self, english: str) -> str | None:
        """The same; none if it is of another part of the system."""
        for pattern, translated in self._patterns:
            if found := pattern.fullmatch(english):
                return translated.format(**{name: self._word(value) for name, value in found.groupdict().items()})
        return None

    def wrong_value(self, kind: str, context: Mapping[str, Any]) -> str:
        """The fault of a value, never the value itself. :param kind: the type of pydantic's error."""
        text = self.values.get(kind) or self.values["date" if kind.startswith("date") else "invalid"]
        return text.format(**{name: str(value).replace(" or ", self.joins) for name, value in context.items()})

    def _word(self, value: str) -> str:
        for english, translated in self.beginnings.items():
            if value.startswith(english):
                return translated + value.removeprefix(english)
        return self.words.get(value, value)


@cache
def of(language: str, words: TenantWords = AS_WRITTEN) -> ErrorTexts | None:
    """The texts of a language; none for English, which needs no translation. :param words: what a clinic is called."""
    if language == "en":
        return None
    return ErrorTexts.model_validate(read(ERRORS / f"{language}.toml", language, words))


def in_english(sentence: str, words: TenantWords) -> str:
    """An English message or remedy, with the word for a clinic. The values in it stay as they are."""
    if words.en is None:
        return sentence
    said = _english(words).known(sentence)
    return words.message(sentence) if said is None else said


@cache
def _english(words: TenantWords) -> ErrorTexts:
    """The same sentences in English: of each translation the original, with the word for a clinic."""
    known = read(ERRORS / f"{LANGUAGES[0]}.toml", LANGUAGES[0], AS_WRITTEN)
    said = {
        kind: {text: words.text("en", text) for text in known[kind]} for kind in ("sentences", "words", "beginnings")
    }
    return ErrorTexts.model_validate(known | said)


def pattern_of(english: str) -> re.Pattern[str]:
    """A pattern that matches the sentence with any values."""
    pieces = re.split(r"(?<!\{)\{(\w+)\}(?!\})", english)
    literal = [re.escape(piece.replace("{{", "{").replace("}}", "}")) for piece in pieces[::2]]
    places = [f"(?P<{name}>.*?)" for name in pieces[1::2]]
    return re.compile("".join(part for pair in zip(literal, [*places, ""], strict=True) for part in pair), re.DOTALL)
