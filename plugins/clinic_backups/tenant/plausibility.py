"""Checks whether the read rows are plausible: tables that became empty, and rows without parents, are counted again.

It does not rely on the locks before the snapshot. See docs/decisions/0010-locks-before-the-snapshot.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.table import ForeignKey, Table
from clinic_backups.base.text import quoted_table
from clinic_backups.tenant.operators import EQUAL, operators_of
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.tenant_db import Snapshot

CHECK_SECONDS = 30.0
"""The longest time of each of the two counts. If it is not enough, the backup is made and its record says so."""
SHOWN_FINDINGS = 20
_ORPHANS = re.compile(r"([^;]+): ([0-9]+) rows? points? to rows of ([^;]+) that do not exist")


@dataclass(frozen=True)
class Plausibility:
    """The findings: tables, constraints and counts, but no values."""

    suspect: str | None = None
    """Why the backup is suspect; none if nothing was found."""
    remark: str | None = None
    """What was not checked, and why."""
    accepted: bool = False
    """Whether everything suspect was already accepted with the last good backup."""


def check(
    snapshot: Snapshot,
    tables: Mapping[str, Table],
    queries: Mapping[str, str],
    rows: Mapping[str, int],
    last_good: BackupRecord | None,
    *,
    may_be_empty: Collection[str] = (),
    within_seconds: float = CHECK_SECONDS,
) -> Plausibility:
    """Compare the rows of a backup with the database. If nothing is suspicious, no query is sent.

    :param snapshot: it is renewed, so that the present rows are counted.
    :param rows: the number of rows that were read of each table.
    :param last_good: the clinic's newest backup that is not suspect, or was accepted.
    :param may_be_empty: tables that are not suspect without rows. They are counted again all the same.
    :raises TransientError: a table that was read as empty has rows now, so the read rows cannot be right.
    """
    before = last_good.rows if last_good else {}
    emptied = [name for name in tables if not rows[name] and before.get(name)]
    accepted = _accepted(last_good)
    orphaned = list(_questionable(tables, rows, before, accepted))
    empty = sorted({*emptied, *(key.references for _, key in orphaned if not rows[key.references])})
    if not empty and not orphaned:
        return Plausibility()
    snapshot.renew()
    remarks: list[str] = []
    counted = _count(
        snapshot,
        {name: sql.SQL("FROM (\n{}\n) AS r").format(sql.SQL(queries[name])) for name in empty},
        within_seconds,
        "counting tables that were read as empty",
    )
    if isinstance(counted, str):
        remarks.append(f"Tables that were read as empty were not counted again: {counted}.")
    elif wrong := sorted(name for name, count in counted.items() if count):
        raise TransientError(
            f"{', '.join(wrong)} was read as empty, but has rows of the clinic now.",
            hint="Somebody is loading these tables again at this moment. A retry reads them again.",
        )
    findings = [
        f"{name} has no rows, but had {before[name]} in {last_good.backup_id if last_good else ''}"
        for name in emptied
        if name not in may_be_empty
    ]
    orphans = _count(
        snapshot,
        {
            f"{child.name} ({key.name}) {key.references}": sql.SQL("FROM (\n{}\n) AS r WHERE {}").format(
                sql.SQL(queries[child.name]), _has_no_parent(snapshot, tables, child, key)
            )
            for child, key in orphaned
        },
        within_seconds,
        "looking for rows without parents",
    )
    if isinstance(orphans, str):
        remarks.append(f"It was not checked whether rows refer to rows that do not exist: {orphans}.")
        orphans = {}
    known: list[str] = []
    for name, count in orphans.items():
        constraint, _, parent = name.rpartition(" ")
        if count:
            what = "row points" if count == 1 else "rows point"
            found = findings if count > accepted.get((constraint, parent), 0) else known
            found.append(f"{constraint}: {count} {what} to rows of {parent} that do not exist")
    all_accepted = bool(known) and not findings
    findings += known
    more = [f"{len(findings) - SHOWN_FINDINGS} more"] if len(findings) > SHOWN_FINDINGS else []
    return Plausibility("; ".join(findings[:SHOWN_FINDINGS] + more) or None, " ".join(remarks) or None, all_accepted)


def _questionable(
    tables: Mapping[str, Table],
    rows: Mapping[str, int],
    before: Mapping[str, int],
    accepted: Mapping[tuple[str, str], int],
) -> Iterator[tuple[Table, ForeignKey]]:
    """The foreign keys by which a row may have lost its parent since the last good backup.

    There are now more children or fewer parents than in that backup, or somebody has accepted rows without parents. If
    there is no good backup, all foreign keys are returned.
    """
    for table in tables.values():
        for key in table.foreign_keys:
            parent = key.references
            if parent not in tables or not rows[table.name]:
                continue
            more_children = rows[table.name] > before.get(table.name, 0)
            fewer_parents = not rows[parent] or rows[parent] < before.get(parent, 0)
            if more_children or fewer_parents or (f"{table.name} ({key.name})", parent) in accepted:
                yield table, key


def _has_no_parent(snapshot: Snapshot, tables: Mapping[str, Table], child: Table, key: ForeignKey) -> sql.Composable:
    """The condition on a row r. The whole parent table is searched, not only the rows of the clinic's extract."""
    types = {column.name: column.type for column in child.columns}
    parents = {column.name: column.type for column in tables[key.references].columns}
    operators = (EQUAL,) * len(key.columns)
    # With search_path pg_catalog the types of extensions have a schema before their name.
    if any("." in text for text in [*map(types.get, key.columns), *map(parents.get, key.references_columns)] if text):
        table = quoted_table(child.name)
        found = snapshot.rows(
            catalog_query("operators", key_operator="key_operator"),
            {"table": table},
            f"reading the foreign keys of {child.name}",
        )
        operators = operators_of(dict(found)[key.name])
    pairs = list(zip(key.columns, key.references_columns, operators, strict=True))
    present = [sql.SQL("r.{} IS NOT NULL").format(sql.Identifier(column)) for column in key.columns]
    same = [operator.compares(sql.Identifier("p", theirs), sql.Identifier("r", own)) for own, theirs, operator in pairs]
    return sql.SQL("{} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
        sql.SQL(" AND ").join(present),
        qualified(key.references),
        sql.SQL(" AND ").join(same),
    )


def _count(
    snapshot: Snapshot, wanted: Mapping[str, sql.Composable], seconds: float, doing: str
) -> dict[str, int] | str:
    """All counts, from one statement; or the reason why they are missing."""
    if not wanted:
        return {}
    counts = sql.SQL(", ").join(sql.SQL("(SELECT count(*) {})").format(part) for part in wanted.values())
    try:
        found = snapshot.rows_within(seconds, sql.SQL("SELECT {}").format(counts), doing)
    except PermanentError:
        # The locks have ended, and the migration that waited for them has begun.
        return "the tables were changed just after they were read"
    return dict(zip(wanted, found[0], strict=True)) if found else f"that takes longer than {seconds:g} seconds"


def _accepted(last_good: BackupRecord | None) -> dict[tuple[str, str], int]:
    """The number of accepted rows without parents in the last good backup, by foreign key and parent."""
    text = (last_good.suspect if last_good else None) or ""
    return {(child.strip(), parent): int(count) for child, count, parent in _ORPHANS.findall(text)}
