"""The fields of log lines: ``clinic_id``, ``backup_id`` and ``stage``, which a JSON log keeps apart from the text.

Airflow writes the log of a task as one JSON object a line, and puts what structlog's context holds into each of them.
That context belongs to one thread, so :class:`ClinicLog` has the fields of its clinic with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from structlog.contextvars import bind_contextvars, bound_contextvars

from clinic_backups.backup.backup import Stage
from clinic_backups.backup.stream import Progress
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.operators.pace import Pace


def tell(**fields: Any) -> None:
    """From now on all lines of this thread have these fields, those that Airflow writes itself too."""
    bind_contextvars(**fields)


@contextmanager
def telling(**fields: Any) -> Iterator[None]:
    """The lines of this thread have these fields meanwhile."""
    with bound_contextvars(**fields):
        yield


class ClinicLog:
    """Writes the lines about the backup of one clinic. Several threads use it.

    :param own: gets the clinic's lines, which may wait until the lines of another clinic are written.
    :param at_once: gets the lines about the progress, which do not wait.
    :param named: whether these name the clinic, because other clinics are under way too.
    """

    def __init__(self, clinic_id: ClinicId, own: Any, at_once: Any, *, named: bool = False) -> None:
        self.fields: dict[str, Any] = {"clinic_id": clinic_id, "stage": "begin"}
        self._own, self._at_once, self._of = own, at_once, f"Clinic {clinic_id}: " if named else ""
        self._pace = Pace()

    def info(self, *line: Any) -> None:
        self._own.info(*line, **self.fields)

    def warning(self, *line: Any) -> None:
        self._own.warning(*line, **self.fields)

    def error(self, *line: Any) -> None:
        self._own.error(*line, **self.fields)

    def stage(self, stage: Stage | Literal["replicate", "done"], record: BackupRecord) -> None:
        """The backup has come to a stage. An error says in which one it came."""
        # A new dictionary: another thread may be writing a line with this one.
        self.fields = {**self.fields, "backup_id": record.backup_id, "stage": stage}
        if stage == "begin":
            self.info("Backup %s begins, attempt %s.", record.backup_id, record.attempt)

    def progress(self, progress: Progress) -> None:
        """Write a line every few seconds of a long backup. The Backups page has its own notes."""
        if not self._pace.due():
            return
        self._at_once.info(
            "%sTable %s of %s, %s: %s rows and %s MB read so far",
            self._of, progress.table_number, progress.tables, progress.table, f"{progress.rows:,}",
            progress.raw_bytes // 10**6, **self.fields,
        )  # fmt: skip

    def unnoted(self, error: ClinicBackupsError) -> None:
        """The progress could not be written into the catalog."""
        self._at_once.warning(
            "%sThe Backups page will not show the progress of this backup. %s",
            self._of, error.message, **self.fields,
        )  # fmt: skip
