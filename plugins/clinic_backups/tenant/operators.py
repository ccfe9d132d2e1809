"""PostgreSQL's operators, written so that only the meant one can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg2 import sql


class Operator(NamedTuple):
    """An operator as the catalog describes it.

    :param left, right: its types, quoted, unless it is PostgreSQL's own. In another schema, somebody may have made an
        operator of this name that fits a column's type better: for a domain, or for text beside citext.
    :param collation: the collation to compare by, quoted, if those of the two columns differ: PostgreSQL would not
        choose one of them.
    """

    schema: str
    name: str
    left: str | None = None
    right: str | None = None
    collation: str | None = None

    def compares(self, one: sql.Composable, other: sql.Composable) -> sql.Composed:
        """SQL: one operand, the operator, and the other one."""
        collate = sql.SQL("" if self.collation is None else f" COLLATE {self.collation}")
        return sql.SQL("{} OPERATOR({}.{}) {}{}").format(
            _cast(one, self.left), sql.Identifier(self.schema), sql.SQL(self.name), _cast(other, self.right), collate
        )


EQUAL = Operator("pg_catalog", "=")


def operators_of(found: Iterable[Sequence[Any]] | None) -> tuple[Operator, ...]:
    """The operators that a query gave, each as an array."""
    return tuple(Operator(*each) for each in found or ())


def _cast(operand: sql.Composable, type_: str | None) -> sql.Composable:
    return operand if type_ is None else sql.SQL("({})::{}").format(operand, sql.SQL(type_))
