"""The keys of the tables in the clinics' database as it is now, for what reads keys that somebody named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.row_key import bare_type
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Table
from clinic_backups.restore.named_keys import KeyColumns, ServerKeys
from clinic_backups.restore.table_rules import read_rules
from clinic_backups.tenant.tenant_db import Snapshot

TablesNow = Callable[[Collection[str]], Mapping[str, Table]]
"""Describes those of the tables that are there now; none if the database does not answer."""
KeysNow = Callable[[str, Table], ServerKeys | None]
"""Who reads the keys of a table, by its present name and as a backup has it; none if the database cannot."""


def no_server(_name: str, _table: Table) -> None:
    """For those who have no database."""


def no_tables(_names: Collection[str]) -> Mapping[str, Table]:
    """For those who have no database."""
    return {}


def tables_now(connection: Callable[[], Connection], settings: Settings) -> TablesNow:
    """Asks the database."""

    def describe(names: Collection[str]) -> Mapping[str, Table]:
        with suppress(ClinicBackupsError), Snapshot(connection(), **settings.timeouts) as snapshot:
            return snapshot.tables(sorted({*names} & {*snapshot.relations()}))
        return {}

    return describe


def server_keys(snapshot: Snapshot, table: Table) -> ServerKeys:
    """Reads the keys of a table that this transaction sees, which has a primary key."""
    columns = {column.name: column for column in table.columns}
    rules = read_rules(snapshot, [table.name])[table.name]

    def ask(query: sql.Composable, _: None, doing: str) -> list[tuple[Any, ...]]:
        with snapshot.savepoint():
            return snapshot.rows(query, None, doing)

    key = KeyColumns(table.name, tuple(columns[name] for name in table.primary_key))
    return ServerKeys(ask, key, rules.equals, rules.collations)


def keys_now(connection: Callable[[], Connection], settings: Settings) -> KeysNow:
    """Asks the database. Each question has a transaction of its own, because archives are read in between."""
    known = dict[str, ServerKeys | None]()

    def ask(query: sql.Composable, _: None, doing: str) -> list[tuple[Any, ...]]:
        with Snapshot(connection(), **settings.timeouts) as snapshot:
            return snapshot.rows(query, None, doing)

    def describe(name: str) -> ServerKeys | None:
        try:
            with Snapshot(connection(), **settings.timeouts) as snapshot:
                if name not in snapshot.relations():
                    return None
                (table,) = snapshot.tables([name]).values()
                found = server_keys(snapshot, table) if table.primary_key else None
        except ClinicBackupsError:
            return None
        return None if found is None else ServerKeys(ask, found.key, found.equals, found.collations)

    def of(name: str, table: Table) -> ServerKeys | None:
        if name not in known:
            known[name] = describe(name)
        found = known[name]
        then = {column.name: bare_type(column.type) for column in table.columns}
        if found is None or tuple(column.name for column in found.key.columns) != table.primary_key:
            return None
        same = all(then[column.name] == bare_type(column.type) for column in found.key.columns)
        return found if same else None

    return of
