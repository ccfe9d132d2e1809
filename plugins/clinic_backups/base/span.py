"""Intervals as PostgreSQL compares them: a month equals 30 days, a day 24 hours.

https://www.postgresql.org/docs/current/datatype-datetime.html
"""

from __future__ import annotations

import re

_DAY = 86_400_000_000
_SPAN = re.compile(
    r"(?=.)(?:(?P<years>[+-]?\d+) years? ?)?(?:(?P<months>[+-]?\d+) mons? ?)?(?:(?P<days>[+-]?\d+) days? ?)?"
    r"(?:(?P<sign>[+-]?)(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?",
    re.ASCII,
)  # fmt: skip


def micros_of(text: str) -> int | None:
    """The length of an interval as PostgreSQL writes it, in microseconds; none for any other text."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    part = {name: int(found[name] or 0) for name in ("years", "months", "days", "hours", "minutes", "seconds")}
    seconds = (part["hours"] * 60 + part["minutes"]) * 60 + part["seconds"]
    micros = seconds * 1_000_000 + int((found["fraction"] or "").ljust(6, "0"))
    days = (part["years"] * 12 + part["months"]) * 30 + part["days"]
    return days * _DAY + (-micros if found["sign"] == "-" else micros)


def justified(text: str) -> str:
    """An interval as ``justify_interval`` writes it, so that equal ones have equal texts. :raises ValueError: none."""
    micros = micros_of(text)
    if micros is None:
        raise ValueError("no interval as PostgreSQL writes it")
    sign, size = ("-", -micros) if micros < 0 else ("", micros)
    days, rest = divmod(size, _DAY)
    months, days = divmod(days, 30)
    years, months = divmod(months, 12)
    found = [
        f"{sign}{number} {unit}{'' if number == 1 and not sign else 's'}"
        for number, unit in ((years, "year"), (months, "mon"), (days, "day"))
        if number
    ]
    if rest or not found:
        seconds, fraction = divmod(rest, 1_000_000)
        clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        found.append(f"{clock}.{fraction:06}".rstrip("0") if fraction else clock)
    return " ".join(found)
