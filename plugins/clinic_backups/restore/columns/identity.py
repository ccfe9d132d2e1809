"""Finds the present names of a backup's columns and tables by the numbers that PostgreSQL gave them.

``pg_attribute.attnum`` and a table's OID stay the same through a rename, and no later object gets the same number. So
if the target is the database that was backed up, names alone decide nothing. Two columns that exchanged their names are
told apart, and so are a dropped column and a new one with its name.

The numbers are never followed without a line in drift.txt. A copy of a server's files, or a server that was set back in
time, has the same identity and may have given the same number to something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import unused
from clinic_backups.tenant.drift import reached


@dataclass(frozen=True)
class Matched:
    """What was found, each by its name in the backup.

    :param names: the present name, if it is another one.
    :param unsaid: the same, if no line in drift.txt says so.
    :param several: names that the lines lead to more than one present name.
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
    """Find the present name of everything that had a number in the backup.

    If the number no longer exists, the lines decide, if they lead to a name that something new has: the migration made
    its values from the old ones. Otherwise the name stays. If something else has that name now, a name is given that
    nothing has.

    :param lines: the name before and the name after, in the order of the migrations. An added one has no name before.
    :param kept: names that a line declares to mean the same, whatever the numbers say.
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
    """Order the renames so that no two things have the same name at any moment.

    :param names: the name after, by the name before.
    :param taken: names that mean something else.
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
    """How a line describes a column whose type was another one before."""
    return column.shown_type


def what_column(column: Column) -> str:
    """How a line describes a column if another column had its name before."""
    return f"column {column.number}, {column.shown_type}"


def was_rewritten(then: Table, now: Table) -> bool | None:
    """Whether a command wrote all rows of a table anew: a change of a type that computes values, but also VACUUM FULL.

    A type that only gets more room is changed in place, and the file keeps its number. None if that is not known. Both
    sides are of one database.
    """
    if then.oid is None or then.oid != now.oid:
        return None
    before, files = _files(then), _files(now)
    if any(file is not None and files.get(oid, file) != file for oid, file in before.items()):
        return True
    return False if before and None not in before.values() and before.keys() <= files.keys() else None


def _files(table: Table) -> dict[int, int | None]:
    """The file of a table, or those of its partitions' partitions, by the number of each."""
    if table.file is not None and table.oid is not None:
        return {table.oid: table.file}
    return {part.oid: part.file for part in table.parts or () if part.file is not None}
