"""Decides whether a row that no extract returns belongs to the clinic.

It asks the present database, never the backup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.ownership.ways import Ways, columns_of_ways
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.table_rules import CASCADE, Reference, with_child
from clinic_backups.restore.workspace import columns_of, equal_texts, row_text

_CONSTANT = re.compile(r"""(?:E?'(?:[^']|'')*'|\(?-?[0-9.]+\)?|true|false)(?:::[\w\s".]+(?:\([0-9, ]+\))?(?:\[\])*)?""")
"""A default that always gives the same value, as ``pg_get_expr`` writes it. ``CURRENT_DATE`` is not one."""


class Ownership:
    """Conditions on a table's row ``t``, compared with the backup's row ``w`` that has the same key.

    :param staged: the restored tables. Rows that were found before are among their present rows.
    :param references: the foreign keys of the database, which say what deleting a parent does.
    """

    def __init__(self, ways: Ways, staged: Mapping[str, Staged], references: Sequence[Reference]) -> None:
        self._ways, self._staged = ways, staged
        self._cascading = {(key.child, key.columns, key.parent) for key in references if key.on_delete == CASCADE}

    def is_ours(self, shape: Shape) -> sql.Composed:
        """The row belongs to the clinic.

        Either every link that is not NULL leads to this clinic, and at least one does. Or all links are NULL because
        the row lost its clinic. Other columns that say whose the row is must be NULL or have the backup's value. If the
        table has no known link, the whole row must equal the backup's.
        """
        return sql.SQL("({} AND {} AND ({} OR {}))").format(
            self.leads_nowhere_else(shape), self._is_marked(shape), self.is_proven(shape), self._is_lost(shape)
        )

    def _is_marked(self, shape: Shape) -> sql.Composed:
        return _all(
            sql.SQL("(t.{0} IS NULL OR concat(t.{0}) = {1} OR {2})").format(
                sql.Identifier(name),
                sql.Literal(str(self._ways.clinic_id)),
                equal_texts(name, "t", "w") if name in shape.columns else sql.SQL("false"),
            )
            for name in self._ways.marks(shape.name)
            # An extract compares columns of the tables that it joins as well.
            if any(column.name == name for column in shape.now.columns)
        )

    def leads_nowhere_else(self, shape: Shape) -> sql.Composed:
        """Every link leads to this clinic or to nothing."""
        return _all(
            sql.SQL("({} OR {})").format(leads_to_nothing(way), self._is_known(way, shape))
            for way in self._ways.of(shape.name)
        )

    def is_proven(self, shape: Shape) -> sql.Composed:
        """At least one link leads to this clinic, or the row is the clinic itself."""
        proofs: list[sql.Composable] = [
            sql.SQL("(NOT ({}) AND {})").format(leads_to_nothing(way), self._is_known(way, shape))
            for way in self._ways.of(shape.name)
        ]
        if shape.name == self._ways.clinic_table and self._ways.clinics_key is not None:
            own = sql.Identifier("t", self._ways.clinics_key)
            proofs.append(sql.SQL("concat({}) = {}").format(own, sql.Literal(str(self._ways.clinic_id))))
        return sql.SQL("({})").format(sql.SQL(" OR ").join(proofs or [sql.SQL("false")]))

    def _is_lost(self, shape: Shape) -> sql.Composed:
        """No link leads anywhere, but the row is still the backup's: it differs from it only in its links.

        If other values differ too, another row may have got the key: a sequence began anew, or the row was given to
        another clinic and changed there. Nothing in the database would show it. So a person has to say that this never
        happens in the table. Then the rows that it referred to must be gone.
        """
        ways = self._ways.of(shape.name)
        columns = [name for name in columns_of_ways(ways) if name in shape.columns]
        rest = [name for name in shape.columns if name not in columns]
        orphaned = self._was_orphaned(shape, ways)
        alike: list[sql.Composable] = [
            row_text(rest, "t") + sql.SQL(" = ") + row_text(rest, "w"), nulled(columns), is_unsaid(shape),
        ]  # fmt: skip
        if shape.key and ways and set(rest) <= set(shape.key):
            alike.append(orphaned)  # a row without other values is like any other
        accepted = _all(alike)
        if shape.key and self._ways.keeps_keys(shape.name):
            accepted = sql.SQL("({} OR {})").format(accepted, orphaned)
        nothing = [sql.SQL("({})").format(leads_to_nothing(way)) for way in ways]
        return _all([*nothing, accepted, self._keeps_declared(shape)])

    def _was_orphaned(self, shape: Shape, ways: Sequence[Reference]) -> sql.Composable:
        """The rows that the backup's row referred to are gone, so a deletion explains why the links are NULL."""
        if any(way.parent not in self._ways.readable or not set(way.columns) <= set(shape.columns) for way in ways):
            return sql.SQL("false")
        gone, named = list[sql.Composable](), list[sql.Composable]()
        for way in ways:
            null = sql.SQL("num_nulls({}) > 0").format(columns_of(way.columns, "w"))
            if (way.child, way.columns, way.parent) in self._cascading:
                gone.append(null)  # a deletion would have taken the row with it
                continue
            gone.append(sql.SQL("({} OR NOT {})").format(null, self._ways.exists(way, "w")))
            named.append(sql.SQL("NOT ({})").format(null))
        return sql.SQL("({} AND ({}))").format(_all(gone), sql.SQL(" OR ").join(named or [sql.SQL("false")]))

    def _keeps_declared(self, shape: Shape) -> sql.Composed:
        """A declared column may name another clinic's row and proves nothing.

        But it must not have changed to name one.
        """
        return _all(
            sql.SQL("({} OR {} OR {})").format(
                leads_to_nothing(way), _as_in_backup(way, shape), self._is_known(way, shape)
            )
            for way in with_child(self._ways.declared, shape.name)
        )

    def _is_known(self, way: Reference, shape: Shape) -> sql.Composed:
        """The link leads to this clinic: to a row that its extracts return, or that was found here.

        A link also counts if no row has the key any more and the backup's row had the same key.
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


def is_unsaid(shape: Shape) -> sql.Composed:
    """Columns that the backup does not have hold nothing that somebody wrote: NULL, or a constant default."""
    kept = [column for column in shape.now.stored_columns if column.name in shape.kept]
    return _all(
        sql.SQL("(t.{0} IS NULL OR {1})").format(
            sql.Identifier(column.name),
            sql.SQL("{} = ROW({})::text").format(row_text([column.name], "t"), sql.SQL(column.default))
            if column.default and _CONSTANT.fullmatch(column.default)
            else sql.SQL("false"),
        )
        for column in kept
    )


def has_lost_clinic(ways: Ways, table: str) -> sql.Composed:
    """The row ``t`` of a table with links has none that leads anywhere, and no other column says whose it is."""
    links = ways.of(table)
    if not links:
        return sql.Composed([sql.SQL("false")])
    return _all(
        [
            *(sql.SQL("({})").format(leads_to_nothing(way)) for way in links),
            *(sql.SQL("t.{} IS NULL").format(sql.Identifier(name)) for name in ways.marks(table)),
        ]
    )


def leads_to_nothing(way: Reference) -> sql.Composed:
    """A column of the link is NULL, or the row refers to itself."""
    null = sql.SQL("num_nulls({}) > 0").format(columns_of(way.columns, "t"))
    if way.child != way.parent:
        return null
    return sql.SQL("{} OR ({})").format(null, way.refers("t", "t"))


def _as_in_backup(way: Reference, shape: Shape) -> sql.Composed:
    if not set(way.columns) <= set(shape.columns):
        return sql.Composed([sql.SQL("false")])
    return _all(equal_texts(name, "t", "w") for name in way.columns)


def nulled(columns: Sequence[str]) -> sql.Composed:
    """Each column is NULL or has the backup's value."""
    return _all(
        sql.SQL("(t.{} IS NULL OR {})").format(sql.Identifier(name), equal_texts(name, "t", "w")) for name in columns
    )


def _all(conditions: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("({})").format(sql.SQL(" AND ").join([*conditions] or [sql.SQL("true")]))
