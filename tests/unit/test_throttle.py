"""Reading is as slow as a throttle says, and never made up for with a burst."""

from __future__ import annotations

import pytest

from clinic_backups.base.throttle import LONGEST_SLEEP_SECONDS, Throttle


class Time:
    """A clock that only sleeping and :meth:`pass_` move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def throttle(self, rate: float | None) -> Throttle:
        return Throttle(rate, now=lambda: self.now, sleep=self.sleep)


def nothing() -> None:
    pass


@pytest.mark.parametrize("sizes", [(1000,), (100,) * 10, (1, 999), (0, 1000)])
def test_so_many_bytes_take_their_time_in_whatever_pieces(sizes: tuple[int, ...]) -> None:
    time = Time()
    throttle = time.throttle(100)
    for size in sizes:
        throttle.took(size, nothing)
    assert time.now == pytest.approx(110)
    assert max(time.slept) <= LONGEST_SLEEP_SECONDS


def test_what_the_reading_took_itself_counts() -> None:
    time = Time()
    throttle = time.throttle(100)
    for _ in range(5):
        time.now += 0.75
        throttle.took(100, nothing)
    assert time.now == pytest.approx(105)


def test_after_a_slow_time_there_is_no_burst() -> None:
    time = Time()
    throttle = time.throttle(100)
    time.now += 60
    began = time.now
    for _ in range(4):
        throttle.took(100, nothing)
    assert time.now - began == pytest.approx(3)  # the first piece came in the slow time


def test_without_a_limit_nothing_waits_and_whoever_stops_waits_no_longer() -> None:
    time = Time()
    time.throttle(None).took(10**12, nothing)
    assert time.slept == []

    def stop() -> None:
        if len(time.slept) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        time.throttle(1).took(1000, stop)
    assert len(time.slept) == 2
