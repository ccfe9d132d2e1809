"""Retention is a pure function: for any history and clock it keeps a good backup and breaks no chain."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.retention_rules import Decision, RetentionPolicy, plan

ZONE = ZoneInfo("America/Santiago")  # has daylight saving
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


def backup(name: str, at: datetime, **changes: object) -> BackupRecord:
    made = BackupRecord(
        backup_id=name, clinic_id=7, clinic_name="Siete", kind="full", trigger="scheduled", state="completed",
        started_at=at, archive_key=f"backups/7/{name}.tar.zst.age",
        finished_at=at + timedelta(minutes=5), expires_at=at + timedelta(days=30),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def nightly(days: int, until: datetime = NOW) -> list[BackupRecord]:
    return [backup(f"b{age}", until - timedelta(days=age)) for age in range(days)]


def kept(
    backups: list[BackupRecord], policy: RetentionPolicy, now: datetime = NOW, **options: object
) -> dict[str, str]:
    decisions = plan(backups, policy, now, **{"zone": ZONE} | options)  # type: ignore[arg-type]
    return {decision.backup.backup_id: decision.reason for decision in decisions if decision.keep}


def test_thirty_days_and_then_gone() -> None:
    stay = kept(nightly(60), RetentionPolicy())
    assert sorted(stay, key=lambda name: int(name[1:])) == [f"b{age}" for age in range(31)]
    assert stay["b0"] == "the clinic's last good backup"
    assert stay["b1"] == "not older than 30 days"


def test_grandfather_father_son() -> None:
    policy = RetentionPolicy(keep_days=7, daily=10, weekly=6, monthly=12, yearly=3)
    stay = kept([replace(b, expires_at=b.finished_at) for b in nightly(1200)], policy)
    counts = {period: sum(reason.startswith(period) for reason in stay.values()) for period in PERIODS}
    # One backup may be the newest of several periods: the first of them is named.
    assert counts == {"daily": 10, "weekly": 3, "monthly": 11, "yearly": 1}
    assert {NOW.year - (NOW - timedelta(days=int(name[1:]))).year for name in stay} == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hold_reason": "pleito 12", "held_by": "yo"}, "on hold: pleito 12"),
        ({"expires_at": NOW + timedelta(days=1)}, "promised until 2026-11-25"),
        ({"locked_until": NOW + timedelta(minutes=1)}, "locked until 2026-11-24 06:01 UTC"),
        ({"backup_id": "undo"}, "undoes restore r-7"),
    ],
)
def test_what_stays_although_it_is_old(changes: dict[str, object], reason: str) -> None:
    old = backup("old", NOW - timedelta(days=300), **changes)
    assert kept([backup("new", NOW), old], RetentionPolicy(), undoing={"undo": "r-7"})[old.backup_id] == reason


def test_a_kept_incremental_keeps_its_whole_chain() -> None:
    incremental = {"kind": "incremental"}
    chain = [backup("full", NOW - timedelta(days=90)), backup("new", NOW),
             backup("inc1", NOW - timedelta(days=60), parent_id="full", **incremental),
             backup("inc2", NOW - timedelta(days=20), parent_id="inc1", **incremental)]  # fmt: skip
    stay = kept(chain, RetentionPolicy())
    assert (stay["inc1"], stay["full"]) == ("needed by inc2", "needed by inc1")


def test_a_lost_backup_is_not_the_last_good_one_and_takes_no_place_of_a_period() -> None:
    backups = [backup("new", NOW - timedelta(days=60), state="lost"), backup("old", NOW - timedelta(days=61)),
               backup("older", NOW - timedelta(days=62))]  # fmt: skip
    assert kept(backups, RetentionPolicy()) == {"old": "the clinic's last good backup"}
    assert set(kept(backups, RetentionPolicy(daily=2))) == {"old", "older"}


@pytest.mark.parametrize(
    "policy", [RetentionPolicy(), RetentionPolicy(keep_days=1, monthly=3), RetentionPolicy(daily=9)]
)
def test_a_safety_backup_is_never_the_last_good_backup(policy: RetentionPolicy) -> None:
    backups = [backup("safety", NOW - timedelta(hours=1), safety_of="real"), backup("real", NOW - timedelta(days=45))]
    stay = kept(backups, policy)
    assert stay["real"] == "the clinic's last good backup"
    # By its own term, and no longer: the clinic's last good backup is another one.
    assert stay["safety"] == f"not older than {policy.keep_days} days"
    assert set(kept(backups, policy, NOW + timedelta(days=31))) == {"real"}


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly", "yearly"])
def test_a_safety_backup_takes_no_place_of_a_period(period: str) -> None:
    real = datetime(2025, 6, 11, 12, tzinfo=UTC)
    backups = [backup("new", NOW), backup("real", real), backup("safety", real + timedelta(hours=1), safety_of="real")]
    backups = [replace(each, expires_at=None) for each in backups]
    assert set(kept(backups, RetentionPolicy(keep_days=5, **{period: 12}))) == {"new", "real"}


def test_a_safety_backup_stays_on_hold_locked_and_while_it_undoes() -> None:
    for changes in ({"hold_reason": "pleito"}, {"locked_until": NOW + timedelta(days=1)}, {"backup_id": "undo"}):
        safety = backup("safety", NOW - timedelta(days=40), **{"safety_of": "b0"} | changes)
        stay = kept([*nightly(2), safety], RetentionPolicy(), undoing={"undo": "r-7"})
        assert safety.backup_id in stay


def test_where_only_safety_backups_are_left_nothing_goes() -> None:
    safeties = [backup(f"c{age}", NOW - timedelta(days=age), safety_of="gone") for age in (40, 60)]
    assert set(kept(safeties, RetentionPolicy()).values()) == {"the clinic has no good backup"}


def test_what_is_built_on_a_safety_backup_keeps_it() -> None:
    backups = [backup("real", NOW - timedelta(days=40), kind="incremental", parent_id="safety"),
               backup("safety", NOW - timedelta(days=41), safety_of="older"),
               backup("older", NOW - timedelta(days=42))]  # fmt: skip
    assert kept(backups, RetentionPolicy()) == {"real": "the clinic's last good backup", "safety": "needed by real"}


def test_an_erased_clinic_keeps_what_is_held_or_locked_and_what_came_later() -> None:
    backups = [*nightly(4), backup("held", NOW - timedelta(days=9), parent_id="full", hold_reason="pleito"),
               backup("full", NOW - timedelta(days=10)), backup("last", NOW - timedelta(days=1, hours=1))]  # fmt: skip
    decisions = {d.backup.backup_id: (d.keep, d.reason) for d in plan(
        backups, RetentionPolicy(daily=9), NOW, zone=ZONE, erased_at=NOW - timedelta(days=1), undoing={"b2": "r-7"},
    )}  # fmt: skip
    assert decisions == {
        "b0": (True, "the clinic's last good backup"), "b1": (False, "its clinic is erased"),
        "last": (False, "its clinic is erased"), "b2": (False, "its clinic is erased"),
        "b3": (False, "its clinic is erased"), "held": (True, "on hold: pleito"), "full": (True, "needed by held"),
    }  # fmt: skip


def periods(zone: str, *ends: datetime, **counts: int) -> list[int]:
    """Which of the backups that ended then, the newest first, stay: years later only the periods decide."""
    utc = [(end if end.tzinfo else end.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC) for end in ends]
    backups = [backup(f"b{number}", end, finished_at=end) for number, end in enumerate(utc)]
    stay = kept(backups, RetentionPolicy(**counts), datetime(2036, 1, 1, tzinfo=UTC), zone=ZoneInfo(zone))
    return [int(name[1:]) for name in stay]


def test_days_are_those_of_the_zone_when_clocks_change() -> None:
    # New York's 1st of November 2026 has 25 hours: 0:30 and 23:30, 24 hours apart, are one day; a day has one place.
    long_day = [datetime(2026, 11, 1, 23, 30), datetime(2026, 11, 1, 0, 30), datetime(2026, 10, 31, 23, 30)]
    assert periods("America/New_York", *long_day, daily=2) == [0, 2]
    # Its 8th of March has 23: from 0:30 to 0:30 of the 9th are 23 hours, and still two days.
    short_day = [datetime(2026, 3, 9, 0, 30), datetime(2026, 3, 8, 0, 30)]
    assert periods("America/New_York", *short_day, daily=2) == [0, 1]
    # A day's backup is the one that ended in it, whenever it was begun.
    late = backup("late", datetime(2026, 5, 2, 3, 58, tzinfo=UTC))  # from 23:58 to 0:03 in Santiago
    before = backup("before", datetime(2026, 5, 2, 2, tzinfo=UTC))
    assert set(kept([late, before], RetentionPolicy(daily=2))) == {"late", "before"}
    # The hour that comes twice: the second 1:30 is the newer one, although both read the same.
    twice = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (6, 5)]
    assert periods("America/New_York", *twice, daily=9) == [0]
    # Apia had no 30th of December 2011: the 29th and the 31st are neighbours, and the missing day takes no place.
    apia = [datetime(2011, 12, day, 2, 30) for day in (31, 29, 28)]
    assert periods("Pacific/Apia", *apia, daily=2) == [0, 1]
    # Lord Howe's summer time is half an hour: 13:15 UTC is 0:15 of the next day while it lasts, and 23:45 afterwards.
    howe = [datetime(2026, 4, 3, 13, 15, tzinfo=UTC), datetime(2026, 4, 3, 12, 45, tzinfo=UTC)]
    assert periods("Australia/Lord_Howe", *howe, daily=2) == [0, 1]
    assert periods("Australia/Lord_Howe", *(end + timedelta(days=2) for end in howe), daily=2) == [0]


def test_keep_days_are_24_hours_each_also_when_clocks_change() -> None:
    """The promise is one of hours: Madrid's day of 25 hours makes it no longer."""
    end = datetime(2026, 10, 24, 12, tzinfo=ZoneInfo("Europe/Madrid")).astimezone(UTC)
    backups = [backup("new", end + timedelta(hours=20)), backup("old", end, finished_at=end, expires_at=None)]
    eleven = datetime(2026, 10, 25, 11, tzinfo=ZoneInfo("Europe/Madrid"))
    assert set(kept(backups, RetentionPolicy(keep_days=1), eleven)) == {"new"}
    assert set(kept(backups, RetentionPolicy(keep_days=1), eleven - timedelta(seconds=1))) == {"new", "old"}


