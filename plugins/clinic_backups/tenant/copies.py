"""Schemas that hold a copy of one clinic's backup, as ``restore-into`` makes them. No backup holds their tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.positions import SequenceFacts, positions_of, sequences
from clinic_backups.tenant.problems import schema_of
from clinic_backups.tenant.schema_memory import MEMORY
from clinic_backups.tenant.tenant_db import Snapshot

_QUESTION = "sequences of no column"


def schemas(snapshot: Snapshot) -> list[str]:
    """The schemas with :data:`MADE_BY_US`."""
    found = snapshot.rows(catalog_query("copies"), {"copy": MADE_BY_US}, "looking for copies of backups")
    return sorted(name for (name,) in found)


def sequences_without_copies(snapshot: Snapshot, folder: SqlFolder) -> list[SequenceFacts]:
    """All sequences but those of copies that no backup holds."""
    found = sequences(snapshot)
    gone = left_out(schemas(snapshot), folder)
    return [each for each in found if each.schema not in gone]


def positions_of_no_column(snapshot: Snapshot, folder: SqlFolder) -> list[dict[str, Any]]:
    """The positions of the sequences whose numbers no numeric column holds. Most databases have none."""
    names = MEMORY.get(_QUESTION, snapshot.version)
    if names is None:
        every = sequences_without_copies(snapshot, folder)
        found = (each for each in every if not each.cycles and not each.columns and each.is_readable)
        names = [(each.schema, each.name) for each in found]
        MEMORY.keep(_QUESTION, snapshot.version, names)
    return positions_of(snapshot, names)


def left_out(copies: Iterable[str], folder: SqlFolder) -> list[str]:
    """The copies among the schemas, without those that the SQL folder names: the application works in these.

    :param copies: from :func:`schemas`.
    """
    worked_in = {schema_of(name) for name in (folder.clinic_table, *folder.queries())}
    return sorted(set(copies) - worked_in)
