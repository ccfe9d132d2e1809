"""The definitions that a snapshot shows: of relations, functions, enums and composite types. Compared after reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.errors import TransientError
from clinic_backups.tenant.lock_errors import changed_meanwhile, some
from clinic_backups.tenant.pg_catalog import catalog_query

Unlocked = Mapping[tuple[str, int], tuple[str, str]]


@dataclass(frozen=True)
class Definitions:
    """Definitions in one snapshot that another session may change while tables are read."""

    relations: Mapping[int, tuple[Any, ...]]
    """By oid: the name, and a value that shows the location and definition of its rows."""
    unlocked: Unlocked
    """Functions, enum values, composite types and row types, by kind and oid: name and version."""

    @classmethod
    def read(cls, cursor: Any, relations: Sequence[int] | None, known: Unlocked | None = None) -> Definitions:
        """Read the definitions of relations, by their OIDs.

        :param known: the functions and types in this snapshot, if they were already read.
        """
        found = _relations(cursor, relations)
        if known is None:
            cursor.execute(catalog_query("unlocked", row_types="row_types"))
            known = _by_key(cursor.fetchall())
        return cls(found, known)

    def now(self, cursor: Any, relations: Sequence[int] | None) -> Definitions:
        """The definitions of the same relations and of the same row types in another snapshot.

        No column can have got another row type meanwhile, since the tables that were read are locked.
        """
        found = _relations(cursor, relations)
        if not self.unlocked:
            return Definitions(found, {})
        row_types = [oid for kind, oid in self.unlocked if kind == "row type"]
        cursor.execute(catalog_query("unlocked", row_types="known_row_types"), {"row_types": row_types})
        return Definitions(found, _by_key(cursor.fetchall()))

    def require_same(self, now: Definitions) -> None:
        """:raises TransientError: a definition has changed."""
        seen, later = self.relations, now.relations
        changed = {
            (later.get(key) or seen[key])[0] for key in seen.keys() | later.keys() if seen.get(key) != later.get(key)
        }
        if changed:
            raise changed_meanwhile(sorted(changed))
        for kind in ("function", "enum", "composite type", "row type"):
            names = {
                (self.unlocked.get(key) or now.unlocked[key])[0]
                for key in self.unlocked.keys() | now.unlocked.keys()
                # No row in the snapshot has a value that was added to an enum later.
                if key[0] == kind and self.unlocked.get(key) != now.unlocked.get(key)
                and (kind != "enum" or key in self.unlocked)
            }  # fmt: skip
            if names:
                raise TransientError(
                    f"The {kind} {some(sorted(names))} changed while tables were read: they may have been read"
                    " partly with the old definition and partly with the new.",
                    hint="A migration ran beside the backup. A retry reads all tables again.",
                )


def _relations(cursor: Any, relations: Sequence[int] | None) -> dict[int, tuple[Any, ...]]:
    if not relations:
        return {}
    cursor.execute(catalog_query("definitions"), {"relations": relations})
    return {row[0]: row[1:] for row in cursor.fetchall()}


def _by_key(rows: Iterable[tuple[Any, ...]]) -> Unlocked:
    return {(kind, oid): (name, version) for oid, name, kind, version in rows}
