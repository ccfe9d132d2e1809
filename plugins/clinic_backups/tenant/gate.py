"""The gate before every backup: nothing is left out silently, whoever asks for the backup.

See docs/decisions/0011-what-is-in-a-backup.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg2 import sql

from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import nobody
from clinic_backups.base.shared_unit import named
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line
from clinic_backups.tenant import structure
from clinic_backups.tenant.clinic_key_check import require_key
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.described_tables import require_nameable
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.key_names import nouns, table_names
from clinic_backups.tenant.operator_checks import operator_problems
from clinic_backups.tenant.parent_checks import ParentChecks
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_checks import RowChecks
from clinic_backups.tenant.row_sql import BackupRows, one_clinic
from clinic_backups.tenant.schema_memory import MEMORY
from clinic_backups.tenant.strangers import require_no_strangers
from clinic_backups.tenant.structure import NotedColumn, ParentKey, Structure
from clinic_backups.tenant.tenant_db import Snapshot
from clinic_backups.tenant.unsupported import large_object_problem
from clinic_backups.tenant.value_checks import ValueChecks
from clinic_backups.tenant.whose_tables import not_read, readable_tables

WITHIN_SECONDS = 60
"""The longest time for comparing one clinic's rows before its backup."""
SHOWN = 20
"""The most gaps in an error's text; the preflight lists all."""
MAX_GAPS = 200
"""The most gaps in a backup's record."""

OnUnchecked = Callable[[str], object]


@dataclass(frozen=True)
class _Known:
    """Facts that are the same for all clinics as long as neither the definitions nor the SQL folder change."""

    facts: Structure
    coverage: Coverage
    problems: Sequence[Problem]
    readable: Collection[str]
    """The tables without an extract whose values may be compared."""
    tables: Mapping[str, Table] = field(default_factory=dict)


def problems_of_tables(
    snapshot: Snapshot, coverage: Coverage, extracts: Mapping[str, str], *, within_seconds: float = WITHIN_SECONDS
) -> list[Problem]:
    """The problems of tables, from PostgreSQL's catalog and the SQL folder.

    Needs one query, and more only in some databases.

    :param extracts: rendered for one clinic.
    """
    return [
        *coverage.problems(),
        *operator_problems(coverage.structure, extracts),
        *_problems_behind(
            snapshot, coverage, extracts, _readable(snapshot, coverage, extracts), within_seconds=within_seconds
        ),
    ]


def passed(
    snapshot: Snapshot,
    folder: SqlFolder,
    request: BackupRequest,
    queries: Mapping[str, str],
    source: str,
    on_unchecked: OnUnchecked = nobody,
) -> tuple[dict[str, Table], tuple[Gap, ...]]:
    """Check the backup's tables and rows. Returns the tables to read, and the gaps if the request allows gaps.

    :param queries: the SELECT of each table for this clinic.
    :param source: the database's identity, see :func:`clinic_backups.tenant.source_database.identity_of`.
    :param on_unchecked: called with a sentence if the clinic's rows could not be compared in time.
    :raises PermanentError: the backup would be incomplete, and the request does not allow that.
    """
    digest = folder.digest()
    question = ("gate", digest, frozenset(queries))
    known: _Known | None = MEMORY.get(question, snapshot.version)
    if known is None:
        # Whoever became a stranger by a changed right alone is found by the next process.
        require_key(snapshot, folder)
        require_no_strangers(snapshot, folder, queries, f"The backup of clinic {request.clinic.id}")
        facts = structure.read(snapshot, names_of(folder), folder.clinic_table)
        coverage = Coverage(facts, folder, queries)
        known = _Known(facts, coverage, coverage.problems(), _readable(snapshot, coverage, queries))
    behind = _problems_behind(snapshot, known.coverage, queries, known.readable, within_seconds=WITHIN_SECONDS)
    # Not kept for the next clinic: a template may give it another text.
    operators = operator_problems(known.facts, queries)
    found = [problem for problem in (*known.problems, *operators, *behind) if problem.is_gap]
    require_complete(found, request)
    if not known.tables:
        require_nameable(queries)
        known = replace(known, tables=snapshot.tables(sorted(queries)))
        MEMORY.keep(question, snapshot.version, known)
    facts, coverage, tables = known.facts, known.coverage, dict(known.tables)
    own = BackupRows(queries, one_clinic(request.clinic.id, folder.clinic_key), tables.values())
    values = ValueChecks(snapshot, facts, own, folder)
    for table in tables.values():
        changed = values.problems(table, within_seconds=WITHIN_SECONDS)
        if changed is None:
            on_unchecked(
                f"The values of {table.name} were not compared with its extract within {WITHIN_SECONDS} s. An extract"
                " that returns the columns unchanged needs no comparison."
            )
        found += changed or ()
    require_complete(found, request)
    compared = _compared_before(snapshot, folder, request, queries, (source, digest))
    if left := [name for name in tables if name not in compared and name not in coverage.parents.names]:
        checks = RowChecks(
            snapshot, facts, tables, own, coverage.links(), folder, materialized=True
        )  # fmt: skip
        rows = checks.problems(left, within_seconds=WITHIN_SECONDS)
        if rows is None:
            on_unchecked(
                f"The rows of clinic {request.clinic.id} were not compared with its extracts within {WITHIN_SECONDS} s."
                " The preflight compares the rows of all clinics, table by table."
            )
        found += rows or ()
        require_complete(found, request)
    found += _of_parents(snapshot, coverage, tables, own, compared, folder, request, on_unchecked)
    require_complete(found, request)
    return tables, gaps(found)


