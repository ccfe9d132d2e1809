"""Finds lines of ``drift.txt`` that no restore can follow any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from clinic_backups.tenant.drift import FILE, ColumnLine, Drift, PartLine, TableLine, reached, spelled


def lost(drift: Drift, there: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Lines that lead to a missing column or table, or say too little, each as a sentence.

    :param there: the columns of every table, by ``schema.table``.
    """
    for number, line in enumerate(drift.lines):
        since = Drift(drift.lines[number + 1 :])
        if isinstance(line, TableLine):
            if not any(name in there for name in since.path(line.new)):
                yield f"{FILE} says that {line.old} became {line.new}, and there is no such table."
            continue
        if isinstance(line, PartLine):
            for name in (line.table, line.part):
                if not any(one in there for one in drift.path(name)):
                    yield f"{FILE} says that {line.part} has left {line.table}, and there is no table {name}."
            continue
        if isinstance(line, ColumnLine):
            column, said = line.new, f"says that {line.table}.{line.old} became {line.new}"
        else:
            column, said = line.column, f"gives a value for {line.table}.{line.column}"
        names = [name for name in drift.path(line.table) if name in there]
        called = reached(column, drift.events({line.table, *names}))
        if not any(one in there[name] for name in names for one in called):
            yield f"{FILE} {said}, and there is no such column."
        elif isinstance(line, ColumnLine) and line.old == line.new and not line.was:
            yield (
                f"{FILE} says that {line.table}.{line.old} kept its values, and not through which change: write"
                f" `{spelled(line.old)} (old type) -> {spelled(line.new)} (new type)`."
            )
