"""Finds queries whose operators are not those that the application's queries use.

Every query runs with only ``pg_catalog`` searched, so that nobody else's operators are run. An extension's operators,
such as those of citext, are usually elsewhere: without their schema, PostgreSQL compares such values as texts.
See docs/decisions/0011-what-is-in-a-backup.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.tenant.operator_uses import OperatorUses
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.structure import OperatorColumn, Structure

SHOWN = 5


def operator_problems(facts: Structure, queries: Mapping[str, str], *, what: str = "The extract of") -> list[Problem]:
    """The problems of queries, without a question to the database.

    :param queries: by table, or by what they are called after ``what``.
    """
    if not facts.operator_columns:
        return []
    found = []
    for name, query in queries.items():
        uses = OperatorUses(query)
        if columns := _used(facts, uses):
            found.append(_problem(name, f"{what} {name} uses", columns, None))
        for function, its in _called(facts, uses):
            found.append(_problem(name, f"{what} {name} calls {function}, which uses", its, function))
    return found


def _used(facts: Structure, uses: OperatorUses) -> list[OperatorColumn]:
    """What a text uses without saying whose operators are meant."""
    columns = [
        column for column in facts.operator_columns
        if _last(column.source) in uses.names and any(each in uses.operators for _, each in column.operators)
    ]  # fmt: skip
    used = uses.of({column.name: column.type for column in columns}, facts.relations.keys())
    return sorted((column for column in columns if column.name in used), key=lambda one: (one.source, one.name))


def _called(facts: Structure, uses: OperatorUses) -> list[tuple[str, list[OperatorColumn]]]:
    """The functions that a text calls, also through others, with what they use."""
    found: dict[str, list[OperatorColumn]] = {}
    waiting = [uses]
    while waiting:
        called = waiting.pop().called
        for function, _ in facts.function_texts:
            if _last(function) in called and function not in found:
                inner = [OperatorUses(each) for name, each in facts.function_texts if name == function]
                found[function] = [column for each in inner for column in _used(facts, each)]
                waiting += inner
    return [(function, columns) for function, columns in sorted(found.items()) if columns]


def _problem(name: str, doing: str, columns: Sequence[OperatorColumn], function: str | None) -> Problem:
    shown = list(dict.fromkeys(_shown(column) for column in columns))
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    schemas = sorted({schema for column in columns for schema, _ in column.operators})
    first = columns[0]
    schema, operator = min(first.operators, key=lambda each: (each[1] != "=", each[1], each[0]))
    written = f"OPERATOR({in_sql(schema)}.{operator})"
    remedy = (
        f"Write `{in_sql(first.name)} {written} …` or `… {written} ANY (…)`, and functions with their schema. If texts"
        f" are to be compared, write `{in_sql(first.name)}::text = …::text`. IN, LIKE, BETWEEN, CASE, NULLIF, IS"
        " DISTINCT FROM, JOIN … USING and NATURAL JOIN cannot name a schema: write them with such operators, and joins"
        " with ON."
    )
    if function is not None:
        path = ", ".join(map(in_sql, ("pg_catalog", *schemas, "pg_temp")))
        remedy = f"ALTER FUNCTION {table_in_sql(function)} SET search_path = {path}; Or in its text: {remedy}"
    return Problem(
        name,
        f"{doing} {', '.join(shown[:SHOWN])}{more}. Operators and functions of that type are in {', '.join(schemas)},"
        " but the text does not name that schema. So PostgreSQL uses its own ones, and rows may be missing.",
        remedy,
        check="rows",
    )


def _shown(column: OperatorColumn) -> str:
    is_itself = column.name == _last(column.source)
    return f"{column.source if is_itself else f'{column.source}.{column.name}'} (type {column.type})"


def _last(source: str) -> str:
    return source.partition(".")[2]
