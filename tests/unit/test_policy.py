"""Which outcomes are mailed to whom, and when the watch raises an alarm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import Interrupted, PermanentError, TransientError
from clinic_backups.catalog.clinics import ClinicHealth
from clinic_backups.maintenance.watch import alarm_notice, count_late
from clinic_backups.notify.backup_mails import MailHistory, cause_of, failure_notice, success_notice
from clinic_backups.notify.digest import overdue_facts

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
RECORD = BackupRecord(
    backup_id="7-x", clinic_id=7, clinic_name="Siete", kind="full", trigger="scheduled", state="completed",
    started_at=NOW - timedelta(seconds=5), archive_key="backups/7/2026/11/a.tar.zst.age",
    finished_at=NOW, expires_at=NOW + timedelta(days=30), size_bytes=10, raw_bytes=20,
    rows={"public.a": 3, "public.b": 4},
)  # fmt: skip
WEEK_AGO = NOW - timedelta(days=7)


@pytest.mark.parametrize(
    ("wish", "last_weekly_at", "kind"),
    [
        ("each", None, "success"),
        ("each", NOW, "success"),
        ("never", None, None),
        ("weekly", None, "weekly"),
        ("weekly", WEEK_AGO, "weekly"),
        ("weekly", WEEK_AGO + timedelta(minutes=30), "weekly"),
        ("weekly", NOW - timedelta(days=6), None),
    ],
)
def test_successes_are_told_as_wished(wish: str, last_weekly_at: datetime | None, kind: str | None) -> None:
    notice = success_notice(RECORD, MailHistory(last_weekly_at=last_weekly_at), wish, NOW)  # type: ignore[arg-type]
    assert (notice.kind if notice else None) == kind
    if notice:
        assert (notice.facts["tables"], notice.facts["rows"]) == (2, 7)
        assert (notice.facts["file_name"], notice.facts["seconds"]) == ("a.tar.zst.age", 5)


@pytest.mark.parametrize("wish", ["each", "weekly", "never"])
def test_a_recovery_is_always_told_in_the_failures_thread(wish: str) -> None:
    history = MailHistory(failures=5, thread_id=40, failing_since=WEEK_AGO, last_weekly_at=NOW)
    notice = success_notice(RECORD, history, wish, NOW)  # type: ignore[arg-type]
    assert notice is not None
    assert (notice.kind, notice.thread_id, notice.facts["failures"]) == ("recovery", 40, 5)


def test_failures_are_always_told_and_count() -> None:
    failed = replace(RECORD, state="failed")
    first = failure_notice(failed, MailHistory(), "transient")
    later = failure_notice(failed, MailHistory(failures=4, thread_id=40, last_good_at=WEEK_AGO), "permanent")
    assert (first.thread_id, first.facts["failures"], first.facts["last_good_at"]) == (None, 1, None)
    assert (later.thread_id, later.facts["failures"], later.facts["cause"]) == (40, 5, "permanent")
    assert first.key != success_notice(RECORD, MailHistory(), "each", NOW).key  # type: ignore[union-attr]


def test_causes() -> None:
    errors = [TransientError("x"), PermanentError("x"), Interrupted("x"), KeyboardInterrupt(), ZeroDivisionError()]
    assert list(map(cause_of, errors)) == ["transient", "permanent", "interrupted", "interrupted", "permanent"]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 80)), max_size=6),
    st.sets(st.integers(0, 5)),
    st.integers(0, 48),
)
def test_the_alarm_rings_for_every_clinic_that_became_late_and_daily(
    clinics: list[tuple[bool, int]], named_before: set[int], hours_ago: int
) -> None:
    health = [
        ClinicHealth(
            number, f"C{number}", NOW - timedelta(hours=age) if backed_up else None, NOW - timedelta(hours=age)
        )
        for number, (backed_up, age) in enumerate(clinics)
    ]
    facts = overdue_facts(health, 26, NOW)
    late = {number for number, (_, age) in enumerate(clinics) if age > 26}
    assert count_late(facts) == len(late)
    before = {"never": [], "overdue": [{"clinic_id": number} for number in named_before]}
    notice = alarm_notice(facts, (before, NOW - timedelta(hours=hours_ago)), NOW)
    assert (notice is not None) == bool(late and (late - named_before or hours_ago >= 24))
    assert (alarm_notice(facts, None, NOW) is not None) == bool(late)


def test_the_alarm_rings_when_no_backup_can_be_made_whoever_is_late() -> None:
    well = {"objective_hours": 26, "never": [], "overdue": []}
    wrong = well | {"problem": {"error": "Wrong settings: x.", "hint": "y"}}
    other = well | {"problem": {"error": "Wrong settings: z.", "hint": "y"}}
    assert alarm_notice(well, None, NOW) is None
    notice = alarm_notice(wrong, None, NOW)
    assert notice is not None
    assert (notice.facts["problem"], notice.urgent) == (wrong["problem"], True)
    hour = NOW - timedelta(hours=1)
    assert alarm_notice(wrong, (wrong, hour), NOW) is None
    assert alarm_notice(wrong, (other, hour), NOW) is not None
    assert alarm_notice(wrong, (well, hour), NOW) is not None
    assert alarm_notice(wrong, (wrong, NOW - timedelta(hours=24)), NOW) is not None
