"""Says which tables without an extract may be read: those whose reading runs no code of a stranger.

Planning a query of a table calls the functions of its indexes' conditions, as the role that asks. So a table that
anybody may have made is judged by PostgreSQL's catalog alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clinic_backups.base.text import table_in_sql
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.strangers import of_clinics, strangers_code
from clinic_backups.tenant.tenant_db import Snapshot


def readable_tables(snapshot: Snapshot, tables: Iterable[str], extracts: Iterable[str], clinic_table: str) -> set[str]:
    """Those of the tables that a check may read.

    Left out are the tables of strangers, the tables in their schemas, and the tables that call their functions.

    :param extracts: the tables with an extract.
    """
    query = catalog_query("whose_tables", strangers="stranger_roles")
    values = {"tables": sorted(set(tables)), **of_clinics(snapshot, extracts, clinic_table)}
    names = {name for (name,) in snapshot.rows(query, values, "asking whose tables these are")}
    if not names or not strangers_code(snapshot, extracts, clinic_table, tables=names):
        return names
    return {name for name in names if not strangers_code(snapshot, extracts, clinic_table, tables=[name])}


def not_read(problem: Problem) -> Problem:
    """The warning about a table that was not read."""
    return replace(
        problem,
        reason=f"{problem.reason} Its values were not compared with these keys: reading the table may run code of a"
        " role that may not write all rows of the clinics' tables.",
        remedy=f"{problem.remedy} Or let the owner of the clinics' tables own it, its schema and the functions of its"
        f" indexes: ALTER TABLE {table_in_sql(problem.table)} OWNER TO …; its values are then compared.",
        is_gap=False,
    )
