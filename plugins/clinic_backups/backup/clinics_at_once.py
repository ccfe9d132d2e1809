"""Several clinics, some of them under way at the same time; each has its own section in the log."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from clinic_backups.base.clinic import Clinic

T = TypeVar("T")


@dataclass
class Section:
    """The log of one clinic. Its lines are kept until they are shown, so that those of two clinics never mix."""

    lines: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def info(self, *line: Any, **fields: Any) -> None:
        self.lines.append(("info", line, fields))

    def warning(self, *line: Any, **fields: Any) -> None:
        self.lines.append(("warning", line, fields))

    def error(self, *line: Any, **fields: Any) -> None:
        self.lines.append(("error", line, fields))

    def show(self, log: Any) -> None:
        """Write the lines, in the order in which they came."""
        for level, line, fields in self.lines:
            getattr(log, level)(*line, **fields)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one clinic: a result or an error."""

    clinic: Clinic
    section: Section
    result: T | None = None
    error: BaseException | None = None


def outcomes_of(
    clinics: Sequence[Clinic], work: Callable[[Clinic, Section], T], *, at_once: int, stop: Callable[[], object]
) -> Generator[Outcome[T]]:
    """Do the work for each clinic, at most ``at_once`` of them at a time, and return each outcome when it is there.

    :param work: is called in a thread of its own.
    :param stop: ends the work that is under way; called if the caller does not want the rest, or was interrupted.
    """
    waiting = iter(clinics)
    running: set[Future[Outcome[T]]] = set()
    with ThreadPoolExecutor(at_once, thread_name_prefix="clinic") as threads:

        def begin_next() -> None:
            clinic = next(waiting, None)
            if clinic is not None:
                running.add(threads.submit(outcome_of, work, clinic))

        for _ in range(at_once):
            begin_next()
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                running -= done
                for future in done:
                    begin_next()
                    yield future.result()
        except BaseException:
            stop()
            raise


def outcome_of(work: Callable[[Clinic, Section], T], clinic: Clinic) -> Outcome[T]:
    """Do the work for one clinic, in the caller's thread."""
    section = Section()
    try:
        return Outcome(clinic, section, work(clinic, section))
    except BaseException as error:  # noqa: BLE001 - the caller decides about it
        return Outcome(clinic, section, error=error)
