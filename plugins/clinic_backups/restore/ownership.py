"""Whose a row is that no extract gives: asked of the database as it stands, and never inferred from the backup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.restore.rules import CASCADE, Reference, with_child
from clinic_backups.restore.shape import Shape
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.ways import Ways, columns_of_ways
from clinic_backups.restore.workspace import columns_of, row_text


class Ownership:
    """Conditions on a row ``t`` of a table, beside the row ``w`` of the backup that it may be.

    :param staged: the tables that are restored; rows that were found here are among their present ones.
    :param references: the foreign keys of the database: what deleting a parent does.
    """

    def __init__(self, ways: Ways, staged: Mapping[str, Staged], references: Sequence[Reference]) -> None:
        self._ways, self._staged = ways, staged
        self._cascading = {(key.child, key.columns, key.parent) for key in references if key.on_delete == CASCADE}

    def is_ours(self, shape: Shape) -> sql.Composed:
        """Every way that is not NULL leads to this clinic now, and one does; or all are NULL: it lost its clinic.

        What else says whose it is, is NULL or as in the backup. Where no way is known the whole row must be.
        """
        return sql.SQL("({} AND {} AND ({} OR {}))").format(
            self.leads_nowhere_else(shape), self._is_marked(shape), self.is_proven(shape), self._is_lost(shape)
        )

    def _is_marked(self, shape: Shape) -> sql.Composed:
        return _all(
            sql.SQL("(t.{0} IS NULL OR t.{0}::text = {1} OR {2})").format(
                sql.Identifier(name),
                sql.Literal(str(self._ways.clinic_id)),
                sql.SQL("t.{0}::text = w.{0}::text").format(sql.Identifier(name))
                if name in shape.columns
                else sql.SQL("false"),
            )
            for name in self._ways.marks(shape.name)
            # An extract compares columns of the tables that it joins as well.
            if any(column.name == name for column in shape.now.columns)
        )

    def leads_nowhere_else(self, shape: Shape) -> sql.Composed:
        """Every way leads to this clinic, or to nothing."""
        return _all(
            sql.SQL("({} OR {})").format(leads_to_nothing(way), self._is_known(way, shape))
            for way in self._ways.of(shape.name)
        )

    def is_proven(self, shape: Shape) -> sql.Composed:
        """One way leads to this clinic; or the row is the clinic itself."""
        proofs: list[sql.Composable] = [
            sql.SQL("(NOT ({}) AND {})").format(leads_to_nothing(way), self._is_known(way, shape))
            for way in self._ways.of(shape.name)
        ]
        if shape.name == self._ways.clinic_table and self._ways.clinics_key is not None:
            own = sql.Identifier("t", self._ways.clinics_key)
            proofs.append(sql.SQL("{}::text = {}").format(own, sql.Literal(str(self._ways.clinic_id))))
        return sql.SQL("({})").format(sql.SQL(" OR ").join(proofs or [sql.SQL("false")]))

    def _is_lost(self, shape: Shape) -> sql.Composed:
        """No way leads anywhere, and the row is the backup's all the same.

        It is where it has lost nothing but its ways. Where its other values changed too, its key could be another row's
        by now: then the key must be one that no two rows get, and the row that it named must be gone.
        """
        ways = self._ways.of(shape.name)
        columns = [name for name in columns_of_ways(ways) if name in shape.columns]
        rest = [name for name in shape.columns if name not in columns]
        alike = sql.SQL("({} = {} AND {})").format(row_text(rest, "t"), row_text(rest, "w"), nulled(columns))
        nothing = _all(sql.SQL("({})").format(leads_to_nothing(way)) for way in ways)
        explained = self._was_orphaned(shape, ways) if shape.made_up_key else sql.SQL("false")
        return sql.SQL("({} AND ({} OR {}) AND {})").format(nothing, alike, explained, self._keeps_declared(shape))

    def _was_orphaned(self, shape: Shape, ways: Sequence[Reference]) -> sql.Composable:
        """What the backup's row named is gone, so that a deletion explains that the ways are NULL."""
        if not ways or any(
            way.parent not in self._ways.readable
            or (way.child, way.columns, way.parent) in self._cascading
            or not set(way.columns) <= set(shape.columns)
            for way in ways
        ):
            return sql.SQL("false")
        named = [sql.SQL("num_nulls({}) = 0").format(columns_of(way.columns, "w")) for way in ways]
        gone = [
            sql.SQL("(NOT {} OR NOT {})").format(each, self._ways.exists(way, "w"))
            for each, way in zip(named, ways, strict=True)
        ]
        return sql.SQL("({} AND ({}))").format(_all(gone), sql.SQL(" OR ").join(named))

    def _keeps_declared(self, shape: Shape) -> sql.Composed:
        """What may name another clinic's row says nothing by itself; it must not have come to name one either."""
        return _all(
            sql.SQL("({} OR {} OR {})").format(
                leads_to_nothing(way), _as_in_backup(way, shape), self._is_known(way, shape)
            )
            for way in with_child(self._ways.declared, shape.name)
        )

    def _is_known(self, way: Reference, shape: Shape) -> sql.Composed:
        """The row that is referred to is this clinic's: by its extract, or because it was found here.

        Or it is nobody's any more: no row has the key, which the backup's row had too.
        """
        if way.parent not in self._ways.readable:
            return sql.Composed([sql.SQL("false")])  # it cannot be asked
        rows: list[sql.Composable] = [sql.SQL("(\n{}\n)").format(sql.SQL(self._ways.queries[way.parent]))]
        parent = self._staged.get(way.parent)
        if parent is not None and set(way.parent_columns) <= {*parent.shape.columns, *parent.shape.key}:
            rows.append(parent.present)
        known: list[sql.Composable] = [
            sql.SQL("EXISTS (SELECT FROM {} AS v WHERE {})").format(each, way.refers("t", "v")) for each in rows
        ]
        known.append(
            sql.SQL("({} AND NOT {})").format(_as_in_backup(way, shape), self._ways.exists(way, "t"))
        )  # fmt: skip
        return sql.SQL("({})").format(sql.SQL(" OR ").join(known))


def leads_to_nothing(way: Reference) -> sql.Composed:
    """A part of the way is NULL, or the row names itself."""
    null = sql.SQL("num_nulls({}) > 0").format(columns_of(way.columns, "t"))
    if way.child != way.parent:
        return null
    return sql.SQL("{} OR ({})").format(null, way.refers("t", "t"))


def _as_in_backup(way: Reference, shape: Shape) -> sql.Composed:
    if not set(way.columns) <= set(shape.columns):
        return sql.Composed([sql.SQL("false")])
    return _all(sql.SQL("t.{0}::text = w.{0}::text").format(sql.Identifier(name)) for name in way.columns)


def nulled(columns: Sequence[str]) -> sql.Composed:
    """Each column is NULL, or as the backup has it."""
    return _all(
        sql.SQL("(t.{0} IS NULL OR t.{0}::text = w.{0}::text)").format(sql.Identifier(name)) for name in columns
    )


def _all(conditions: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("({})").format(sql.SQL(" AND ").join([*conditions] or [sql.SQL("true")]))
