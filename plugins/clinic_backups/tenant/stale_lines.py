"""Finds lines of ``not_backed_up.txt`` that name what is not there, or that contradict an extract."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from clinic_backups.tenant.declarations import FILE, Declarations, spelled
from clinic_backups.tenant.problems import Problem, schema_of
from clinic_backups.tenant.structure import Structure


def stale_lines(structure: Structure, extracts: Collection[str], declared: Declarations) -> Iterable[Problem]:
    """A problem for each such line; those of whole schemas come first.

    :param extracts: the tables that are backed up.
    """
    yield from _of_schemas(structure, extracts, declared)
    yield from _of_tables(structure, extracts, declared)


def _of_schemas(structure: Structure, extracts: Collection[str], declared: Declarations) -> Iterable[Problem]:
    for schema in declared.schemas:
        inside = sorted(name for name in extracts if schema_of(name) == schema)
        if inside:
            yield Problem(
                inside[0],
                f"{FILE} says that no table of the schema {spelled(schema)} is backed up, and {inside[0]} has an"
                " extract: a new table there would be missed.",
                f"Replace the line `{spelled(schema)}.*` by a line for each table that is left out.",
            )
        elif not any(schema_of(name) == schema for name in structure.relations):
            yield _stale(f"{schema}.*", "but there is no table in that schema")


def _of_tables(structure: Structure, extracts: Collection[str], declared: Declarations) -> Iterable[Problem]:
    relations = structure.relations
    for name in declared.tables:
        if name in extracts:
            yield _stale(name, "but has an extract, and is backed up")
        elif name not in relations:
            yield _stale(name, "but there is no such table")
    of_extracts = (
        (declared.rows, "whose rows an extract leaves out"),
        (declared.may_be_empty, "which may be empty"),
        (declared.lasting_keys, "whose keys last"),
    )
    for names, what in of_extracts:
        for name in names:
            if name not in extracts:
                yield _stale(name, f"{what}, but it has no extract")
    for name in declared.columns:
        if not any(name.startswith(f"{table}.") for table in relations):
            yield _stale(name, "but there is no such table")


def _stale(name: str, problem: str) -> Problem:
    return Problem(name, f"{FILE} names {name}, {problem}.", "Remove the line.", is_gap=False)
