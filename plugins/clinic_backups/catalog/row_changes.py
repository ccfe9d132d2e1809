"""What changed between two backups as far as the catalog knows, without the secret key.

The number of rows of each table is in the records. Which blocks an archive holds is in the lists for incremental
backups: a block that the later backup's archives have, and the earlier one's do not, holds at least one row that is new
or changed. So the number of such rows is known only from above.

If rows become again what they were in an earlier backup of the chain, no block is new. A hash of each table's blocks
shows that the table differs. By how many rows is not known then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import text

from clinic_backups.archive.blocks import CUT_MASK, MIN_BLOCK_ROWS, OWN_ARCHIVE
from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.block_lists import known_blocks
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinic_id_text import ClinicIdText

RARE = math.log(1_000_000)
"""Blocks hold more rows than :func:`most_rows` says once in a million times."""
LEAST_LOSS = 20
"""Fewer rows are never called an unusual loss."""
FAR_ABOVE = 3
"""So many times the largest loss of a clinic's earlier nights is unusual."""
SHARE_WITHOUT_HISTORY = 0.1
"""Of a clinic that never lost rows before: this share of all rows."""
HISTORY_DAYS = 30


@dataclass(frozen=True)
class TableChange:
    """One table of two backups.

    :param before, after: its rows; none if the backup does not have the table.
    :param at_most: at most so many rows are new or changed, besides rows that are again as in an earlier backup. None:
        it is not known.
    """

    table: str
    before: int | None
    after: int | None
    at_most: int | None

    @property
    def is_worth_saying(self) -> bool:
        """Whether anything may differ."""
        return self.before != self.after or self.at_most != 0

    @property
    def more(self) -> int:
        """How many rows there are more, or fewer."""
        return (self.after or 0) - (self.before or 0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"table": self.table, "before": self.before, "after": self.after, "at_most": self.at_most}


@dataclass(frozen=True)
class Loss:
    """A backup whose tables lost far more rows than those of the same clinic usually do.

    :param removed: by how many rows its tables are smaller than in the backup before.
    :param usual: the largest such number of the clinic's earlier nights.
    :param tables: the tables that lost most, with these numbers.
    """

    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    removed: int
    usual: int
    tables: tuple[tuple[str, int], ...]


_NO_STATE = (0, "")
_LOSSES = text("""
    WITH tonight AS MATERIALIZED (
        SELECT b.clinic_id, b.clinic_name, b.backup_id, b.started_at, b.rows, b.rows_total, p.rows AS rows_before
          FROM clinic_backups.backup AS b
         CROSS JOIN LATERAL (
               SELECT e.rows FROM clinic_backups.backup AS e
                WHERE e.clinic_id = b.clinic_id AND e.state = 'completed' AND e.regular
                  AND e.started_at < b.started_at
                ORDER BY e.started_at DESC LIMIT 1) AS p
         WHERE b.run_id = :run_id AND b.state = 'completed' AND b.regular),
    lost AS MATERIALIZED (
        SELECT t.backup_id, r.key AS table_name, r.value::bigint - coalesce((t.rows ->> r.key)::bigint, 0) AS removed
          FROM tonight AS t CROSS JOIN LATERAL jsonb_each_text(t.rows_before) AS r
         WHERE r.value::bigint > coalesce((t.rows ->> r.key)::bigint, 0)),
    large AS MATERIALIZED (
        SELECT l.backup_id, sum(l.removed)::bigint AS removed,
               jsonb_agg(jsonb_build_array(l.table_name, l.removed) ORDER BY l.removed DESC, l.table_name) AS tables
          FROM lost AS l GROUP BY l.backup_id HAVING sum(l.removed) >= :least)
    SELECT t.clinic_id, t.clinic_name, t.backup_id, g.removed, g.tables, coalesce(t.rows_total, 0)::bigint,
           (SELECT max(n.removed)
              FROM (SELECT (SELECT coalesce(sum(r.value::bigint - coalesce((e.rows ->> r.key)::bigint, 0)), 0)
                              FROM jsonb_each_text(e.rows_before) AS r
                             WHERE r.value::bigint > coalesce((e.rows ->> r.key)::bigint, 0)) AS removed
                      FROM (SELECT h.rows, lag(h.rows) OVER (ORDER BY h.started_at) AS rows_before
                              FROM clinic_backups.backup AS h
                             WHERE h.clinic_id = t.clinic_id AND h.state = 'completed' AND h.regular
                               AND h.started_at < t.started_at
                               AND h.started_at >= t.started_at - make_interval(days => :days)) AS e
                     WHERE e.rows_before IS NOT NULL) AS n)::bigint AS usual
      FROM large AS g JOIN tonight AS t USING (backup_id)
     ORDER BY g.removed DESC, t.backup_id""").columns(clinic_id=ClinicIdText)


@dataclass(frozen=True)
class NightChange:
    """A day in UTC with incremental backups. At most ``changed`` rows are new or changed in them."""

    day: date
    changed: int


