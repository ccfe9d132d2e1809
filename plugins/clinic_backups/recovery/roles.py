"""The roles of the recovered database: made without passwords, and without powers over the whole server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.text import in_sql, literal
from clinic_backups.recovery.session import Session, Unfinished

_POWERS = {
    "superuser": "SUPERUSER", "replication": "REPLICATION", "bypassrls": "BYPASSRLS", "createrole": "CREATEROLE",
    "createdb": "CREATEDB",
}  # fmt: skip
"""They reach beyond this database. Whoever wrote the archive would give them, so a person has to."""
_LISTS = frozenset(
    ("search_path", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries",
     "temp_tablespaces", "unix_socket_directories")
)  # fmt: skip
"""Settings whose value is a list of names: variable_is_guc_list_quote in PostgreSQL's dumputils.c."""


def make_roles(session: Session, told: Mapping[str, Any]) -> list[Unfinished]:
    """Make the roles that the server does not have, in this transaction. Returns what a person has to do.

    :param told: ``roles.json`` of the shared unit's archive.
    """
    there = session.roles()
    left, made = list[Unfinished](), set[str]()
    for role in told.get("roles", ()):
        name = str(role["name"])
        if name in there:
            continue
        statement = _create(role)
        if _done(session, statement):
            made.add(name)
            if role["login"]:
                left.append(
                    Unfinished(
                        f"The role {in_sql(name)} has no password: backups do not hold any.",
                        f"ALTER ROLE {in_sql(name)} PASSWORD '…';",
                    )
                )
            if powers := [word for key, word in _POWERS.items() if role.get(key)]:
                left.append(
                    Unfinished(
                        f"The role {in_sql(name)} had powers over the whole server: {', '.join(powers)}. They were not"
                        " given.",
                        f"ALTER ROLE {in_sql(name)} {' '.join(powers)};",
                    )
                )
        else:
            left.append(Unfinished(f"The role {in_sql(name)} is missing, and this role may not make it.", statement))
    left += _memberships(session, told.get("memberships", ()), made)
    return [*left, *_settings_of_roles(session, told.get("settings", ()), made)]


def set_for_database(session: Session, told: Mapping[str, Any], database: str) -> list[Unfinished]:
    """The settings of the database, and of roles in it."""
    left = []
    for each in told.get("settings", ()):
        if not each["everywhere"]:
            role = f"ROLE {in_sql(str(each['role']))} IN " if each["role"] is not None else ""
            statement = f"ALTER {role}DATABASE {in_sql(database)} SET {_setting(str(each['setting']))};"
            if not _done(session, statement):
                left.append(Unfinished("A setting of the database was not set.", statement))
    return left


def _create(role: Mapping[str, Any]) -> str:
    limit = int(role.get("connection_limit", -1))
    words = [
        "CREATE ROLE", in_sql(str(role["name"])), "LOGIN" if role["login"] else "NOLOGIN",
        "INHERIT" if role["inherit"] else "NOINHERIT", *((f"CONNECTION LIMIT {limit}",) if limit >= 0 else ()),
    ]  # fmt: skip
    return " ".join(words) + ";"


def _memberships(
    session: Session, told: Sequence[Mapping[str, Any]], made: set[str]
) -> Iterator[Unfinished]:  # fmt: skip
    there = {
        (role, member)
        for role, member in session.rows(
            "SELECT g.rolname, m.rolname FROM pg_auth_members AS a JOIN pg_roles AS g ON g.oid = a.roleid"
            " JOIN pg_roles AS m ON m.oid = a.member"
        )
    }
    for each in told:
        role, member = str(each["role"]), str(each["member"])
        if (role, member) in there:
            continue
        option = " WITH ADMIN OPTION" if each.get("admin") else ""
        statement = f"GRANT {in_sql(role)} TO {in_sql(member)}{option};"
        # A role that was there before may have rights in other databases. Only a person may give those away.
        if not ({role, member} <= made and _done(session, statement)):
            yield Unfinished(f"{in_sql(member)} was not made a member of {in_sql(role)}.", statement)


def _settings_of_roles(
    session: Session, told: Sequence[Mapping[str, Any]], made: set[str]
) -> Iterator[Unfinished]:  # fmt: skip
    for each in told:
        if each["everywhere"] and each["role"] in made:
            statement = f"ALTER ROLE {in_sql(str(each['role']))} SET {_setting(str(each['setting']))};"
            if not _done(session, statement):
                yield Unfinished(f"A setting of the role {in_sql(str(each['role']))} was not set.", statement)


def _setting(text: str) -> str:
    """``name=value`` of pg_db_role_setting as ``name TO value``."""
    name, _, value = text.partition("=")
    words = ".".join(map(in_sql, name.split(".", 1)))
    if name.lower() in _LISTS:
        parts = [part.strip() for part in value.split(",")]
        plain = [part[1:-1].replace('""', '"') if part[:1] == '"' else part for part in parts]
        return f"{words} TO {', '.join(map(literal, plain))}"
    return f"{words} TO {literal(value)}"


def _done(session: Session, statement: str) -> bool:
    try:
        with session.savepoint():
            session.run(statement, doing="making roles")
    except ClinicBackupsError:
        return False
    return True
