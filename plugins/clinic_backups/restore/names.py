"""What a backup's columns and tables are called now, where only their names are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clinic_backups.tenant.drift import reached


def renames(held: Collection[str], now: Collection[str], lines: Sequence[tuple[str, str]]) -> dict[str, str] | None:
    """What names of then are now, of those that were renamed to one that is there; none where it cannot be told.

    The backup was made before some of the lines and after the others: each number of lines that are older than it is
    tried, the rest is followed in order, and what leads most names to such that are there now is taken.

    :param lines: the name before and the name after, in the order of the migrations; an added one has no name before.
    """
    found: list[tuple[tuple[int, int], dict[str, str]]] = []
    for older in range(len(lines) + 1):
        followed_names = _follow(held, lines[older:])
        if followed_names is not None:
            names, added = followed_names
            there = sum(name in now for name in names.values())
            # What is there now and came from nowhere speaks against it, where all else is equal.
            unexplained = len(set(now) - {*names.values(), *added})
            changed = {then: name for then, name in names.items() if name != then and name in now}
            found.append(((there, -unexplained), changed))
    best = max(score for score, _ in found)
    wanted = [changed for score, changed in found if score == best]
    if not all(changed == wanted[0] for changed in wanted):
        return None
    # A name that has gone, and that a line leads to one that is there: the line is not left aside without a word.
    for name in set(held) - set(now) - wanted[0].keys():
        if any(later in now for start in range(len(lines)) for later in reached(name, lines[start:])[1:]):
            return None
    return wanted[0]


def _follow(held: Collection[str], lines: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]] | None:
    """Each name with what it is after the lines, and what was added; none where two would have the same name."""
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