# The line of JSON before the digests. Of a full backup all blocks are its own, so it says nothing about changes.
_NIGHTS = text("""
    SELECT (b.started_at AT TIME ZONE 'UTC')::date AS day, sum(t.rows)::bigint AS rows,
           sum(t.blocks) FILTER (WHERE t.rows IS NULL)::bigint AS blocks
      FROM clinic_backups.backup AS b
      JOIN clinic_backups.backup_blocks AS l ON l.backup_id = b.backup_id AND l.part = 0
     CROSS JOIN LATERAL (
           SELECT convert_from(substring(l.digests FROM 1 FOR position('\\x0a'::bytea IN l.digests) - 1), 'UTF8')::jsonb
       ) AS line (head)
     CROSS JOIN LATERAL (
           SELECT (SELECT coalesce(sum((each ->> 1)::bigint), 0) FROM jsonb_array_elements(head -> 'tables') AS each),
                  CASE WHEN head ? 'states'
                       THEN (SELECT coalesce(sum((value ->> 0)::bigint), 0) FROM jsonb_each(head -> 'states')) END
       ) AS t (blocks, rows)
     WHERE b.clinic_id = :clinic_id AND b.state = 'completed' AND b.kind = 'incremental' AND b.regular
       AND b.started_at BETWEEN :begin AND :end
     GROUP BY 1 ORDER BY 1""")


class RowChanges:
    """Compares records and lists of blocks."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def between(self, first: BackupRecord, second: BackupRecord) -> list[TableChange]:
        """What changed from one backup to another one, by table, in order of name."""
        names = sorted({*first.rows, *second.rows})
        at_most: dict[str, int | None] = {}
        if first.fingerprint and first.fingerprint == second.fingerprint:
            at_most = dict.fromkeys(names, 0)  # they hold the same blocks, so no list is read
        elif (before := self._blocks_of(first)) is not None and (after := self._blocks_of(second)) is not None:
            at_most = {name: _at_most(name, first, second, before, after) for name in names}
        return [TableChange(name, first.rows.get(name), second.rows.get(name), at_most.get(name)) for name in names]

    def listed(self, record: BackupRecord) -> dict[str, set[bytes]]:
        """The digests of all blocks in the archives of a backup, by table; nothing if a list is missing."""
        blocks = self._blocks_of(record)
        return {name: blocks.digests(name) for name in record.rows} if blocks is not None else {}

    def _blocks_of(self, record: BackupRecord) -> KnownBlocks | None:
        """All blocks in the archives of a backup; none if a list is missing."""
        try:
            return known_blocks(self._database, [record.backup_id, *(each.backup_id for each in record.chain)])
        except UnusableBlocks:
            return None

    def nightly(self, clinic_id: ClinicId, now: datetime) -> list[NightChange]:
        """How much changed in the last 30 days, the oldest day first. Days with full backups alone are left out."""
        values = {"clinic_id": str(clinic_id), "begin": now - timedelta(days=HISTORY_DAYS), "end": now}
        with self._database.statement("reading how much changed") as db:
            found = db.execute(_NIGHTS, values).all()
        return [NightChange(day, (rows or 0) + most_rows(blocks or 0)) for day, rows, blocks in found]

    def unusual_losses(self, run_id: str) -> list[Loss]:
        """The backups of a run whose tables lost far more rows than usual, the largest losses first."""
        values = {"run_id": run_id, "least": LEAST_LOSS, "days": HISTORY_DAYS}
        with self._database.statement("looking for unusual losses of rows") as db:
            rows = db.execute(_LOSSES, values).all()
        return [
            Loss(clinic_id, name, backup_id, removed, usual or 0, tuple((table, count) for table, count in tables))
            for clinic_id, name, backup_id, removed, tables, total, usual in rows
            if is_unusual(removed, usual, removed + total)
        ]


def _at_most(
    table: str, first: BackupRecord, second: BackupRecord, before: KnownBlocks, after: KnownBlocks
) -> int | None:
    """How many rows of a table are new or changed at most; none if that is not known."""
    new = sum(before.find(table, digest) == OWN_ARCHIVE for digest in after.digests(table))
    then, now = before.states[0], after.states[0]
    if then is not None and now is not None:
        differs = then.get(table, _NO_STATE)[1] != now.get(table, _NO_STATE)[1]
    else:
        # Of lists of before: a block may have been replaced and have come back.
        differs = any(before.own_blocks(table)[:-1]) or first.rows.get(table) != second.rows.get(table)
    if not new:
        return None if differs else 0
    counts = [
        None if states is None else states.get(table, _NO_STATE)[0]
        for backup_id, states in zip(after.archives, after.states, strict=True)
        if backup_id not in before.archives
    ]
    told = [count for count in counts if count is not None]
    return min(second.rows.get(table, 0), most_rows(new), *([sum(told)] if len(told) == len(counts) else []))


def most_rows(blocks: int) -> int:
    """How many rows blocks hold at most, but once in a million times.

    After 96 rows, each row ends its block with a chance of one in 32. That is an exponential distribution, and the sum
    of several has the tail of https://en.wikipedia.org/wiki/Chernoff_bound.
    """
    chance = CUT_MASK + 1
    return blocks and math.ceil(blocks * MIN_BLOCK_ROWS + chance * (blocks + math.sqrt(2 * blocks * RARE) + RARE))


def is_unusual(removed: int, usual: int | None, total: int) -> bool:
    """Whether a loss is far above a clinic's own history.

    :param usual: the largest loss of the earlier nights. ``None``: there are no earlier nights.
    :param total: the rows before.
    """
    if removed < LEAST_LOSS:
        return False
    return removed > FAR_ABOVE * usual if usual else removed > SHARE_WITHOUT_HISTORY * total
