"""The operator that backs up one clinic; a DAG maps it over the clinics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from clinic_backups.archive.codec import Zstd
from clinic_backups.archive.encryption import Age
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.backup.stream import Progress
from clinic_backups.base.errors import ClinicBackupsError, Interrupted
from clinic_backups.base.model import BackupRequest, Clinic
from clinic_backups.operators.connections import failing_clearly, log_delivery, run_type_of
from clinic_backups.operators.copies import copy_without_failing
from clinic_backups.operators.link import BackupLink
from clinic_backups.operators.pace import Pace
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.operators.store import Store
from clinic_backups.tenant.extract import SqlExtract

if TYPE_CHECKING:
    from airflow.sdk import Context

MAIL_SECONDS = 30
"""No mail is begun after this time. The run's summary sends the rest."""


class ClinicBackupOperator(BaseOperator):
    """Back up one clinic in one task: extract, compress, encrypt and upload overlap, and nothing is kept on disk.
    :param clinic: ``{"id": 7, "name": "…", "language": "es"}``, one item of the list from ``active_clinics``.
        :param extract: the extracts. Airflow renders them and shows the SQL of each table under Rendered Template.
            (templated)
        :param compress: the compression stage.
        :param encrypt: the encryption stage.
        :param upload: the store.
        :param kind: auto, full or incremental. (templated)
        :param notes: one line that the catalog stores with the backup. (templated)
        :param allow_gaps: back up even if something would be missing, and mark the backup as incomplete. (templated)
        :param rows_compared: the result of the preflight: whether this clinic's rows were already compared. (templated)
    """

    template_fields: Sequence[str] = ("extract", "kind", "notes", "allow_gaps", "rows_compared")
    template_fields_renderers = {"extract": "sql"}  # noqa: RUF012 - as Airflow declares it
    ui_color = "#d5ece7"
    operator_extra_links = (BackupLink(),)

    def __init__(
        self,
        *,
        clinic: Mapping[str, Any],
        extract: SqlExtract,
        compress: Zstd,
        encrypt: Age,
        upload: Store,
        kind: str = "auto",
        notes: str = "",
        allow_gaps: bool | str = False,
        rows_compared: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.clinic = clinic
        self.extract = extract
        self.compress = compress
        self.encrypt = encrypt
        self.upload = upload
        self.kind = kind
        self.notes = notes
        self.allow_gaps = allow_gaps
        self.rows_compared = rows_compared
        self._backup: ClinicBackup | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the backup's id, object key, rows and bytes. No row of the clinic ever reaches XCom."""
        clinic = Clinic(**self.clinic)
        run = context["dag_run"]
        scheduled = run_type_of(run) == "scheduled"
        request = BackupRequest(
            clinic,
            trigger="scheduled" if scheduled else "manual",
            requested_by="scheduled" if scheduled else (run.triggering_user_name or "unknown"),
            kind=self.kind,  # type: ignore[arg-type] # checked by active_clinics
            notes=self.notes,
            run_id=run.run_id,
            retries_left=context["ti"].try_number <= context["ti"].max_tries,
            allow_gaps=str(self.allow_gaps) == "True",
            # A task that was cleared may run much later than the preflight.
            rows_compared=str(self.rows_compared) == "True" and context["ti"].try_number == 1,
        )
        with failing_clearly(self.log):
            parts = AirflowParts(self.upload)
            lines = _LogLines(self.log)
            self._backup = parts.backup(
                compress=self.compress,
                encrypt=self.encrypt,
                on_progress=lines.show,
                on_unnoted=lines.unnoted,
                on_unchecked=self.log.warning,
            )
            self.log.info("Backing up clinic %s (%r) to %s", clinic.id, clinic.name, parts.store.url)
            try:
                record = self._backup.run(request, queries=self.extract.queries)  # type: ignore[attr-defined] # rendered by now
                copy_without_failing(self.log, parts, clinic.id)
            finally:
                log_delivery(self.log, lambda: parts.deliver(clinic_id=clinic.id, limit_seconds=MAIL_SECONDS))
        self.log.info(
            "Backup %s (%s: %s) is complete: %s rows, %s bytes of CSV, %s bytes stored as %s",
            record.backup_id, record.kind, record.kind_reason, f"{record.rows_total:,}", f"{record.raw_bytes:,}",
            f"{record.size_bytes:,}",
            record.archive_key,
        )  # fmt: skip
        for gap in record.gaps:
            self.log.warning("The backup is incomplete. %s", gap.reason)
        return {
            "backup_id": record.backup_id,
            "kind": record.kind,
            "key": record.archive_key,
            "rows": record.rows_total,
            "raw_bytes": record.raw_bytes,
            "size_bytes": record.size_bytes,
            "gaps": len(record.gaps),
        }

    def on_kill(self) -> None:
        """End the upload and the query, and record that the task was stopped."""
        if self._backup is not None:
            self._backup.stop(Interrupted("Airflow stopped the task.", hint="Clear the task to back up again."))


class _LogLines:
    """Writes a line into the task's log every few seconds of a long backup. The Backups page has its own notes."""

    def __init__(self, log: Any) -> None:
        self._log, self._pace = log, Pace()

    def show(self, progress: Progress) -> None:
        if not self._pace.due():
            return
        self._log.info(
            "Table %s of %s, %s: %s rows and %s MB read so far",
            progress.table_number, progress.tables, progress.table, f"{progress.rows:,}", progress.raw_bytes // 10**6,
        )  # fmt: skip

    def unnoted(self, error: ClinicBackupsError) -> None:
        self._log.warning("The Backups page will not show the progress of this backup. %s", error.message)