def _of_parents(
    snapshot: Snapshot, coverage: Coverage, tables: Mapping[str, Table], rows: BackupRows,
    compared: Collection[str], folder: SqlFolder, request: BackupRequest, on_unchecked: OnUnchecked,
) -> list[Problem]:  # fmt: skip
    """The problems of the rows of parent tables. :param compared: tables that the preflight has compared."""
    left = coverage.parents.names & tables.keys() - compared
    if not left:
        return []
    checks = ParentChecks(snapshot, coverage.parents, tables, rows, folder)
    problems = checks.problems(sorted(left), within_seconds=WITHIN_SECONDS)
    if problems is None:
        on_unchecked(
            f"The rows of the parent tables of clinic {request.clinic.id} were not compared with those that refer to"
            f" them within {WITHIN_SECONDS} s."
        )
    return problems or []


def _compared_before(
    snapshot: Snapshot, folder: SqlFolder, request: BackupRequest, queries: Mapping[str, str], of: tuple[str, str]
) -> frozenset[str]:
    """The tables whose rows the run's preflight has compared with what this backup reads too.

    None if the database, its definitions or the SQL folder are others now. None either if gaps are allowed: then the
    run went on in spite of the preflight's findings, and no record has them yet.
    """
    told = request.compared
    if told is None or request.allow_gaps or request.clinic.id not in told.clinics:
        return frozenset()
    holds = (
        (told.database, told.folder) == of
        # They may be of another folder, or were rendered before the folder changed.
        and queries == SqlExtract().rendered(folder, request.clinic.id)
        and told.definitions == snapshot.definitions()
    )
    return told.tables if holds else frozenset()


def _numbers(column: NotedColumn) -> sql.Composed:
    """SELECT of the numbers that may be those of large objects, as texts."""
    value, table = sql.Identifier("t", column.name), qualified(column.table)
    if not column.oid_attributes:
        numbers = sql.SQL("unnest({})::text" if column.is_array else "{}::text").format(value)
        return sql.SQL("SELECT {} FROM {} AS t").format(numbers, table)
    # JSON can be searched to any depth, even if arrays, domains and composite types contain each other.
    return sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT f.value #>> '{{}}' FROM {} AS t, jsonb_path_query(to_jsonb({}), {}) AS f (value)").format(
            table, value, sql.Literal(f"lax $.**.{json.dumps(name)}[*]")
        )
        for name in column.oid_attributes
    )


