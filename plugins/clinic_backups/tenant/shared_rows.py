"""The rows of the shared unit, as SQL: what is in no clinic's backup and must not be lost.

These are all rows of each table that ``not_backed_up.txt`` declares as shared, and of each table with an extract or a
query in ``parents/`` the rows that no clinic's query returns. Nobody writes these queries: they follow from the folder
and from PostgreSQL's catalog, so that none can be forgotten. See docs/decisions/0033-the-shared-unit.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from psycopg2 import sql

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.table import Table
from clinic_backups.base.text import unused
from clinic_backups.tenant import at_once, people, structure
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.every_clinic import for_every_clinic, number_type
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.gate import names_of
from clinic_backups.tenant.problems import Problem, Remedies
from clinic_backups.tenant.row_sql import BackupRows, all_of, keys, template, whole_row
from clinic_backups.tenant.structure import Structure
from clinic_backups.tenant.tenant_db import Snapshot
from clinic_backups.tenant.unsupported import Unsupported

_NUMBER = "numero_de_fila"


@dataclass(frozen=True)
class SharedRows:
    """What the shared unit holds.

    :param queries: the SELECT of each table, by ``schema.table``.
    :param problems: what it lacks, and what no backup would hold.
    """

    queries: Mapping[str, str]
    problems: tuple[Problem, ...]


def shared_tables(facts: Structure, folder: SqlFolder) -> list[str]:
    """The tables that are declared as shared, without lines that name no table."""
    found = (facts.relations.get(name) for name in folder.declarations().shared)
    return sorted(relation.name for relation in found if relation is not None and relation.kind in "rp")


def shared_rows(snapshot: Snapshot, folder: SqlFolder) -> SharedRows:
    """Make the queries. Of the tables, only the clinics' keys are read.

    :raises PermanentError: a table of the folder is missing or may not be read, or the clinics cannot be listed.
    :raises SettingsError: a file of the folder is missing or wrong.
    """
    facts = structure.read(snapshot, names_of(folder), folder.clinic_table)
    coverage = Coverage(facts, folder, folder.queries())
    declared = shared_tables(facts, folder)
    queries = {name: f"SELECT t.* FROM {facts.own_rows(name)} AS t" for name in declared}  # noqa: S608
    of_none, refused = _of_no_clinic(snapshot, folder, facts)
    problems = [*refused, *_of_coverage(coverage, folder, declared)]
    return SharedRows(dict(sorted({**queries, **of_none}.items())), tuple(problems))


def _of_no_clinic(snapshot: Snapshot, folder: SqlFolder, facts: Structure) -> tuple[dict[str, str], list[Problem]]:
    """The queries of the rows that no clinic's backup holds, and the tables of which they cannot be made."""
    found = people.read_clinics(snapshot, folder, "all_clinics.sql")
    clinics = folder.text("all_clinics.sql")
    if found.unusable:
        clinics = people.without(clinics, found.unusable)  # rows of a clinic without backups belong to no backup
    type_ = number_type([clinic.id for clinic in found.clinics], folder.clinic_key)
    # What such an extract leaves out may be lost. That of a parent table returns more rows than needed, not fewer.
    left_out = folder.declarations().rows.keys() - folder.parents().keys()
    extracts, refused = dict[str, str](), list[Problem]()
    for name, text in folder.queries().items():
        if name in left_out:
            continue
        try:
            extracts[name] = for_every_clinic(text, name=name, type_=type_)
        except SettingsError as error:
            refused.append(
                Problem(
                    name,
                    f"The rows of {name} that belong to no clinic cannot be found. {error.message}",
                    error.hint,
                )
            )
    tables = snapshot.tables(sorted(extracts))
    rows = BackupRows(extracts, clinics, tables.values())
    rows.hasten(partial(at_once.faster, snapshot))
    return {
        name: snapshot.text_of(_rows_of_none(table, facts.own_rows(name), rows.of(name)))
        for name, table in tables.items()
    }, refused


def _rows_of_none(table: Table, name: str, of_all: str) -> sql.Composable:
    parts: dict[str, sql.Composable] = {"table": sql.SQL(name), "rows": sql.SQL(of_all)}
    if table.primary_key:
        pairs = zip(keys(table, "r"), keys(table, "t"), strict=True)
        same = all_of(sql.SQL("{} = {}").format(theirs, ours) for theirs, ours in pairs)
        return template("rows_of_no_clinic").format(**parts, same=same)
    number = unused(_NUMBER, {column.name for column in table.columns})
    return template("equal_rows_of_no_clinic").format(
        **parts, table_row=whole_row(table, "t", ()), extract_row=whole_row(table, "r", ()),
        number=sql.Identifier(number),
    )  # fmt: skip


def _of_coverage(coverage: Coverage, folder: SqlFolder, declared: list[str]) -> Iterator[Problem]:
    """What no backup would hold, and what of the shared tables cannot be backed up row by row."""
    yield from (problem for problem in coverage.problems() if problem.is_gap)
    for name in coverage.unclassed():
        yield Problem(
            name,
            f"{name} leads to no clinic, and nobody has said whether its rows may be lost. They are in no backup.",
            f"Add a line to {folder.path / FILE}: `{spelled(name)}: shared, reason` backs its rows up with the shared"
            f" data, and `{spelled(name)}: reason` says that they may be lost.",
        )
    facts, names = coverage.structure, frozenset(declared)
    on_purpose = folder.declarations().tables.keys() - names | folder.queries().keys()
    unsupported = Unsupported(facts, names, on_purpose, folder.declarations(), Remedies(folder.path, names)).problems()
    yield from (problem for problem in unsupported if problem.is_gap)
