"""Finds the rows that a restore would insert, update and delete.

The database computes them from the rows that differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.columns.shape import has_plain_key
from clinic_backups.restore.plan import TablePlan
from clinic_backups.restore.row_digests import digest_of_texts
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import NO_ACTION, Reference, with_parent
from clinic_backups.restore.unique_values import held_by
from clinic_backups.restore.workspace import Workspace, columns_of, row_text

SHOWN_KEYS = 5
INSERT, UPDATE, DELETE = "insert", "update", "delete"
COUNTED_COLUMNS = 400
"""The most columns that are counted in one query, because PostgreSQL joins at most 1,664."""


@dataclass(frozen=True)
class TableDiff:
    """One table's operations, in a temporary table ``ops``: ``op``, ``times``, and the key or the ``row_text``.

    No column of ``ops`` has a name of the application's. ``Shape.op_key`` gives the names of the key's columns.
    If all rows are inserted, ``ops`` is a query of the wanted rows instead: writing each key again would take time.

    :param moving: how many rows to update are written by deleting and inserting them (``ops.moves``), because their new
        values may collide with each other.
    :param anew: whether some of them cannot be written in any other way, because an UPDATE would change other tables or
        is not allowed.
    :param whole: all wanted rows are inserted and no other row is written, so nothing has to read ``ops``.
    """

    staged: Staged
    ops: sql.Composable
    plan: TablePlan
    digest: str
    moving: int = 0
    anew: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        return self.staged.shape.name

    @property
    def ops_table(self) -> sql.Identifier:
        """``ops``, if it is a table."""
        assert isinstance(self.ops, sql.Identifier)  # noqa: S101 - only operations in a table are removed from it
        return self.ops

    @property
    def written(self) -> sql.Composed:
        """SELECT of the inserted and updated rows with their new values.

        For a table without a key: of all wanted rows.
        """
        if not self.staged.shape.key:
            return sql.SQL("SELECT w.* FROM {} AS w").format(self.staged.wanted)
        return sql.SQL("SELECT w.* FROM {}").format(self.wanted_of(INSERT, UPDATE))

    def wanted_of(self, *operations: str) -> sql.Composable:
        """``w`` for a FROM clause: the wanted rows of these operations, which are ``o`` unless all rows come back."""
        if self.whole and INSERT in operations:
            return sql.SQL("{} AS w").format(self.staged.wanted)
        return sql.SQL("{} AS o JOIN {} AS w ON ({}) AND {}").format(
            self.ops,
            self.staged.wanted,
            sql.SQL(" OR ").join(is_op("o", operation) for operation in operations),
            self.joins("w"),
        )

    @property
    def wanted_with_ops(self) -> tuple[sql.Composable, sql.Composable]:
        """``w`` for a FROM clause: each inserted or updated row, and the position of its operation in ``ops``."""
        return self.wanted_of(INSERT, UPDATE), sql.SQL("NULL::tid" if self.whole else "o.ctid")

    def joins(self, alias: str, ops: str = "o") -> sql.Composable:
        """The condition that a row of the table belongs to an operation."""
        shape = self.staged.shape
        if shape.key:
            return shape.is_of(ops, alias)
        return sql.SQL("{}.row_text OPERATOR(pg_catalog.=) {}").format(
            sql.Identifier(ops), row_text(shape.columns, alias)
        )


def is_op(alias: str, operation: str) -> sql.Composed:
    """SQL: a row of ``ops`` is of this operation, under any search path."""
    return sql.SQL("{}.op OPERATOR(pg_catalog.=) {}").format(sql.Identifier(alias), sql.Literal(operation))


def compute(workspace: Workspace, staged: Staged, mode: RestoreMode, references: Sequence[Reference] = ()) -> TableDiff:
    """Compare both loaded sides of one table.

    :param references: foreign keys, of which those that refer to the table matter.
    """
    shape = staged.shape
    wanted_ops = {"missing": [INSERT], "rows": [INSERT, UPDATE]}.get(mode, [INSERT, UPDATE, DELETE])
    is_there, in_wanted = workspace.seals.count(staged.present), workspace.seals.count(staged.wanted)
    if is_there is None or in_wanted is None:
        query = sql.SQL("SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})")
        both = query.format(staged.present, staged.wanted)
        ((is_there, in_wanted),) = workspace.rows(both, None, f"comparing {shape.name}")
    matched = staged.matched + in_wanted
    all_new = {INSERT: in_wanted} if shape.key and not is_there else None
    # The mode `live` removes operations later, so it needs a table. In the mode `rows` the backup alone does not say
    # which rows these are.
    if all_new is not None and mode in ("exact", "missing"):
        ops = sql.SQL("({})").format(_all_new(staged, ", false AS moves, w.ctid AS ctid"))
        return described(workspace, staged, ops, matched, references, whole=True, counts=all_new)
    body = _as_bag(staged) if not shape.key else _by_key(staged) if is_there else _all_new(staged)
    table = workspace.derive(
        f"ops_{staged.index}",
        sql.SQL("SELECT o.*, false AS moves FROM ({}) AS o WHERE op IN ({})").format(
            body, sql.SQL(", ").join(map(sql.Literal, wanted_ops))
        ),
        f"comparing {shape.name}",
    )
    # Without the numbers of operations, the planner expects few and compares each row with each.
    workspace.analyze(f"analyzing {shape.name}", (table, ("op", *shape.op_key) if shape.key else ()))
    return described(workspace, staged, table, matched, references, counts=all_new)


def seal(workspace: Workspace, diffs: Iterable[TableDiff]) -> None:
    """Remember what the tables ``ops`` hold now."""
    workspace.seals.keep(*(diff.ops_table for diff in diffs if not diff.whole))


def described(
    workspace: Workspace,
    staged: Staged,
    ops: sql.Composable,
    in_backup: int,
    references: Sequence[Reference] = (),
    *,
    whole: bool = False,
    counts: Mapping[str, int] | None = None,
) -> TableDiff:
    """Count the operations in a table ``ops``.

    :param in_backup: the number of rows that the backup has of the table.
    :param whole: see :class:`TableDiff`.
    :param counts: the number of rows of each operation, if it is known.
    """
    shape = staged.shape
    if counts is None:
        counting = sql.SQL("SELECT op, sum(times)::bigint FROM {} GROUP BY op").format(ops)
        counts = dict(workspace.rows(counting, None, "counting"))
    counts = {operation: int(count) for operation, count in counts.items() if count}
    columns = _changed_columns(workspace, staged, ops) if counts.get(UPDATE) else {}
    plan = TablePlan(
        table=shape.name,
        insert=counts.get(INSERT, 0),
        update=counts.get(UPDATE, 0),
        delete=counts.get(DELETE, 0),
        unchanged=in_backup - counts.get(INSERT, 0) - counts.get(UPDATE, 0),
        keys=_keys(workspace, staged, ops, list(counts)),
        columns=columns,
        notes=shape.notes,
    )
    carried = {
        name
        for reference in with_parent(references, shape.name)
        if reference.on_update != NO_ACTION
        for name in reference.parent_columns
    }
    moving, anew = 0, False
    if isinstance(ops, sql.Identifier):
        moving, anew = _mark_moving(workspace, staged, ops, list(columns), carried)
    # If all rows of the backup come back, the backup that the plan names defines them.
    all_new = whole and not staged.matched
    digest = f"all {plan.insert}" if all_new else _digest(workspace, staged, ops, deletes=bool(plan.delete))
    return TableDiff(staged, ops, plan, digest, moving, anew, whole)


def digest_of_values(workspace: Workspace, diff: TableDiff) -> str:
    """SHA-256 over the rows to insert and update, with their new values."""
    texts = sql.SQL("SELECT {} AS text FROM ({}) AS v").format(row_text(diff.staged.shape.columns, "v"), diff.written)
    ((digest,),) = workspace.rows(digest_of_texts(texts), None, f"reading the values of {diff.name}")
    return str(digest)


def _all_new(staged: Staged, more: str = "") -> sql.Composed:
    """The result of :func:`_by_key` if the clinic has no present row that differs. No value has to be read.

    It is read under the application's search path too, so each type has its schema.

    :param more: further columns.
    """
    # Without a column of unlimited length, PostgreSQL makes one file for a table instead of three.
    return sql.SQL("SELECT {} AS op, 1 AS times, {}, NULL::pg_catalog.bool AS present_hash {} FROM {} AS w").format(
        sql.SQL("'insert'::pg_catalog.varchar(6)"), staged.shape.as_op_key("w"), sql.SQL(more), staged.wanted
    )


def _by_key(staged: Staged) -> sql.Composed:
    # OFFSET 0 keeps each side a row of its own. Otherwise wide tables would exceed the columns that a join may have.
    shape = staged.shape
    side = sql.SQL("(SELECT {}, {} AS row_text FROM {} AS s OFFSET 0)")
    return sql.SQL("""
        SELECT CASE WHEN p.row_text IS NULL THEN 'insert' WHEN w.row_text IS NULL THEN 'delete' ELSE 'update' END AS op,
               1 AS times, {keys},
               sha256(convert_to(p.row_text, 'UTF8')) AS present_hash
          FROM {wanted} AS w
          FULL JOIN {present} AS p ON {same}
         WHERE w.row_text IS DISTINCT FROM p.row_text""").format(
        keys=sql.SQL(", ").join(
            sql.SQL("COALESCE(w.{0}, p.{0}) AS {0}").format(sql.Identifier(name)) for name in shape.op_key
        ),
        wanted=side.format(shape.as_op_key("s"), row_text(shape.columns, "s"), staged.wanted),
        present=side.format(shape.as_op_key("s"), row_text(shape.columns, "s"), staged.present),
        same=shape.same_op_key("w", "p"),
    )


def _as_bag(staged: Staged) -> sql.Composed:
    """Compare rows without a key by counting equal rows on each side."""
    columns = staged.shape.columns
    return sql.SQL("""
        SELECT CASE WHEN sum(side) > 0 THEN 'insert' ELSE 'delete' END AS op, abs(sum(side)) AS times, row_text
          FROM (SELECT {wanted_row} AS row_text, 1 AS side FROM {wanted} AS w
                UNION ALL SELECT {present_row}, -1 FROM {present} AS p) AS both_sides
         GROUP BY row_text
        HAVING sum(side) <> 0""").format(
        wanted=staged.wanted,
        present=staged.present,
        wanted_row=row_text(columns, "w"),
        present_row=row_text(columns, "p"),
    )


def _keys(
    workspace: Workspace, staged: Staged, ops: sql.Composable, operations: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """A few keys of each operation, if the database itself numbers the rows. Any other key may be a patient's."""
    key, now = staged.shape.op_key, staged.shape.now
    numbered = {column.name for column in now.columns if column.is_numbered}
    if not operations or not has_plain_key(now) or not numbered.issuperset(now.primary_key):
        return {}
    shown = sql.SQL("concat_ws(', ', {})").format(columns_of(key, "o"))
    found = workspace.rows(
        sql.SQL("""
            SELECT v.op, array_agg(s.shown ORDER BY s.place)
              FROM unnest({operations}::text[]) AS v (op)
             CROSS JOIN LATERAL (SELECT {shown} AS shown, row_number() OVER (ORDER BY {shown_key}) AS place
                                   FROM (SELECT * FROM {ops} AS x WHERE x.op = v.op
                                          ORDER BY {key} LIMIT {limit}) AS o) AS s
             GROUP BY v.op""").format(
            shown=shown,
            key=columns_of(key, "x"),
            shown_key=columns_of(key, "o"),
            ops=ops,
            operations=sql.Literal(list(operations)),
            limit=sql.Literal(SHOWN_KEYS),
        ),
        None,
        "listing keys",
    )
    return {op: tuple(keys) for op, keys in found}


