"""Whose a row is that no extract gives: asked of the database as it stands, and never inferred from the backup."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.restore.rules import Reference, with_child
from clinic_backups.restore.shape import Shape
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.ways import Ways, columns_of_ways
from clinic_backups.restore.workspace import columns_of


class Ownership:
    """Conditions on a row ``t`` of a table, beside the row ``w`` of the backup that it may be.

    :param staged: the tables that are restored; rows that were found here are among their present ones.
    :param loose: tables of which the backup, or the clinic now, has rows that the extract does not give.
    """

    def __init__(self, ways: Ways, staged: Mapping[str, Staged], loose: Collection[str]) -> None:
        self._ways, self._staged, self._loose = ways, staged, loose

    def is_ours(self, shape: Shape, same: sql.Composable) -> sql.Composed:
        """Every way that is not NULL leads to this clinic now, and one does; or all are NULL: it lost its clinic.

        Where no way is known it must be as the backup has it.

        :param same: the two rows are alike.
        """
        return sql.SQL("({} AND ({} OR {}))").format(
            self.leads_nowhere_else(shape), self.is_proven(shape), self._is_lost(shape, same)
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

    def _is_lost(self, shape: Shape, same: sql.Composable) -> sql.Composed:
        ways = self._ways.of(shape.name)
        lost: sql.Composable = same
        if ways:
            columns = [name for name in columns_of_ways(ways) if name in shape.columns]
            were_more: sql.Composable = sql.SQL("false")
            if shape.name in self._loose:
                were_more = sql.SQL("true")
            elif columns:
                were_more = sql.SQL("num_nulls({}) > num_nulls({})").format(
                    columns_of(columns, "t"), columns_of(columns, "w")
                )
            nothing = _all(sql.SQL("({})").format(leads_to_nothing(way)) for way in ways)
            lost = sql.SQL("({} AND (({}) OR {}))").format(nothing, same, were_more)
        return sql.SQL("({} AND {})").format(lost, self._keeps_declared(shape))

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
