"""Finds what makes a restore impossible before anything is written, so that the plan can list it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.base.text import table_in_sql
from clinic_backups.restore import former_parts
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.obstacle import Obstacle
from clinic_backups.restore.obstacles import Obstacles
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.questions import Question, answers
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.declarations import Declarations

SHOWN, SHOWN_MISSING = 5, 20


class Checks:
    """Finds refusals.

    :param tables: PostgreSQL's description of the restored tables and of those that refer to them.
    :param references: the foreign keys from and to the restored tables.
    :param declared: the declarations of tables and columns. Rows of derived tables are deleted if they prevent the
        restore.
    :param ways: how rows lead to the clinic, with the extract of each table.
    :param former: tables that have left the restored ones since the backup.
    :param where: a description of the database, for people.
    :param parents: the parent tables.
    :param inside: see :func:`~clinic_backups.restore.links_inside.links_inside`.
    """

    def __init__(
        self,
        workspace: Workspace,
        diffs: Mapping[str, TableDiff],
        tables: Mapping[str, Table],
        references: Sequence[Reference],
        declared: Declarations,
        ways: Ways,
        former: former_parts.Former,
        *,
        where: str = "",
        parents: Collection[str] = (),
        inside: Collection[Reference] = (),
    ) -> None:
        self._workspace, self._diffs, self._where, self._former = workspace, diffs, where, former
        self._most_rows = max((diff.plan.rows for diff in diffs.values()), default=0)
        self._obstacles = Obstacles(workspace, diffs, tables, references, declared, ways, former, parents, inside)

    def run(self) -> Iterator[Refusal]:
        """All refusals, table by table."""
        for diff in self._diffs.values():
            shape, writes = diff.staged.shape, diff.plan.insert or diff.plan.update
            yield from self._missing_rights(diff)
            if writes:
                yield from shape.on_write
            if diff.plan.insert and shape.on_insert is not None:
                yield shape.on_insert
        yield from former_parts.refusals(self._workspace.role(), self._diffs, self._former) if self._former else ()
        obstacles = list(self._obstacles.all())
        for obstacle, (count, keys, missing) in zip(obstacles, self._found(obstacles), strict=True):
            if count:
                yield obstacle.says(count, keys, missing)

    def leave(self) -> Counter[str]:
        """Remove impossible operations from the tables' operations; returns their number for each table."""
        left: Counter[str] = Counter()
        for obstacle in self._obstacles.all():
            query = sql.SQL("SELECT DISTINCT f.place FROM ({}) AS f (a, place, b)").format(obstacle.query)
            statement = sql.SQL("DELETE FROM {} AS x USING {} AS f WHERE x.ctid OPERATOR(pg_catalog.=) f.c0")
            doing = f"leaving rows of {obstacle.diff.name}"
            self._workspace.seals.require(obstacle.diff.ops_table)
            with self._path(obstacle):
                found = self._workspace.view(query, doing, 1)
                with self._workspace.application_path():
                    count = self._workspace.execute(statement.format(obstacle.diff.ops, found), doing)
                left[obstacle.diff.name] += count
                self._workspace.seals.wrote(obstacle.diff.ops_table, deleted=count)
                self._workspace.seals.keep(obstacle.diff.ops_table)
                continue
            self._workspace.seals.taken_back(obstacle.diff.ops_table)
        return +left

    def _missing_rights(self, diff: TableDiff) -> Iterator[Refusal]:
        plan = diff.plan
        wanted = {"INSERT": plan.insert + diff.moving, "UPDATE": plan.update, "DELETE": plan.delete + diff.moving}
        missing = [right for right in diff.staged.shape.rules.missing_rights if wanted.get(right)]
        if missing:
            yield missing_rights(self._workspace.role(), self._where, diff.name, missing)

    @contextmanager
    def _path(self, obstacle: Obstacle) -> Iterator[None]:
        """If a query fails that calls functions of the application, the rehearsal finds the refusal."""
        if not obstacle.by_application:
            yield
            return
        with suppress(PermanentError), self._workspace.attempt():
            yield

    def _found(self, obstacles: Sequence[Obstacle]) -> list[tuple[int, str, str]]:
        """For each, the number of rows, some of their keys, and some keys that are missing in other tables."""
        by_application = iter(self._ask([each for each in obstacles if each.by_application], by_application=True))
        by_us = iter(self._ask([each for each in obstacles if not each.by_application], by_application=False))
        return [_told(*next(by_application if each.by_application else by_us)) for each in obstacles]

    def _ask(self, obstacles: Sequence[Obstacle], *, by_application: bool) -> list[tuple[Any, ...]]:
        """If a query fails that calls functions of the application, the rehearsal finds the refusal."""
        query = sql.SQL(
            "SELECT count(*), (array_agg(shown ORDER BY shown))[1:{0}], (array_agg(DISTINCT missing))[1:{1}]"
            " FROM ({2}) AS f (shown, place, missing)"
        )
        questions = [
            Question(query.format(sql.Literal(SHOWN), sql.Literal(SHOWN_MISSING), each.query), "looking for obstacles")
            for each in obstacles
        ]
        return answers(
            self._workspace, questions, 3, rows=self._most_rows, as_application=by_application,
            failed=(0, None, None) if by_application else None,
        )  # fmt: skip


def _told(count: int, keys: Sequence[str | None] | None, missing: Sequence[str | None] | None) -> tuple[int, str, str]:
    shown = "; ".join(filter(None, keys or ())) or "keys that are not shown"
    return int(count), shown + ("; …" if count > SHOWN else ""), "; ".join(filter(None, missing or ()))


def missing_rights(role: str, where: str, table: str, rights: Sequence[str]) -> Refusal:
    """A right that the restoring role does not have."""
    names = ", ".join(rights)
    return Refusal(
        table,
        f"The role {role} of connection restore_db may not {names} in {table}{f', in {where}' if where else ''}.",
        f"GRANT {names} ON {table_in_sql(table)} TO {role};",
    )
