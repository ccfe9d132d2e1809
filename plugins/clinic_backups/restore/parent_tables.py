"""Parent tables in a restore: rows that are missing are inserted, and no row is changed or deleted.

Other clinics' rows may refer to the same rows. A table is treated so if the SQL folder says that it is a parent table,
or if the backup says so: a forged manifest can only take operations away, and the plan names the table then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.archive.manifest import TableContent
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import IntegrityError
from clinic_backups.restore.diff import INSERT, TableDiff, described
from clinic_backups.restore.obstacle_sql import and_not_deleted, and_not_inserted, has_referred, none_null
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.row_sets import ReadArchives, other_rows, unlike
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import Reference, with_child
from clinic_backups.restore.workspace import Workspace, row_text
from clinic_backups.tenant.declarations import FILE
from clinic_backups.tenant.lock_errors import some

KEPT = "This is a parent table: only missing rows are inserted. Rows that are there are kept as they are."
WAS_THE_CLINICS = "In the backup it was a table of the clinic. Its rows that are not in the backup stay, too."
IS_THE_CLINICS = (
    "Only the backup says that it is a parent table; now it has an extract. So rows of the clinic that have changed"
    " since, or that are not in the backup, stay as they are, and the restore of this table is not exact."
)

OF_SHARED = (
    "These are the shared data, on which all clinics depend: only missing rows are inserted. Rows that are there are"
    " kept as they are, and none is deleted."
)
STAY = (
    "This undoes a restore. Rows of parent tables that the restore inserted stay: other clinics may refer to them by"
    " now."
)


def of_backup(contents: Mapping[str, TableContent], of_folder: Collection[str]) -> frozenset[str]:
    """Those of the backup's tables that are parent tables.

    :param contents: the backup's tables under their present names.
    :param of_folder: the parent tables of the SQL folder.
    """
    return frozenset(name for name, content in contents.items() if content.is_parent or name in of_folder)


def notes(name: str, content: TableContent, of_folder: Collection[str]) -> Iterator[str]:
    """The notes of the plan about a parent table."""
    yield KEPT
    if name not in of_folder:
        yield IS_THE_CLINICS
    elif not content.is_parent:
        yield WAS_THE_CLINICS


def without_key(name: str) -> Refusal:
    """The refusal of a parent table whose rows cannot be told apart."""
    return Refusal(
        name,
        f"{name} is a parent table and has no primary key: it cannot be told which of its rows are missing.",
        f"Give {name} a primary key, or restore without this table.",
    )


def taken(name: str, count: int, index: str) -> Refusal:
    """The refusal of missing rows whose unique values other rows have by now."""
    rows = "1 missing row" if count == 1 else f"{count:,} missing rows"
    return Refusal(
        name,
        f"{rows} of the parent table {name} cannot be inserted, because other rows have the unique values now"
        f" ({index}).",
        f"Give those other rows of {name} other values, or insert the missing ones by hand with other values. A restore"
        " changes no row of a parent table.",
    )


def compute(workspace: Workspace, staged: Staged) -> tuple[TableDiff, int]:
    """The rows of the backup that the table lacks, by key, and how many others differ from the backup.

    :param staged: it holds all rows of the backup.
    """
    shape, doing = staged.shape, f"comparing {staged.shape.name}"
    there = sql.SQL("SELECT FROM {} AS t WHERE {}").format(shape.in_sql, shape.same_key("w", "t"))
    ops = workspace.derive(
        f"ops_{staged.index}",
        sql.SQL(
            "SELECT {} AS op, 1 AS times, {}, NULL::bytea AS present_hash, false AS moves FROM {} AS w"
            " WHERE NOT EXISTS ({})"
        ).format(sql.Literal(INSERT), shape.as_op_key("w"), staged.wanted, there),
        doing,
    )
    workspace.analyze(f"analyzing {shape.name}", (ops, shape.op_key))
    differ = sql.SQL('{} <> {} COLLATE "C"').format(row_text(shape.columns, "w"), row_text(shape.columns, "t"))
    query = sql.SQL(
        "SELECT (SELECT count(*) FROM {0} AS w), (SELECT count(*) FROM {0} AS w WHERE EXISTS ({1} AND {2}))"
    )
    ((in_backup, others),) = workspace.rows(query.format(staged.wanted, there, differ), None, doing)
    return described(workspace, staged, ops, int(in_backup)), int(others)


def empty_outside(
    workspace: Workspace, diffs: Mapping[str, TableDiff], name: str, references: Sequence[Reference],
    declared: Collection[str],
) -> Iterator[str]:  # fmt: skip
    """Inserted rows of a parent table may name a row of another clinic that is gone: they get NULL there.

    Otherwise two clinics whose users name each other's rows could never come back one after the other. Only columns
    that are declared get NULL, and only if they may be NULL. Returns texts for the plan.

    :param declared: columns that name something outside of the backup, as ``schema.table.column``.
    """
    diff = diffs[name]
    shape, staged = diff.staged.shape, diff.staged
    nullable = {column.name for column in shape.now.columns if not column.not_null}
    for reference in with_child(references, name):
        columns, parent = reference.columns, diffs.get(reference.parent)
        is_outside = set(columns) <= nullable and any(f"{name}.{column}" in declared for column in columns)
        if not diff.plan.insert or not is_outside or not set(columns) <= set(shape.columns):
            continue
        if not reference.whole or not reference.parent_readable or (parent and not has_referred(parent, reference)):
            continue
        lost = sql.SQL("""
            SELECT w.ctid FROM {inserted}
             WHERE {all_set} AND NOT EXISTS (SELECT FROM {table} AS t WHERE {refers} {not_deleted}) {not_inserted}
            """).format(
            inserted=diff.wanted_of(INSERT), all_set=none_null(columns, "w"), table=qualified(reference.parent),
            refers=reference.refers("w", "t"), not_deleted=and_not_deleted(parent, "t"),
            not_inserted=and_not_inserted(parent, reference, "w"),
        )  # fmt: skip
        statement = sql.SQL("UPDATE {} AS x SET {} WHERE x.ctid IN ({})").format(
            staged.wanted,
            sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(each)) for each in columns),
            lost,
        )
        workspace.seals.require(staged.wanted)
        count = workspace.execute(statement, f"looking for what rows of {name} refer to")
        workspace.seals.wrote(staged.wanted, updated=count)
        workspace.seals.keep(staged.wanted)
        if count:
            back = "1 row that comes back names" if count == 1 else f"{count:,} rows that come back name"
            yield (
                f"{back} in {', '.join(columns)} a row of {reference.parent} that does not exist: NULL is written"
                f" there, because {FILE} says that the column may name something outside of the backup."
            )


def require_there(workspace: Workspace, diff: TableDiff) -> None:
    """Check that every row of the backup is in a parent table, by key, and the inserted ones with their values.

    That no row was changed or deleted is proven for all tables, see
    :class:`~clinic_backups.restore.writing.only_planned.OnlyPlanned`.

    :raises IntegrityError: a row is missing, or an inserted one differs.
    """
    shape = diff.staged.shape
    there = sql.SQL("EXISTS (SELECT FROM {} AS r WHERE {} {})")
    same = sql.SQL("AND {} = {}").format(row_text(shape.columns, "w"), row_text(shape.columns, "r"))
    query = sql.SQL("""
        SELECT (SELECT count(*) FROM {every} AS w WHERE {by_key}), (SELECT count(*) FROM {inserted} WHERE {whole})""")
    found = workspace.rows(
        query.format(
            every=diff.staged.wanted, by_key=there.format(shape.in_sql, shape.same_key("w", "r"), sql.SQL("")),
            inserted=diff.wanted_of(INSERT), whole=there.format(shape.in_sql, shape.same_key("w", "r"), same),
        ),
        None,
        f"reading {diff.name} again",
    )  # fmt: skip
    # The mode `live` may have left out some rows.
    planned = (diff.plan.insert + diff.plan.unchanged, diff.plan.insert)
    if found != [planned]:
        raise IntegrityError(
            f"{diff.name} would not hold the backup's rows: {planned[0]} of them have to be there, and"
            f" {found[0][0]} are; {planned[1]} have to be inserted, and {found[0][1]} are there as the backup has"
            " them.",
            hint="Nothing was changed. A trigger, a default or a function of the table's types changes what is"
            " written.",
        )


def require_archives(workspace: Workspace, diff: TableDiff, content: TableContent, read: ReadArchives) -> None:
    """Check that the rows which the restore loaded, and inserted some of, are those of the archives.

    :raises IntegrityError: they differ.
    """
    shape = diff.staged.shape
    if not (diff.plan.insert and shape.same) or shape.unnulled:
        return
    query = sql.SQL("SELECT w.* FROM {} AS w").format(diff.staged.wanted).as_string(workspace.connection)
    found = unlike(workspace, shape.now, query, content.blocks)
    if found and other_rows({diff.name: found}, {diff.name: content.blocks}, read):
        raise IntegrityError(
            f"{diff.name} would not hold the backup's rows: those that were loaded are not the archive's.",
            hint="Nothing was changed. A function of the database changed them while they were loaded or written: that"
            " of a type, a cast, a domain or an index.",
        )


def differing(count: int) -> str:
    """About rows that are there with other values. Other clinics change them all the time."""
    one = count == 1
    differ = f"{count:,} row{'' if one else 's'} differ{'s' if one else ''} from the backup"
    return f"{differ}. {'It is kept as it is' if one else 'They are kept as they are'}."


def there_elsewhere(tables: Sequence[str]) -> str:
    """About rows that are there, in another database than the backup's."""
    return (
        f"Rows of {some(tables)} that are there are kept, and in another database a key may belong to another row."
        " Compare them before you approve."
    )
