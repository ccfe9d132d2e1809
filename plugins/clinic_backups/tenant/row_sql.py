"""Pieces of the statements that compare rows: names, keys, and the operators of foreign keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from psycopg2 import sql

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.table import Table
from clinic_backups.base.text import unused
from clinic_backups.tenant.clinic_key import ClinicKey
from clinic_backups.tenant.every_clinic import CLINICS
from clinic_backups.tenant.extract import ended
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.structure import ParentKey


def template(name: str) -> sql.SQL:
    return sql.SQL(catalog_query(name))


def same(link: ParentKey, parent: str) -> sql.Composable:
    """Equality by the operators of the foreign key, because its column may have another type or an extension's type."""
    return all_of(
        operator.compares(sql.Identifier(parent, theirs), sql.Identifier("r", ours))
        for theirs, ours, operator in zip(link.parent_columns, link.columns, link.operators, strict=True)
    )


def given(link: ParentKey) -> sql.Composable:
    """The row r refers to a row: no column of the link is NULL."""
    return all_of(sql.SQL("{} IS NOT NULL").format(sql.Identifier("r", column)) for column in link.columns)


def given_in_part(link: ParentKey) -> sql.Composable:
    """In the row r some columns of the foreign key are NULL and others are not."""
    count = sql.SQL("num_nulls({})").format(listed(sql.Identifier("r", column) for column in link.columns))
    return sql.SQL("{} BETWEEN 1 AND {}").format(count, sql.Literal(len(link.columns) - 1))


def keys(table: Table, alias: str) -> list[sql.Composable]:
    """The primary key.

    Values of an extension's type are compared as text: only the equality of PostgreSQL's own types is found without a
    search path.
    """
    types = {column.name: column.type for column in table.columns}
    return [
        sql.SQL("ROW({})::text" if "." in types[column] else "{}").format(sql.Identifier(alias, column))
        for column in table.primary_key
    ]


def whole_row(table: Table, alias: str, leaving_aside: Collection[str]) -> sql.Composable:
    """The values that distinguish the rows of a table without a key.

    :param leaving_aside: columns, as ``schema.table.column``.
    """
    columns = [
        sql.Identifier(alias, column.name)
        for column in table.stored_columns
        if f"{table.name}.{column.name}" not in leaving_aside
    ]
    return sql.SQL("ROW({})::text").format(listed(columns))


def rows_of(clinics: str, extract: str, clinic: str = CLINICS) -> str:
    """A query: the rows of one table in all backups, each with the number of its clinic before it.

    :param clinics: the query of the clinics.
    :param extract: for one clinic or for every clinic, see :mod:`clinic_backups.tenant.every_clinic`.
    :param clinic: the name of the column with the number.
    """
    return catalog_query("rows_of").format(every=CLINICS, clinic=clinic, clinics=ended(clinics), extract=extract)


class BackupRows:
    """The rows of tables in the backups of one clinic or of all, as SQL.

    :param extracts: by table, for one clinic or :func:`clinic_backups.tenant.every_clinic.for_every_clinic`.
    :param clinics: the query of ``all_clinics.sql``, or :func:`one_clinic`.
    :param tables: their columns decide on the name of the column with the clinic's number.
    :ivar clinic: that column.
    """

    def __init__(self, extracts: Mapping[str, str], clinics: str, tables: Iterable[Table]) -> None:
        self.extracts, self.clinics = extracts, clinics
        self._name = unused(CLINICS, {column.name for table in tables for column in table.columns})
        self._faster: Mapping[str, str] = {}
        self.clinic = sql.Identifier(self._name)

    def hasten(self, faster: Callable[[Mapping[str, str], str], Mapping[str, str]]) -> None:
        """Use other queries of the same rows. :param faster: makes them from extracts and clinics."""
        if self._name == CLINICS:  # the only name that they give to the column
            self._faster = faster(self.extracts, self.clinics)

    def of(self, name: str) -> str:
        """The query of the rows of one table, as :func:`rows_of`."""
        return self._faster.get(name) or rows_of(self.clinics, self.extracts[name], self._name)

    def backed_up(self, name: str, columns: Iterable[sql.Composable], *, materialized: bool) -> sql.Composable:
        """A named query of these rows, each with the number of its clinic.

        :param columns: those of the row r.
        :param materialized: whether the server stores the rows before it compares them.
        """
        return template("backed_up").format(
            name=sql.Identifier(name), how=sql.SQL("" if materialized else "NOT "),
            columns=listed([sql.SQL("r.{}").format(self.clinic), *columns]), rows=sql.SQL(self.of(name)),
        )  # fmt: skip


def one_clinic(clinic_id: ClinicId, key: ClinicKey) -> str:
    """The replacement of ``all_clinics.sql`` for comparing the rows of one clinic."""
    return f"SELECT {key.literal(clinic_id)}, ''::text, ''::text"


def all_of(conditions: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions)


def listed(items: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(items)
