"""The clinics' figures in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE
from prometheus_client.registry import Collector

from clinic_backups.base.text import one_line
from clinic_backups.catalog.board import ClinicMetrics, Counts
from clinic_backups.catalog.replicas import Backlog

__all__ = ["MEDIA_TYPE", "Service", "exposition"]
Figure = Callable[[ClinicMetrics], float | None]
STATES = ("ok", "unproven", "late", "never", "failed", "running")


@dataclass(frozen=True)
class EndedRun:
    """The newest run of a DAG that has ended."""

    dag_id: str
    ended_at: datetime
    failed: bool
    seconds: float = 0


@dataclass(frozen=True)
class Service:
    """What is not of one clinic. Whoever does not run the system is told the counts of their own clinics alone.

    :param alerts: kinds of :class:`clinic_backups.web.banners.Banner`.
    :param stores: the URLs of all stores.
    :param backlogs: what some of them lack.
    :param drilled_at: when the newest drill of any unit ended, proven or not.
    """

    counts: Counts | None = None
    alerts: Sequence[str] = ()
    runs: Sequence[EndedRun] = ()
    stores: Sequence[str] = ()
    backlogs: Sequence[Backlog] = ()
    drilled_at: datetime | None = None


def exposition(clinics: Iterable[ClinicMetrics], now: datetime, service: Service | None = None) -> bytes:
    """Text in https://prometheus.io/docs/instrumenting/exposition_formats/. Unknown figures are left out."""
    registry = CollectorRegistry()
    registry.register(_ClinicFigures(clinics, now))
    registry.register(_ServiceFigures(service or Service(), now))
    return generate_latest(registry)


class _ClinicFigures(Collector):
    def __init__(self, clinics: Iterable[ClinicMetrics], now: datetime) -> None:
        self._clinics, self._now = clinics, now

    def describe(self) -> list[Metric]:
        """Empty, because otherwise the registry would collect once to find the names."""
        return []

    def collect(self) -> Iterable[Metric]:
        def age(moment: datetime | None) -> float | None:
            return (self._now - moment).total_seconds() if moment else None

        families: list[tuple[GaugeMetricFamily, Figure]] = [
            (_gauge("last_good_age_seconds", "Age of the last good backup"), lambda c: age(c.last_good_at)),
            (
                _gauge("last_good_timestamp_seconds", "Time of the data in the last good backup"),
                lambda c: c.last_good_at.timestamp() if c.last_good_at else None,
            ),
            (_gauge("last_duration_seconds", "Duration of the last good backup"), lambda c: c.last_duration_seconds),
            (_gauge("last_size_bytes", "Stored bytes of the last good backup"), lambda c: c.last_size_bytes),
            (_gauge("last_rows", "Rows in the last good backup"), lambda c: c.last_rows),
            (_gauge("proven_restore_age_seconds", "Age of the last proven restore"), lambda c: age(c.restored_at)),
            (_gauge("drill_proven_age_seconds", "Age of the last proof by a drill"), lambda c: age(c.proven_at)),
            (_gauge("recovery_seconds", "Measured seconds of the last proof by a drill"), lambda c: c.proof_seconds),
            (_gauge("drills_failed", "Drills that failed since the last proof"), lambda c: c.drills_failed),
            (_gauge("completed", "Completed backups in the catalog"), lambda c: c.completed_total),
            (_gauge("failed", "Failed backups in the catalog"), lambda c: c.failed_total),
        ]  # fmt: skip
        for clinic in self._clinics:
            labels = [str(clinic.clinic_id), one_line(clinic.name)]
            for family, figure in families:
                value = figure(clinic)
                if value is not None:
                    family.add_metric(labels, value)
        return [family for family, _ in families]


class _ServiceFigures(Collector):
    def __init__(self, service: Service, now: datetime) -> None:
        self._of, self._now = service, now

    def describe(self) -> list[Metric]:
        """Empty, as above."""
        return []

    def collect(self) -> Iterable[Metric]:
        alert = GaugeMetricFamily("clinic_backups_alert", "Why backups or restores do not run", labels=("kind",))
        for kind in self._of.alerts:
            alert.add_metric([kind], 1)
        counts = GaugeMetricFamily(
            "clinic_backups_clinics",
            "Active clinics; failed and running (the newest backup failed, one is being made) besides another state",
            labels=("state",),
        )
        if self._of.counts is not None:
            for state in STATES:
                counts.add_metric([state], getattr(self._of.counts, state))
        age = GaugeMetricFamily(
            "clinic_backups_run_age_seconds", "Time since the newest run of the DAG ended", labels=("dag_id",)
        )
        failed = GaugeMetricFamily("clinic_backups_run_failed", "Whether that run failed", labels=("dag_id",))
        duration = GaugeMetricFamily(
            "clinic_backups_run_duration_seconds", "How long that run took", labels=("dag_id",)
        )
        for run in self._of.runs:
            age.add_metric([run.dag_id], (self._now - run.ended_at).total_seconds())
            failed.add_metric([run.dag_id], run.failed)
            duration.add_metric([run.dag_id], run.seconds)
        drill = GaugeMetricFamily(
            "clinic_backups_newest_drill_age_seconds", "Time since the newest drill ended, whatever its result"
        )
        if self._of.drilled_at is not None:
            drill.add_metric([], (self._now - self._of.drilled_at).total_seconds())
        return [alert, counts, age, failed, duration, drill, *self._replicas()]

    def _replicas(self) -> Iterable[Metric]:
        missing = GaugeMetricFamily(
            "clinic_backups_replicas_missing", "Backups that the store lacks a replica of", labels=("store",)
        )
        oldest = GaugeMetricFamily(
            "clinic_backups_replicas_oldest_age_seconds", "Age of the oldest of them", labels=("store",)
        )
        lacks = {backlog.store_url: backlog for backlog in self._of.backlogs}
        for url in self._of.stores:
            missing.add_metric([url], lacks[url].missing if url in lacks else 0)
            if url in lacks:
                oldest.add_metric([url], (self._now - lacks[url].oldest_at).total_seconds())
        return [missing, oldest]


def _gauge(name: str, meaning: str) -> GaugeMetricFamily:
    # All are gauges, because old records are removed and a counter must not decrease.
    return GaugeMetricFamily(f"clinic_backups_{name}", f"{meaning}, of each clinic", labels=("clinic_id", "clinic"))