def _changed_columns(workspace: Workspace, staged: Staged, ops: sql.Composable) -> dict[str, int]:
    """The columns that differ in the rows to update. The key is compared too, because 1.0 and 1.00 are equal keys."""
    shape, found = staged.shape, dict[str, int]()
    for start in range(0, len(shape.columns), COUNTED_COLUMNS):
        names = shape.columns[start : start + COUNTED_COLUMNS]
        counts = sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(_differs([name])) for name in names)
        (row,) = workspace.rows(
            sql.SQL("SELECT {} FROM {}").format(counts, _updates(staged, ops)), None, "comparing columns"
        )
        found |= {name: int(count) for name, count in zip(names, row, strict=True) if count}
    return found


def _mark_moving(
    workspace: Workspace, staged: Staged, ops: sql.Identifier, changed: Sequence[str], carried: Collection[str]
) -> tuple[int, bool]:
    """Mark the rows to update that UPDATE cannot write one by one.

    Returns their number, and whether UPDATE cannot be used at all. These are rows whose unique value another row gets,
    rows with another value in a column that is always generated as identity, and rows whose referenced values change.
    A value also changes if only its spelling does (1.0 and 1.00), if ON UPDATE would carry that to other rows.

    :param carried: columns whose changes ON UPDATE carries to other rows.
    """
    shape = staged.shape
    immediate = [name for name in changed if name in shape.rules.immediate_columns]
    fixed = [name for name in changed if name in shape.fixed or name in carried]
    anew = bool(fixed) and _mark(workspace, ops, _places(staged, ops, fixed))
    marked = anew
    if immediate and _count_changed(workspace, staged, ops, immediate) > 1:
        held, unknown = held_by(workspace, staged, ops, immediate)
        if held:
            marked |= _mark(workspace, ops, sql.SQL("{}::tid[]").format(sql.Literal(sorted(held))))
        if unknown and _count_changed(workspace, staged, ops, sorted(unknown)) > 1:
            marked |= _mark(workspace, ops, _places(staged, ops, sorted(unknown)))
    if not marked:
        return 0, False
    # Rows may be marked for two reasons, or since an earlier count: the mode `live` leaves out some and counts again.
    ((count,),) = workspace.rows(sql.SQL("SELECT count(*) FROM {} WHERE moves").format(ops), None, "counting")
    return int(count), anew


