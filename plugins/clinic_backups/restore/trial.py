"""Finds what could never be restored, before the first loss: writes one row of each table and rolls it back."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.findings import Finding, Report
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Table
from clinic_backups.base.text import table_in_sql
from clinic_backups.restore import hooks
from clinic_backups.restore.sequences import find_sequences
from clinic_backups.restore.table_rules import (
    NO_ACTION,
    Reference,
    TableRules,
    cascading,
    read_references,
    read_rules,
    with_parent,
    with_row_key,
)
from clinic_backups.restore.workspace import Workspace, columns_of, row_text
from clinic_backups.restore.writing.quiet_triggers import EVENTS, may_replica
from clinic_backups.restore.writing.rehearsal import told_by, untold
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.people import read_clinics
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.strangers import strangers_of_folder

CHECK = "restore"


def findings(settings: Settings, connection: Connection | None) -> list[Finding]:
    """The findings of :func:`try_tables`. Without the connection, the finding is that nothing was tried."""
    report = Report()
    if connection is None:
        report.warn(
            CHECK,
            "It was not tried whether the tables can be restored: connection 'restore_db' is not defined here.",
            "Run `clinic-backups check` also where restores run.",
        )
    else:
        try_tables(settings, connection, report)
    return report.findings


def try_tables(settings: Settings, connection: Connection, report: Report) -> None:
    """Delete, update and insert one row of each table with the restoring role, and roll it back.

    Only a gap in a sequence may remain. If a table is empty, only the rights on it are checked.
    """
    folder = SqlFolder(settings.sql_dir)
    with report.check(CHECK), Workspace(connection, **settings.timeouts) as workspace:
        if _strangers(report, workspace, folder):
            return
        clinics = read_clinics(workspace, folder, "all_clinics.sql")
        names = sorted(folder.extracts())
        tables = workspace.tables([name for name in names if name in workspace.relations()])
        rules, references = read_rules(workspace, sorted(tables)), read_references(workspace, sorted(tables))
        role = workspace.role()
        for name, table in tables.items():
            rules[name] = with_row_key(rules[name], table, references)
            key = table.primary_key or rules[name].row_key
            _check_told(report, name, key, references)
            _check_rights(report, name, rules[name], role)
            _check_triggers(report, workspace, name)
            for clinic in clinics:
                query = SqlExtract().rendered(folder, clinic.id)[name]
                with report.check(CHECK, f"{name}: "), workspace.savepoint():
                    if rules[name].missing_rights or _try(workspace, table, key, query, references):
                        break
        for name in sorted({each.child for each in references} & set(folder.declarations().derived) - set(tables)):
            _check_triggers(report, workspace, name, derived=True)
        _check_sequences(report, workspace, sorted(tables), role)
        for name in (hooks.BEFORE, hooks.AFTER):
            for clinic in clinics[:1]:
                with report.check(CHECK):
                    hooks.try_hook(connection, folder, name, clinic.id)
        report.ok(CHECK, f"One row of each of {len(tables)} tables was deleted, changed and inserted, and rolled back.")


def _check_rights(report: Report, name: str, rules: TableRules, role: str) -> None:
    if rules.missing_rights:
        rights = ", ".join(rules.missing_rights)
        report.error(CHECK, f"The role {role} of connection restore_db may not {rights} in {name}.",
                     f"GRANT {rights} ON {table_in_sql(name)} TO {role};")  # fmt: skip


def _check_told(report: Report, name: str, key: Sequence[str], references: tuple[Reference, ...]) -> None:
    """Check whether changed rows can be identified.

    Without a key they are deleted and inserted, which affects referring rows.
    """
    found = None if key else cascading(references, name)
    if found is not None:
        report.error(CHECK, untold(name, found), told_by(name, found))


def _check_triggers(report: Report, workspace: Workspace, name: str, *, derived: bool = False) -> None:
    """Check whether triggers would fire. Rows of a derived table are only deleted, and never in the replica role."""
    found = workspace.rows(catalog_query("triggers"), {"names": [name]}, "reading the triggers")
    firing = sorted(
        {
            trigger
            for _, _, trigger, events, state, may, *_ in found
            if state in ("O", "A") and not may and (events & EVENTS["delete"] or not derived)
        }
    )
    if firing and (derived or not may_replica(workspace)):
        report.warn(
            CHECK,
            f"Triggers or rules of {name} would fire during a restore: the role of restore_db may not turn them off"
            f" ({', '.join(firing)}).",
            f"ALTER TABLE {table_in_sql(name)} OWNER TO the role of restore_db."
            if derived
            else "GRANT SET ON PARAMETER session_replication_role TO the role of restore_db, or make it the table's"
            " owner.",
        )


def _check_sequences(report: Report, workspace: Workspace, names: list[str], role: str) -> None:
    found = find_sequences.examine(workspace, names)
    for refusal in find_sequences.refusals(found.uses, role):
        report.error(CHECK, refusal.message, refusal.hint)
    for said, hint in dict.fromkeys((each.said, each.hint) for each in found.untold):
        report.warn(CHECK, said, hint)


def _strangers(report: Report, workspace: Workspace, folder: SqlFolder) -> bool:
    """Report whose code would run in a restore, before any of it runs."""
    references = read_references(workspace, sorted(folder.extracts()))
    referred = {name for each in references for name in (each.child, each.parent)}
    found = strangers_of_folder(workspace, folder, 0, tables=referred, writes=True)
    for each in found:
        report.error(CHECK, each.said, each.remedy)
    return bool(found)


def _try(workspace: Workspace, table: Table, key: Sequence[str], query: str, references: tuple[Reference, ...]) -> bool:
    """Write one row of a clinic; returns whether there was one. :raises ClinicBackupsError: it cannot be written."""
    target = qualified(table.name)
    columns = [column.name for column in table.stored_columns]
    one = sql.SQL("SELECT {} FROM (\n{}\n) AS r LIMIT 1").format(columns_of(columns, "r"), sql.SQL(query))
    found = workspace.rows(one, None, f"reading one row of {table.name}")
    if not found or not key:
        return bool(found)
    same = sql.SQL(" AND ").join(
        sql.SQL("{} OPERATOR(pg_catalog.=) (SELECT {} FROM one AS o)").format(
            row_text([name], "t"), row_text([name], "o")
        )
        for name in key
    )
    # As in a restore, the writing is parsed under the application's search path.
    computed = [
        sql.SQL(", ({}) AS {}").format(sql.SQL(column.generated or ""), sql.Identifier(column.name))
        for column in table.columns
        if column.generated is not None and column.name in key
    ]
    with_key = sql.SQL("SELECT r.*{} FROM ({}) AS r").format(sql.Composed(computed), one)
    view = workspace.view(with_key, f"reading one row of {table.name}")
    once = sql.SQL("WITH one AS MATERIALIZED (SELECT * FROM {})").format(view)
    free = [column.name for column in table.stored_columns if column.identity != "always"]
    steps = [
        sql.SQL("{} UPDATE {} AS t SET {} WHERE {}").format(
            once, target,
            sql.SQL(", ").join(sql.SQL("{0} = t.{0}").format(sql.Identifier(name)) for name in free), same,
        )
    ]  # fmt: skip
    if all(reference.on_delete == NO_ACTION for reference in with_parent(references, table.name)):
        steps.append(
            sql.SQL(
                "{}, gone AS (DELETE FROM {} AS t WHERE {} RETURNING t.*)"
                " INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM gone AS g"
            ).format(once, target, same, target, columns_of(columns), columns_of(columns, "g"))
        )
    with workspace.savepoint():
        workspace.execute("SET CONSTRAINTS ALL DEFERRED", "deferring constraints")
        with workspace.application_path():
            for step in steps:
                _require_one(workspace.execute(step, f"writing one row of {table.name} for trial"), table.name)
            workspace.execute("SET CONSTRAINTS ALL IMMEDIATE", "checking the constraints")
    return True


def _require_one(rows: int, name: str) -> None:
    if rows != 1:
        raise PermanentError(
            f"Writing one row of {name} touched {rows} rows.",
            hint="A rule, a trigger or a row security policy of the table changes what is written.",
        )
