"""Explains what PostgreSQL refuses in a rehearsal: in plain words, with table, constraint and number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import Refused, refusal_of
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.text import capitalised, in_sql, table_in_sql
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import NO_ACTION, Reference
from clinic_backups.restore.workspace import Workspace, equal_texts, row_text
from clinic_backups.restore.writing.park import CannotMove
from clinic_backups.restore.writing.published import unidentified
from clinic_backups.restore.writing.quiet_triggers import Quiet
from clinic_backups.tenant.drift import FILE, filled_column
from clinic_backups.tenant.pg_catalog import catalog_query


def untold(table: str, reference: Reference) -> str:
    """The error for changed rows that cannot be identified, because the table has no key."""
    does = {"c": "deletes", "n": "changes", "d": "changes"}.get(reference.on_delete, "protects")
    return (
        f"{table} has no primary key, and no unique columns that may not be NULL: a changed row is deleted and"
        f" inserted, and {reference.name} of {reference.child} {does} the rows that refer to it."
    )


def told_by(table: str, reference: Reference) -> str:
    """What to do about such a table."""
    columns = ", ".join(f"ALTER {in_sql(name)} SET NOT NULL" for name in reference.parent_columns)
    return f"Give {table} a primary key, or: ALTER TABLE {table_in_sql(table)} {columns};"


def of_untold(workspace: Workspace, diffs: Mapping[str, TableDiff], references: Iterable[Reference]) -> Refusal | None:
    """The refusal if the rehearsal failed because a changed row without a key is referred to by others."""
    for reference in references:
        diff = diffs.get(reference.parent)
        if diff is None or diff.staged.shape.key or reference.on_delete == NO_ACTION:
            continue
        shape, names = diff.staged.shape, reference.parent_columns
        if not (diff.plan.insert and diff.plan.delete and set(names) <= set(shape.columns)):
            continue
        query = sql.SQL(
            "SELECT count(*) FROM {present} AS p JOIN {ops} AS d ON d.op = 'delete' AND d.row_text = {p_text}"
            " JOIN {wanted} AS w ON {same} JOIN {ops} AS i ON i.op = 'insert' AND i.row_text = {w_text}"
        ).format(
            present=diff.staged.present,
            wanted=diff.staged.wanted,
            ops=diff.ops,
            p_text=row_text(shape.columns, "p"),
            w_text=row_text(shape.columns, "w"),
            same=sql.SQL(" AND ").join(equal_texts(name, "p", "w") for name in names),
        )
        ((count,),) = workspace.rows(query, None, f"looking at the changed rows of {diff.name}")
        if count:
            return Refusal(diff.name, untold(diff.name, reference),
                           f"{told_by(diff.name, reference)} Or restore without {diff.name}.")  # fmt: skip
    return None


def explain(workspace: Workspace, diffs: Mapping[str, TableDiff], error: ClinicBackupsError, quiet: Quiet) -> Refusal:
    """Make a refusal from an error of the rehearsal, whose writes were rolled back.

    :param quiet: how triggers were kept from firing. Those that fired are named if they may be the reason.
    """
    if isinstance(error, CannotMove):
        return Refusal(error.table, error.message, error.hint)
    written = [name for name, diff in diffs.items() if diff.plan.delete + diff.plan.update]
    if published := unidentified(workspace, error, written):
        return Refusal(published.table, published.said, published.remedy)
    refused = refusal_of(error)
    table = f"{refused.schema}.{refused.table}" if refused and refused.table else ""
    if refused is None or not table:
        return _failed(table, error, quiet)
    name = _root(workspace, table)
    diff = diffs.get(name)
    rows = _count(workspace, diff, refused) if diff is not None else None
    many = f"{rows} row{'s' if rows != 1 else ''} of the backup" if rows else "at least one row of the backup"
    if refused.state == "23514" and not refused.constraint:
        return Refusal(
            name,
            f"{name} has no partition for at least one row of the backup.",
            f"If one was detached or dropped: ALTER TABLE {table_in_sql(name)} ATTACH PARTITION … again, or create one"
            f" for these rows; or restore without {name}.",
        )
    what = {
        "23514": f"Constraint {refused.constraint} of {name} refuses {many}.",
        "23502": f"Column {refused.column} of {name} may no longer be NULL, but is in {many}.",
        "23505": f"{capitalised(many)} would have a value in {name} that another row has now ({refused.constraint}).",
        "23P01": f"Exclusion constraint {refused.constraint} of {name} refuses {many}: they conflict with another row.",
        "23503": f"A foreign key of {name} would be broken ({refused.constraint}).",
        "23001": f"A foreign key of {name} would be broken ({refused.constraint}).",
    }.get(refused.state)
    hint = {
        "23514": f"{_in_parts(workspace, name, refused)}Drop or widen {refused.constraint} for the time of the"
        f" restore, or restore without {name}.",
        "23502": f"If a migration gave the rows a value, add it to include/sql/{FILE}:"
        f" `{filled_column(name, refused.column or '', '…')}`. Or: ALTER TABLE {table_in_sql(name)} ALTER COLUMN"
        f" {in_sql(refused.column or '')} DROP NOT NULL for the time of the restore; or restore without {name}.",
        "23505": f"Change or delete that other row of {name}, or restore without {name}.",
        "23P01": f"Change or delete that other row of {name}, or restore without {name}.",
    }.get(refused.state, f"Restore the tables on both sides of {refused.constraint} together.")
    if what is None:
        return _failed(name, error, quiet)
    if diff is None:  # a trigger may have written there
        said, remedy = quiet.loud()
        return Refusal(name, f"{what} {said}", f"{hint} {remedy}")
    return Refusal(name, what, hint)


def _failed(table: str, error: ClinicBackupsError, quiet: Quiet) -> Refusal:
    said, remedy = quiet.loud()
    return Refusal(
        table, f"The rehearsal of the restore failed: {error.message} {said}", f"{error.hint or ''} {remedy}".strip()
    )


def _in_parts(workspace: Workspace, name: str, refused: Refused) -> str:
    """A remedy for a CHECK whose function reads other tables: it does not see rows that the same statement writes."""
    if refused.state != "23514":
        return ""
    functions = workspace.rows(
        catalog_query("constraint_functions"),
        {
            "name": refused.constraint,
            "table": sql.Identifier(str(refused.schema), str(refused.table)).as_string(workspace.connection),
        },
        "reading the functions of a constraint",
    )
    if not functions:
        return ""
    called = ", ".join(f"{function}()" for (function,) in functions)
    return (
        f"If {called} reads other tables, it does not see rows that come back together with {name}: restore those"
        f" tables alone first, then {name}. Otherwise: "
    )


def _root(workspace: Workspace, table: str) -> str:
    """The partitioned table of a partition; any other table itself."""
    found = workspace.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = COALESCE(pg_partition_root(to_regclass(%(name)s)), to_regclass(%(name)s))",
        {"name": qualified(table).as_string(workspace.connection)},
        "looking for the table",
    )
    return str(found[0][0]) if found else table


def _count(workspace: Workspace, diff: TableDiff, refused: Refused) -> int | None:
    """The number of rows to write that break a CHECK or a NOT NULL; none if they cannot be counted."""
    if refused.state == "23502" and refused.column in diff.staged.shape.columns:
        condition = sql.SQL("w.{} IS NULL").format(sql.Identifier(str(refused.column)))
    elif refused.state == "23514":
        expressions = workspace.rows(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE contype = 'c' AND conname = %(name)s"
            " AND conrelid = to_regclass(%(table)s)",
            {"name": refused.constraint, "table": qualified(diff.name).as_string(workspace.connection)},
            "reading a constraint",
        )
        if not expressions:
            return None
        condition = sql.SQL("NOT ({})").format(sql.SQL(expressions[0][0]))
    else:
        return None
    try:
        with workspace.attempt():
            query = sql.SQL("SELECT count(*) FROM ({}) AS w WHERE {}").format(diff.written, condition)
            ((count,),) = workspace.as_application(query, 1, "counting rows that a constraint refuses")
            return int(count)
    except PermanentError:
        return None  # the constraint uses columns that the backup does not have
