"""``not_backed_up.txt``: tables, rows and columns that are left out of backups on purpose, with reasons."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import in_sql, one_line, unescaped

FILE = "not_backed_up.txt"
_WORDS = ("derived", "shared", "rows", "may be empty", "lasting keys")
_BETWEEN = r"[\s_\u2010-\u2015-]+"
PART = r"""(?: [uU]&"(?:[^"]|"")+" | "(?:[^"]|"")+" | [^".:]+ )"""
"""A name as these files write it, as a verbose regular expression."""
_SUBJECT = re.compile(rf"""\s* ( {PART} (?: \. {PART} ){{1,2}} ) \s* : (.*)""", re.VERBOSE | re.DOTALL)
_COLUMN = re.compile(rf"\s* ( {PART} \. {PART} \. {PART} ) \s* : (.*)", re.VERBOSE | re.DOTALL)
CLOSE = 0.75
"""From this similarity to one of these words on, another word counts as a typing error."""


DeclaredClass = Literal["derived", "shared", "left out"]


@dataclass(frozen=True)
class Declarations:
    """The declarations, each with its reason. A table is ``schema.table``, a column ``schema.table.column``."""

    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tables whose rows may be lost."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Tables that the application computes from other tables. A restore may delete their rows."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Tables whose rows are the same for all clinics."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Tables with an extract that leaves rows out on purpose."""
    may_be_empty: Mapping[str, str] = field(default_factory=dict)
    """Tables with an extract that may become empty for a clinic without making a backup suspect."""
    lasting_keys: Mapping[str, str] = field(default_factory=dict)
    """Tables in which two rows never get the same key, and no row is given to another clinic."""
    schemas: Mapping[str, str] = field(default_factory=dict)
    """Schemas none of whose tables is backed up."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns that refer to something outside the clinic's backup, or to something else than their name suggests."""

    def class_of(self, table: str) -> tuple[DeclaredClass, str] | None:
        """The class of a table that is in no backup on purpose, with the reason; none for any other table."""
        classes: tuple[tuple[DeclaredClass, Mapping[str, str]], ...] = (
            ("derived", self.derived), ("shared", self.shared), ("left out", self.left_out),
        )  # fmt: skip
        for name, tables in classes:
            if table in tables:
                return name, tables[table]
        reason = self.schemas.get(table.split(".", 1)[0])
        return None if reason is None else ("left out", reason)

    @property
    def tables(self) -> dict[str, str]:
        """The tables with a line of their own that are in no backup on purpose."""
        return {**self.left_out, **self.derived, **self.shared}


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """The lines of such a file with their numbers, without blank ones and those that begin with ``#``."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def columns_with(text: str, file: str, what: str, example: str) -> dict[str, dict[str, str]]:
    """Read a file whose lines are ``schema.table.column: what``; by ``schema.table`` and column, in the file's order.

    Blank lines and lines that begin with ``#`` are ignored.

    :raises SettingsError: a line is something else, or its column has another line already.
    """
    found: dict[str, dict[str, str]] = {}
    for number, line in lines_of(text):
        parts = _COLUMN.fullmatch(line)
        names = [unquoted(name) for name in re.findall(PART, parts[1], re.VERBOSE)] if parts else []
        said = parts[2].strip() if parts else ""
        if len(names) != 3 or not all(names) or not said:
            raise SettingsError(
                f"{file}, line {number}: {line.strip()!r} is not `schema.table.column: {what}`.",
                hint=f"For instance `{example}`. A name with a dot, a colon or a quote stands in double quotes.",
            )
        table, column = f"{names[0]}.{names[1]}", names[2]
        if column in found.setdefault(table, {}):
            raise SettingsError(f"{file}, line {number}: {column} has another line already.", hint="Remove one.")
        found[table][column] = said
    return found


@lru_cache(maxsize=8)
def parse(text: str) -> Declarations:
    """Read the file. A line is ``subject: reason``. Blank lines and lines that begin with ``#`` are ignored.

    A reason that begins with ``derived,``, ``shared,``, ``rows,``, ``may be empty,`` or ``lasting keys,`` gives the
    subject that class, whatever its case, spaces and hyphens are. A subject of three names is a column, and
    ``schema.*`` are all tables of a schema, which have no class. A name with a dot, a colon or a quote stands in double
    quotes, as in SQL. A table with lasting keys may have a second line of another class.

    :raises SettingsError: a line has no reason, its subject has another line already, or such a word is misspelt.
    """
    found: dict[str, dict[str, str]] = {word: {} for word in ("left_out", *_WORDS, "schemas", "columns")}
    for number, line in lines_of(text):
        parts = _SUBJECT.fullmatch(line)
        names = re.findall(PART, parts[1], re.VERBOSE) if parts else []
        subject, reason = ".".join(map(unquoted, names)), parts[2].strip() if parts else ""
        kind = "columns" if len(names) == 3 else "left_out"
        if len(names) == 2 and names[1].strip() == "*":
            kind, subject = "schemas", unquoted(names[0])
        if kind == "left_out":
            kind, reason = _class_of(reason, number)
        if not all(map(unquoted, names)) or not reason:
            raise SettingsError(
                f"{FILE}, line {number}: {line.strip()!r} is not `schema.table: reason`.",
                hint="Say for each table why its rows may be lost. The other forms are `schema.table: derived, reason`,"
                " `schema.table: shared, reason`, `schema.table: rows, reason`, `schema.table: may be empty, reason`,"
                " `schema.table: lasting keys, reason`, `schema.*: reason` and"
                " `schema.table.column: reason`. A name with a dot, a colon or a quote stands in double quotes.",
            )
        alone = ("lasting keys",) if kind == "lasting keys" else found.keys() - {"lasting keys"}
        if any(subject in found[each] for each in alone):
            raise SettingsError(f"{FILE}, line {number}: {subject} has another line already.", hint="Remove one.")
        found[kind][subject] = reason
    found["may_be_empty"], found["lasting_keys"] = found.pop("may be empty"), found.pop("lasting keys")
    return Declarations(**found)


def spelled(*names: str) -> str:
    """A table or column in the file's spelling. The first name may be ``schema.table``."""
    parts = [*names[0].split(".", 1), *names[1:]]
    return ".".join(
        part if re.fullmatch(r"[^\s\".:#]([^\".:]*[^\s\".:])?", part) and one_line(part) == part else in_sql(part)
        for part in parts
    )


def unquoted(part: str) -> str:
    """The name in a part of a line, which may have quotes."""
    part = part.strip()
    if (name := unescaped(part)) is not None:
        return name
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _class_of(reason: str, number: int) -> tuple[str, str]:
    """The class in a reason, and the reason itself."""
    first, comma, rest = reason.partition(",")
    word = _WORDS_ALONE.get(_letters(first))
    if word is not None:
        return word, rest.strip() if comma else ""
    # The words may be followed by another sign than a comma, or by none.
    begins = next((word for word in _WORDS if " " in word and _letters(reason).startswith(_letters(word))), None)
    alone = re.match(rf"(\w+(?:{_BETWEEN}\w+){{0,2}})\s*(?:[,;:.|/–—-]|$)", reason)
    written = alone[1] if alone else begins or ""
    meant = [begins] if begins else get_close_matches(_letters(written), _WORDS_ALONE, n=1, cutoff=CLOSE)
    if written and meant:
        right = _WORDS_ALONE[_letters(meant[0])]
        raise SettingsError(
            f"{FILE}, line {number}: the reason begins with the unknown word {written!r}.",
            hint=f"Do you mean `{right}, reason`? If not, begin the reason with another word.",
        )
    return "left_out", reason


def _letters(text: str) -> str:
    """A text without spaces, hyphens and case: however a class is written, it has these letters."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


_WORDS_ALONE = {_letters(word): word for word in _WORDS}
