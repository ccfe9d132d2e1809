"""The clinics' figures in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE
from prometheus_client.registry import Collector

from clinic_backups.base.text import one_line
from clinic_backups.catalog.board import ClinicMetrics

__all__ = ["MEDIA_TYPE", "exposition"]
Figure = Callable[[ClinicMetrics], float | None]


def exposition(clinics: Iterable[ClinicMetrics], now: datetime, alerts: Iterable[str] = ()) -> bytes:
    """Text in https://prometheus.io/docs/instrumenting/exposition_formats/. Unknown figures are left out.

    :param alerts: kinds of :class:`clinic_backups.web.banners.Banner`.
    """
    registry = CollectorRegistry()
    registry.register(_ClinicFigures(clinics, now, alerts))
    return generate_latest(registry)


class _ClinicFigures(Collector):
    def __init__(self, clinics: Iterable[ClinicMetrics], now: datetime, alerts: Iterable[str]) -> None:
        self._clinics, self._now, self._alerts = clinics, now, alerts

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
        alert = GaugeMetricFamily("clinic_backups_alert", "Why backups or restores do not run", labels=("kind",))
        for kind in self._alerts:
            alert.add_metric([kind], 1)
        return [*(family for family, _ in families), alert]


def _gauge(name: str, meaning: str) -> GaugeMetricFamily:
    # All are gauges, because old records are removed and a counter must not decrease.
    return GaugeMetricFamily(f"clinic_backups_{name}", f"{meaning}, of each clinic", labels=("clinic_id", "clinic"))
