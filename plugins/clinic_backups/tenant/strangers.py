"""Refuses to run code of strangers: the owner of some tables must not reach the others through this package.

PostgreSQL calls the functions of a table's indexes, policies, constraints and triggers as the role that plans, reads or
writes. Such code can change our session's settings, our temporary tables and, in a restore, other clinics' rows. So it
is looked for before any of these tables is read. See docs/decisions/0024-no-code-of-strangers.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import table_in_sql
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import Mentions
from clinic_backups.tenant.tenant_db import Snapshot

SHOWN = 20
"""The most names in an error's text."""


@dataclass(frozen=True)
class StrangersCode:
    """Something that belongs to a stranger: a role that may not write all rows of the clinics' tables.

    :param kind: ``table``, ``view``, ``function``, ``domain`` and so on.
    :param name: ``schema.table``, or a function with the types of its arguments.
    """

    kind: str
    name: str
    owner: str

    @property
    def said(self) -> str:
        """Whose it is."""
        return (
            f"The {self.kind} {self.name} belongs to the role {self.owner}, which may not write all rows of the"
            " clinics' tables."
        )

    @property
    def noted(self) -> str:
        """The same of a function, for an approver of a restore that runs it."""
        return f"{self.said} Its code is that role's, and in a restore it runs with the rights of restore_db."

    @property
    def remedy(self) -> str:
        """What ends it."""
        name = self.name if self.kind == "function" else table_in_sql(self.name)
        return (
            f"ALTER {self.kind.upper()} {name} OWNER TO the owner of the clinics' tables. Or, if you trust the role"
            f" {self.owner} with the data of all clinics, add it to CLINIC_BACKUPS_TRUSTED_OWNERS."
        )


def strangers_code(
    snapshot: Snapshot,
    clinics: Iterable[str],
    clinic_table: str,
    *,
    tables: Iterable[str] = (),
    functions: Iterable[int] = (),
    queries: Iterable[str] = (),
    types: Iterable[str] = (),
    unlocked: Iterable[str] = (),
    path: Iterable[str] = (),
    written: Iterable[str] | None = None,
) -> list[StrangersCode]:
    """Look for it with PostgreSQL's catalog alone, which runs none of it.

    The tables that the transaction has locked count too.

    :param clinics: the tables with an extract.
    :param clinic_table: the table whose rows are the clinics. Its owner is a trusted one.
    :param tables: more tables that will be read.
    :param functions: functions that will be called, by PostgreSQL's number.
    :param queries: texts of queries that will run. What they may mean by name is looked up.
    :param types: types that values are converted from, by name.
    :param unlocked: texts of queries that will run too, and whose tables the transaction has not locked. So these are
        looked up by name as well.
    :param path: the schemas in which names without a schema are looked up, if these texts run under such a path.
    :param written: the tables that will be written, besides those that are locked; ``None``: none is written at all.
    """
    doing = "asking whose code would run"
    roles = catalog_query("stranger_roles")
    strangers = [oid for (oid,) in snapshot.rows(roles, of_clinics(snapshot, clinics, clinic_table), doing)]
    if not strangers:
        return []  # as in most databases
    unlocked = list(unlocked)
    mentioned = Mentions.of(*queries, *unlocked)
    values = {
        "words": list(mentioned.words),
        "signs": list(mentioned.signs),
        "named": list(Mentions.of(*unlocked).words),
        "types": list(Mentions.of(*types).words),
        "path": list(path),
        "strangers": strangers,
        "tables": sorted({*tables, *(written or ())}),
        "functions": sorted(set(functions)),
        "writes": written is not None,
        "written": sorted(set(written or ())),
    }
    query = catalog_query("strangers", reached="reached_code", written_tables="written_tables")
    with snapshot.savepoint():
        # PostgreSQL expects millions of rows of the recursion. With the memory for them it takes 0.3 s to make room.
        snapshot.rows("SELECT set_config('work_mem', '1MB', true)", None, doing)
        rows = snapshot.rows(query, values, doing)
    return [StrangersCode(*row) for row in rows]


def of_clinics(snapshot: Snapshot, clinics: Iterable[str], clinic_table: str) -> dict[str, Any]:
    """What ``stranger_roles.sql`` needs to know. The parameters are those of :func:`strangers_code`."""
    return {
        "clinics": sorted(set(clinics)),
        "clinic_table": clinic_table,
        "trusted": list(snapshot.trusted_owners),
    }


def strangers_of_folder(
    snapshot: Snapshot, folder: SqlFolder, clinic_id: ClinicId, *, written: Iterable[str] | None = None,
    tables: Iterable[str] = (),
) -> list[StrangersCode]:  # fmt: skip
    """Look for it in everything that the extracts and the queries of clinics and people mention.

    None of them is run.

    :param clinic_id: the clinic that the extracts are rendered for.
    :param tables: more tables that will be read.
    :raises SettingsError: the folder is not complete.
    """
    extracts, table = folder.queries(), folder.clinic_table
    queries = list(SqlExtract().rendered(folder, clinic_id).values())
    lists = [
        folder.rendered("clinic_admins.sql", clinic_id),
        folder.text("all_clinics.sql"),
        folder.text("active_clinics.sql"),
    ]
    with snapshot.savepoint():
        for query in queries:
            snapshot.mention(query)
        return strangers_code(
            snapshot, extracts, table, tables=[*extracts, table, *tables], queries=queries, unlocked=lists,
            written=written,
        )  # fmt: skip


def require_no_strangers(
    snapshot: Snapshot, folder: SqlFolder, extracts: Mapping[str, str], doing: str, *, tables: Iterable[str] = (),
    types: Iterable[str] = (), unlocked: Iterable[str] = (), written: Iterable[str] | None = None,
) -> None:  # fmt: skip
    """Call this after the tables are locked, and before the first of them is read.

    :param extracts: the query of each table, as it will run.
    :param doing: for the error, for instance "The backup".
    :param types: the types that a manifest names. Values are converted from them.
    :param unlocked: see :func:`strangers_code`.
    :raises PermanentError: code of a stranger would run; names it and the remedy.
    """
    found = strangers_code(
        snapshot, extracts, folder.clinic_table, tables=tables, queries=extracts.values(), types=types,
        unlocked=unlocked, written=written,
    )  # fmt: skip
    refuse(found, doing)


def refuse(found: Sequence[StrangersCode], doing: str) -> None:
    """:raises PermanentError: something was found; names it and the remedy."""
    if not found:
        return
    raise PermanentError(
        f"{doing} would run code of roles that may not write all rows of the clinics' tables.",
        *[line for each in found[:SHOWN] for line in (each.said, f"  HINT: {each.remedy}")],
        *([f"And {len(found) - SHOWN} more: see `clinic-backups check`."] if len(found) > SHOWN else []),
        hint="Nothing was read or changed. Such code could change what is read and written for every clinic.",
    )
