"""The trusted owners of a restore's tables: only their functions, sequences and tables say what gets numbers.

Anybody may create functions, sequences and tables in a schema of their own. Those of other roles are not read, asked or
waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import TransientError
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query


@dataclass(frozen=True)
class TableOwners:
    """The roles that may write into the restored tables without a grant, and their tables.

    :param roles: PostgreSQL's numbers of superusers, the database's owner, the restored tables' owners and whoever has
        the rights of these. Each with those of them for whom it may act.
    :param tables: the restored tables, their partitions, and all tables of these roles; each with its owner.
    :param oids: PostgreSQL's numbers of these tables.
    :param restored: the restored tables.
    """

    roles: Mapping[int, Collection[int]]
    tables: Mapping[str, int]
    oids: Mapping[str, int]
    restored: Collection[str]

    @property
    def values(self) -> dict[str, Any]:
        """The same for the catalog's queries."""
        return {"owners": list(self.roles), "tables": list(self.tables), "restored": list(self.restored)}

    def may_write(self, role: int, table: str) -> bool:
        """Whether a role may write into a table without a grant."""
        return self.tables.get(table) in self.roles.get(role, ())


def table_owners(workspace: Workspace, restored: Collection[str]) -> TableOwners:
    """Ask for the roles and the tables. :param restored: tables by ``schema.table``."""
    doing, names = "asking who may write into the tables", list(restored)
    roles = {role: frozenset(of) for role, of in workspace.rows(
        catalog_query("believed_roles", member_rights="member_rights"), {"names": names}, doing)}  # fmt: skip
    values = {"owners": list(roles), "names": names}
    tables = workspace.rows(catalog_query("believed_tables"), values, doing)
    owners, oids = {name: owner for name, owner, _ in tables}, {name: oid for name, _, oid in tables}
    return TableOwners(roles, owners, oids, names)


def hold(workspace: Workspace, tables: Mapping[str, int]) -> None:
    """Lock tables that are going to be read, so that their names mean the same until the transaction ends.

    :param tables: PostgreSQL's number of each.
    :raises TransientError: a name means something else by now.
    """
    names = sorted(tables)
    if not names:
        return
    listed = sql.SQL(", ").join(qualified(name) for name in names)
    workspace.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(listed), "locking tables that get numbers")
    quoted = [qualified(name).as_string(workspace.connection) for name in names]
    # to_regclass knows what others have committed meanwhile.
    found = workspace.rows(
        "SELECT to_regclass(n.name)::oid::bigint FROM unnest(%(names)s::text[]) WITH ORDINALITY AS n (name, place)"
        " ORDER BY n.place",
        {"names": quoted},
        "looking at these tables again",
    )
    for name, (oid,) in zip(names, found, strict=True):
        if oid != tables[name]:
            raise TransientError(
                f"{name} was replaced while the restore looked at it.", hint="Make the plan again, or start again."
            )
