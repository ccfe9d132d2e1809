"""Finds the present names of a backup's columns and tables if only their names are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clinic_backups.tenant.drift import reached


def renames(held: Collection[str], now: Collection[str], lines: Sequence[tuple[str, str]]) -> dict[str, str] | None:
    """The present names of columns or tables that were renamed to an existing one; none if that cannot be told.

    The backup was made before some of the lines and after the others, but nobody knows how many. So each number of
    older lines is tried, and the rest is followed in order. The number that leads the most names to existing ones is
    taken.

    :param lines: the name before and the name after, in the order of the migrations. An added one has no name before.
    """
    found: list[tuple[tuple[int, int], dict[str, str]]] = []
    for older in range(len(lines) + 1):
        followed_names = _follow(held, lines[older:])
        if followed_names is not None:
            names, added = followed_names
            there = sum(name in now for name in names.values())
            # An existing name without an origin counts against this number of lines, if all else is equal.
            unexplained = len(set(now) - {*names.values(), *added})
            changed = {then: name for then, name in names.items() if name != then and name in now}
            found.append(((there, -unexplained), changed))
    best = max(score for score, _ in found)
    wanted = [changed for score, changed in found if score == best]
    if not all(changed == wanted[0] for changed in wanted):
        return None
    # A name is gone, and a line leads it to an existing one: the line must not be ignored silently.
    for name in set(held) - set(now) - wanted[0].keys():
        if any(later in now for start in range(len(lines)) for later in reached(name, lines[start:])[1:]):
            return None
    return wanted[0]


def _follow(held: Collection[str], lines: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]] | None:
    """Each name with its name after the lines, and the added names; none if two would get the same name."""
    names, added = {name: name for name in held}, list[str]()
    for old, new in lines:
        there = {*names.values(), *added}
        if (not old or old in there) and new in there:
            return None
        if not old:
            added.append(new)
        added = [new if name == old else name for name in added]
        names = {then: new if name == old else name for then, name in names.items()}
    return names, added
