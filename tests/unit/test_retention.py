"""Retention as a pure function: over any history and clock never without a good backup, never a broken chain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.model import BackupRecord
from clinic_backups.retention import RetentionPolicy, plan

ZONE = ZoneInfo("America/Santiago")  # has daylight saving
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


def backup(name: str, at: datetime, **changes: object) -> BackupRecord:
    made = BackupRecord(
        name, 7, "Siete", "full", "scheduled", "completed", at, f"backups/7/{name}.tar.zst.age",
        finished_at=at + timedelta(minutes=5), expires_at=at + timedelta(days=30),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def nightly(days: int, until: datetime = NOW) -> list[BackupRecord]:
    return [backup(f"b{age}", until - timedelta(days=age)) for age in range(days)]


def kept(
    backups: list[BackupRecord], policy: RetentionPolicy, now: datetime = NOW, **options: object
) -> dict[str, str]:
    decisions = plan(backups, policy, now, zone=ZONE, **options)  # type: ignore[arg-type]
    return {decision.backup.backup_id: decision.reason for decision in decisions if decision.keep}


def test_thirty_days_and_then_gone() -> None:
    stay = kept(nightly(60), RetentionPolicy())
    assert sorted(stay, key=lambda name: int(name[1:])) == [f"b{age}" for age in range(31)]
    assert stay["b0"] == "the clinic's last good backup"
    assert stay["b1"] == "not older than 30 days"


def test_grandfather_father_son() -> None:
    policy = RetentionPolicy(keep_days=7, daily=10, weekly=6, monthly=12, yearly=3)
    backups = [replace(b, expires_at=b.finished_at) for b in nightly(1200)]
    stay = kept(backups, policy)
    assert len([name for name in stay if int(name[1:]) < 8]) == 8
    reasons = list(stay.values())
    assert sum(reason.startswith("monthly") for reason in reasons) >= 9
    assert {NOW.year - (NOW - timedelta(days=int(name[1:]))).year for name in stay} == {0, 1, 2}
    assert len(stay) <= 8 + 10 + 6 + 12 + 3
    oldest = max(int(name[1:]) for name in stay)
    assert oldest > 365


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hold_reason": "pleito 12", "held_by": "yo"}, "on hold: pleito 12"),
        ({"expires_at": NOW + timedelta(days=1)}, "promised until 2026-11-25"),
    ],
)
def test_what_stays_although_it_is_old(changes: dict[str, object], reason: str) -> None:
    old = backup("old", NOW - timedelta(days=300), **changes)
    assert kept([backup("new", NOW), old], RetentionPolicy())["old"] == reason


def test_what_undoes_a_recent_restore_stays() -> None:
    backups = [backup("new", NOW), backup("old", NOW - timedelta(days=300))]
    assert kept(backups, RetentionPolicy(), undoing={"old": "r-7"})["old"] == "undoes restore r-7"
    assert "old" not in kept(backups, RetentionPolicy())


def test_a_kept_incremental_keeps_its_whole_chain() -> None:
    chain = [
        backup("full", NOW - timedelta(days=90)),
        backup("inc1", NOW - timedelta(days=60), parent_id="full", kind="incremental"),
        backup("inc2", NOW - timedelta(days=20), parent_id="inc1", kind="incremental"),
        backup("new", NOW),
    ]
    stay = kept(chain, RetentionPolicy())
    assert (stay["inc1"], stay["full"]) == ("needed by inc2", "needed by inc1")


MOMENTS = st.datetimes(datetime(2024, 2, 27), datetime(2026, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(
    st.lists(
        st.tuples(MOMENTS, st.sampled_from(["completed", "failed", "running"]), st.integers(0, 5), st.booleans()),
        max_size=40,
    ),
    st.builds(
        RetentionPolicy,
        keep_days=st.integers(1, 400), daily=st.integers(0, 9), weekly=st.integers(0, 9), monthly=st.integers(0, 9),
        yearly=st.integers(0, 3),
    ),
    MOMENTS,
)  # fmt: skip
def test_over_any_history_and_clock(
    history: list[tuple[datetime, str, int, bool]], policy: RetentionPolicy, now: datetime
) -> None:
    backups: list[BackupRecord] = []
    for number, (at, state, back, held) in enumerate(sorted(history)):
        parents = [b.backup_id for b in backups if b.state == "completed"]
        parent = parents[-back] if 0 < back <= len(parents) else None
        made = backup(f"b{number}", at, state=state, parent_id=parent, expires_at=at)
        if held and state == "completed":
            made = replace(made, hold_reason="x", held_by="y")
        backups.append(replace(made, finished_at=None) if state == "running" else made)
    decisions = plan(backups, policy, now, zone=ZONE)
    completed = {b.backup_id: b for b in backups if b.state == "completed"}
    assert {decision.backup.backup_id for decision in decisions} == set(completed)
    assert all(decision.reason for decision in decisions)
    stay = {decision.backup.backup_id for decision in decisions if decision.keep}
    if completed:
        newest = max(completed.values(), key=lambda b: (b.started_at, b.backup_id))
        assert newest.backup_id in stay
    for name in stay:
        parent_id = completed[name].parent_id
        assert parent_id is None or parent_id in stay
    for name, record in completed.items():
        young = record.finished_at is not None and record.finished_at + timedelta(days=policy.keep_days) > now
        assert name in stay or not (young or record.hold_reason)
    # A second look at what is left changes nothing.
    again = plan([completed[name] for name in sorted(stay)], policy, now, zone=ZONE)
    assert all(decision.keep for decision in again)
