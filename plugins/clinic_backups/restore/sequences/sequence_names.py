"""Lists the sequences of a database, and finds those that a text means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.restore.sequences.number_calls import texts_in
from clinic_backups.restore.sequences.table_owners import TableOwners
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import name_of, tokens

_SHOWN = 3


@dataclass(frozen=True)
class Known:
    """A sequence as PostgreSQL describes it.

    :param sequence: its name, qualified and quoted.
    :param start: its first number.
    :param may: this role may read and set it.
    :param is_tied: PostgreSQL knows a column that it belongs to.
    :param is_own: it belongs to a trusted owner of the tables.
    """

    oid: int
    schema: str
    name: str
    sequence: str
    start: int
    increment: int
    lowest: int
    highest: int
    cycle: bool
    may: bool
    is_tied: bool
    is_own: bool


class Sequences:
    """All sequences of a database. Names are compared here.

    The server is never asked, because it refuses texts that are no names.
    """

    def __init__(self, workspace: Workspace, owners: TableOwners) -> None:
        found = workspace.rows(catalog_query("sequences"), owners.values, "looking for sequences")
        self.by_oid = {each.oid: each for each in (Known(*row) for row in found)}
        self._in_texts: dict[tuple[str, tuple[str, ...], str | None], list[Known]] = {}
        self._by_name = {(each.schema, each.name): each for each in self.by_oid.values()}
        self.path = default_path(workspace)
        """The schemas that are looked into if nothing else is known."""
        self.own = [each for each in self.by_oid.values() if each.is_own]
        self._schemas = list(dict.fromkeys(each.schema for each in self.own))

    def named(self, text: str, near: Sequence[str], path: str | None = None) -> list[Known]:
        """The sequences that a text may mean. Several if it names no schema: the first one is the most likely.

        Somebody else's sequence is meant by a name without a schema only if there is no other.

        :param near: schemas to look in.
        :param path: the search path, if it is known.
        """
        if text.strip().isdecimal():  # PostgreSQL's own number of it
            found = self.by_oid.get(int(text))
            return [found] if found else []
        parts = name_of(text)
        if parts is None or len(parts) > 3:
            return []
        if len(parts) > 1:
            found = self._by_name.get((parts[-2], parts[-1]))
            return [found] if found else []
        if path is not None:
            return self._of(schemas_of(path), parts[0])[:1]
        found_here = self._of([*near, *self.path, *self._schemas], parts[0])
        return [each for each in found_here if each.is_own] or found_here

    def likely(self, found: Sequence[Known], near: Sequence[str]) -> Known | None:
        """The one that is meant if there is one only, or one only in these schemas."""
        close = [each for each in found if each.schema in near] if len(found) > 1 else found
        return close[0] if len(close) == 1 else None

    def named_in(self, text: str, near: Sequence[str], path: str | None = None) -> list[Known]:
        """All sequences whose names are in a text."""
        key = (text, tuple(near), path)
        if key not in self._in_texts:
            found = (known for name in texts_in(text) for known in self.named(name, near, path))
            self._in_texts[key] = list(dict.fromkeys(found))
        return list(self._in_texts[key])

    def _of(self, schemas: Iterable[str], name: str) -> list[Known]:
        found = (self._by_name.get((schema, name)) for schema in dict.fromkeys(schemas))
        return [each for each in found if each is not None]

    def beginning(self, prefix: str) -> list[Known]:
        """The sequences whose name, with or without its schema, begins with a text. Nobody else's are among them."""
        begin = prefix.replace('"', "").lower()
        return [
            each
            for each in sorted(self.own, key=lambda each: each.sequence)
            if begin and any(name.lower().startswith(begin) for name in (each.name, f"{each.schema}.{each.name}"))
        ]


def default_path(workspace: Workspace) -> list[str]:
    """The schemas of the search paths that PostgreSQL and the session begin with."""
    path = workspace.rows("SELECT boot_val, reset_val FROM pg_settings WHERE name = 'search_path'", None,
                          "asking for the search path")  # fmt: skip
    return [name for row in path for value in row for name in schemas_of(value)]


def schemas_of(path: Any) -> list[str]:
    """The schemas of a search path."""
    return [token.value for token in tokens(str(path or "")) if token.is_name and token.value != "$user"]


def listed(found: Sequence[Known]) -> str:
    """Some names, for a message."""
    names = [each.sequence for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        names.append(f"and {len(found) - _SHOWN} more")
    return ", ".join(names)
