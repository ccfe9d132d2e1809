"""The figures in Airflow's own metrics, as a real receiver of statsd gets them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clinic_backups.base.errors import Interrupted, PermanentError, TransientError
from clinic_backups.catalog.clinics import ClinicHealth
from clinic_backups.operators import airflow_internals
from clinic_backups.operators.metrics import COUNTERS, GAUGES, TIMINGS, Metrics
from tests.statsd import Statsd, receiving

PAGE = Path(__file__).parents[2] / "docs" / "monitoring" / "README.md"
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


@pytest.fixture
def received() -> Iterator[Statsd]:
    with receiving() as found:
        yield found


@pytest.mark.parametrize("per_clinic", [False, True])
def test_the_clinic_is_a_tag_only_if_that_is_wanted(received: Statsd, per_clinic: bool) -> None:
    metrics, tag = Metrics(per_clinic), ",clinic_id=7" if per_clinic else ""
    for error, outcome in (
        (PermanentError("x"), "permanent"), (TransientError("x"), "transient"), (Interrupted("x"), "stopped"),
        (KeyboardInterrupt(), "stopped"), (ValueError("x"), "unexpected"),
    ):  # fmt: skip
        metrics.backup_failed(7, error)
        expected = f"clinic_backups.backup.failed,outcome={outcome}{tag}:1|c"
        assert received.wait(lambda lines, expected=expected: expected in lines)


def test_what_the_watch_finds_are_gauges(received: Statsd) -> None:
    health = [ClinicHealth(n, "Clínica", NOW - timedelta(hours=n) if n else None, NOW) for n in (0, 1, 7)]
    Metrics(True).watched(health, [], NOW, late=1, never=1, unproven=0, replicas_missing=None)
    lines = received.wait(lambda lines: "clinic_backups.watch.completed:1|c" in lines)
    assert sorted(lines) == sorted([
        "clinic_backups.clinics.active:3|g", "clinic_backups.clinics.late:1|g", "clinic_backups.clinics.never:1|g",
        "clinic_backups.clinics.unproven:0|g", "clinic_backups.backup.oldest_age:25200.0|g",
        "clinic_backups.backup.age,clinic_id=1:3600.0|g", "clinic_backups.backup.age,clinic_id=7:25200.0|g",
        "clinic_backups.watch.completed:1|c",
    ])  # fmt: skip


@pytest.mark.parametrize("trouble", ["no receiver", "moved"])
def test_metrics_that_cannot_be_sent_fail_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    if trouble == "moved":
        monkeypatch.setitem(airflow_internals.WHERE, "Stats", "airflow.moved.elsewhere")
    else:

        class Broken:
            def __getattr__(self, name: str) -> object:
                raise OSError("secret-host.example")

        monkeypatch.setitem(airflow_internals.__dict__, "Stats", Broken())
    with caplog.at_level(logging.WARNING):
        Metrics().backup_failed(7, ValueError("x"))
    (line,) = caplog.messages
    assert line.startswith("A metric could not be sent: ")
    assert "secret-host" not in line


def test_the_page_lists_every_metric_and_no_other() -> None:
    listed = re.findall(
        r"^\| `clinic_backups\.([a-z_.]+)` \| (counter|timing|gauge) \|", PAGE.read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(
        [(name, "counter") for name in COUNTERS]
        + [(name, "timing") for name in TIMINGS]
        + [(name, "gauge") for name in GAUGES]
    )
