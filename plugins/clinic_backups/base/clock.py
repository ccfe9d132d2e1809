"""One clock for names, order, policy, age and expiry: the clock of the catalog's database."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from clinic_backups.base.errors import ClinicBackupsError, TransientError
from clinic_backups.base.plain import iso

ASK_AGAIN_SECONDS = 60
TRUSTED_SECONDS = 3600
"""If the database does not answer, its last time plus this machine's monotonic clock is used for this long."""
DIFFERENCE_SECONDS = 120

Now = Callable[[], datetime]


def machine_now() -> datetime:
    """This machine's clock. Use it only without a catalog, or for times that never leave the machine."""
    return datetime.now(UTC)


class ClocksDiffer(TransientError):
    """Two clocks differ. A retry helps on another worker, or after the wrong clock was corrected."""


class DatabaseClock:
    """The time of the catalog's database. Between two answers, this machine's monotonic clock is added to the last one.

    :param ask: queries the database's time.
    :param most_seconds: the largest difference that :func:`require_same_clock` accepts.
    :param machine: this machine's clock, which may be wrong.
    """

    def __init__(
        self,
        ask: Now,
        *,
        most_seconds: float = DIFFERENCE_SECONDS,
        machine: Now | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._most, self._machine, self._monotonic = ask, timedelta(seconds=most_seconds), machine, monotonic
        self._known: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        """The time now. :raises ClinicBackupsError: the database does not answer."""
        age = self._age()
        if age is None or age > ASK_AGAIN_SECONDS:
            try:
                self.observe(self._ask)
            except ClinicBackupsError:
                # A running backup continues without its catalog until it needs the catalog.
                if age is None or age > TRUSTED_SECONDS:
                    raise
        assert self._known is not None  # noqa: S101 - observe() sets it, or raised
        at, asked = self._known
        return at + timedelta(seconds=self._monotonic() - asked)

    def observe(self, ask: Now) -> None:
        """Take the time from a statement that is sent to the same database anyway.

        :param ask: sends the statement.
        """
        began = self._monotonic()
        told = ask()
        # The middle of the round trip, because request and answer both take time.
        self._known = (told, (began + self._monotonic()) / 2)

    def require_same(self) -> None:
        """Compare with this machine's clock. :raises ClocksDiffer: they differ too much; names both times."""
        now, here = self(), (self._machine or machine_now)()
        if abs(here - now) > self._most:
            raise self._differ("This machine's clock", here, now)

    def require_same_as(self, what: str, ask: Now) -> None:
        """Compare with another server's clock. :raises ClocksDiffer: they differ too much; names both times."""
        began = self()
        told = ask()
        now = self()
        if told < began - self._most or told > now + self._most:
            raise self._differ(what, told, now)

    def _age(self) -> float | None:
        return None if self._known is None else self._monotonic() - self._known[1]

    def _differ(self, what: str, there: datetime, now: datetime) -> ClocksDiffer:
        return ClocksDiffer(
            f"{what} says {_second(there)}; the catalog's database says {_second(now)}. They may differ by"
            f" {self._most.total_seconds():g} seconds.",
            hint="Nothing was changed. Correct the wrong clock (chrony, systemd-timesyncd), then try again."
            " CLINIC_BACKUPS_CLOCK_DIFFERENCE_SECONDS is the limit.",
        )


def require_same_clock(now: Now) -> None:
    """Call this before anything is named, deleted or decided by age. A clock that a caller passed in is not checked.

    :raises ClocksDiffer: this machine's clock differs from that of the catalog's database.
    """
    if isinstance(now, DatabaseClock):
        now.require_same()


def require_same_server(now: Now, what: str, ask: Now) -> None:
    """As :func:`require_same_clock`, for the clock of another server, which ``ask`` reads."""
    if isinstance(now, DatabaseClock):
        now.require_same_as(what, ask)


def carried_on(now: Now) -> Now:
    """A clock that never queries the database: for threads that must not wait for it."""
    if not isinstance(now, DatabaseClock):
        return now
    at, began = now(), time.monotonic()
    return lambda: at + timedelta(seconds=time.monotonic() - began)


def _second(moment: datetime) -> str:
    return iso(moment.replace(microsecond=0))
