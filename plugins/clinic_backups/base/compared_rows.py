"""What the preflight of a run found out about rows, so that no backup of the run has to find it out again."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_backups.base.clinic_id import ClinicId


@dataclass(frozen=True)
class ComparedRows:
    """The tables whose rows were compared with the backups of these clinics, without a finding.

    Or, by ``CLINIC_BACKUPS_COMPARE_NIGHTS``, with the backups of those whose night it is, on behalf of all.

    That holds for one database, for one version of its definitions, and for one version of the SQL folder.
    """

    database: str
    """See :func:`clinic_backups.tenant.source_database.identity_of`."""
    definitions: str
    """See :meth:`clinic_backups.tenant.tenant_db.Snapshot.definitions`."""
    folder: str
    """See :meth:`clinic_backups.tenant.extract.SqlFolder.digest`."""
    tables: frozenset[str]
    clinics: frozenset[ClinicId]