def test_leap_days_and_week_53() -> None:
    leap = [datetime(year, 2, day, 3) for year in (2028, 2024) for day in (29, 28)]
    # The 29th of February is a day of its own, the newest of its month and here of its year.
    assert periods("America/La_Paz", *leap, daily=4) == [0, 1, 2, 3]
    assert periods("America/La_Paz", *leap, monthly=2) == periods("America/La_Paz", *leap, yearly=2) == [0, 2]
    # The week from Monday 28 December 2026 to Sunday 3 January 2027 is 2026's 53rd: one week, but two years.
    turn = [datetime(2027, 1, 4, 3), datetime(2027, 1, 3, 3), datetime(2026, 12, 31, 3), datetime(2026, 12, 27, 3)]
    assert periods("Europe/Madrid", *turn, weekly=3) == [0, 1, 3]
    assert periods("Europe/Madrid", *turn, yearly=2) == [0, 2]


ZONES = [ZoneInfo(name) for name in (
    "America/New_York", "Europe/Madrid", "America/La_Paz", "Australia/Lord_Howe", "Pacific/Apia", "America/Santiago",
)]  # fmt: skip
EDGES = [datetime.fromisoformat(f"{text}:00Z") for text in (
    "2011-12-30T10:00", "2024-02-29T23:00", "2028-02-29T12:00", "2020-12-31T23:00", "2026-12-31T12:00",
    "2026-03-08T07:00", "2026-11-01T06:00", "2026-03-29T01:00", "2026-10-25T01:00", "2026-04-04T15:00",
    "2026-09-06T04:00",
)]  # fmt: skip
PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m", "yearly": "%Y"}
COUNTS = dict.fromkeys(PERIODS, st.sampled_from([0, 0, 0, 1, 3, 9]))
POLICIES = st.builds(RetentionPolicy, keep_days=st.sampled_from([1, 1, 2, 7, 30]), **COUNTS)


