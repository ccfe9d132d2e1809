"""Finds rows that come back although a table still has them that has left the restored one.

A partition that was detached keeps its rows, and so does a table that no longer inherits. A manifest says by number
which partitions and heirs a table had. So such a table is found under any name, and wherever it was moved to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.base.text import capitalised, in_sql, table_in_sql
from clinic_backups.restore.columns.migrated import Migrated
from clinic_backups.restore.columns.shape import PLAIN_KEY_TYPES, Shape
from clinic_backups.restore.diff import INSERT, TableDiff, is_op
from clinic_backups.restore.obstacle import Obstacle
from clinic_backups.restore.obstacle_sql import shown
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import read_rules
from clinic_backups.restore.workspace import Workspace, equal_texts, row_text
from clinic_backups.tenant.drift import FILE, left_part

_SAME_TEXTS = (*PLAIN_KEY_TYPES, "text", "character varying")
"""Types whose equal values have equal texts, also from one of them to another."""


@dataclass(frozen=True)
class FormerPart:
    """A table that was a partition or an heir of a restored one when the backup was made, and is not any more.

    :param now: its description; none if this role may not read it.
    :param said: a line says that rows may come back although it has them.
    :param partitioned: the restored table is partitioned.
    """

    name: str
    now: Table | None
    said: bool
    partitioned: bool


Former = Mapping[str, Sequence[FormerPart]]
"""By restored table."""


def former_parts(workspace: Workspace, migrated: Migrated, tables: Mapping[str, Table]) -> dict[str, list[FormerPart]]:
    """Those of each table. They are locked, so nobody attaches, renames or empties them until the restore ends.

    Of one that has partitions itself, these are left out.

    :param tables: PostgreSQL's description of the restored tables.
    """
    left = {}
    for name, table in tables.items():
        present = {part.name for part in table.parts or ()}
        if gone := [part for part in migrated.parts.get(name) or () if part not in present]:
            left[name] = gone
    if not left:
        return {}
    rules = read_rules(workspace, sorted({part for parts in left.values() for part in parts}))
    readable = [name for name, each in rules.items() if "SELECT" not in each.missing_rights and _lock(workspace, name)]
    described = workspace.tables(readable) if readable else {}
    partitioned = workspace.relations()
    inner = {part.name for table in described.values() for part in table.parts or ()}
    return {
        name: [
            FormerPart(part, described.get(part), migrated.drift.has_left(part, name), partitioned[name])
            for part in parts
            if part in rules and part not in inner
        ]
        for name, parts in left.items()
    }


def _lock(workspace: Workspace, name: str) -> bool:
    """Lock a table. False: this role may not, because it may not use the schema."""
    locking = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT").format(qualified(name))
    try:
        with workspace.attempt():
            workspace.execute(locking, f"locking {name}")
    except PermanentError:
        return False
    return True


def obstacles(diffs: Mapping[str, TableDiff], former: Former) -> Iterator[Obstacle]:
    """Rows to insert that one of them has, unless a line says that they may come back."""
    for diff, part in _of_inserts(diffs, former):
        if not part.said and (query := _found_again(diff, part)) is not None:
            yield Obstacle(diff, query, _Twice(diff, part).refusal)


def refusals(role: str, diffs: Mapping[str, TableDiff], former: Former) -> Iterator[Refusal]:
    """Those that cannot be compared, so nobody knows whether rows would come back twice."""
    for diff, part in _of_inserts(diffs, former):
        if part.said or _found_again(diff, part) is not None:
            continue
        table = diff.name
        if part.now is None:
            why = f"The role {role} of connection restore_db may not read it, so"
            schema = in_sql(part.name.split(".", 1)[0])
            remedy = f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table_in_sql(part.name)} TO {role}; "
        else:
            why = f"It lacks columns of {table} by which rows are identified, or they have other types, so"
            remedy = ""
        yield Refusal(
            table,
            f"{part.name} was a part of {table} when the backup was made, and has left it. {why} it is not known"
            f" whether rows that would come back into {table} are still there.",
            f"{remedy}Or {_back(diff, part)}" if remedy else capitalised(_back(diff, part)),
        )


def notes(workspace: Workspace, diffs: Mapping[str, TableDiff], former: Former) -> Iterator[tuple[str, str]]:
    """A sentence, with its table, for each of them whose rows come back as a line says."""
    for diff, part in _of_inserts(diffs, former):
        if not part.said:
            continue
        query = _found_again(diff, part)
        if query is None:
            yield diff.name, f"Rows that come back may be in {part.name} too, which was a part of the table ({FILE})."
            continue
        counting = sql.SQL("SELECT count(*) FROM ({}) AS f").format(query)
        ((count,),) = workspace.rows(counting, None, f"looking for rows of {diff.name} in {part.name}")
        if count:
            are = "1 row that comes back is" if count == 1 else f"{count:,} rows that come back are"
            yield diff.name, f"{are} in {part.name} too, which was a part of the table ({FILE})."


def unknown(workspace: Workspace, diffs: Mapping[str, TableDiff], migrated: Migrated) -> Iterator[str]:
    """The partitioned tables with rows to insert of which an older backup does not say what partitions they had."""
    names = [name for name, diff in diffs.items() if diff.plan.insert and migrated.parts.get(name) is None]
    partitioned = workspace.relations() if names else {}
    yield from (name for name in names if partitioned.get(name))


@dataclass(frozen=True)
class _Twice:
    diff: TableDiff
    part: FormerPart

    def refusal(self, count: int, keys: str, _missing: str) -> Refusal:
        table, part = self.diff.name, self.part.name
        are = "1 row of the backup is" if count == 1 else f"{count:,} rows of the backup are"
        return Refusal(
            table,
            f"{are} still in {part}, which was a part of {table} when the backup was made, and has left it: {keys}."
            " They would be in both tables.",
            capitalised(_back(self.diff, self.part)),
        )


def _back(diff: TableDiff, part: FormerPart) -> str:
    """What a person can do."""
    table = diff.name
    again = (
        f"ALTER TABLE {table_in_sql(table)} ATTACH PARTITION {table_in_sql(part.name)} …"
        if part.partitioned
        else f"ALTER TABLE {table_in_sql(part.name)} INHERIT {table_in_sql(table)};"
    )
    return (
        f"make {part.name} a part of {table} again for the time of the restore ({again}), or restore without {table}."
        f" If the rows are to come back into {table} although {part.name} has them, add to include/sql/{FILE}:"
        f" `{left_part(table, part.name)}`."
    )


def _of_inserts(diffs: Mapping[str, TableDiff], former: Former) -> Iterable[tuple[TableDiff, FormerPart]]:
    return [(diffs[name], part) for name, parts in former.items() if name in diffs and diffs[name].plan.insert
            for part in parts]  # fmt: skip


def _found_again(diff: TableDiff, part: FormerPart) -> sql.Composed | None:
    """The rows to insert that it has, as an obstacle's query. None: they cannot be compared."""
    if part.now is None:
        return None
    shape, types = diff.staged.shape, {column.name: column.type for column in part.now.columns}
    there = sql.SQL("EXISTS (SELECT FROM {} AS u WHERE {})")
    if not shape.key:
        if not set(shape.columns) <= types.keys():
            return None
        same = sql.SQL("o.row_text = {}").format(row_text(shape.columns, "u"))
        return sql.SQL("SELECT '', o.ctid, NULL FROM {} AS o WHERE {} AND {}").format(
            diff.ops, is_op("o", INSERT), there.format(qualified(part.name), same)
        )
    if (same_key := _same_key(shape, types)) is None:
        return None
    return sql.SQL("SELECT {}, {}, NULL FROM {} WHERE {}").format(
        shown(shape.now, "w"),
        sql.SQL("NULL::tid" if diff.whole else "o.ctid"),
        diff.wanted_of(INSERT),
        there.format(qualified(part.name), same_key),
    )


def _same_key(shape: Shape, types: Mapping[str, str]) -> sql.Composed | None:
    now = {column.name: column.type for column in shape.now.columns}
    if not set(shape.key) <= types.keys():
        return None
    if all(now[name] == types[name] for name in shape.key):
        return shape.same_key("w", "u")
    if not all(type_.partition("(")[0] in _SAME_TEXTS for name in shape.key for type_ in (now[name], types[name])):
        return None
    return sql.SQL(" AND ").join(equal_texts(name, "w", "u") for name in shape.key)
