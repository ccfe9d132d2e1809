"""Is what was read plausible? Tables that became empty, and rows whose parents do not exist, counted once more.

It is the second net: locks before the snapshot are the first. See docs/decisions/0010-locks-before-the-snapshot.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.errors import TransientError
from clinic_backups.model import BackupRecord
from clinic_backups.table_locks import catalog_query
from clinic_backups.tenant_db import Snapshot

CHECK_SECONDS = 30.0
"""Longest time for each of the two counts; a clinic that needs more is backed up, and its record says so."""
SHOWN_FINDINGS = 20
_ORPHANS = re.compile(r"([^;]+): ([0-9]+) rows? points? to rows of ([^;]+) that do not exist")


@dataclass(frozen=True)
class Plausibility:
    """What the checks found: tables, constraints and counts, and no value."""

    suspect: str | None
    """Why the backup is not to be relied upon until somebody looked at it; none when nothing was found."""
    remark: str | None
    """What was not checked, and why."""


def check(
    snapshot: Snapshot,
    queries: Mapping[str, str],
    rows: Mapping[str, int],
    last_good: BackupRecord | None,
    *,
    within_seconds: float = CHECK_SECONDS,
) -> Plausibility:
    """Compare a backup that was just read with what is there now.

    :param snapshot: a fresh one, newer than the one that was read.
    :param rows: how many were read of each table.
    :param last_good: the clinic's newest backup that is not suspect, or was accepted.
    :raises TransientError: a table that was read as empty has rows now: what was read is not believed.
    """
    before = {name: count for name, count in (last_good.rows if last_good else {}).items() if count and name in rows}
    foreign_keys = [
        (name, child, parent, condition)
        for name, child, parent, condition in snapshot.rows(
            catalog_query("parents"), {"names": list(queries)}, "reading the foreign keys"
        )
        if rows.get(child)
    ]
    emptied = [name for name in sorted(rows) if not rows[name] and name in before]
    childless = {parent for _, _, parent, _ in foreign_keys if not rows.get(parent)}
    remarks: list[str] = []
    counted = _count(
        snapshot,
        {name: sql.SQL("FROM (\n{}\n) AS r").format(sql.SQL(queries[name])) for name in sorted({*emptied, *childless})},
        within_seconds,
        "counting tables that were read as empty",
    )
    if counted is None:
        remarks.append("The tables that were read as empty were not counted again")
    elif wrong := sorted(name for name, count in counted.items() if count):
        raise TransientError(
            f"{', '.join(wrong)} was read as empty, and has rows of the clinic now.",
            hint="Somebody loads these tables anew at this moment. A retry reads them again.",
        )
    findings = [f"{name} has no rows, and had {before[name]} in {last_good.backup_id}" for name in emptied if last_good]
    orphans = _count(
        snapshot,
        {
            f"{child} ({name}) {parent}": sql.SQL("FROM (\n{}\n) AS r WHERE {}").format(
                sql.SQL(queries[child]), sql.SQL(condition)
            )
            for name, child, parent, condition in foreign_keys
        },
        within_seconds,
        "looking for rows without parents",
    )
    if orphans is None:
        remarks.append("Rows whose parents do not exist were not looked for")
    accepted = _accepted(last_good)
    for key, count in (orphans or {}).items():
        child, _, parent = key.rpartition(" ")
        if count > accepted.get((child, parent), 0):
            what = "row points" if count == 1 else "rows point"
            findings.append(f"{child}: {count} {what} to rows of {parent} that do not exist")
    remark = f"{'. '.join(remarks)}: that took longer than {within_seconds:g} seconds." if remarks else None
    more = [f"{len(findings) - SHOWN_FINDINGS} more"] if len(findings) > SHOWN_FINDINGS else []
    return Plausibility("; ".join(findings[:SHOWN_FINDINGS] + more) or None, remark)


def _count(
    snapshot: Snapshot, wanted: Mapping[str, sql.Composable], seconds: float, doing: str
) -> dict[str, int] | None:
    """All counts in one statement; none when it takes longer than that."""
    if not wanted:
        return {}
    counts = sql.SQL(", ").join(sql.SQL("(SELECT count(*) {})").format(part) for part in wanted.values())
    found = snapshot.rows_within(seconds, sql.SQL("SELECT {}").format(counts), doing)
    return dict(zip(wanted, found[0], strict=True)) if found else None


def _accepted(last_good: BackupRecord | None) -> dict[tuple[str, str], int]:
    """How many rows without parents somebody accepted with the last good backup, by foreign key and parent."""
    text = (last_good.suspect if last_good else None) or ""
    return {(child.strip(), parent): int(count) for child, count, parent in _ORPHANS.findall(text)}
