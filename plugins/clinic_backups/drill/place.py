"""Where drills restore: a server on which databases are made and dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, SettingsError, TransientError
from clinic_backups.recovery.session import Session

PREFIX = "clinic_backups_drill_"
"""Every database of a drill is named so, and no other one should be."""
_MAY_ASK = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_LOCK = "hashtextextended('clinic_backups:drill', 0)"


class Place(Protocol):
    """A server for drills. Databases on it are dropped at the end."""

    @property
    def name(self) -> str:
        """``embedded``, or the name of the connection."""

    @property
    def version(self) -> str:
        """The server's version."""

    def prepare(self, roles: Mapping[str, Any]) -> None:
        """Get ready for databases whose objects belong to these roles."""

    def make(self, name: str, template: str | None = None) -> Connection:
        """Make a database, as a copy of another one or empty; returns the connection to it."""

    def drop(self, name: str) -> None:
        """Drop a database."""


class Server:
    """A :class:`Place` on a server that runs already.

    :param connection: to any database of it, as a role that may make databases.
    :param name: what certificates call it.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self.name = connection, name
        self._made = list[str]()
        self._before, self._roles = set[str](), set[str]()
        with Session(connection) as session:
            ((version,),) = session.rows("SELECT split_part(current_setting('server_version'), ' ', 1)")
        self.version = str(version)

    @classmethod
    @contextmanager
    def opened(cls, connection: Connection, productive: Iterable[Connection]) -> Iterator[Server]:
        """The server of ``drill_db`` while the block lasts.

        :param productive: the connections to databases that must not be on the same server.
        :raises SettingsError: one of them is, or this cannot be told.
        :raises TransientError: another drill runs there.
        """
        require_other_server(connection, productive)
        place = cls(connection, f"connection {connection.conn_id}")
        with _for_locks(connection) as session:
            ((alone,),) = session.rows(f"SELECT pg_try_advisory_lock({_LOCK})", doing="asking for other drills")
            session.commit("asking for other drills")
            if not alone:
                raise TransientError("Another drill runs on this server.", hint="Wait until it has ended.")
            place.drop_left()
            place.note_roles()
            try:
                yield place
            finally:
                place.drop_all()

    def prepare(self, roles: Mapping[str, Any]) -> None:
        """The roles are made with the definitions, as far as the connection's role may. Note which they are."""
        self._roles |= {str(role["name"]) for role in roles.get("roles", ())}

    def make(self, name: str, template: str | None = None) -> Connection:
        """See :class:`Place`."""
        wanted = PREFIX + name
        self._alone(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(wanted), sql.Identifier(PREFIX + template if template else "template0")
            ),
            "making a database for a drill",
        )
        self._made.append(wanted)
        if template is None:
            # If this process is killed, the next drill reads which roles it may drop.
            told = sql.Literal(json.dumps(sorted(self._roles - self._before)))
            comment = sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(wanted), told)
            self._alone(comment, "noting the roles of a drill")
        return replace(self._connection, schema=wanted)

    def drop(self, name: str) -> None:
        """See :class:`Place`."""
        self._drop(PREFIX + name)

    def drop_left(self) -> None:
        """Drop the databases and roles that a drill left behind whose process died."""
        with Session(self._connection) as session:
            found = session.rows(
                "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
                " WHERE starts_with(datname, %(p)s)",
                {"p": PREFIX},
            )
        for name, _ in found:
            self._drop(name)
        self._drop_roles(role for _, told in found for role in _roles_in(told))

    def note_roles(self) -> None:
        """Note which roles there are, so that those of the drills can be dropped."""
        with Session(self._connection) as session:
            self._before = session.roles()

    def drop_all(self) -> None:
        """Drop what was made: databases, then roles."""
        for name in list(self._made):
            self._drop(name)
        with Session(self._connection) as session:
            now = session.roles()
        self._drop_roles((now & self._roles) - self._before)

    def _drop_roles(self, names: Iterable[str]) -> None:
        for name in sorted(set(names)):
            try:
                self._alone(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)), "dropping a role of a drill")
            except ClinicBackupsError:
                continue  # somebody else made it meanwhile, or uses it

    def _drop(self, name: str) -> None:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self._alone(drop, "dropping the database of a drill")
        if name in self._made:
            self._made.remove(name)

    def _alone(self, statement: sql.Composable, doing: str) -> None:
        with Session(self._connection) as session:
            session.run_alone(statement, doing)


def _for_locks(connection: Connection) -> Session:
    """A session for locks, which count only in their own database: in the same one, if the role may connect to it."""
    same = Session(replace(connection, schema="postgres"))
    try:
        with same:
            return same
    except ClinicBackupsError:
        return Session(connection)  # it says itself what is wrong with the server


def _roles_in(told: str | None) -> list[str]:
    """The roles in the comment on a drill's database. Another comment has none."""
    try:
        names = json.loads(told or "[]")
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def require_other_server(connection: Connection, productive: Iterable[Connection]) -> None:
    """:raises SettingsError: the connection leads to the server of one of the others, or this cannot be told."""
    own = system_identifier(connection)
    for other in productive:
        their = system_identifier(other)
        if own is None or their is None:
            which = connection.conn_id if own is None else other.conn_id
            raise SettingsError(
                f"It cannot be told whether {connection.conn_id} and {other.conn_id} are the same server: the role of"
                f" {which} may not ask. No drill runs there.",
                hint=f"Run there: GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO the role of {which}. Or"
                f" remove the connection {connection.conn_id}: drills then run on an embedded server.",
            )
        if own == their:
            raise SettingsError(
                f"Connection {connection.conn_id} leads to the server of {other.conn_id}, or to a standby or copy of"
                " it. Drills never run there. Nothing was changed.",
                hint=f"Let {connection.conn_id} lead to another server, or remove it: drills then run on an embedded"
                " server.",
            )


def system_identifier(connection: Connection) -> str | None:
    """The server's system identifier; none if the role may not ask."""
    with Session(connection) as session:
        ((may_ask,),) = session.rows(_MAY_ASK, doing="asking which server this is")
        if not may_ask:
            return None
        ((told,),) = session.rows(_SYSTEM, doing="asking which server this is")
    return str(told)


def own_name(part: str) -> str:
    """A name for one database of this process."""
    return f"{os.getpid()}_{part}"
