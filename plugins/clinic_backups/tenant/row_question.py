"""One statement that counts the rows of several problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_problems import counted
from clinic_backups.tenant.row_sql import BackupRows, template


@dataclass
class RowQuestion:
    """Several counts in one statement.

    :param rows: the rows in the backups.
    """

    rows: BackupRows
    problems: list[Problem] = field(default_factory=list)
    """The problem that each of :attr:`arms` counts."""
    arms: list[sql.Composable] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """The tables whose rows in the backups are counted."""
    counts: dict[str, sql.Composable] = field(default_factory=dict)
    """Further named queries, on those."""
    lists: dict[int, sql.Composable] = field(default_factory=dict)
    """By the number of a problem: the query of the rows that it counts, by their keys."""

    def count(
        self, problem: Problem, arm: str, *, listed_by: sql.Composable | None = None, **parts: sql.Composable
    ) -> None:
        """:param listed_by: what identifies one of the rows that are counted."""
        number = len(self.arms)
        both = sql.SQL("{}, count(*)").format(sql.Literal(number))
        self.arms.append(template(arm).format(number=sql.Literal(number), what=both, clinic=self.rows.clinic, **parts))
        self.problems.append(problem)
        if listed_by is not None:
            self.lists[number] = template(arm).format(what=listed_by, clinic=self.rows.clinic, **parts)

    def name(self, query: str, **parts: sql.Composable) -> sql.Identifier:
        """Add a named query."""
        name = f"cuenta_del_respaldo_{len(self.counts)}"
        self.counts[name] = template(query).format(name=sql.Identifier(name), **parts)
        return sql.Identifier(name)

    def query(self, backups: Iterable[sql.Composable], arms: Iterable[sql.Composable] | None = None) -> sql.Composable:
        named = sql.SQL(",\n").join([*backups, *self.counts.values()])
        return sql.SQL("WITH {}\n{}").format(named, sql.SQL("\nUNION ALL\n").join(arms or self.arms))

    def found(self, counts: Iterable[tuple[int, int]]) -> list[Problem]:
        """The problems that have rows. :param counts: the answer: the number of each problem, and its rows."""
        return [counted(self.problems[number], count) for number, count in sorted(counts) if count]