def _problems_behind(
    snapshot: Snapshot,
    coverage: Coverage,
    extracts: Mapping[str, str],
    readable: Collection[str],
    *,
    within_seconds: float,
) -> list[Problem]:
    """Problems that PostgreSQL's catalog alone cannot show. Most databases need no query for them.

    Checked are whether numbers in columns of type oid are those of large objects, and whether an extract reads the rows
    of tables that inherit from its own. A query that is not answered in time counts as a problem.

    :param readable: the tables without an extract that may be read.
    """
    found: list[Problem] = []
    for column in coverage.oid_columns():
        query = sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_largeobject_metadata AS o JOIN ({}) AS n (number) ON o.oid::text = n.number)"
        ).format(_numbers(column))
        rows = snapshot.rows_within(within_seconds, query, f"looking for large objects of {column.table}")
        if rows is None or rows[0][0]:
            found.append(large_object_problem(column))
    for column, meant, problem in coverage.doubtful():
        if column.table not in readable:
            found.append(not_read(problem))
            continue
        unlike = _names_nothing(snapshot, column, meant, within_seconds=within_seconds)
        found.append(replace(problem, is_gap=not unlike))
    for parent, heirs in coverage.inherited().items():
        if read := sorted(_read_by(snapshot, extracts[parent]) & set(heirs)):
            found.append(
                Problem(
                    parent,
                    f"The extract of {parent} also reads rows of {', '.join(read)}, which inherit from it. A restore"
                    " would write them into the parent, without their own columns.",
                    f"Write FROM ONLY {parent} in its extract, and give each of these tables an extract of its own.",
                )
            )
    return found


def _readable(snapshot: Snapshot, coverage: Coverage, extracts: Mapping[str, str]) -> Collection[str]:
    """The tables of doubtful columns that may be read."""
    tables = {column.table for column, _, _ in coverage.doubtful()}
    return readable_tables(snapshot, tables, extracts, coverage.clinic_table) if tables else ()


def _names_nothing(snapshot: Snapshot, column: NotedColumn, meant: ParentKey, *, within_seconds: float) -> bool:
    """Whether a column of another type than the key has values, but none that is a key's."""
    value = sql.SQL("unnest({})" if column.is_array else "{}").format(sql.Identifier("t", column.name))
    query = sql.SQL(catalog_query("keys_held")).format(
        value=value, table=qualified(column.table), parent=qualified(meant.parent),
        key=sql.Identifier("p", meant.parent_columns[0]),
    )  # fmt: skip
    try:
        rows = snapshot.rows_within(within_seconds, query, f"looking for keys in {column.table}")
    except PermanentError:
        return False  # the role may not read the column, so its name decides
    return bool(rows and rows[0][0])


def _read_by(snapshot: Snapshot, extract: str) -> set[str]:
    """The tables that a query reads.

    They are taken from its plan, because only the plan shows a table that is read with ONLY.
    """
    with snapshot.savepoint():
        snapshot.rows("SELECT set_config('constraint_exclusion', 'off', true)", None, "asking for a plan")
        plan = snapshot.rows(
            f"EXPLAIN (VERBOSE, FORMAT JSON) {extract}", None, "asking for the plan of an extract", source="extract"
        )
    found: set[str] = set()
    waiting: list[Any] = [plan[0][0]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if "Relation Name" in node:
                found.add(f"{node.get('Schema')}.{node['Relation Name']}")
            waiting += [value for value in node.values() if isinstance(value, (list, dict))]
    return found


def names_of(folder: SqlFolder) -> set[str]:
    """The column names that :func:`clinic_backups.tenant.structure.read` looks for, besides foreign keys."""
    compared = folder.clinic_columns().items()
    found = {name for table, names in compared if table != folder.clinic_table for name in names}
    return found | table_names(folder.clinic_table) | {noun for table in folder.extracts() for noun in nouns(table)}


def gaps(problems: Iterable[Problem]) -> tuple[Gap, ...]:
    """The gaps for a record and an envelope."""
    return tuple(dict.fromkeys(Gap(problem.table, one_line(problem.reason)) for problem in problems))[:MAX_GAPS]


def require_complete(found: Sequence[Problem], request: BackupRequest) -> None:
    """:raises PermanentError: the backup would be incomplete, and the request does not allow that."""
    if not found or request.allow_gaps:
        return
    lines = [line for item in found[:SHOWN] for line in (item.reason, f"  HINT: {item.remedy}")]
    more = [f"And {len(found) - SHOWN} more: see `clinic-backups check`."] if len(found) > SHOWN else []
    count = f"{len(found)} reason{'s' if len(found) > 1 else ''}"
    raise PermanentError(
        f"The backup of {named(request.clinic.id)} would be incomplete, for {count}.",
        *lines,
        *more,
        hint="Nothing was stored. To back up what can be backed up, and mark the backup as incomplete, use"
        ' `clinic-backups backup --allow-gaps` or the conf {"allow_gaps": true}.',
    )