def _count_changed(workspace: Workspace, staged: Staged, ops: sql.Composable, names: Sequence[str]) -> int:
    """The number of rows to update of which one of these columns changes."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(_updates(staged, ops), _differs(names))
    ((count,),) = workspace.rows(query, None, "comparing unique values")
    return int(count)


def _places(staged: Staged, ops: sql.Composable, names: Sequence[str]) -> sql.Composed:
    """The places in ``ops`` of the rows to update of which one of these columns changes."""
    return sql.SQL("ARRAY(SELECT o.ctid FROM {} WHERE {})").format(_updates(staged, ops), _differs(names))


def _mark(workspace: Workspace, ops: sql.Identifier, places: sql.Composable) -> bool:
    """Mark the operations in these places, an array; returns whether there are any."""
    statement = sql.SQL("UPDATE {} AS m SET moves = true WHERE m.ctid = ANY ({})").format(ops, places)
    count = workspace.execute(statement, "marking rows that move")
    workspace.seals.wrote(ops, updated=count)
    return count > 0


def _updates(staged: Staged, ops: sql.Composable) -> sql.Composed:
    """``o``, ``w`` and ``p``: the operation of each row to update, the wanted row and the present row."""
    shape = staged.shape
    return sql.SQL("{} AS o JOIN {} AS w ON {} AND o.op = 'update' JOIN {} AS p ON {}").format(
        ops, staged.wanted, shape.is_of("o", "w"), staged.present, shape.is_of("o", "p")
    )


def _differs(names: Sequence[str]) -> sql.Composed:
    """Compare by the texts' bytes, because a collation may treat different texts as equal.

    The text is that of a row: it is never NULL, and no cast of the application makes it.
    """
    return sql.SQL(" OR ").join(
        sql.SQL('{} <> {} COLLATE "C"').format(row_text([name], "w"), row_text([name], "p")) for name in names
    )


def _digest(workspace: Workspace, staged: Staged, ops: sql.Composable, *, deletes: bool) -> str:
    """SHA-256 over all operations and present rows. The wanted rows are the backup's, and the plan names the backup.

    :param deletes: some rows are deleted. Then their columns that the backup does not have count too.
    """
    shape, texts = staged.shape, sql.SQL("SELECT o::text AS text FROM {} AS o").format(ops)
    if not isinstance(ops, sql.Identifier):
        columns = columns_of(("op", "times", *shape.op_key, "present_hash", "moves"), "o")
        texts = sql.SQL("SELECT ROW({})::text AS text FROM {} AS o").format(columns, ops)
    if deletes and shape.key and shape.kept:
        texts = sql.SQL("SELECT o::text || {} AS text FROM {} AS o LEFT JOIN {} AS t ON {} AND {}").format(
            row_text(shape.kept, "t"), ops, shape.in_sql, is_op("o", DELETE), shape.is_of("o", "t")
        )
    ((digest,),) = workspace.rows(digest_of_texts(texts), None, "computing the plan's digest")
    return str(digest)
