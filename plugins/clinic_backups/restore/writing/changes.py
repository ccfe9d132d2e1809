"""The changes of a transaction so far, whoever made them: statements, triggers, defaults, conditions of indexes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.tenant.pg_catalog import catalog_query

Writes = Counter[tuple[str, str]]
"""Rows by table and operation."""
Rows = Callable[[str, dict[str, Any] | None, str], Sequence[tuple[Any, ...]]]

_OF_TEMPORARY_TABLES = [
    "pg_attrdef", "pg_attribute", "pg_class", "pg_constraint", "pg_depend", "pg_index", "pg_namespace", "pg_rewrite",
    "pg_shdepend", "pg_statistic", "pg_trigger", "pg_type",
]  # fmt: skip
"""PostgreSQL's tables to which a restore writes itself: for temporary tables and views, and to turn off triggers."""

_DOING = "counting what was written"


@dataclass(frozen=True)
class Changes:
    """What a transaction has changed.

    :param rows: as the server counts them: with what a savepoint took back.
    :param definitions: a version of all definitions and large objects. TRUNCATE, DROP and other DDL change it.
    """

    rows: Writes
    definitions: str


def written(rows: Rows) -> Writes:
    """The counts alone. :param rows: runs a query with values, and takes what it is for."""
    ((found,),) = rows(catalog_query("changed_rows"), {"left_out": _OF_TEMPORARY_TABLES}, _DOING)
    return _counter(found)


def changes(rows: Rows) -> Changes:
    """Everything."""
    query = catalog_query("changed").replace("{version}", catalog_query("version"))
    query = query.replace("{rows}", catalog_query("changed_rows"))
    ((found, definitions),) = rows(query, {"left_out": _OF_TEMPORARY_TABLES}, _DOING)
    return Changes(_counter(found), definitions)


def _counter(found: Iterable[tuple[str, str, int]] | None) -> Writes:
    return Counter({(table, operation): count for table, operation, count in found or ()})
