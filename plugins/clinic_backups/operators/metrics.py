"""This package's figures in Airflow's own metrics (statsd, Datadog, OpenTelemetry). docs/monitoring lists them.

Airflow sends nothing unless its section [metrics] names a receiver. A metric that cannot be sent never fails a task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import Interrupted, PermanentError, TransientError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.clinics import ClinicHealth
from clinic_backups.catalog.proofs import Candidate, ProofRecord
from clinic_backups.catalog.restores import RestoreRecord

log = logging.getLogger(__name__)
PREFIX = "clinic_backups."
"""Airflow puts its own prefix before it, ``airflow`` by default."""
COUNTERS = (
    "backup.completed", "backup.failed", "backup.rows", "backup.stored_bytes", "drill.failed", "drill.proven",
    "restore.completed", "restore.failed", "restore.rows", "watch.completed",
)  # fmt: skip
TIMINGS = ("backup.duration", "drill.duration", "restore.duration")
GAUGES = (
    "backup.age", "backup.oldest_age", "clinics.active", "clinics.late", "clinics.never", "clinics.unproven",
    "proof.oldest_age", "replicas.missing",
)  # fmt: skip


@dataclass(frozen=True)
class Metrics:
    """Sends the figures. Names and tags are the same whatever the number of clinics, unless ``per_clinic`` is set.

    :param per_clinic: the tag ``clinic_id`` for what is of one clinic.
    """

    per_clinic: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Metrics:
        """As the settings say."""
        return cls(settings.metrics_per_clinic)

    def backed_up(self, record: BackupRecord) -> None:
        """A backup is complete."""
        outcome = "suspect" if not record.is_trusted else "incomplete" if record.gaps else "completed"
        tags = self._tags(record.clinic_id, kind=record.kind, outcome=outcome)
        _count("backup.completed", 1, tags)
        _count("backup.stored_bytes", record.size_bytes or 0, tags)
        _count("backup.rows", record.rows_total, tags)
        _time("backup.duration", record.seconds, tags)

    def backup_failed(self, clinic_id: ClinicId, error: BaseException) -> None:
        """An attempt failed. Its kind may not have been chosen yet, so it has none."""
        _count("backup.failed", 1, self._tags(clinic_id, outcome=_outcome(error)))

    def restored(self, record: RestoreRecord) -> None:
        """A restore is complete."""
        tags = self._tags(record.clinic_id, kind=record.mode, outcome="completed")
        _count("restore.completed", 1, tags)
        _count("restore.rows", int(record.plan["writes"]), tags)
        _time("restore.duration", record.seconds, tags)

    def restore_failed(self, clinic_id: ClinicId, kind: str, error: BaseException) -> None:
        """A restore was refused, or it failed."""
        _count("restore.failed", 1, self._tags(clinic_id, kind=kind, outcome=_outcome(error)))

    def drilled(self, proof: ProofRecord) -> None:
        """A drill of one unit has ended."""
        tags = self._tags(proof.clinic_id, outcome=proof.outcome)
        _count("drill.proven" if proof.is_good else "drill.failed", 1, tags)
        _time("drill.duration", proof.seconds, tags)

    def watched(
        self, health: Collection[ClinicHealth], candidates: Iterable[Candidate], now: datetime, *, late: int,
        never: int, unproven: int, replicas_missing: int | None,
    ) -> None:  # fmt: skip
        """What the hourly watch has found. Without any backup or proof there is no age."""
        for name, value in (
            ("clinics.active", len(health)), ("clinics.late", late), ("clinics.never", never),
            ("clinics.unproven", unproven),
        ):  # fmt: skip
            _gauge(name, value, {})
        ages = {each.clinic_id: (now - each.last_good_at).total_seconds() for each in health if each.last_good_at}
        proofs = [(now - each.proven_at).total_seconds() for each in candidates if each.proven_at]
        if replicas_missing is not None:
            _gauge("replicas.missing", replicas_missing, {})
        if ages:
            _gauge("backup.oldest_age", max(ages.values()), {})
        if proofs:
            _gauge("proof.oldest_age", max(proofs), {})
        if self.per_clinic:
            for clinic_id, age in ages.items():
                _gauge("backup.age", age, self._tags(clinic_id))
        _count("watch.completed", 1, {})

    def _tags(self, clinic_id: ClinicId, **tags: str) -> dict[str, str]:
        return {**tags, "clinic_id": str(clinic_id)} if self.per_clinic else tags


def _outcome(error: BaseException) -> str:
    """What becomes of it: stopped by somebody, worth a retry, not worth one, or an error that nobody foresaw."""
    if isinstance(error, Interrupted) or not isinstance(error, Exception):
        return "stopped"
    if isinstance(error, PermanentError):
        return "permanent"
    return "transient" if isinstance(error, TransientError) else "unexpected"


def _count(name: str, number: int, tags: dict[str, str]) -> None:
    _send(lambda stats: stats.incr(PREFIX + name, count=number, tags=tags))


def _gauge(name: str, value: float, tags: dict[str, str]) -> None:
    _send(lambda stats: stats.gauge(PREFIX + name, value, tags=tags))


def _time(name: str, seconds: float | None, tags: dict[str, str]) -> None:
    _send(lambda stats: stats.timing(PREFIX + name, timedelta(seconds=seconds or 0), tags=tags))


def _send(send: Callable[[Any], object]) -> None:
    try:
        from clinic_backups.operators.airflow_internals import Stats

        send(Stats)
    except Exception as error:  # noqa: BLE001 - the backup is stored, whatever the receiver of metrics does
        log.warning("A metric could not be sent: %s. Backups continue.", type(error).__name__)
