"""``check --rehearse``: the smallest and the largest clinic are lost, come back, are proven, and all is rolled back."""

from __future__ import annotations

import time
from collections.abc import Iterable

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.findings import Finding, Report
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.find_backup import source_of

CHECK = "rehearsal"


def rehearse(restore: ClinicRestore, backups: Iterable[BackupRecord]) -> list[Finding]:
    """The findings. While a clinic is rehearsed, its rows are locked.

    :param backups: the backups to restore, of a clinic each.
    """
    report, tried = Report(), False
    for record in backups:
        tried = True
        with report.check(CHECK, f"Clinic {record.clinic_id}: "):
            _one(restore, record, report)
    if not tried:
        report.warn(CHECK, "No restore was rehearsed: there is no good backup yet.", "Back up a clinic first.")
    return report.findings


def _one(restore: ClinicRestore, record: BackupRecord, report: Report) -> None:
    begun = time.monotonic()
    loss = restore.rehearse_loss(source_of(record))
    for refusal in loss.refusals:
        report.error(
            CHECK,
            f"Clinic {record.clinic_id} could not come back from backup {record.backup_id}: {refusal.message}",
            refusal.hint,
        )
    if loss.refusals:
        return
    kept = f" Rows of {', '.join(loss.kept)} stayed: rows outside of the backup refer to them." if loss.kept else ""
    report.note(
        CHECK,
        f"Clinic {record.clinic_id} was lost and came back from backup {record.backup_id}: {loss.rows:,} rows were"
        f" deleted, restored, proven and rolled back in {time.monotonic() - begun:.1f} s.{kept}",
    )
