"""Encoding and locale of the target, compared with those of the database that was backed up.

They decide how long a text is, what its capitals are, and in which order texts come. A definition does not set them:
they belong to the database, and are given when it is created.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import literal, one_line
from clinic_backups.recovery.keys_in_dump import NAME
from clinic_backups.recovery.session import Session, Unfinished

_MADE = re.compile(rf"CREATE DATABASE {NAME} WITH (?P<options>[^;\n]*);")
_OPTION = re.compile(r"(?P<name>[A-Z_]+) = (?:'(?P<text>(?:[^']|'')*)'|(?P<word>\w+))")
_HERE = """
SELECT pg_encoding_to_char(d.encoding),
       CASE d.datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END,
       d.datcollate, d.datctype, coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '')
  FROM pg_database AS d WHERE d.datname = current_database()
"""


@dataclass(frozen=True)
class Locale:
    """How a database stores and orders texts.

    :param own: the locale of the provider, if this is not libc.
    """

    encoding: str
    provider: str
    collate: str
    ctype: str
    own: str = ""

    @classmethod
    def in_dump(cls, statement: str) -> Locale | None:
        """What pg_dump's ``CREATE DATABASE`` says; none if the text has no such statement, or it names no encoding."""
        found = _MADE.search(statement)
        options: Mapping[str, str] = {}
        if found is not None:
            options = {
                each["name"]: (each["text"] or each["word"] or "").replace("''", "'")
                for each in _OPTION.finditer(found["options"])
            }
        if "ENCODING" not in options:
            return None
        locale = options.get("LOCALE", "")
        return cls(
            options["ENCODING"], options.get("LOCALE_PROVIDER", "libc"), options.get("LC_COLLATE", locale),
            options.get("LC_CTYPE", locale), options.get("BUILTIN_LOCALE", options.get("ICU_LOCALE", "")),
        )  # fmt: skip

    @classmethod
    def of_target(cls, session: Session) -> Locale:
        """That of the session's database."""
        ((encoding, provider, collate, ctype, own),) = session.rows(_HERE, doing="asking for the encoding")
        return cls(encoding, provider or "", collate or "", ctype or "", own)

    @property
    def text(self) -> str:
        """For people. It came out of an archive."""
        own = f" {self.own}" if self.own else ""
        return one_line(f"{self.provider}{own} (LC_COLLATE {self.collate}, LC_CTYPE {self.ctype})")[:200]

    @property
    def statement(self) -> str:
        """The statement that makes such a database."""
        locale = f"LC_COLLATE {literal(self.collate)} LC_CTYPE {literal(self.ctype)}"
        kind = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(self.provider)
        provider = f"LOCALE_PROVIDER {self.provider}" + (f" {kind} {literal(self.own)}" if kind and self.own else "")
        made = f"CREATE DATABASE … TEMPLATE template0 ENCODING {literal(self.encoding)} {provider} {locale}"
        return one_line(made)[:500]

    def is_like(self, other: Locale) -> bool:
        """Whether texts come in the same order. Systems write one locale in several ways: C.UTF-8, C.utf8."""
        return _plain(self) == _plain(other)


def _plain(of: Locale) -> tuple[str, ...]:
    return tuple(text.lower().replace("utf-8", "utf8") for text in (of.provider, of.collate, of.ctype, of.own))


def require_same(session: Session, then: Locale | None) -> list[Unfinished]:
    """Compare the target with the database that was backed up. Names another locale.

    :raises PermanentError: the encodings differ.
    """
    if then is None:
        return []
    now = Locale.of_target(session)
    if now.encoding != then.encoding:
        raise PermanentError(
            f"The database {session.database()} has the encoding {now.encoding}, and the one that was backed up had"
            f" {one_line(then.encoding)[:40]}. Functions of texts would give other results.",
            hint=f"Nothing was changed. Make the database anew: {then.statement}",
        )
    if now.is_like(then):
        return []
    return [
        Unfinished(
            f"The database has the locale {now.text}, and the one that was backed up had {then.text}: texts may be"
            " sorted in another order, and other letters may be capitals. If that matters, recover into a database of"
            f" that locale: {then.statement}"
        )
    ]
