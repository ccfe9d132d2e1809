"""Adds up the numbers of rows and the columns of money: once from the archive's blocks, once by SQL."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal

from psycopg2 import sql

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.manifest import Manifest
from clinic_backups.archive.reader import Segment
from clinic_backups.base.table import Column
from clinic_backups.restore.archives import Archives, Fetched, Wanted
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.tenant.tenant_db import Snapshot

_NUMERIC = re.compile(r"numeric(\(\d+(,-?\d+)?\))?")
_EXACT = Context(prec=5000, traps=[])
"""More digits than any sum of numerics that PostgreSQL can hold in practice; no rounding, as in PostgreSQL."""


def is_money(column: Column) -> bool:
    """Whether it may hold amounts: ``numeric`` and ``money``, the types in which money is kept."""
    return column.type == "money" or _NUMERIC.fullmatch(column.type) is not None


@dataclass
class Sums:
    """The sums of one backup, by ``schema.table.column``; and the rows by table."""

    rows: Counter[str] = field(default_factory=Counter)
    amounts: dict[str, Decimal] = field(default_factory=dict)

    def add(self, name: str, value: Decimal) -> None:
        self.amounts[name] = _EXACT.add(self.amounts.get(name, Decimal(0)), value)

    def differences(self, other: Sums) -> list[str]:
        """Sentences about what is not equal, this being the archive's. Numbers of the whole unit, and no row's."""
        found = [
            f"{table} has {other.rows[table]:,} rows, and the archive {rows:,}"
            for table, rows in sorted(self.rows.items())
            if rows != other.rows[table]
        ]
        for name in sorted(self.amounts.keys() | other.amounts.keys()):
            own, their = self.amounts.get(name, Decimal(0)), other.amounts.get(name, Decimal(0))
            # Not a number is equal to itself here.
            if own != their and not (own.is_nan() and their.is_nan()):
                found.append(f"the sum of {name} is {their}, and the archive's is {own}")
        return found


class Adding(Archives):
    """Reads archives as the other one does, and adds up what passes. One backup only.

    The blocks are looked at while they are loaded, so that no archive is read twice for this.
    """

    def __init__(self, archives: Archives, manifest: Manifest) -> None:
        self._archives = archives
        self.identities, self.listener = archives.identities, archives.listener
        self.sums = Sums()
        self._places = {
            name: [(place, each) for place, each in enumerate(content.table.stored_columns) if is_money(each)]
            for name, content in manifest.tables.items()
        }

    def read(self, backup: Fetched, wanted: Wanted) -> None:
        """See :meth:`Archives.read`."""
        self._archives.read(backup, _Both(wanted, MissingBlocks.every(backup.manifest.tables, self._add)))

    def _add(self, table: str, block: Block, data: bytes, times: int) -> None:
        self.sums.rows[table] += block.rows * times
        if not self._places[table]:
            return
        for row in csv.reader(io.StringIO(data.decode("utf-8"), newline="")):
            for place, column in self._places[table]:
                if row[place]:
                    self.sums.add(f"{table}.{column.name}", _EXACT.multiply(_number(row[place]), Decimal(times)))


class _Both:
    """Gives each segment to two takers."""

    def __init__(self, *takers: Wanted) -> None:
        self._takers = takers

    def begin(self, archive: int) -> bool:
        """See :class:`Wanted`."""
        # Each has to hear of it, also after one that wants something.
        wanted = [taker.begin(archive) for taker in self._takers]
        return any(wanted)

    def take(self, segment: Segment) -> bool:
        """See :class:`Wanted`."""
        go_on = [taker.take(segment) for taker in self._takers]
        return any(go_on)


def sums_in(snapshot: Snapshot, manifest: Manifest, queries: Mapping[str, str]) -> Sums:
    """The same of the restored database, by the unit's own queries."""
    found = Sums()
    for name, content in manifest.tables.items():
        columns = [each for each in content.table.stored_columns if is_money(each)]
        if name not in queries:
            continue
        parts = [sql.SQL("count(*)")] + [
            sql.SQL("sum(q.{}){}::text").format(
                sql.Identifier(each.name), sql.SQL("::numeric" if each.type == "money" else "")
            )
            for each in columns
        ]
        query = sql.SQL("SELECT {} FROM (\n{}\n) AS q").format(sql.SQL(", ").join(parts), sql.SQL(queries[name]))
        ((count, *amounts),) = snapshot.rows(query, None, f"adding up {name}")
        found.rows[name] = count
        for column, amount in zip(columns, amounts, strict=True):
            if amount is not None:
                found.add(f"{name}.{column.name}", Decimal(amount))
    return found


def _number(text: str) -> Decimal:
    """A numeric, or money as the locale C writes it: ``$1,234.50``, ``-$1.00``."""
    return Decimal(text.replace("$", "").replace(",", ""))
