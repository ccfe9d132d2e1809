"""What of the clinics' database belongs to a clinic: tables by their foreign keys, rows by the extracts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from psycopg2 import sql

from clinic_backups.extract import render
from clinic_backups.model import Table
from clinic_backups.tenant_db import Snapshot


def chains(clinic_table: str, references: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The tables that lead to the clinic, each with a shortest chain of foreign keys from itself to the clinic.

    :param references: all foreign keys as (table, referenced table).
    :returns: in order of name; the clinics' own table is one of them, with itself as the chain.
    """
    children: dict[str, set[str]] = {}
    for child, parent in references:
        children.setdefault(parent, set()).add(child)
    found: dict[str, tuple[str, ...]] = {clinic_table: (clinic_table,)}
    waiting = deque([clinic_table])
    while waiting:
        parent = waiting.popleft()
        for child in sorted(children.get(parent, set()) - found.keys()):
            found[child] = (child, *found[parent])
            waiting.append(child)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class RowCount:
    """One table's rows against the backups of all clinics."""

    in_no_backup: int
    in_backups: int
    """Rows of all backups together: a row that is in two of them counts twice."""
    in_table: int

    @property
    def left_out(self) -> int:
        """Rows in no backup; equal rows of a table without key of which an extract gives only one count too."""
        return max(self.in_no_backup, self.in_table - self.in_backups)

    @property
    def too_many(self) -> int:
        """By how much the backups hold more than each of their rows once."""
        return self.in_backups - (self.in_table - self.in_no_backup)


def count_rows(
    snapshot: Snapshot, table: Table, extract: str, clinics: str, *, within_seconds: float
) -> RowCount | None:
    """Count which rows of one table are in the clinics' backups; ``None`` when it takes longer.

    A table without primary key is compared by its whole rows.

    :param extract: the template's text.
    :param clinics: the query of ``all_clinics.sql``.
    :raises PermanentError: the extract does not run with a column in place of a number.
    """
    names = [sql.Identifier(f"key{number}") for number, _ in enumerate(_keys(table, "r"))]
    query = sql.SQL(_template()).format(
        table=sql.Identifier(*table.name.split(".", 1)),
        clinics=sql.SQL(clinics.strip().rstrip(";")),
        extract=sql.SQL(render(extract, "clinica_del_respaldo.id", name=f"extract of {table.name}")),
        extract_keys=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(key, name) for key, name in zip(_keys(table, "r"), names, strict=True)
        ),
        same=sql.SQL(" AND ").join(
            sql.SQL("{} = {}.{}").format(key, sql.Identifier("b"), name)
            for key, name in zip(_keys(table, "t"), names, strict=True)
        ),
    )
    found = snapshot.rows_within(within_seconds, query, f"counting the rows of {table.name}")
    return None if found is None else RowCount(*found[0])


def _template() -> str:
    return resources.files("clinic_backups").joinpath("pg_catalog", "count_rows.sql").read_text(encoding="utf-8")


def _keys(table: Table, alias: str) -> list[sql.Composable]:
    if table.primary_key:
        return [sql.Identifier(alias, column) for column in table.primary_key]
    columns = [sql.Identifier(alias, column.name) for column in table.stored_columns]
    return [sql.SQL("ROW({})::text").format(sql.SQL(", ").join(columns))]
