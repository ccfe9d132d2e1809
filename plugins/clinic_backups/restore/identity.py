"""What a backup's columns and tables are called now, by the numbers that PostgreSQL gave them.

``pg_attribute.attnum`` and a table's OID stay through a rename, and nothing that is made later gets the same one. So
where the target is the database that was backed up, names alone decide nothing: two columns that exchanged their names
are told apart, and so is one that was dropped from another one that got its name.

The numbers are never followed without a line of drift.txt. A copy of a server's files, or a server that was set back in
time, has the same identity, and may have given the same number to something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clinic_backups.base.model import Column
from clinic_backups.base.text import unused
from clinic_backups.tenant.drift import reached


@dataclass(frozen=True)
class Matched:
    """What was found, each by the name of then.

    :param names: the name of now, of those that have another one.
    :param unsaid: the same, of those for which no line says so.
    :param several: lines lead each of these to more than one.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    unsaid: Mapping[str, str] = field(default_factory=dict)
    several: tuple[str, ...] = ()


def match(
    then: Mapping[str, int],
    now: Mapping[str, int],
    lines: Sequence[tuple[str, str]],
    kept: Collection[str] = (),
) -> Matched:
    """Find the names of now of whatever had a number then.

    What is not there any more has the name that lines lead to, if something new has it: the migration made its values
    out of those of then. Else it keeps its name, or one that nothing has where its own is of something else now.

    :param lines: the name before and the name after, in the order of the migrations; an added one has no name before.
    :param kept: names of which somebody says that they are still the same, whatever the numbers say.
    """
    at = {number: name for name, number in now.items()}
    names, unsaid, several = dict[str, str](), dict[str, str](), list[str]()
    for old, number in then.items():
        ends = {reached(old, lines[start:])[-1] for start in range(len(lines) + 1)} - {old}
        name = at.get(number)
        if name == old or (old in kept and old in now):
            continue
        if name is not None:
            (names if name in ends else unsaid)[old] = name
            continue
        made = {end for end in ends if end in now and now[end] not in then.values()}
        if len(made) == 1:
            names[old] = made.pop()
        elif made:
            several.append(old)
    taken = list(names.values()) + list(unsaid.values())
    several += [old for old, name in names.items() if taken.count(name) > 1]
    names |= {old: f"{old} (of the backup)" for old in then if old not in names | unsaid and old in taken}
    return Matched(names, unsaid, tuple(several))


def in_order(names: Mapping[str, str], taken: Collection[str]) -> Iterator[tuple[str, str]]:
    """Renames one after the other, so that no name is of two at any moment.

    :param names: the name after by the name before.
    :param taken: names that stand for something else.
    """
    left = dict(names)
    while left:
        free = next((old for old, new in left.items() if new not in left), None)
        if free is not None:
            yield free, left.pop(free)
            continue
        old = next(iter(left))
        aside = unused(f"{old}_before", {*taken, *names, *names.values()})
        yield old, aside
        left[aside] = left.pop(old)


def what(column: Column) -> str:
    """What a line says that a column is, where the same column had another type before."""
    return column.type


def what_column(column: Column) -> str:
    """What a line says that a column is, where another column had the name before."""
    return f"column {column.number}, {column.type}"
