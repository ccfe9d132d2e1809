"""What is in the clinics' database, told by SQL that has nothing of the package: to compare before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg2 import sql

from include.demo.layout import CHECKOUT

TABLES = """
SELECT n.nspname, c.relname
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'clinic_backups')
 ORDER BY 1, 2
"""
ROWS = """
SELECT count(*), coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text) COLLATE "C")), '') FROM {} AS t
"""
Content = dict[str, tuple[int, str]]
"""The number of rows of each table, and a digest over all of them."""


def of(query: Callable[[str | sql.Composable], list[tuple[Any, ...]]]) -> Content:
    """Every table but the catalog's. :param query: the rows of a query."""
    found: Content = {}
    for schema, name in query(TABLES):
        ((rows, digest),) = query(sql.SQL(ROWS).format(sql.Identifier(schema, name)))
        found[f"{schema}.{name}"] = (rows, digest)
    return found


def derived() -> list[str]:
    """The tables that the application computes from others: they are in no backup, and a restore may delete rows."""
    lines = (CHECKOUT / "include" / "sql" / "not_backed_up.txt").read_text().splitlines()
    return [line.partition(":")[0] for line in lines if ": derived," in line and not line.startswith("#")]


def differing(before: Content, after: Content) -> list[str]:
    """The tables that are not in both with the same rows."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
