"""Compares the tables of a backup with those of the definition that its rows are loaded into.

A migration may lie between the two moments. Rows are loaded by the names of tables and columns, so a name must mean the
same on both sides. PostgreSQL's numbers tell, as they do for a restore: see ``restore/columns/identity.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from clinic_backups.archive.manifest_checks import table_of
from clinic_backups.archive.reader import Manifest
from clinic_backups.base import strict_json
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.shared_unit import TABLES, is_shared, named
from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import capitalised, in_sql, one_line
from clinic_backups.recovery.load import MIGRATED
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.restore.columns.changed_meaning import changed_meaning
from clinic_backups.restore.columns.identity import match, what_column
from clinic_backups.tenant.described_tables import described_tables
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.source_database import is_same

_SHOWN = 10
_DEFAULT_SHOWN = 200


@dataclass(frozen=True)
class Described:
    """The tables at the moment of the definition.

    :param database: where their numbers are valid.
    :param drift: its lines say which names mean the same although the numbers differ.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    database: str | None = None
    drift: Drift = field(default_factory=Drift)

    @classmethod
    def of(cls, manifest: Manifest | None, drift: Drift | None = None) -> Described:
        """What the archive of the shared data says; nothing, if an older version made it."""
        files = manifest.files if manifest is not None else {}
        found = [table_of(each) for each in strict_json.loads(files[TABLES])] if TABLES in files else []
        database = manifest.database if manifest is not None else None
        return cls({table.name: table for table in found}, database, drift or Drift())

    def misfits(self, manifest: Manifest) -> list[str]:
        """Why rows of a backup would come into wrong columns or get another meaning, as sentences."""
        if not self._is_same(manifest):
            return []
        held = [content.table for content in manifest.tables.values() if content.rows]
        found = self._tables(held)
        for then in held:
            now = self.tables.get(then.name)
            if now is not None and now.oid == then.oid is not None:
                found += [*self._columns(then, now), *_meanings(then, now)]
        return found

    def require_fitting(self, manifest: Manifest) -> None:
        """:raises PermanentError: see :meth:`misfits`."""
        if found := self.misfits(manifest):
            raise PermanentError(
                f"The rows of {named(manifest.clinic.id)} do not fit the definition of the database.", *found,
                hint=MIGRATED,
            )  # fmt: skip

    def untold(self, manifest: Manifest) -> Iterator[str]:
        """The tables of a backup whose columns are matched by their names alone, because nothing else is known."""
        same = self._is_same(manifest)
        for name, content in manifest.tables.items():
            now, numbers = self.tables.get(name), [column.number for column in content.table.columns]
            is_told = same and now is not None and now.oid == content.table.oid is not None and None not in numbers
            if content.rows and not is_told:
                yield name

    def _is_same(self, manifest: Manifest) -> bool:
        here = self.database
        return here is not None and (manifest.database == here or is_same(manifest.database, here))

    def _tables(self, held: Iterable[Table]) -> list[str]:
        names = {table.oid: name for name, table in self.tables.items()}
        moved = [
            f"{table.name} is {now} now" for table in held
            if table.name in self.tables and table.name not in self.drift.kept_tables
            and (now := names.get(table.oid)) not in (None, table.name)
        ]  # fmt: skip
        said = "Tables were renamed since the backup, and others have their names:"
        return [f"{said} {', '.join(moved[:_SHOWN])}."] if moved else []

    def _columns(self, then: Table, now: Table) -> Iterator[str]:
        old, new = ({column.name: column for column in table.columns} for table in (then, now))
        numbers, present = _numbers(old), _numbers(new)
        kept = {
            line.old for line in self.drift.kept({then.name}) if line.old == line.new and line.old in old.keys() & new
            and line.was == what_column(old[line.old]) and line.becomes == what_column(new[line.new])
        }  # fmt: skip
        # Without lines: the rows are loaded under their old names, whatever a line says of new ones.
        moved = {name: other for name, other in match(numbers, present, (), kept).unsaid.items() if name in new}
        if moved:
            shown = ", ".join(f"{name} is {other} now" for name, other in moved.items())
            yield f"Columns of {then.name} were renamed since the backup, and others have their names: {shown}."
        at = set(present.values())
        again = [name for name, number in numbers.items() if name in present and number not in at and name not in kept]
        if again:
            yield (
                f"Columns of {then.name} were dropped since the backup, and others were created with their names:"
                f" {', '.join(again)}."
            )


def _numbers(columns: Mapping[str, Column]) -> dict[str, int]:
    return {name: column.number for name, column in columns.items() if column.number is not None}


def _meanings(then: Table, now: Table) -> Iterator[str]:
    new = {column.name: column for column in now.columns}
    for column in then.stored_columns:
        if column.name in new and (found := changed_meaning(column, new[column.name], same_database=True)):
            yield f"{capitalised(found.message)}, and column {column.name} of {then.name} has this type."


def changes(
    session: Session, manifests: Collection[Manifest], described: Described, rows: Callable[[Manifest, str], int]
) -> list[Unfinished]:
    """What the rows have in columns that their backups did not have, or had with another type; and what nothing tells.

    :param manifests: the backups that were loaded.
    :param rows: the number of rows of a table that were loaded from a backup.
    """
    held = {name for manifest in manifests for name, content in manifest.tables.items() if content.rows}
    there = described_tables(session.rows, sorted(held & _there(session)))
    counts, untold = Counter[str](), set[str]()
    for manifest in manifests:
        if not is_shared(manifest.clinic.id):
            untold |= set(described.untold(manifest))
        for name in held & manifest.tables.keys() & there.keys():
            if count := rows(manifest, name):
                for said in differences_of(manifest.tables[name].table, there[name]):
                    counts[f"{{}} of {name}: {said}"] += count
    found = [Unfinished(said.replace("{}", _rows(count), 1)) for said, count in sorted(counts.items())]
    if untold:
        shown = ", ".join(sorted(untold)[:_SHOWN]) + f" and {len(untold) - _SHOWN} more" * (len(untold) > _SHOWN)
        found.append(
            Unfinished(
                f"Columns of {shown} were matched by their names alone: the backups do not say more. If a migration"
                " between the backups of the clinics and that of the shared data renamed columns or labels of an"
                " enum, or made a table or a column again, look at their values."
            )
        )
    return found


def differences_of(then: Table, now: Table) -> Iterator[str]:
    """What rows of a backup have in columns that are new, or of another type, each as the end of a sentence."""
    old, computed = {}, set()
    for column in then.columns:
        if column.generated is None:
            old[column.name] = column
        else:
            computed.add(column.name)
    for column in now.stored_columns:
        before = old.get(column.name)
        if before is None:
            was = "was computed in the backup, and" if column.name in computed else "was added since and"
            yield f"{in_sql(column.name)} {was} {_filling(column)}."
        elif before.type != column.type:
            yield (
                f"{in_sql(column.name)} was {before.shown_type} in the backup, and is {column.shown_type} now. The"
                " values are those of the backup: if the migration computed others, do it again."
            )


def _filling(column: Column) -> str:
    if column.identity:
        return "has new numbers of its identity"
    default = one_line(column.default or "")
    if not default or default.startswith("NULL::"):
        return "is NULL"
    return f"has its default: {default[:_DEFAULT_SHOWN]}"


def _there(session: Session) -> set[str]:
    found = session.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT')"
    )
    return {name for (name,) in found}


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
