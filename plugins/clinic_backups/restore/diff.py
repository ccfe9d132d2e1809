"""Which rows a restore would insert, update and delete: computed by the database, among the rows that differ."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.model import RestoreMode
from clinic_backups.restore.model import TablePlan
from clinic_backups.restore.shape import has_plain_key
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, columns_of, row_text, same_key

SHOWN_KEYS = 5
INSERT, UPDATE, DELETE = "insert", "update", "delete"


@dataclass(frozen=True)
class TableDiff:
    """One table's operations, in a temporary table ``ops`` (``op``, and the key, or the row's text ``row``)."""

    staged: Staged
    ops: sql.Identifier
    plan: TablePlan
    digest: str

    @property
    def name(self) -> str:
        return self.staged.shape.name


def compute(workspace: Workspace, staged: Staged, mode: RestoreMode) -> TableDiff:
    """Compare one table's two sides, which are loaded."""
    shape = staged.shape
    ops = sql.Identifier("pg_temp", f"ops_{staged.index}")
    for side in (staged.wanted, staged.present):
        workspace.execute(sql.SQL("ANALYZE {}").format(side), f"analyzing {shape.name}")
    wanted_ops = [INSERT] if mode == "missing" else [INSERT, UPDATE, DELETE]
    body = _by_key(staged) if shape.key else _as_bag(staged)
    workspace.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT * FROM ({}) AS o WHERE op IN ({})").format(
            sql.Identifier(f"ops_{staged.index}"), body, sql.SQL(", ").join(map(sql.Literal, wanted_ops))
        ),
        f"comparing {shape.name}",
    )
    workspace.execute(sql.SQL("ANALYZE {}").format(ops), f"analyzing {shape.name}")
    counts = dict(
        workspace.rows(sql.SQL("SELECT op, sum(times)::bigint FROM {} GROUP BY op").format(ops), None, "counting")
    )
    ((in_wanted,),) = workspace.rows(sql.SQL("SELECT count(*) FROM {}").format(staged.wanted), None, "counting")
    plan = TablePlan(
        table=shape.name,
        insert=int(counts.get(INSERT, 0)),
        update=int(counts.get(UPDATE, 0)),
        delete=int(counts.get(DELETE, 0)),
        unchanged=staged.matched + int(in_wanted) - int(counts.get(INSERT, 0)) - int(counts.get(UPDATE, 0)),
        keys=_keys(workspace, staged, ops),
        columns=_changed_columns(workspace, staged, ops) if counts.get(UPDATE) else {},
        notes=shape.notes,
    )
    return TableDiff(staged, ops, plan, _digest(workspace, ops))


def _by_key(staged: Staged) -> sql.Composed:
    key, columns = staged.shape.key, staged.shape.columns
    return sql.SQL("""
        SELECT CASE WHEN p.{first} IS NULL THEN 'insert' WHEN w.{first} IS NULL THEN 'delete' ELSE 'update' END AS op,
               1 AS times, {keys},
               md5({wanted_row}) AS wanted_md5, md5({present_row}) AS present_md5
          FROM {wanted} AS w
          FULL JOIN {present} AS p ON {same}
         WHERE p.{first} IS NULL OR w.{first} IS NULL OR {wanted_row} <> {present_row}""").format(
        first=sql.Identifier(key[0]),
        keys=sql.SQL(", ").join(sql.SQL("COALESCE(w.{0}, p.{0}) AS {0}").format(sql.Identifier(name)) for name in key),
        wanted=staged.wanted,
        present=staged.present,
        same=same_key(key, "w", "p"),
        wanted_row=row_text(columns, "w"),
        present_row=row_text(columns, "p"),
    )


def _as_bag(staged: Staged) -> sql.Composed:
    """Without a key rows are a bag: how many of each there are on either side."""
    columns = staged.shape.columns
    return sql.SQL("""
        SELECT CASE WHEN sum(side) > 0 THEN 'insert' ELSE 'delete' END AS op, abs(sum(side)) AS times,
               row_text, md5(row_text) AS wanted_md5, md5(row_text) AS present_md5
          FROM (SELECT {wanted_row} AS row_text, 1 AS side FROM {wanted} AS w
                UNION ALL SELECT {present_row}, -1 FROM {present} AS p) AS both_sides
         GROUP BY row_text
        HAVING sum(side) <> 0""").format(
        wanted=staged.wanted,
        present=staged.present,
        wanted_row=row_text(columns, "w"),
        present_row=row_text(columns, "p"),
    )


def _keys(workspace: Workspace, staged: Staged, ops: sql.Identifier) -> dict[str, tuple[str, ...]]:
    """A few keys of each operation, where they are numbers: texts may be a patient's."""
    key = staged.shape.key
    if not has_plain_key(staged.shape.now):
        return {}
    shown = sql.SQL("concat_ws(', ', {})").format(columns_of(key, "o"))
    found = workspace.rows(
        sql.SQL("""
            SELECT op, array_agg(shown ORDER BY place)
              FROM (SELECT op, {shown} AS shown, row_number() OVER (PARTITION BY op ORDER BY {key}) AS place
                      FROM {ops} AS o) AS numbered
             WHERE place <= {limit}
             GROUP BY op""").format(shown=shown, key=columns_of(key, "o"), ops=ops, limit=sql.Literal(SHOWN_KEYS)),
        None,
        "listing keys",
    )
    return {op: tuple(keys) for op, keys in found}


def _changed_columns(workspace: Workspace, staged: Staged, ops: sql.Identifier) -> dict[str, int]:
    key = staged.shape.key
    names = [name for name in staged.shape.columns if name not in key]
    if not names:
        return {}
    counts = sql.SQL(", ").join(
        sql.SQL("count(*) FILTER (WHERE w.{0}::text IS DISTINCT FROM p.{0}::text)").format(sql.Identifier(name))
        for name in names
    )
    (row,) = workspace.rows(
        sql.SQL("SELECT {} FROM {} AS o JOIN {} AS w ON {} JOIN {} AS p ON {} WHERE o.op = 'update'").format(
            counts, ops, staged.wanted, same_key(key, "o", "w"), staged.present, same_key(key, "o", "p")
        ),
        None,
        "comparing columns",
    )
    return {name: int(count) for name, count in zip(names, row, strict=True) if count}


def _digest(workspace: Workspace, ops: sql.Identifier) -> str:
    """SHA-256 over all operations with what was and what will be, in two steps so that no text grows too long."""
    ((digest,),) = workspace.rows(
        sql.SQL("""
            SELECT COALESCE(encode(sha256(string_agg(part, ''::bytea ORDER BY bucket)), 'hex'), '')
              FROM (SELECT bucket, sha256(convert_to(string_agg(line, '' ORDER BY line), 'UTF8')) AS part
                      FROM (SELECT left(md5(o::text), 2) AS bucket, md5(o::text) AS line FROM {} AS o) AS lines
                     GROUP BY bucket) AS parts""").format(ops),
        None,
        "computing the plan's digest",
    )
    return str(digest)
