"""Reads PostgreSQL's description of tables: columns, keys and foreign keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Column, ForeignKey, Part, Table
from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.tenant.pg_catalog import catalog_query


class Ask(Protocol):
    """Runs a small query: :meth:`Snapshot.rows`."""

    def __call__(
        self, query: str | sql.Composable, values: Mapping[str, Any] | None, doing: str, /
    ) -> list[tuple[Any, ...]]: ...


def described_tables(ask: Ask, names: Sequence[str]) -> dict[str, Table]:
    """PostgreSQL's description of these tables.

    :param ask: runs a query and returns its rows.
    :raises PermanentError: some do not exist or may not be read; names all of them.
    """
    found = ask(catalog_query("tables"), {"names": list(names)}, "reading the catalog")
    tables = {row[0]: _table(*row[:4], oid=row[5], parts=row[6], file=row[7]) for row in found}
    if missing := sorted(set(names) - set(tables)):
        raise PermanentError(
            f"No such table: {', '.join(missing)}.",
            hint="Each file in include/sql/extract is named like an existing table; remove or rename it.",
        )
    if unreadable := sorted(row[0] for row in found if not row[4]):
        # Otherwise the next migration that creates a table would make backups fail again.
        future = ask(catalog_query("future_rights"), {"names": unreadable}, "reading the catalog")
        raise PermanentError(
            f"The backup's role may not read {', '.join(unreadable)}.",
            hint=f"GRANT SELECT ON {', '.join(map(table_in_sql, unreadable))} TO the role of connection"
            f" clinic_db. For the tables that come later: {' '.join(statement for (statement,) in future)}",
        )
    return {name: tables[name] for name in names}


def require_nameable(names: Iterable[str]) -> None:
    """:raises PermanentError: a table that is to be backed up has a name that no envelope can hold."""
    if odd := sorted(name for name in names if not name.isprintable()):
        raise PermanentError(
            f"The name of a table is not one line of visible text: {', '.join(map(table_in_sql, odd))}. No backup can"
            " name it.",
            hint="Rename it: "
            + " ".join(f"ALTER TABLE {table_in_sql(name)} RENAME TO {in_sql(_plain(name))};" for name in odd)
            + " If it has a file in include/sql/extract, rename that too. Or leave the table out:"
            " include/sql/not_backed_up.txt.",
        )


def _plain(name: str) -> str:
    """A table's name with ``_`` for what cannot be seen."""
    return "".join(each if each.isprintable() else "_" for each in name.split(".", 1)[1])


def _table(
    name: str,
    columns: list[dict[str, Any]],
    key: list[str] | None,
    foreign_keys: list[dict[str, Any]] | None,
    *,
    oid: int,
    parts: list[dict[str, Any]] | None,
    file: int | None,
) -> Table:
    return Table(
        name=name,
        columns=tuple(Column(**column) for column in columns or []),
        primary_key=tuple(key or ()),
        foreign_keys=tuple(
            ForeignKey(
                **(item | {"columns": tuple(item["columns"]), "references_columns": tuple(item["references_columns"])})
            )
            for item in foreign_keys or []
        ),
        oid=oid,
        parts=tuple(Part(**part) for part in parts or []),
        file=file,
    )
