"""Whose code runs in a restore, as the role of ``restore_db``: that of a table's owner, and that of a function's.

Usually one role owns all of the clinics' tables. The owner of only some of them, who may not write into the others,
gets their rows into the hands of such code. So whoever approves has to know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from clinic_backups.base.text import table_in_sql
from clinic_backups.restore.called_functions import CalledFunction
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query


@dataclass(frozen=True)
class ForeignCode:
    """A table or a function whose owner may not write into all of the clinics' tables.

    :param name: ``schema.table``, or a function with the types of its arguments.
    """

    kind: str
    name: str
    owner: str

    @property
    def said(self) -> str:
        """A sentence for an approver."""
        if self.kind == "table":
            what, runs = f"{self.name} belongs to", "Its constraints, indexes and triggers may call code of that role,"
        else:
            what, runs = f"The function {self.name}, which the writing calls, belongs to", "Its code is that role's,"
        return (
            f"{what} the role {self.owner}, which may not write into all of the clinics' tables. {runs} and in a"
            " restore it runs with the rights of restore_db."
        )

    @property
    def remedy(self) -> str:
        """What ends it."""
        name = table_in_sql(self.name) if self.kind == "table" else self.name
        return (
            f"ALTER {self.kind.upper()} {name} OWNER TO the owner of the clinics' tables. Or find out what code"
            f" {self.owner} has there before a restore is approved."
        )


def foreign_code(
    workspace: Workspace, tables: Iterable[str], functions: Iterable[CalledFunction], clinics: Collection[str]
) -> list[ForeignCode]:
    """Look for it.

    :param tables: those that the restore reads or writes.
    :param functions: those that the writing calls.
    :param clinics: the tables with an extract.
    """
    values = {
        "tables": sorted(set(tables)),
        "functions": sorted(each.oid for each in functions if each.kind == "function"),
        "clinics": sorted(clinics),
    }
    rows = workspace.rows(catalog_query("owners_of_code"), values, "asking whose code a restore runs")
    return [ForeignCode(*row) for row in rows]
