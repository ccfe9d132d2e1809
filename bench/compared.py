"""What a nightly run's preflight hands to its backups, without the minutes of comparing all clinics' rows."""

from __future__ import annotations

from clinic_backups.app import Parts
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.tenant import source_database
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot


def compared_by_preflight(parts: Parts, *clinics: int) -> ComparedRows:
    """As if a preflight had just compared all tables for these clinics."""
    folder = SqlFolder(parts.settings.sql_dir)
    with Snapshot(parts.clinic_db) as snapshot:
        source, definitions = source_database.identity_of(snapshot), snapshot.definitions()
    return ComparedRows(source, definitions, folder.digest(), frozenset(folder.extracts()), frozenset(clinics))
