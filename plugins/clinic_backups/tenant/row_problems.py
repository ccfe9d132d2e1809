"""The texts about rows that are in no backup, in several, or in the wrong one."""

from __future__ import annotations

from pathlib import Path

from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.structure import ParentKey

_REPEATED = {
    "rows_twice": "{be} twice in one backup.",
    "rows_shared": "{be} in the backups of several clinics.",
    "equal_rows": "{be} more often in a backup than in the table, which has no primary key.",
}


class RowProblems:
    """The problems of rows, each with a count of 0 until :func:`counted` sets the number of rows.

    :param folder: the folder of the SQL files.
    :param clinic_table: the clinics' own table.
    """

    def __init__(self, folder: Path, clinic_table: str) -> None:
        self._folder, self._clinic_table = folder, clinic_table

    def outside(self, link: ParentKey) -> Problem:
        """Rows of a backup refer to a row that is not in the same backup."""
        columns, column = ", ".join(link.columns), link.columns[-1]
        if link.parent == self._clinic_table:
            text = f"of a backup belong{{s}} to another clinic, as the column {columns} says."
        else:
            text = (
                f"of a backup refer{{s}} in {columns} to a row of {link.parent} that is not in the same clinic's"
                " backup."
            )
        return self._problem(
            link.table,
            text,
            f"Correct the extract of {link.table} or of {link.parent} in {self._folder / 'extract'}, or the rows. If"
            f" this is intended, add the line `{spelled(link.table, column)}: reason` to {self._folder / FILE}.",
        )

    def missing(self, link: ParentKey) -> Problem:
        """Rows that refer to a row of a backup are in no backup."""
        columns = ", ".join(link.columns)
        return self._left_out(
            link.table,
            f"{{be}} in no backup, but the column {columns} refers to a row of {link.parent} that is in one.",
        )

    def in_part(self, link: ParentKey) -> Problem:
        """Rows in no backup have a foreign key with values in some columns and NULL in others."""
        columns = ", ".join(link.columns)
        return self._left_out(
            link.table,
            f"{{be}} in no backup, and only some of the columns {columns} have a value. Together they refer to a row"
            f" of {link.parent}.",
        )

    def equal_missing(self, table: str) -> Problem:
        """The backups have only some of several equal rows."""
        return self._left_out(table, "{be} in no backup, but equal rows are in one.")

    def repeated(self, kind: str, table: str) -> Problem:
        """:param kind: ``rows_twice``, ``rows_shared`` or, for a table without a key, ``equal_rows``."""
        return self._problem(
            table,
            _REPEATED[kind],
            "Correct the extract: each row belongs to one clinic, and a join must not multiply it.",
        )

    def _left_out(self, table: str, text: str) -> Problem:
        return self._problem(
            table,
            text,
            f"Correct the extract of {table} in {self._folder / 'extract'}: it leaves out rows of a clinic. If this is"
            f" intended, add the line `{spelled(table)}: rows, reason` to {self._folder / FILE}.",
        )

    def _problem(self, table: str, text: str, remedy: str) -> Problem:
        return Problem(table, text, remedy, check="rows")


def counted(problem: Problem, count: int) -> Problem:
    """The problem as a sentence about this number of rows."""
    one = count == 1
    text = problem.reason.format(s="s" if one else "", be="is" if one else "are", it="it" if one else "them")
    reason = f"{problem.table}: {count} row{'' if one else 's'} {text}"
    return Problem(problem.table, reason, problem.remedy, problem.is_gap, problem.check)
