"""Proves foreign keys for the restore when PostgreSQL's own checks do not run.

They do not run with ``session_replication_role = replica``. Three things are checked. Written rows refer to existing
rows. Nothing refers to rows that were deleted. Since the restore's snapshot nobody has begun to refer to them, which
only a second transaction can see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, qualified
from clinic_backups.base.database_errors import raise_database_error
from clinic_backups.base.errors import IntegrityError, TransientError
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.table_rules import Reference, compare
from clinic_backups.restore.workspace import Workspace

BATCH_KEYS = 5000
RowVersion = tuple[str, str, str]
"""``tableoid``, ``ctid`` and ``xmin`` as text: one version of one row."""


class ReferenceProof:
    """Replaces PostgreSQL's own checks: call :meth:`begin` before the writing and :meth:`prove` after it.

    :param connection: connection data of the same database, for the second transaction.
    :param inside: foreign keys by which written rows refer only to rows that are inserted. What was asked of them
        before holds, because nothing else is inserted.
    """

    def __init__(
        self,
        workspace: Workspace,
        connection: Connection,
        diffs: Mapping[str, TableDiff],
        references: Sequence[Reference],
        inside: Collection[Reference] = (),
    ) -> None:
        self._workspace, self._connection, self._diffs = workspace, connection, diffs
        self._to_parents = [
            (reference, diff)
            for reference in references
            if reference not in inside
            and (diff := diffs.get(reference.child)) is not None
            and diff.plan.insert + diff.plan.update
        ]
        self._to_gone = [
            (reference, diff)
            for reference in references
            if (diff := diffs.get(reference.parent)) is not None and (diff.plan.delete or _changes(diff, reference))
        ]
        self._known: list[set[RowVersion]] = []

    def begin(self) -> None:
        """Lock the rows that written ones refer to, as PostgreSQL's own check does.

        Also note which rows refer to rows that will be deleted.

        :raises TransientError: somebody deleted or changed one since the snapshot.
        """
        for reference, diff in self._to_parents:
            statement = sql.SQL("""
                SELECT count(*) FROM (SELECT FROM {parent} AS t WHERE EXISTS (SELECT FROM ({rows}) AS w WHERE {refers})
                                         FOR KEY SHARE OF t) AS locked""").format(
                parent=qualified(reference.parent), rows=diff.written, refers=reference.refers("w", "t")
            )
            self._workspace.rows(statement, None, f"keeping the rows of {reference.parent} that are referred to")
        self._known = [self._referring(reference, diff) for reference, diff in self._to_gone]

    def prove(self) -> None:
        """Check the foreign keys.

        :raises IntegrityError: the restore would break one.
        :raises TransientError: rows that others have added would break one.
        """
        for reference, diff in self._to_parents:
            self._prove_there(reference, diff)
        for reference, diff in self._to_gone:
            self._prove_unused(reference, diff)
        self._prove_not_used_since()

    def _prove_there(self, reference: Reference, diff: TableDiff) -> None:
        all_set = sql.SQL(" AND ").join(
            sql.SQL("w.{} IS NOT NULL").format(sql.Identifier(name)) for name in reference.columns
        )
        query = sql.SQL("SELECT count(*) FROM ({}) AS w WHERE {} AND NOT EXISTS (SELECT FROM {} AS t WHERE {})").format(
            diff.written, all_set, qualified(reference.parent), reference.refers("w", "t")
        )
        self._require_none(query, reference, "that were written refer to rows that are not there")

    def _prove_unused(self, reference: Reference, diff: TableDiff) -> None:
        """Check that nothing refers to a deleted row or to a changed value, unless that value is there again."""
        query = sql.SQL("""
            SELECT count(*) FROM ({rows}) AS g JOIN {child} AS c ON {gone}
             WHERE NOT EXISTS (SELECT FROM {parent} AS t WHERE {there})""").format(
            rows=_gone(diff, reference),
            child=qualified(reference.child),
            gone=reference.refers("c", "g"),
            parent=qualified(reference.parent),
            there=reference.refers("c", "t"),
        )
        self._require_none(query, reference, "refer to rows that the restore deletes")

    def _require_none(self, query: sql.Composed, reference: Reference, what: str) -> None:
        ((count,),) = self._workspace.rows(query, None, f"checking {reference.name}")
        if count:
            raise IntegrityError(
                f"{count} rows of {reference.child} {what} in {reference.parent} ({reference.name}).",
                hint="Nothing was changed. Make a new plan.",
            )

    def _referring(self, reference: Reference, diff: TableDiff) -> set[RowVersion]:
        """The rows that refer to deleted rows, as the restore's snapshot shows them."""
        query = sql.SQL("SELECT c.tableoid::text, c.ctid::text, c.xmin::text FROM {} AS c JOIN ({}) AS g ON {}").format(
            qualified(reference.child), _gone(diff, reference), reference.refers("c", "g")
        )
        found = self._workspace.rows(query, None, f"reading what refers to {reference.parent}")
        return {(str(part), str(place), str(writer)) for part, place, writer in found}

    def _prove_not_used_since(self) -> None:
        """Check that nobody has begun to refer to deleted rows since the snapshot.

        These rows are locked by now, so whoever wants to refer to one waits. Rows that came before the lock are seen by
        a second transaction. It does not see this transaction's changes: it sees the old rows, and new rows of others.
        """
        if not self._to_gone:
            return
        with closing(connect(self._connection)) as db:
            for (reference, diff), known in zip(self._to_gone, self._known, strict=True):
                new = sum(version not in known for version in self._seen_from_outside(db, reference, diff))
                if new:
                    raise TransientError(
                        f"{new} rows of {reference.child} that were added while the restore ran refer to rows of"
                        f" {reference.parent} that it deletes ({reference.name}).",
                        hint="Nothing was changed. Make a new plan, or use the mode `live`.",
                    )

    def _seen_from_outside(
        self, db: psycopg2.extensions.connection, reference: Reference, diff: TableDiff
    ) -> Iterator[RowVersion]:
        types = {column.name: column.type for column in diff.staged.shape.now.columns}
        names = [f"k{number}" for number, _ in enumerate(reference.parent_columns)]
        same = compare(
            [
                sql.SQL("k.{}::{}").format(sql.Identifier(name), sql.SQL(types[column]))
                for name, column in zip(names, reference.parent_columns, strict=True)
            ],
            reference.operators,
            [sql.Identifier("c", column) for column in reference.columns],
        )
        query = sql.SQL(
            "SELECT c.tableoid::text, c.ctid::text, c.xmin::text FROM unnest({arrays}) AS k ({names})"
            " JOIN {child} AS c ON {same}"
        )
        for keys in self._gone_keys(reference, diff):
            # Literals, because with parameters a % in a name would be read as one.
            arrays = [sql.SQL("{}::text[]").format(sql.Literal(list(column))) for column in zip(*keys, strict=True)]
            statement = query.format(
                arrays=sql.SQL(", ").join(arrays),
                names=sql.SQL(", ").join(map(sql.Identifier, names)),
                child=qualified(reference.child),
                same=same,
            )
            try:
                with db.cursor() as cursor:
                    cursor.execute(statement)
                    yield from ((str(part), str(place), str(writer)) for part, place, writer in cursor)
            except psycopg2.Error as error:
                raise_database_error(error, f"looking for new rows of {reference.child}", source="restore")

    def _gone_keys(self, reference: Reference, diff: TableDiff) -> list[list[tuple[Any, ...]]]:
        texts = sql.SQL(", ").join(
            sql.SQL("CASE WHEN num_nulls(g.{0}) = 0 THEN concat(g.{0}) END").format(sql.Identifier(name))
            for name in reference.parent_columns
        )
        rows = self._workspace.rows(
            sql.SQL("SELECT DISTINCT {} FROM ({}) AS g").format(texts, _gone(diff, reference)),
            None,
            "listing keys that go",
        )
        return [rows[start : start + BATCH_KEYS] for start in range(0, len(rows), BATCH_KEYS)]


def _changes(diff: TableDiff, reference: Reference) -> bool:
    """Whether the restore changes values that others refer to."""
    return bool(set(reference.parent_columns) & set(diff.plan.columns))


def _gone(diff: TableDiff, reference: Reference) -> sql.Composed:
    """The deleted rows, and those whose referenced values change, as they were before."""
    shape = diff.staged.shape
    return sql.SQL("SELECT p.* FROM {} AS o JOIN {} AS p ON {} WHERE o.op IN ('delete', {})").format(
        diff.ops,
        diff.staged.present,
        shape.is_of("o", "p"),
        sql.Literal("update" if _changes(diff, reference) else "delete"),
    )
