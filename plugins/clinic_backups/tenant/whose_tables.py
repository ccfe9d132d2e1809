"""Says which tables without an extract may be read: those of roles that may write into the clinics' tables anyway.

Planning a query of a table calls the functions of its indexes' conditions, as the role that asks. So a table that
anybody may have made is judged by PostgreSQL's catalog alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clinic_backups.base.text import table_in_sql
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.tenant_db import Snapshot


def believed_tables(snapshot: Snapshot, tables: Iterable[str], extracts: Iterable[str]) -> set[str]:
    """Those of the tables that belong to such a role, in a schema of such a role."""
    query = catalog_query("whose_tables", believed="believed_roles")
    values = {"tables": sorted(set(tables)), "names": sorted(extracts)}
    return {name for (name,) in snapshot.rows(query, values, "asking whose tables these are")}


def not_read(problem: Problem) -> Problem:
    """The warning about a table that was not read."""
    return replace(
        problem,
        reason=f"{problem.reason} Its values were not compared with these keys, because it or its schema belongs to a"
        " role that may not write into the clinics' tables, and reading a table may run code of its owner.",
        remedy=f"{problem.remedy} Or let the owner of the clinics' tables own it and its schema: ALTER TABLE"
        f" {table_in_sql(problem.table)} OWNER TO …; its values are then compared.",
        is_gap=False,
    )
