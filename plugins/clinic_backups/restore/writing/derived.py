"""Rows of derived tables that refer to rows which a restore deletes. The application computes them again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.restore.diff import DELETE, TableDiff, is_op
from clinic_backups.restore.row_digests import digest_of_texts
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.live import written_since


@dataclass(frozen=True)
class Derived:
    """Rows of one derived table to delete.

    :param digest: of all their values.
    :param statement: deletes them, and returns a row for each. It may be parsed under any search path.
    :param keys: the foreign keys by which they refer to the deleted rows, with their columns.
    :param new: whether some of them were written since the plan.
    """

    table: str
    rows: int
    digest: str
    statement: sql.Composed
    keys: Mapping[str, str]
    new: bool = False

    @property
    def parts(self) -> dict[str, str]:
        """For the digest of a plan."""
        return self._ways | {f"derived {self.table}": f"{self.rows} {self.digest}"}

    def is_in(self, parts: Mapping[str, str]) -> bool:
        """Whether a plan with these parts deletes such rows too. There may be fewer now, because others were left."""
        return not self.new and f"derived {self.table}" in parts and self._ways.items() <= parts.items()

    @property
    def _ways(self) -> dict[str, str]:
        return {f"derived {self.table} by {name}": columns for name, columns in self.keys.items()}


def in_the_way(
    workspace: Workspace,
    diffs: Mapping[str, TableDiff],
    references: Sequence[Reference],
    derived: Collection[str],
    since: str | None = None,
) -> Iterator[Derived]:
    """The rows of derived tables that refer to rows which the restore deletes.

    :param derived: the tables that ``include/sql`` declares as derived.
    :param since: the snapshot of the plan, for ``new``.
    """
    is_new = sql.SQL("false") if since is None else written_since(since, "d")
    for table in sorted({reference.child for reference in references} & set(derived) - set(diffs)):
        leading = [
            (reference, diff)
            for reference in references
            if reference.child == table
            and (diff := diffs.get(reference.parent)) is not None
            and diff.plan.delete
            and diff.staged.shape.key
        ]
        if not leading:
            continue
        conditions = [
            sql.SQL("EXISTS (SELECT FROM {} AS o JOIN {} AS g ON {} WHERE {} AND {})").format(
                diff.ops,
                diff.staged.present,
                diff.staged.shape.is_of("o", "g"),
                is_op("o", DELETE),
                reference.refers("d", "g"),
            )
            for reference, diff in leading
        ]
        rows = sql.SQL("FROM {} AS d WHERE {}").format(qualified(table), sql.SQL(" OR ").join(conditions))
        found = sql.SQL("SELECT ROW(d.*)::text AS text, {} AS new {}").format(is_new, rows)
        query = sql.SQL("""
            WITH found AS MATERIALIZED ({})
            SELECT (SELECT count(*) FROM found), COALESCE((SELECT bool_or(new) FROM found), false), ({})""").format(
            found, digest_of_texts(sql.SQL("SELECT f.text FROM found AS f"))
        )
        ((count, new, digest),) = workspace.rows(query, None, f"reading rows of {table}")
        if count:
            statement = sql.SQL("DELETE {} RETURNING 1").format(rows)
            keys = {reference.name: f"{reference.columns} {reference.parent}" for reference, _ in leading}
            yield Derived(table, int(count), str(digest), statement, keys, new=bool(new))
