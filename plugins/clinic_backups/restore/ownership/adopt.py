"""Finds rows of the clinic that are in the database although no extract returns them now.

There are three kinds. ON DELETE SET NULL left some without a link to the clinic. Others refer to such a row. Others are
left out by an extract on purpose, as a line with ``rows`` in ``not_backed_up.txt`` declares, for instance because they
were marked as deleted.

The rows that are found are compared with the backup like the clinic's other rows, and the safety backup holds them.
The present database decides whether a row belongs to the clinic, see
:mod:`clinic_backups.restore.ownership.conditions`. For rows without a primary key see
:mod:`clinic_backups.restore.ownership.adopt_equal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.restore.ownership.adopt_equal import EqualRows
from clinic_backups.restore.ownership.conditions import Ownership
from clinic_backups.restore.ownership.staged_rows import load, places
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.questions import Question, answers
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace, row_text
from clinic_backups.tenant.outside import Outside


@dataclass(frozen=True)
class Left:
    """Rows that may be the clinic's, but without proof. They are left alone."""

    rows: int


def adopt(
    workspace: Workspace, staged: Mapping[str, Staged], ways: Ways, references: Sequence[Reference]
) -> Iterator[tuple[str, Outside | Left]]:
    """Add these rows to the clinic's present rows, table by table. Returns the rows that were found in each table.

    :param references: the foreign keys of the database.
    """
    adoption = Adoption(workspace, staged, ways, references)
    has_rows = answers(workspace, [_has_rows(each) for each in staged.values()])
    with_rows = [name for name, (has,) in zip(staged, has_rows, strict=True) if has]
    waiting = with_rows
    while waiting:
        # Rows that refer to a row which was just found may be in a table that was already searched.
        found_in = set[str]()
        for name in waiting:
            found = adoption.look(name)
            if found is not None:
                yield name, found
                found_in.add(name)
        children = {way.child for way in ways.links if way.parent in found_in}
        waiting = [name for name in with_rows if name in children]
    for name, count in adoption.left():
        yield name, Left(count)


def _has_rows(staged: Staged) -> Question:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(staged.wanted)
    return Question(query, f"looking for rows of {staged.shape.name}")


class Adoption:
    """Searches for such rows, table by table; see :func:`adopt`."""

    def __init__(
        self, workspace: Workspace, staged: Mapping[str, Staged], ways: Ways, references: Sequence[Reference]
    ) -> None:
        self._workspace, self._staged, self._ways = workspace, staged, ways
        self._ownership = Ownership(ways, staged, references)
        self._equal: dict[str, EqualRows] = {}
        self._looks = 0

    def look(self, name: str) -> Outside | None:
        """Load the found rows into the table's present rows. ``None``: no row was found."""
        staged = self._staged[name]
        if staged.shape.key:
            found = self._by_key(staged)
        else:
            if name not in self._equal:
                self._equal[name] = EqualRows(self._workspace, staged, self._ways, self._ownership)
            found = self._equal[name].look()
        return found if found.rows else None

    def left(self) -> Iterator[tuple[str, int]]:
        """Tables without a primary key, each with the number of rows that may be the clinic's but were not accepted."""
        for name, rows in self._equal.items():
            if count := rows.left():
                yield name, count

    def _by_key(self, staged: Staged) -> Outside:
        """Rows with the keys of missing ones, however they were changed.

        The database decides whether they are the clinic's.
        """
        shape, doing = staged.shape, f"looking for rows of {staged.shape.name} that no extract gives"
        rows = sql.SQL("""
            FROM {wanted} AS w JOIN {table} AS t ON {same}
             WHERE NOT EXISTS (SELECT FROM {present} AS p WHERE {there})""").format(
            wanted=staged.wanted, table=shape.in_sql, same=shape.same_key("w", "t"), present=staged.present,
            there=shape.same_key("p", "w"),
        )  # fmt: skip
        # Counted, because with EXISTS the planner uses nested loops, which take minutes if there is no such row.
        if not self._workspace.rows(sql.SQL("SELECT count(*) {}").format(rows), None, doing)[0][0]:
            return Outside()
        self._looks += 1
        same = sql.SQL("{} = {}").format(row_text(shape.columns, "w"), row_text(shape.columns, "t"))
        candidates = self._workspace.derive(
            f"candidates_{self._looks}",
            sql.SQL("SELECT t.tableoid AS part, t.ctid AS place, NOT ({}) AS changed, {} {} AND {}").format(
                same, shape.as_op_key("t"), rows, self._ownership.is_ours(shape)
            ),
            doing,
        )
        if not self._workspace.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(candidates), doing):
            return Outside()
        self._workspace.analyze(doing, (candidates, ()))
        self._workspace.seals.keep(candidates)
        others = self._ways.of_others(
            shape.name,
            shape.as_op_key("r"),
            sql.SQL("EXISTS (SELECT FROM {} AS c WHERE {})").format(candidates, shape.is_of("c", "r")),
        )
        self._workspace.seals.require(candidates)
        found = places(
            self._workspace,
            sql.SQL("SELECT c.part, c.place, c.changed FROM {} AS c WHERE NOT EXISTS (SELECT FROM {} AS o WHERE {})")
            .format(candidates, others, shape.same_op_key("c", "o")),
            doing,
        )  # fmt: skip
        load(self._workspace, staged, found)
        return found
