"""Renders mails from the templates below ``include/email``.

Each language has a folder there. Its name is the locale for figures and dates; each of its files ``<kind>.jinja`` is
one mail. The file is rendered twice: as HTML, with the layout and the parts in ``html/``, and as plain text, with those
in ``text/``. It sets ``subject``.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import CodeType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from jinja2 import (
    BytecodeCache,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.bccache import Bucket
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.tenant_word import AS_WRITTEN, TenantWords
from clinic_backups.base.text import one_line
from clinic_backups.notify.formats import FILTERS, Formats

FALLBACK_LANGUAGE = "es"
Form = Literal["html", "text"]
FORMS: tuple[Form, ...] = get_args(Form)
"""What every mail is rendered as. Beside the languages' folders each form has one, with its frame and its parts."""
LIST_LIMIT = 50
"""The most entries of a list that a mail shows; ``list_limit`` in the templates."""
TEXT_LIMIT = 1000


@dataclass(frozen=True)
class Mail:
    """One rendered mail: a one-line subject, plain text, and a whole HTML document."""

    subject: str
    text: str
    html: str


class _Compiled(BytecodeCache):
    """The compiled templates of this process. Compiling all of them takes a second."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, CodeType]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        checksum, code = self._known.get(bucket.key, ("", None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._known[bucket.key] = (bucket.checksum, bucket.code)


@cache
def _compiled(language: str, form: Form, zone: str) -> _Compiled:
    """The templates of one language, form and time zone.

    Constant parts are computed when they are compiled. Escaping is compiled in, so the HTML must never get the code of
    the plain text.
    """
    return _Compiled()


class _Loader(FileSystemLoader):
    """Reads the templates of one language, with the word for a clinic in them."""

    def __init__(self, folders: list[Path], language: str, words: TenantWords) -> None:
        super().__init__(folders)
        self._language, self._words = language, words

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, filename, is_fresh = super().get_source(environment, template)
        return self._words.template(self._language, source), filename, is_fresh


class Templates:
    """The folder ``include/email``.

    :param zone: the time zone of shown times.
    :param support_contact: the contact for a clinic's administrator; if empty, the sentence is left out.
    :param words: what a clinic is called.
    """

    def __init__(
        self, folder: Path, zone: ZoneInfo, *, support_contact: str = "", words: TenantWords = AS_WRITTEN
    ) -> None:
        self._folder = folder
        self._zone = zone
        self._support_contact = support_contact
        self._words = words
        self._environments: dict[tuple[str, Form], ImmutableSandboxedEnvironment] = {}

    def languages(self) -> tuple[str, ...]:
        """The names of the languages' folders.

        :raises SettingsError: ``es`` is not among them, or one has a mail in the form of earlier versions.
        """
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        names = {path.name for path in folders if path.is_dir() and path.name[:1] not in "._"}
        found = tuple(sorted(names - {*FORMS}))
        for language in found:
            _refuse_old_form(self._folder / language)
        if FALLBACK_LANGUAGE not in found:
            raise SettingsError(
                f"{self._folder} has no folder {FALLBACK_LANGUAGE!r} with the mails' templates.",
                hint="Set CLINIC_BACKUPS_EMAIL_DIR to the folder with the templates.",
            )
        return found

    def render(self, kind: str, language: str, facts: Mapping[str, Any]) -> Mail:
        """One mail.

        :param language: a folder's name. ``es-BO`` and ``en_US`` use their language's folder, any other text ``es``.
        :param facts: JSON values, times in ISO 8601 with zone. Texts are reduced to one line here.
        :raises SettingsError: a template is missing or wrong; names the file and the line.
        """
        folder = self.folder_for(language) or FALLBACK_LANGUAGE
        name = f"{kind}.jinja"
        known = _clean({**facts, "support_contact": self._support_contact}, self._words)
        subject, _, text = self._render(folder, "text", name, known).partition("\n")
        if not one_line(subject) or not text.startswith("\n"):
            raise SettingsError(
                f"{self._folder / folder / name}: its subject is not one line of text.",
                hint='A mail sets its subject, as in {% set subject = "Backup completed" %}.',
            )
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
        return Mail(one_line(subject), text, self._render(folder, "html", name, known))

    def check(self) -> None:
        """Read every template of every language, without facts. :raises SettingsError: one is missing or wrong."""
        languages = self.languages()
        names = {path.name for folder in (*languages, *FORMS) for path in (self._folder / folder).glob("*.jinja")}
        for language, form, name in product(languages, FORMS, sorted(names)):
            try:
                self._environment(language, form).get_template(name)
            except TemplateError as error:
                place = self._place(error) or str(self._folder / language / name)
                raise SettingsError(
                    f"{place}: {type(error).__name__}.", hint="Every language needs the same files."
                ) from None

    def folder_for(self, language: str) -> str | None:
        """The folder of a language, or of that language without its region; ``None`` if neither exists."""
        folders = {name.replace("-", "_").lower(): name for name in self.languages()}
        wanted = language.replace("-", "_").lower()
        while wanted and wanted not in folders:
            wanted = wanted.rpartition("_")[0]
        return folders.get(wanted)

    def _render(self, folder: str, form: Form, name: str, facts: Mapping[str, Any]) -> str:
        try:
            template: Template = self._environment(folder, form).get_template(name)
            return template.render(facts)
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - raised on; a template raises whatever its expressions raise
            place = self._place(error) or str(self._folder / folder / name)
            raise SettingsError(
                f"{place}: {type(error).__name__}: {one_line(str(error))}",
                hint=f"Every language needs the same files. {name} can use these facts: {', '.join(sorted(facts))}.",
            ) from None

    def _place(self, error: Exception) -> str:
        """File and line of a template's error, if known."""
        if isinstance(error, TemplateSyntaxError):
            return f"{error.filename or error.name}, line {error.lineno}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if self._is_template(frame.filename)]
        place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
        return f"{place}: {error.name} is missing" if isinstance(error, TemplateNotFound) and frames else place

    def _is_template(self, filename: str) -> bool:
        return Path(filename).is_relative_to(self._folder)

    def _environment(self, folder: str, form: Form) -> ImmutableSandboxedEnvironment:
        """Templates of one language in one form. Files that its folder lacks, such as the layout, are the form's."""
        if (folder, form) not in self._environments:
            try:
                formats = Formats(Locale.parse(folder.replace("-", "_")), self._zone)
            except (UnknownLocaleError, ValueError):
                raise SettingsError(
                    f"{self._folder / folder} is not named after a language.", hint="Name it like es, pt or es_MX."
                ) from None
            environment = ImmutableSandboxedEnvironment(
                loader=_Loader([self._folder / folder, self._folder / form], folder, self._words),
                undefined=StrictUndefined,
                # The same file is HTML and plain text, so its name cannot tell whether values are escaped. In HTML a
                # name like <b> must not become markup. In plain text it would be read as &lt;b&gt;.
                autoescape=form != "text",
                trim_blocks=True,
                lstrip_blocks=True,
                keep_trailing_newline=True,
                bytecode_cache=_compiled(folder, form, self._zone.key),
            )
            environment.filters.update({name: getattr(formats, name) for name in FILTERS})
            environment.tests["web_address"] = is_web_address
            environment.globals.update(language=folder.replace("_", "-"), list_limit=LIST_LIMIT)
            self._environments[folder, form] = environment
        return self._environments[folder, form]


