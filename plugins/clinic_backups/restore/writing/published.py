"""Tables that a publication sends elsewhere, from which PostgreSQL therefore lets nobody delete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

NOT_IN_THE_STATE = "55000"
"""SQLSTATE object_not_in_prerequisite_state: the error names no table."""


@dataclass(frozen=True)
class Unidentified:
    """A table, or a partition, that has no replica identity, and the publications that send its changes.

    :param table: the table, or the partitioned table of the partition.
    """

    table: str
    relation: str
    publications: tuple[str, ...]

    @property
    def said(self) -> str:
        """The error."""
        several = len(self.publications) > 1
        return (
            f"{self.relation} has no replica identity, and the publication{'s' if several else ''}"
            f" {', '.join(map(in_sql, self.publications))} {'send' if several else 'sends'} its changes elsewhere. So"
            " PostgreSQL refuses to delete or change its rows."
        )

    @property
    def remedy(self) -> str:
        """The statement that mends it."""
        return f"ALTER TABLE {table_in_sql(self.relation)} REPLICA IDENTITY FULL; or give it a primary key."


def unidentified(workspace: Workspace, error: ClinicBackupsError, tables: Iterable[str]) -> Unidentified | None:
    """What explains that one of the tables could not be written. ``None``: the error has another cause."""
    refused = refusal_of(error)
    if refused is None or refused.state != NOT_IN_THE_STATE:
        return None
    found = workspace.rows(
        catalog_query("published"),
        {"names": list(tables)},
        "reading the publications",
    )
    return Unidentified(found[0][0], found[0][1], tuple(found[0][2])) if found else None
