"""Which units are drilled in a night: each comes in time, and none waits for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.catalog.proofs import Candidate
from clinic_backups.drill.order import choose, expected_seconds, in_order
from clinic_backups.maintenance.watch import alarm_notice
from clinic_backups.notify.digest import unproven_facts

NOW = datetime(2026, 11, 29, 4, tzinfo=UTC)
DAY = timedelta(days=1)


def unit(id_: int, *, age: float | None = None, mb: int = 1, seconds: float | None = None, **more: object) -> Candidate:
    proven = {"proven_at": NOW - age * DAY, "proven_id": f"{id_}-old"} if age is not None else {}
    return Candidate(id_, f"C{id_}", f"{id_}-new", mb * 10**6, NOW - 30 * DAY, seconds=seconds, **proven, **more)  # type: ignore[arg-type]


UNITS = st.lists(
    st.tuples(
        st.none() | st.floats(0, 20), st.integers(0, 5000), st.none() | st.floats(0, 4000), st.booleans(), st.booleans()
    ),
    max_size=40,
).map(
    lambda rows: [
        replace(unit(n, age=age, mb=mb, seconds=seconds, failed=failed), backup_id=f"{n}-new" if backed_up else None)
        for n, (age, mb, seconds, failed, backed_up) in enumerate(rows, 1)
    ]
)


def ids(candidates: list[Candidate]) -> list[object]:
    return [each.clinic_id for each in candidates]


def test_new_ones_first_then_the_oldest_proof_then_the_largest_chain() -> None:
    units = [unit(1, age=2), unit(2, age=5, mb=1), unit(3), unit(4, age=5, mb=9), unit(5, mb=3)]
    assert ids(in_order(units)) == [5, 3, 4, 2, 1]
    assert ids(in_order([replace(unit(6), backup_id=None)])) == []


@given(UNITS, st.integers(1, 30), st.integers(1, 10_000))
def test_a_night_keeps_its_budget_and_its_order(units: list[Candidate], days: int, budget: int) -> None:
    turns = choose(units, NOW, within_days=days, budget_seconds=budget)
    chosen = [turn.candidate for turn in turns]
    assert chosen == [each for each in in_order(units) if each in chosen]
    # The first one has its turn in any case, and the others only where there is room.
    assert sum(turn.seconds for turn in turns[1:]) + (turns[0].seconds if turns else 0) <= max(
        budget, turns[0].seconds if turns else 0
    )
    new = [each for each in in_order(units) if each.proven_at is None]
    if new:
        assert chosen[0] == new[0]
    # With room for all, everyone new, failed or old is in it.
    everyone = choose(units, NOW, within_days=days, budget_seconds=10**9)
    due = [each for each in units if each.backup_id and (each.proven_at is None or each.failed)]
    due += [each for each in units if each.backup_id and each.proven_at and each.proven_at < NOW - (days - 1.5) * DAY]
    assert {each.clinic_id for each in due} <= {turn.candidate.clinic_id for turn in everyone}


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=25), st.integers(2, 10))
def test_with_enough_minutes_no_proof_becomes_too_old(sizes: list[int], days: int) -> None:
    units = [unit(n, mb=mb) for n, mb in enumerate(sizes, 1)]
    # A night has room for the share of all, and for what does not fit exactly.
    budget = 2 * sum(map(expected_seconds, units)) / (days - 1) + 2 * max(map(expected_seconds, units))
    now = NOW
    for night in range(4 * days):
        turns = choose(units, now, within_days=days, budget_seconds=budget)
        drilled = {turn.candidate.clinic_id for turn in turns}
        units = [
            replace(
                each, backup_id=f"{each.clinic_id}-{night}",
                **({"proven_at": now, "proven_id": each.backup_id} if each.clinic_id in drilled else {}),
            )
            for each in units
        ]  # fmt: skip
        now += DAY
        if night >= 2 * days:
            assert unproven_facts(units, now, days) == {}


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12))
def test_no_unit_waits_for_ever_however_small_the_budget(sizes: list[int]) -> None:
    units = [unit(n, age=1 + n / 100, mb=mb) for n, mb in enumerate(sizes, 1)]
    now, seen = NOW, set[object]()
    for night in range(20 * len(units)):
        (turn, *_) = choose(units, now, within_days=7, budget_seconds=1) or [None]
        if turn is not None:
            seen.add(turn.candidate.clinic_id)
            units = [
                replace(each, proven_at=now, proven_id=each.backup_id) if each == turn.candidate else each
                for each in units
            ]
        now += DAY
        units = [replace(each, backup_id=f"{each.clinic_id}-{night}") for each in units]
    assert seen == set(range(1, len(sizes) + 1))


def test_a_backup_that_is_proven_already_is_not_drilled_again() -> None:
    proven = replace(unit(1, age=2), proven_id="1-new")
    assert choose([proven], NOW, within_days=7, budget_seconds=60) == []
    (turn,) = choose([replace(proven, failed=True)], NOW, within_days=7, budget_seconds=60)
    assert turn.reason == "its last drill failed"


def test_without_an_alarm_turns_come_as_usual() -> None:
    units = [unit(n, age=2) for n in range(1, 13)]
    assert len(choose(units, NOW, within_days=0, budget_seconds=600)) == 2  # of twelve, in six nights
    assert len(choose(units, NOW, within_days=1, budget_seconds=600)) == 12


def test_old_proofs_are_an_alarm_like_late_backups() -> None:
    nobody = {"never": [], "overdue": [], "objective_hours": 26}
    old = unproven_facts([unit(1, age=8), unit(2, age=6), unit(3), replace(unit(4), since=NOW)], NOW, 7)
    assert [(each["clinic_id"], "proven_at" in each) for each in old["unproven"]] == [(1, True), (3, False)]
    assert unproven_facts([unit(1, age=8)], NOW, 0) == {}
    notice = alarm_notice(nobody | old, None, NOW)
    assert notice is not None
    # Once a day, unless another one comes.
    assert alarm_notice(nobody | old, (notice.facts, NOW), NOW + timedelta(hours=1)) is None
    assert alarm_notice(nobody | old, (notice.facts, NOW), NOW + DAY) is not None
    more = unproven_facts([unit(1, age=8), unit(2, age=8), unit(3)], NOW, 7)
    assert alarm_notice(nobody | more, (notice.facts, NOW), NOW + timedelta(hours=1)) is not None
    assert alarm_notice(nobody, None, NOW) is None
