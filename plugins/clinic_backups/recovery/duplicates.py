"""Rows that came with several backups: the version of the newest backup stays.

Rows of parent tables are in the backups of all clinics that refer to them. Another row is in two backups if it moved
between their moments. Each row carries the transaction that loaded its backup, as ``xmin``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.text import quoted_table
from clinic_backups.recovery.notes import SCHEMA
from clinic_backups.recovery.session import Session

_MANY = 4
"""If more than one of so many rows was removed, the table is written anew."""


@dataclass(frozen=True)
class Replaced:
    """Rows of one table that a newer backup has too.

    :param unit: the unit whose version was not kept.
    :param newer: the unit whose version stays.
    :param differing: how many of them had other values.
    """

    table: str
    unit: str
    newer: str
    rows: int
    differing: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def keep_newest(session: Session, table: str, key: Sequence[str]) -> list[Replaced]:
    """Keep one version of each row, in the session's transaction. The table has no triggers and foreign keys yet."""
    names = sql.SQL(", ").join(map(sql.Identifier, key))
    ((kind,),) = session.rows(
        "SELECT relkind FROM pg_class WHERE oid = %(name)s::regclass", {"name": quoted_table(table)}
    )
    from_ = sql.SQL("{} {}").format(sql.SQL("ONLY" if kind == "r" else ""), qualified(table))
    doing = f"looking for rows of {table} that came twice"
    session.prepare_copy()
    doubled = session.run(
        sql.SQL(
            "CREATE TEMP TABLE doubled ON COMMIT DROP AS SELECT {0} FROM {1} GROUP BY {0} HAVING count(*) > 1"
        ).format(names, from_),
        doing=doing,
    )
    if not doubled:
        session.run("DROP TABLE pg_temp.doubled", doing=doing)
        return []
    same = sql.SQL(" AND ").join(sql.SQL("t.{0} = d.{0}").format(sql.Identifier(name)) for name in key)
    parts = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in key)
    query = sql.SQL(
        "WITH ranked AS ("
        " SELECT t.tableoid AS part, t.ctid AS place, u.id AS unit, row_number() OVER newest AS rank,"
        " first_value(u.id) OVER newest AS newer,"
        " ROW(t.*)::text IS DISTINCT FROM first_value(ROW(t.*)::text) OVER newest AS differs"
        " FROM {table} AS t JOIN pg_temp.doubled AS d ON {same}"
        " JOIN {notes}.unit AS u ON u.transaction = t.xmin::text::bigint"
        " WINDOW newest AS (PARTITION BY {parts} ORDER BY u.data_at DESC, u.id)"
        "), gone AS ("
        " DELETE FROM {table} AS t USING ranked AS r WHERE t.tableoid = r.part AND t.ctid = r.place AND r.rank > 1"
        " RETURNING r.unit, r.newer, r.differs)"
        " SELECT unit, newer, count(*), count(*) FILTER (WHERE differs) FROM gone GROUP BY 1, 2 ORDER BY 1, 2"
    ).format(table=from_, same=same, parts=parts, notes=sql.Identifier(SCHEMA))
    found = session.rows(query, doing=doing)
    session.run("DROP TABLE pg_temp.doubled", doing=doing)
    return [Replaced(table, unit, newer, rows, differing) for unit, newer, rows, differing in found]


def is_much(replaced: Sequence[Replaced], loaded: int) -> bool:
    """Whether so many rows were removed that the table should be written anew."""
    return sum(each.rows for each in replaced) * _MANY > loaded


def explains(
    replaced: Sequence[Replaced], table: str, unit: str, rows: int, expected: int, *, is_parent: bool
) -> str:  # fmt: skip
    """Why a table of a unit is not as in its backup, if rows that were replaced are the reason; else empty."""
    of_unit = [each for each in replaced if each.unit == unit]
    own = [each for each in of_unit if each.table == table]
    lost, differing = sum(each.rows for each in own), sum(each.differing for each in own)
    newer = ", ".join(sorted({each.newer for each in own}))
    if is_parent and differing and rows == expected:
        return f"{differing:,} rows have the values of newer backups ({newer})"
    if is_parent and rows < expected and any(each.differing for each in of_unit):
        return f"{expected - rows:,} rows are not the unit's any more: rows that referred to them are in newer backups"
    if not is_parent and lost and expected - lost <= rows <= expected:
        return f"{lost:,} rows had moved to, or changed in, newer backups ({newer})"
    return ""
