"""Whose texts say where a sequence's numbers go: those of roles that could write into the restored tables anyway.

Anybody may create functions, sequences and tables in a schema of their own. These are not read, asked or waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query


@dataclass(frozen=True)
class Believed:
    """The believed roles and tables.

    :param roles: PostgreSQL's numbers of superusers, the database's owner, the restored tables' owners and the members
        of these. Each with those of them for whom it may act.
    :param tables: the restored tables, their partitions, and all tables of these roles; each with its owner.
    """

    roles: Mapping[int, Collection[int]]
    tables: Mapping[str, int]

    @property
    def values(self) -> dict[str, Any]:
        """The same for the catalog's queries."""
        return {"owners": list(self.roles), "tables": list(self.tables)}

    def may_write(self, role: int, table: str) -> bool:
        """Whether a role may write into a table without a grant."""
        return self.tables.get(table) in self.roles.get(role, ())


def believed(workspace: Workspace, restored: Collection[str]) -> Believed:
    """Ask for the roles and the tables. :param restored: tables by ``schema.table``."""
    doing, names = "asking who may write into the tables", list(restored)
    roles = {role: frozenset(of) for role, of in workspace.rows(
        catalog_query("believed_roles"), {"names": names}, doing)}  # fmt: skip
    values = {"owners": list(roles), "names": names}
    return Believed(roles, dict(workspace.rows(catalog_query("believed_tables"), values, doing)))
