"""Rows of a clinic that no extract returns, given by their positions, so that a safety backup can hold them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinic_backups.base.table import Table
from clinic_backups.base.text import quoted, quoted_table


@dataclass(frozen=True)
class Outside:
    """Some rows of one table. Their positions are the same in all transactions with one snapshot, and reveal no values.

    :param changed: how many of them differ from the backup that is restored.
    :param parts: the oid of the table, or of each of its partitions, with the positions as PostgreSQL's ``tid[]``.
    """

    rows: int = 0
    changed: int = 0
    parts: tuple[tuple[int, str], ...] = ()

    def __add__(self, other: Outside) -> Outside:
        return Outside(self.rows + other.rows, self.changed + other.changed, self.parts + other.parts)

    def select(self, table: str, columns: Sequence[str]) -> str:
        """SELECT of these rows."""
        there = " OR ".join(
            f"t.tableoid = {part:d} AND t.ctid = ANY ('{places}'::tid[])" for part, places in self.parts
        )
        return f"SELECT {_listed(columns, 't')} FROM {quoted_table(table)} AS t WHERE {there}"  # noqa: S608 - quoted

    def added_to(self, extract: str, table: Table) -> str:
        """SELECT of the rows that an extract returns, and of these."""
        # A generated key too: the rows are read in its order.
        generated = [column.name for column in table.columns if column.generated and column.name in table.primary_key]
        columns = [*(column.name for column in table.stored_columns), *generated]
        given = f"SELECT {_listed(columns, 'r')} FROM (\n{extract}\n) AS r"  # noqa: S608 - quoted
        return f"{given}\nUNION ALL\n{self.select(table.name, columns)}"


def _listed(columns: Sequence[str], alias: str) -> str:
    return ", ".join(f"{alias}.{quoted(column)}" for column in columns)
