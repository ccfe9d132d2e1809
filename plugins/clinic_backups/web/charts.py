"""Coordinates for the pages' small SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

DAYS = 30
MARGIN = 2.0


@dataclass(frozen=True)
class Trend:
    """A line over the last :data:`DAYS` days. Its scale begins at zero, so that half the value has half the height.

    :param points: for a ``polyline``; empty for fewer than two values.
    :param last: the position of the newest value; none if there is no value.
    """

    width: int
    height: int
    points: str
    last: tuple[float, float] | None
    lowest: float
    highest: float
    first_value: float
    last_value: float
    count: int


def trend(values: Sequence[tuple[date, float]], today: date, *, width: int = 96, height: int = 24) -> Trend:
    """The line of values by day, the oldest first, up to ``today``."""
    figures = [value for _, value in values]
    top = max(figures, default=0.0) or 1.0
    across, down = width - 2 * MARGIN, height - 2 * MARGIN
    places = [
        (
            round(MARGIN + across * (1 - min(max((today - day).days, 0), DAYS) / DAYS), 1),
            round(MARGIN + down * (1 - value / top), 1),
        )
        for day, value in values
    ]
    return Trend(
        width=width,
        height=height,
        points=" ".join(f"{x:g},{y:g}" for x, y in places) if len(places) > 1 else "",
        last=places[-1] if places else None,
        lowest=min(figures, default=0.0),
        highest=max(figures, default=0.0),
        first_value=figures[0] if figures else 0.0,
        last_value=figures[-1] if figures else 0.0,
        count=len(figures),
    )


def places(moments: Sequence[datetime], *, width: int = 1000) -> list[float]:
    """The position of each moment on a line from the oldest to the newest. A single one is at its end."""
    if not moments:
        return []
    first, last = min(moments), max(moments)
    span = (last - first).total_seconds()
    across = width - 2 * MARGIN
    return [
        round(MARGIN + across * ((moment - first).total_seconds() / span if span else 1.0), 1) for moment in moments
    ]
