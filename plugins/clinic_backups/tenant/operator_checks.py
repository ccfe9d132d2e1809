"""Finds queries whose operators are not those that the application's queries use.

Every query runs with only ``pg_catalog`` searched, so that nobody else's operators are run. An extension's operators,
such as those of citext, are usually elsewhere: without their schema, PostgreSQL compares such values as texts.
See docs/decisions/0011-what-is-in-a-backup.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clinic_backups.base.text import quoted
from clinic_backups.tenant.coverage import Problem
from clinic_backups.tenant.operator_uses import OperatorUses
from clinic_backups.tenant.structure import OperatorColumn, Structure

SHOWN = 5


def operator_problems(facts: Structure, queries: Mapping[str, str], *, of: str = "The extract of") -> list[Problem]:
    """The problems of queries. They need no question to the database.

    :param queries: by table, or by file.
    """
    if not facts.operator_columns:
        return []
    found = []
    for name, query in queries.items():
        uses = OperatorUses(query)
        columns = [
            column for column in facts.operator_columns
            if column.source.partition(".")[2] in uses.names
            and any(each in uses.operators for _, each in column.operators)
        ]  # fmt: skip
        used = uses.of({column.name: column.type for column in columns}, facts.relations.keys())
        if used:
            found.append(_problem(f"{of} {name}", name, [column for column in columns if column.name in used]))
    return found


def _problem(query: str, name: str, columns: Iterable[OperatorColumn]) -> Problem:
    columns = sorted(columns, key=lambda column: (column.source, column.name))
    first = columns[0]
    shown = list(dict.fromkeys(_shown(column) for column in columns))
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    schemas = sorted({schema for column in columns for schema, _ in column.operators})
    operators = sorted(first.operators, key=lambda each: (each[1] != "=", each[1], each[0]))
    schema, operator = operators[0]
    written = f"OPERATOR({_quoted(schema)}.{operator})"
    return Problem(
        name,
        f"{query} uses {', '.join(shown[:SHOWN])}{more}. Operators and functions of that type are in"
        f" {', '.join(schemas)}, and the text does not say so: PostgreSQL's own ones are used instead, so that rows may"
        " be missing.",
        f"Write `{first.name} {written} …` or `… {written} ANY (…)`, and functions with their schema. If texts are to be"
        f" compared, write `{first.name}::text = …::text`. IN, LIKE, BETWEEN, CASE, NULLIF, IS DISTINCT FROM, JOIN …"
        " USING and NATURAL JOIN cannot name a schema: write them with such an operator, and joins with ON.",
        check="rows",
    )


def _shown(column: OperatorColumn) -> str:
    is_itself = column.name == column.source.partition(".")[2]
    return f"{column.source if is_itself else f'{column.source}.{column.name}'} (type {column.type})"


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name == name.lower() else quoted(name)