@dataclass
class World:
    """One clinic's backups, and all that `plan` is asked with."""

    backups: list[BackupRecord]
    policy: RetentionPolicy
    now: datetime
    zone: ZoneInfo
    undoing: dict[str, str] = field(default_factory=dict)
    erased_at: datetime | None = None

    def decide(self, backups: Iterable[BackupRecord], **changes: Any) -> list[Decision]:
        options = {"zone": self.zone, "undoing": self.undoing, "erased_at": self.erased_at} | changes
        return plan(backups, self.policy, self.now, **options)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Backups made one after another up to an edge of the calendar; the clock may stand before some of them."""
    pace = draw(st.sampled_from([timedelta(hours=1), *[timedelta(days=days) for days in (1, 1, 7, 31, 365)]]))
    size = draw(st.integers(0, 24))
    shapes = draw(st.lists(st.tuples(
        st.sampled_from([0, 0.2, 0.9, 1, 1, 1, 1, 1.1, 3]),
        st.sampled_from(["completed"] * 5 + ["lost", "lost", "failed", "running", "deleting", "deleted"]),
        st.sampled_from([0, 0, 0, 0, 1, 1, 2, 7]), st.sampled_from([0, 0.1, 6, 20]),
        st.sampled_from([None, None, 0, 0, 0, 30, 900]),
        st.sampled_from([""] * 12 + ["hold", "lock", "old lock", "undo"]),
    ), min_size=size, max_size=size))  # fmt: skip
    policy, at = draw(POLICIES), draw(st.sampled_from(EDGES))
    now = at + draw(st.sampled_from([-2, 0, 1, 40, 1000])) * pace
    erased_at = draw(st.sampled_from([None, None, at - 2 * pace, at - 5 * pace]))
    world = World([], policy, now, draw(st.sampled_from(ZONES)), erased_at=erased_at)
    for number, (gap, state, back, hours, promised, mark) in enumerate(shapes):
        at -= gap * pace
        name, end = f"b{number:02}", at + timedelta(hours=hours)
        until = None if promised is None else end + timedelta(days=promised)
        parent = f"b{number + back:02}" if 0 < back < size - number else None
        world.backups.append(backup(
            name, at, state=state, parent_id=parent, finished_at=None if state == "running" else end, expires_at=until,
            hold_reason="pleito" if mark == "hold" else None,
        ))  # fmt: skip
        world.undoing |= {name: "r-7"} if mark == "undo" else {}
        if draw(st.sampled_from([False] * 19 + [True])):  # the very moment at which something ends
            world.now = draw(st.sampled_from([until or end, end + timedelta(days=policy.keep_days)]))
    for number, (*_, mark) in enumerate(shapes):
        if mark.endswith("lock"):
            lock = world.now + (timedelta(seconds=1) if mark == "lock" else timedelta(0))
            world.backups[number] = replace(world.backups[number], locked_until=lock)
    return world


def check_run(world: World) -> list[BackupRecord]:  # noqa: C901 - one paragraph a rule
    """Every rule over one run: a backup stays if and only if a reason for it is true. Returns what stays."""
    decisions, policy, now = world.decide(world.backups), world.policy, world.now
    ended = {b.backup_id: b for b in world.backups if b.state in ("completed", "lost")}
    assert sorted(decision.backup.backup_id for decision in decisions) == sorted(ended)  # exactly one each
    stays = {decision.backup.backup_id for decision in decisions if decision.keep}
    usual = {name: b for name, b in ended.items() if world.erased_at is None or b.started_at > world.erased_at}
    good = sorted(good_ones(world), key=lambda b: (b.started_at, b.backup_id))
    reasons: dict[str, set[str]] = {name: set() for name in ended}
    for newest_ones in (good[-1:], [b for b in good if b.started_at <= now][-1:]):
        for b in newest_ones:
            reasons[b.backup_id].add("the clinic's last good backup")
    for name, b in ended.items():
        if b.hold_reason:
            reasons[name].add(f"on hold: {b.hold_reason}")
        if b.locked_until and b.locked_until > now:
            reasons[name].add(f"locked until {b.locked_until:%Y-%m-%d %H:%M} UTC")
        if name in stays and b.parent_id in ended and b.parent_id != name:
            reasons[b.parent_id].add(f"needed by {name}")
    for name, b in usual.items():
        if not good:
            reasons[name].add("the clinic has no good backup")
        if b.finished_at and now.timestamp() - b.finished_at.timestamp() < policy.keep_days * 86400:
            reasons[name].add(f"not older than {policy.keep_days} days")
        if b.expires_at and b.expires_at > now:
            reasons[name].add(f"promised until {b.expires_at:%Y-%m-%d}")
        if name in world.undoing:
            reasons[name].add("undoes restore r-7")
    old = [b for b in good if b.finished_at and (now - b.finished_at).total_seconds() >= policy.keep_days * 86400]
    for period, wanted in policy.model_dump(exclude={"keep_days"}).items():
        # From the oldest on: the newest of a period is what remains of it.
        newest = {b.finished_at.astimezone(world.zone).strftime(PERIODS[period]): b for b in old if b.finished_at}
        last_ones = [b.backup_id for b in old if b in newest.values()][::-1][:wanted]
        for number, name in enumerate(last_ones, 1):
            reasons[name].add(f"{period} {number} of {wanted}")
    for decision in decisions:
        name = decision.backup.backup_id
        gone = f"older than {policy.keep_days} days" if name in usual else "its clinic is erased"
        assert decision.keep == bool(reasons[name])
        assert decision.reason in (reasons[name] or {gone})
    return [b for b in world.backups if b.backup_id in stays or b.backup_id not in ended]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(worlds())
def test_over_any_history_and_clock(world: World) -> None:
    left = check_run(world)
    # A second look at what is left changes nothing, and the order of the records does not matter.
    assert all(decision.keep for decision in world.decide(left))
    decisions = world.decide(world.backups)
    assert world.decide(sorted(world.backups, key=lambda b: b.backup_id[::-1])) == decisions
    if world.erased_at is not None:
        # What was begun after the erasure is decided as if the rest had never been.
        after = [b for b in world.backups if b.started_at > world.erased_at]
        alone = {b.backup_id for b in after} | {None}
        assert any(b.parent_id not in alone for b in after) or world.decide(after, erased_at=None) == [
            d for d in decisions if d.backup.started_at > world.erased_at
        ]
    good = good_ones(world)
    assert not good or max(good, key=lambda b: (b.started_at, b.backup_id)) in left
    past = [b for b in good if b.started_at <= world.now]
    assert not past or max(past, key=lambda b: (b.started_at, b.backup_id)) in left


def test_a_circle_of_parents_ends_and_is_no_good_backup() -> None:
    circle = [backup("a", NOW, parent_id="b"), backup("b", NOW - timedelta(days=1), parent_id="a")]
    whole = backup("whole", NOW - timedelta(days=90))
    assert kept([*circle, whole], RetentionPolicy())["whole"] == "the clinic's last good backup"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(EDGES), st.sampled_from(ZONES), st.lists(POLICIES, min_size=2, max_size=3), st.integers(0))
def test_months_of_nights(edge: datetime, zone: ZoneInfo, policies: list[RetentionPolicy], seed: int) -> None:
    """A backup each night at 2:30, some fail, some are lost; retention each week; the policy and the clock change."""
    chance = random.Random(seed)
    world = World([], policies[0], edge, zone)
    first = edge.astimezone(zone).replace(hour=2, minute=30, tzinfo=None) - timedelta(days=100)
    fails, loses, chain = chance.choice([0.05, 0.6, 0.97]), chance.choice([0, 0.02]), ""
    wrong_nights, wrong_by = range(0), timedelta(0)
    for night in range(150):
        if night % 50 == 25:
            wrong_nights = range(night, night + chance.choice([0, 1, 20]))
            wrong_by = timedelta(days=chance.choice([-400, -20, 3, 20, 400]))
            world.policy = chance.choice(policies)
        local = (first + timedelta(days=night)).replace(tzinfo=zone, fold=chance.randrange(2))
        world.now = local.astimezone(UTC) + (wrong_by if night in wrong_nights else timedelta(0))
        parent = chain if any(b.backup_id == chain for b in world.backups) else None
        made = backup(f"n{night:03}", world.now, parent_id=parent, finished_at=world.now + timedelta(minutes=5))
        if chance.random() < fails:
            made = replace(made, state="failed")
        else:
            promised = made.started_at + timedelta(minutes=5, days=world.policy.keep_days)
            lock = world.now + timedelta(days=chance.randrange(60)) if chance.random() < 0.1 else None
            held = "pleito" if chance.random() < 0.02 else None
            made = replace(made, expires_at=promised, hold_reason=held, locked_until=lock)
            chain = made.backup_id if chance.random() < 0.8 else ""
        world.backups.append(made)
        lost = {b.backup_id for b in world.backups if b.state == "completed" and chance.random() < loses}
        world.backups = [replace(b, state="lost") if b.backup_id in lost else b for b in world.backups]
        if night == 110 and chance.random() < 0.3:
            world.erased_at, chain = world.now, ""
        if night % 7 == 6:
            had = good_ones(world)
            world.backups = check_run(world)
            assert bool(good_ones(world)) == bool(had)
            assert all(decision.keep for decision in world.decide(world.backups))
            there = {b.backup_id for b in world.backups} | {None}
            assert all(b.parent_id in there for b in world.backups if b.state != "failed")


def good_ones(world: World) -> list[BackupRecord]:
    """Completed backups whose chains are completed, of an erased clinic those that were begun later."""
    known = {b.backup_id: b for b in world.backups}

    def whole(b: BackupRecord | None) -> bool:
        return b is not None and b.state == "completed" and (b.parent_id is None or whole(known.get(b.parent_id)))

    done = [b for b in world.backups if whole(b)]
    return [b for b in done if world.erased_at is None or b.started_at > world.erased_at]
