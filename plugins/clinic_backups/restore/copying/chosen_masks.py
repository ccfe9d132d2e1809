"""Finds the masked columns of one backup, and whether every rule can be followed, before anything is made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line
from clinic_backups.restore.copying.original import Original
from clinic_backups.tenant import drift
from clinic_backups.tenant.drift import Drift, reached
from clinic_backups.tenant.mask_rules import is_free, mask_problems, of_a_part
from clinic_backups.tenant.masks import Masks, Rule

_ANYWAY = "Nothing was made. Correct the lines, or make a copy with the values in clear: --no-masks."
Rules = dict[str, dict[str, Rule]]


def chosen_masks(
    masks: Masks, tables: Mapping[str, Table], original: Original, folder_drift: Drift, *, outside: Collection[str]
) -> Rules:
    """The rules by the names in the backup.

    A column that was renamed since must not come in clear, so a name that the backup lacks has to be explained.

    A line of a table holds for its partitions and heirs, wherever the backup has their rows.

    :param tables: all tables of the backup.
    :param original: the tables of the database, those of the masks too.
    :param outside: tables that no clinic's backup holds, as the SQL folder says.
    :raises SettingsError: a table or column does not exist, or a rule does not fit. It names all of them.
    """
    rules, problems = Rules(), list[str]()
    wholes = _wholes(tables, original, folder_drift)
    of_parts = {whole for table in tables for whole in wholes.get(table, ())}
    for name, columns in masks.tables.items():
        held = [table for table in tables if name in folder_drift.path(table)]
        if not held and name not in of_parts and (said := _absent(name, tables, original, outside)):
            problems.append(said)
        if not held and (said := of_a_part(name, columns, masks.tables, wholes.get(name, ()))):
            problems.append(said)
        for table in held:
            events = folder_drift.events(folder_drift.path(table))
            for column, rule in columns.items():
                found = [*_names_then(column, tables[table], events)]
                if not found and ("", column) not in events:
                    problems.append(_no_column(table, column))
                rules.setdefault(table, {}).update(dict.fromkeys(found, rule))
    for table in tables:
        for whole in wholes.get(table, ()):
            events = folder_drift.events({*folder_drift.path(table), *folder_drift.path(whole)})
            for column, rule in (*rules.get(whole, {}).items(), *masks.tables.get(whole, {}).items()):
                found = [*_names_then(column, tables[table], events)]
                if not found and whole not in tables and ("", column) not in events:
                    problems.append(_no_column(table, column))
                # A line of the table itself counts more.
                rules[table] = dict.fromkeys(found, rule) | rules.get(table, {})
    problems += mask_problems(rules, tables, original.mask_facts)
    if problems:
        raise SettingsError("\n- ".join(["The masks cannot be followed:", *map(one_line, problems)]), hint=_ANYWAY)
    return {table: by_column for table, by_column in rules.items() if by_column}


def _no_column(table: str, column: str) -> str:
    return (
        f"{table}.{column}: the backup has no such column. If it was renamed or added since, include/sql/{drift.FILE}"
        " must say so."
    )


def _wholes(tables: Mapping[str, Table], original: Original, folder_drift: Drift) -> dict[str, list[str]]:
    """By table: those that it was a partition or an heir of when the backup was made, and those of now.

    A partition that was attached and renamed since is one of now by its later name.
    """
    now = original.mask_facts.wholes
    found = {name: list(above) for name, above in now.items()}
    for name in tables:
        for later in folder_drift.path(name)[1:]:
            found.setdefault(name, []).extend(now.get(later, ()))
    for name, table in tables.items():
        for part in table.parts or ():
            found.setdefault(part.name, []).append(name)
    return found


def _absent(name: str, tables: Collection[str], original: Original, outside: Collection[str]) -> str:
    """The error about a masked table that the backup lacks; an empty text if the lack is no error."""
    if name in outside:
        return ""
    if original.problem:
        return (
            f"{name}: the backup has no such table, and the clinics' database cannot be asked whether it was renamed."
        )
    if name not in original.tables:
        return f"{name}: there is no such table, neither in the backup nor in the clinics' database."
    gone = sorted(set(original.gone) & set(tables))
    if gone:
        return (
            f"{name}: the backup has no such table, but has {', '.join(gone)}, which is gone now. If it was renamed,"
            f" include/sql/{drift.FILE} must say so."
        )
    return ""


def _names_then(column: str, table: Table, events: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The names that the column may have in the backup."""
    held = {each.name for each in table.columns}
    if column in held:
        yield column
        return
    yield from (name for name in held if column in reached(name, events))


def in_clear(table: Table, rules: Mapping[str, Rule], original: Original, folder_drift: Drift) -> Iterator[str]:
    """What somebody who wants a masked copy should know of a table that has columns without a mask."""
    now = original.tables.get(table.name)
    keys = {*table.primary_key, *(column for key in table.foreign_keys for column in key.columns)}
    open_columns = [column for column in table.stored_columns if column.name not in rules]
    if now is not None:
        events = folder_drift.events(folder_drift.path(table.name))
        gone = [each.name for each in open_columns if not {*reached(each.name, events)} & now.columns.keys()]
        if gone:
            yield f"No longer in the original, without a mask and so in clear here: {', '.join(gone)}."
    if rules:
        bases = original.mask_facts.bases
        found = [each.name for each in open_columns if each.name not in keys and is_free(each, bases)]
        if found:
            yield f"Without a mask, so in clear, are these columns that may hold texts: {', '.join(found)}."
