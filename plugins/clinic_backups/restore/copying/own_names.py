"""The names that types and sequences have in a copy, and SQL of the original with these names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.base.text import literal, quoted
from clinic_backups.restore.copying.original import Definition, element_of
from clinic_backups.restore.workspace import Workspace

_OTHER = r"""[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" """
"""Texts and quoted names, in which nothing is replaced."""

_SEQUENCE_BY_TEXT = re.compile(r"\b(?:nextval|currval|setval)\((?!'(?:[^']|'')*'::regclass)")
"""PostgreSQL does not know on which sequence such a call depends, so it might take the original's numbers."""


@dataclass
class OwnNames:
    """What the copy has of its own. Filled while it is made.

    :param types: by the original's name, as ``format_type`` spells it: the name in SQL.
    :param sequences: by the original's name in SQL: the name in SQL.
    :param extensions: those of the copy's database.
    """

    schema: str
    extensions: Collection[str] = ()
    types: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """A name in the copy's schema, for SQL."""
        return f"{quoted(self.schema)}.{quoted(name)}"

    def type_(self, spelled: str) -> str | None:
        """A type of the original in the copy's own name; none if the copy has no type for it."""
        bare = element_of(spelled)
        return f"{self.types[bare]}{spelled.removeprefix(bare)}" if bare in self.types else None

    def lacks(self, definition: Definition) -> str:
        """What the copy lacks for a definition, or must not use; empty if nothing.

        Functions of the application are never used: they would run with the rights of whoever works in the copy, and
        may read or write the original's tables. Those of extensions are, if the copy's database has the extension.
        """
        for use in definition.uses:
            known = use.type in self.types or use.sequence in self.sequences or use.extension in self.extensions
            if not known:
                return f"the extension {use.extension}" if use.extension else f"the {use.kind} {use.name}"
        if _SEQUENCE_BY_TEXT.search(definition.text):
            return "a sequence that is named by a text"
        return ""

    def rewritten(self, text: str) -> sql.SQL:
        """SQL that PostgreSQL has printed, with the copy's names instead of the original's."""
        names: Mapping[str, str] = self.types | {
            f"{literal(was)}::regclass": f"{literal(now)}::regclass" for was, now in self.sequences.items()
        }
        if not names:
            return sql.SQL(text)
        longest = sorted(names, key=len, reverse=True)
        found = re.compile(
            rf"""(?<![\w.$"']) (?P<own> {"|".join(map(re.escape, longest))} ) (?![\w.$"(]) | {_OTHER}""",
            re.VERBOSE | re.DOTALL,
        )
        return sql.SQL(found.sub(lambda match: names[match["own"]] if match["own"] else match[0], text))


def extensions_of(workspace: Workspace) -> frozenset[str]:
    """The extensions of a database."""
    return frozenset(
        name for (name,) in workspace.rows("SELECT extname FROM pg_extension", None, "asking for extensions")
    )
