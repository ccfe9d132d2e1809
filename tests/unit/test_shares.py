"""How a run's clinics are divided into tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.backup.shares import Share, divide, worthwhile
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.shared_unit import SHARED


def clinics(count: int) -> list[Clinic]:
    return [Clinic(number, f"Clínica {number}") for number in range(1, count + 1)]


def test_few_clinics_have_a_task_each_with_the_clinics_name() -> None:
    shares = divide(clinics(3), 3, {})
    assert [share.name for share in shares] == ["Clínica 1", "Clínica 2", "Clínica 3"]
    assert shares[0].to_item() == {"id": 1, "name": "Clínica 1", "language": "es"}


def test_many_clinics_are_divided_evenly_and_named_by_their_ids() -> None:
    shares = divide(clinics(10_000), 64, {})
    assert len(shares) == 64
    assert {len(share.clinics) for share in shares} <= {156, 157}
    assert sorted(shares, key=lambda share: share.clinics[0].id)[0].name == "157 clinics, 1 to 157"


def test_a_large_clinic_is_alone_and_first() -> None:
    seconds = dict.fromkeys(range(1, 1001), 0.5) | {700: 600.0, 3: 90.0}
    shares = divide(clinics(1000), 8, seconds)
    assert [share.name for share in shares[:2]] == ["Clínica 700", "Clínica 3"]
    assert len(shares) == 8
    assert {len(share.clinics) for share in shares[2:]} <= {166, 167}


@pytest.mark.parametrize(
    ("count", "seconds", "tasks"),
    [
        (60, 0.3, 64),  # one task for each
        (65, 0.3, 16),
        (3000, 0.5, 25),
        (10_000, 0.5, 64),
        (200, 60.0, 64),
    ],
)
def test_small_clinics_have_no_more_tasks_than_are_worth_their_cost(count: int, seconds: float, tasks: int) -> None:
    known = {clinic.id: seconds for clinic in clinics(count)[1:]}  # the first one is new
    assert worthwhile(clinics(count), 64, known) == tasks
    assert worthwhile(clinics(count), 5, known) == 5


def test_while_nobody_knows_how_long_they_take_all_tasks_are_used() -> None:
    assert worthwhile(clinics(3000), 64, {}) == 64


@pytest.mark.parametrize(
    ("count", "size", "tasks"),
    [
        (60, 10_000_000, 64),
        (999, 80_000_000, 16),
        (9_999, 500_000_000, 16),
        (9_999, 20_000_000_000, 42),
        (999, 10**12, 64),
    ],
)
def test_the_first_run_goes_by_the_size_of_the_database(count: int, size: int, tasks: int) -> None:
    assert worthwhile(clinics(count), 64, {}, size) == tasks
    assert worthwhile(clinics(count), 5, {}, size) == 5


@given(
    st.integers(1, 400),
    st.integers(1, 40),
    st.dictionaries(st.integers(1, 400), st.floats(0, 1e6), max_size=400),
)
def test_every_clinic_is_in_one_share_and_no_share_is_much_longer_than_it_must_be(
    count: int, tasks: int, seconds: dict[int, float]
) -> None:
    shares = divide(clinics(count), tasks, seconds)
    assert len(shares) == min(count, tasks)
    assert sorted(clinic.id for share in shares for clinic in share.clinics) == list(range(1, count + 1))
    assert [Share.from_item(share.to_item()) for share in shares] == shares
    known = {id_: max(value, 0.01) for id_, value in seconds.items()}
    if count > tasks and set(known) >= set(range(1, count + 1)):
        costs = [sum(known[clinic.id] for clinic in share.clinics) for share in shares]
        longest = max(known[id_] for id_ in range(1, count + 1))
        total = sum(known[id_] for id_ in range(1, count + 1))
        assert costs[0] == max(costs)
        assert costs[0] <= total / tasks + longest + 1e-6 * total


@pytest.mark.parametrize("tasks", range(1, 12))
def test_the_shared_data_have_a_share_of_their_own_if_there_is_more_than_one(tasks: int) -> None:
    clinics = [SHARED, *(Clinic(number, str(number)) for number in range(1, 10))]
    shares = divide(clinics, tasks, {SHARED.id: 100.0, 1: 5.0})
    assert len(shares) <= tasks
    assert sorted((c.id for share in shares for c in share.clinics), key=str) == sorted(
        (c.id for c in clinics), key=str
    )
    if tasks > 1:
        assert shares[0].clinics == (SHARED,)
