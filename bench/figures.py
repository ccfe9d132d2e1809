"""Subjects that are measured in turn, and figures that compare each with its references."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


class BenchError(Exception):
    """A benchmark cannot run; says why and what to do."""


@dataclass(frozen=True)
class Run:
    """One measurement.

    :param seconds: of the work itself.
    :param peak_rss_bytes: of the measured process; of several in a pipe, the sum of their peaks.
    :param process_seconds: from the start of the process to its end, where that is more than the work.
    """

    seconds: float
    peak_rss_bytes: int | None = None
    process_seconds: float | None = None


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    :param references: names of the subjects of the same group that it is compared with.
    :param at_most: rounds after which it is left out, for a slow one.
    """

    name: str
    measure: Callable[[], Run]
    references: tuple[str, ...] = ()
    at_most: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum over the rounds."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Figure:
    """The measurement of one subject. ``ratios``: its seconds divided by those of each reference, in the same round."""

    group: str
    name: str
    rounds: int
    seconds: Spread
    ratios: dict[str, Spread]
    peak_rss_bytes: int | None
    process_seconds: Spread | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    percentiles: dict[str, float] = field(default_factory=dict)
    """Of the seconds, by what they are."""


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of them do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def measure(
    group: str,
    subjects: Sequence[Subject],
    rounds: int,
    *,
    facts: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Figure]:
    """Measure all subjects once, then all again, and so on: whatever else the machine does then meets all of them."""
    runs: dict[str, list[Run]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            if subject.at_most is None or number < subject.at_most:
                run = subject.measure()
                runs[subject.name].append(run)
                say(f"{group}, round {number + 1} of {rounds}: {subject.name} {run.seconds:.2f} s")
    return [_figure(group, subject, runs, facts or {}) for subject in subjects if runs[subject.name]]


def _figure(group: str, subject: Subject, runs: dict[str, list[Run]], facts: dict[str, Any]) -> Figure:
    own = runs[subject.name]
    whole = [run.process_seconds for run in own if run.process_seconds is not None]
    peaks = [run.peak_rss_bytes for run in own if run.peak_rss_bytes is not None]
    return Figure(
        group=group,
        name=subject.name,
        rounds=len(own),
        seconds=Spread.of([run.seconds for run in own]),
        ratios={
            # Not strict: a slow reference is measured in the first rounds only.
            name: Spread.of([mine.seconds / other.seconds for mine, other in zip(own, runs[name], strict=False)])
            for name in subject.references
            if runs.get(name)
        },
        peak_rss_bytes=max(peaks) if peaks else None,
        process_seconds=Spread.of(whole) if whole else None,
        facts=facts,
        note=subject.note,
    )
