"""Finds the foreign keys that lead only from rows that come back to other rows that come back.

If all rows of a table come back, most of what they refer to comes back with them. Then nothing else in the database
decides whether the reference is possible, so one question replaces the search for missing parents, for parents of
other clinics, the locks on parents, and the second look at them after the writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg2 import sql

from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.obstacle_sql import and_not_inserted, has_referred, none_null
from clinic_backups.restore.questions import Question, answers
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace


def links_inside(
    workspace: Workspace, diffs: Mapping[str, TableDiff], references: Iterable[Reference]
) -> frozenset[Reference]:
    """Those of the foreign keys by which every row that is written refers to a row that is inserted, or to none.

    Only tables are looked at that get all their rows back. The value that a foreign key refers to is unique, so no row
    of others can have it as well: PostgreSQL would refuse the inserted one.
    """
    both = [
        (each, child, parent)
        for each in references
        if each.is_visible
        and (child := diffs.get(each.child)) is not None
        and (parent := diffs.get(each.parent)) is not None
        and child.whole
        and parent.whole
        and set(each.columns) <= set(child.staged.shape.columns)
        and has_referred(parent, each)
    ]
    questions = [
        Question(
            # EXISTS would make PostgreSQL plan for the first row, and compare each row with each.
            sql.SQL("SELECT count(*) FROM {} AS w WHERE {} {}").format(
                child.staged.wanted, none_null(each.columns, "w"), and_not_inserted(parent, each, "w")
            ),
            f"looking whether {each.child} refers only to rows of {each.parent} that come back",
        )
        for each, child, parent in both
    ]
    rows = max((diff.plan.rows for diff in diffs.values()), default=0)
    return frozenset(
        each
        for (each, _, _), (leads_out,) in zip(both, answers(workspace, questions, rows=rows), strict=True)
        if not leads_out
    )
