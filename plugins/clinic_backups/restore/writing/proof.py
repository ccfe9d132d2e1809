"""Proves what was written, before the transaction commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.archive.reader import TableContent
from clinic_backups.base.errors import IntegrityError
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.diff import INSERT, UPDATE, TableDiff
from clinic_backups.restore.parent_tables import require_archives, require_there
from clinic_backups.restore.row_sets import ReadArchives, Unlike, other_rows, unlike
from clinic_backups.restore.workspace import Workspace, row_text
from clinic_backups.tenant.drift import FILE


class Proof:
    """Compares the database with the backup.

    :param contents: the backup's tables.
    :param queries: the extract of each table.
    :param read_archives: reads the backup's archives again.
    :param loose: tables whose extract does not return every row of the clinic.
    :param parents: the parent tables. Their rows of the backup have to be there by key, whatever the mode is.
    :param with_extract: those that have an extract now, and are parent tables by the backup's word alone. The extract
        has to return what is inserted: a forged manifest must not put rows of others into a clinic's table.
    :param rewritten: tables whose rows get NULL where the backup names a row that is gone or must not come back.
    :param left_out: by table, the number of rows of the backup that must not come back.
    """

    def __init__(
        self,
        workspace: Workspace,
        mode: RestoreMode,
        diffs: Mapping[str, TableDiff],
        contents: Mapping[str, TableContent],
        queries: Mapping[str, str],
        read_archives: ReadArchives,
        *,
        loose: Collection[str] = (),
        parents: Collection[str] = (),
        with_extract: Collection[str] = (),
        rewritten: Collection[str] = (),
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._left_out = {name: count for name, count in (left_out or {}).items() if count}
        self._with_extract, self._rewritten = with_extract, rewritten
        self._loose, self._read_archives = loose, read_archives
        self._workspace, self._mode = workspace, mode
        self._diffs = {name: diff for name, diff in diffs.items() if name not in parents}
        self._parents = [diff for name, diff in diffs.items() if name in parents]
        self._contents, self._queries = contents, queries

    def written(self, *, fired: bool) -> None:
        """The part of :meth:`whole` that a rehearsal can prove without reading everything.

        An extract may read other tables too. So every table must have the expected number of rows, whether it was
        written or not.

        :param fired: triggers fired and may have changed values, so values are compared too.
        :raises IntegrityError: the restore would not be exact.
        """
        self._require_parents()
        for name, diff in self._diffs.items():
            if self._mode != "exact" and not diff.plan.writes:
                continue
            if (
                self._mode != "exact"
                or name in self._loose
                or (diff.plan.writes and (fired or not diff.staged.shape.same))
            ):
                self._rows(name, diff)
            else:
                self._require_rows(name, 0, self._there(name) - self._rows_of(name))

    def not_given(self) -> dict[str, int]:
        """By table, the number of inserted rows that the extract leaves out."""
        found = {
            name: self._missing(name, diff, self._given(name), [INSERT])
            for name, diff in self._diffs.items()
            if name in self._loose and diff.plan.insert
        }
        return {name: count for name, count in found.items() if count}

    def whole(self) -> None:
        """Read the clinic again and compare it with the backup, block by block if the tables have not changed.

        What is compared then comes from the archives, and not from the restore's own temporary tables.

        :raises IntegrityError: they differ.
        """
        self._require_parents()
        for diff in self._parents:
            if not self._differs(diff.name) and self._mode != "rows":  # then only some of its rows were wanted
                require_archives(self._workspace, diff, self._contents[diff.name], self._read_archives)
        unsure: dict[str, Unlike] = {}
        for name, diff in self._diffs.items():
            shape = diff.staged.shape
            if self._mode == "exact" and shape.same and not self._differs(name):
                found = unlike(self._workspace, shape.now, self._queries[name], self._contents[name].blocks)
                if not found:
                    continue
                # A value that drift.txt gives instead of NULL is not in the archive.
                if name not in self._loose and not shape.unnulled:
                    unsure[name] = found
                    continue
            if self._mode != "exact" and not diff.plan.writes:
                continue
            self._rows(name, diff)
        self._require_rows_of_archives(unsure)

    def _rows_of(self, name: str) -> int:
        """The number of rows that the backup has of a table, without those that must not come back."""
        return self._contents[name].rows - self._left_out.get(name, 0)

    def _differs(self, name: str) -> bool:
        """Whether other rows are wanted than the archive has. The archive's own blocks prove nothing then."""
        return name in self._rewritten or name in self._left_out

    def _require_parents(self) -> None:
        for diff in self._parents:
            require_there(self._workspace, diff)
            self._require_filled(diff.name, diff)
            if diff.name in self._with_extract and diff.plan.insert:
                self._require_rows(diff.name, self._missing(diff.name, diff, self._given(diff.name), [INSERT]), 0)

    def _require_rows_of_archives(self, unsure: Mapping[str, Unlike]) -> None:
        """Different blocks may hold the same rows, because another collation orders some texts differently."""
        if not unsure:
            return
        blocks = {name: self._contents[name].blocks for name in unsure}
        for name in other_rows(unsure, blocks, self._read_archives):
            self._rows(name, self._diffs[name])
            raise IntegrityError(
                f"{name} would not be what the backup holds: the loaded rows are there, but are not the archive's.",
                hint="Nothing was changed. A function of the database changed them while they were loaded or written:"
                " that of a type, a cast, a domain or an index.",
            )

    def _rows(self, name: str, diff: TableDiff) -> None:
        """Compare rows as sets: every wanted row is there as the backup has it; in the mode exact there is no other."""
        missing = not_given = self._missing(name, diff, self._given(name))
        if missing and name in self._loose:
            missing = self._missing(name, diff, diff.staged.shape.in_sql)
        extra = 0
        if self._mode == "exact":
            # Rows in blocks that both sides have are there: only the plan was written, and it contains none of them.
            extra = self._there(name) - (self._rows_of(name) - not_given)
        self._require_rows(name, missing, extra)
        self._require_filled(name, diff)

    def _given(self, name: str) -> sql.Composed:
        return sql.SQL("(\n{}\n)").format(sql.SQL(self._queries[name]))

    def _require_filled(self, name: str, diff: TableDiff) -> None:
        """:raises IntegrityError: in a restored row, an added column has another value than drift.txt says."""
        shape = diff.staged.shape
        if not shape.filled or not diff.plan.insert:
            return
        others = sql.SQL(" OR ").join(
            sql.SQL('{} <> ROW({})::text COLLATE "C"').format(row_text([column], "t"), value)
            for (column, _), value in zip(shape.filled, shape.filling, strict=True)
        )
        query = sql.SQL("SELECT count(*) FROM {} AS o JOIN {} AS t ON {} WHERE o.op = 'insert' AND ({})").format(
            diff.ops, shape.in_sql, shape.is_of("o", "t"), others
        )
        ((count,),) = self._workspace.rows(query, None, f"reading {name} again")
        if count:
            raise IntegrityError(
                f"{count} rows of {name} would not have the values that {FILE} gives for added columns.",
                hint="Nothing was changed. A trigger changes them: turn it off for the restore, or correct the line.",
            )

    def _there(self, name: str) -> int:
        query = sql.SQL("SELECT count(*) FROM (\n{}\n) AS r").format(sql.SQL(self._queries[name]))
        ((there,),) = self._workspace.rows(query, None, f"counting {name} again")
        return int(there)

    def _require_rows(self, name: str, missing: int, extra: int) -> None:
        if missing or extra:
            raise IntegrityError(
                f"{name} would not be what the backup holds: {missing} rows are missing, {extra} are too many.",
                hint="Nothing was changed. Triggers, generated defaults or a changed extract are the usual reasons.",
            )

    def _missing(self, name: str, diff: TableDiff, now: sql.Composable, of: Sequence[str] = ()) -> int:
        """The number of wanted rows that are not among the present ones.

        :param of: only the rows of these operations; by default all that the mode promises.
        """
        shape = diff.staged.shape
        of = of or (() if self._mode == "exact" else (INSERT, UPDATE))
        if shape.key:
            rows = diff.wanted_of(*of) if of else sql.SQL("{} AS w").format(diff.staged.wanted)
            query = sql.SQL(
                "SELECT count(*) FROM {} WHERE NOT EXISTS (SELECT FROM {} AS r WHERE {} AND {} = {})"
            ).format(
                rows, now, shape.same_key("w", "r"), row_text(shape.columns, "w"), row_text(shape.columns, "r")
            )  # fmt: skip
        elif not of:
            query = sql.SQL(
                "SELECT count(*) FROM (SELECT {} FROM {} AS w EXCEPT ALL SELECT {} FROM {} AS r) AS d"
            ).format(row_text(shape.columns, "w"), diff.staged.wanted, row_text(shape.columns, "r"), now)
        else:
            # Some of the backup's rows may have been left out. The inserted ones must be there, beside equal ones.
            counted = sql.SQL("(SELECT {} AS row_text, count(*) AS times FROM {} AS x GROUP BY 1)")
            query = sql.SQL("""
                SELECT COALESCE(sum(
                           least(o.times, greatest(0, o.times + COALESCE(p.times, 0) - COALESCE(n.times, 0)))), 0)
                  FROM {ops} AS o LEFT JOIN {before} AS p ON p.row_text = o.row_text
                  LEFT JOIN {now} AS n ON n.row_text = o.row_text WHERE o.op = 'insert'""").format(
                ops=diff.ops,
                before=counted.format(row_text(shape.columns, "x"), diff.staged.present),
                now=counted.format(row_text(shape.columns, "x"), now),
            )
        ((missing,),) = self._workspace.rows(query, None, f"reading {name} again")
        return int(missing)