def _refuse_old_form(folder: Path) -> None:
    """:raises SettingsError: a mail in the folder is still a text and an HTML file."""
    for old in sorted(folder.glob("*.txt")):
        if not old.with_suffix(".jinja").exists():
            raise SettingsError(
                f"{old}: mails of this version are in another form. One file, {old.stem}.jinja, is text and HTML.",
                hint="Copy the folder include/email of this version, and make your changes in the copy."
                ' docs/operations.md, "The mails\' texts", says how.',
            )


def _clean(value: Any, words: TenantWords) -> Any:
    """The facts, with every text in them reduced to one line of limited length.

    An error with its hint is a message of this program. Other texts are of others, and keep their words.
    """
    if isinstance(value, str):
        line = one_line(value)
        return line if len(line) <= TEXT_LIMIT else f"{line[: TEXT_LIMIT - 1]}…"
    if isinstance(value, Mapping):
        said = [key for key in ("error", "hint") if {"error", "hint"} <= {*value} and isinstance(value[key], str)]
        return {key: _clean(words.message(item) if key in said else item, words) for key, item in value.items()}
    return [_clean(item, words) for item in value] if isinstance(value, list | tuple) else value


def is_web_address(value: object) -> bool:
    """Whether the value may be used in ``href``: http or https, with a host, only printable ASCII."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
