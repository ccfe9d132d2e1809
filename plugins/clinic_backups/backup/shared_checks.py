"""Checks what the backup of the shared data needs, before a run."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_backups.backup.service_files import pg_dump_for
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import in_shell
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.findings import Finding, Report
from clinic_backups.base.settings import Settings
from clinic_backups.base.text import one_line
from clinic_backups.tenant.copies import sequences_without_copies
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.shared_rows import shared_rows
from clinic_backups.tenant.tenant_db import Snapshot

CHECK = "shared"
SHOWN = 10


def check_shared(snapshot: Snapshot, settings: Settings, folder: SqlFolder, report: Report) -> None:
    """A fault here fails the backup of the shared data alone, and no clinic's."""
    if not settings.shared:
        report.warn(
            CHECK,
            "The shared data are not backed up: what belongs to no clinic, the positions of sequences and the"
            " definition of the database.",
            "Set CLINIC_BACKUPS_SHARED to true. Without them the whole service cannot be made again from the store.",
        )
        return
    with report.check(CHECK), snapshot.savepoint():
        found = shared_rows(snapshot, folder)
        told = {finding.message for finding in report.findings if finding.level == "error"}
        for problem in found.problems:
            if problem.reason not in told:
                report.error(CHECK, problem.reason, problem.remedy)
        snapshot.tables(sorted(found.queries))
        for name, query in found.queries.items():
            with report.check(CHECK), snapshot.savepoint():
                # Its first row would be looked for in the whole table.
                snapshot.columns_of(query, f"trying the query of {name}")
        report.ok(CHECK, f"The backup of the shared data holds rows of {len(found.queries)} tables.")
    with report.check(CHECK), snapshot.savepoint():
        _check_files(snapshot, settings, folder, report)


def closed_findings(clinics: Sequence[Clinic]) -> list[Finding]:
    """:param clinics: the closed clinics that have no good backup."""
    if not clinics:
        return []
    shown = ", ".join(f"{clinic.id} {one_line(clinic.name)!r}" for clinic in clinics[:SHOWN])
    more = f" and {len(clinics) - SHOWN} more" if clinics[SHOWN:] else ""
    ids = " ".join(f"--clinic {in_shell(clinic.id)}" for clinic in clinics[:SHOWN])
    said = "1 clinic is closed and has" if len(clinics) == 1 else f"{len(clinics)} clinics are closed and have"
    return [
        Finding(
            "clinics",
            "warning",
            f"{said} no good backup. With the database they would be lost: {shown}{more}.",
            f"Back each of them up once: clinic-backups backup {ids}",
        )
    ]


def _check_files(snapshot: Snapshot, settings: Settings, folder: SqlFolder, report: Report) -> None:
    try:
        tool = pg_dump_for(snapshot, settings.postgres_bin)
        report.ok(CHECK, f"pg_dump of PostgreSQL {tool.version} writes the definition of the database.")
    except SettingsError as error:
        report.error(CHECK, f"The definition of the database cannot be backed up. {error.message}", error.hint)
    if unreadable := [each for each in sequences_without_copies(snapshot, folder) if not each.is_readable]:
        report.error(
            CHECK,
            f"The role may not read the positions of {len(unreadable)} sequences, such as"
            f" {unreadable[0].schema}.{unreadable[0].name}.",
            "As their owner: GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO the role of clinic_db.",
        )
