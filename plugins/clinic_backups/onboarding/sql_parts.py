"""Parts of the SQL that init writes: names, comparisons, conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clinic_backups.base.text import in_sql, literal, table_in_sql
from clinic_backups.onboarding.polymorphic import PolymorphicKey
from clinic_backups.onboarding.schema import Schema
from clinic_backups.tenant.operators import EQUAL, Operator
from clinic_backups.tenant.structure import ParentKey

Shared = dict[str, tuple[str, str]]
"""By table: the name and the text of a query that a statement names before it begins."""


@dataclass
class Names:
    """Gives each table of one statement a name of its own."""

    taken: set[str] = field(default_factory=set)

    def of(self, table: str, *, ending: str = "") -> str:
        wanted = table.split(".", 1)[1] + ending
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return template_name(name)


def template_name(name: str) -> str:
    """A name in a template: quoted where SQL or the template needs it."""
    return escaped(in_sql(name))


def escaped(text: str) -> str:
    """A text that the template engine leaves as it is."""
    return f"{{% raw %}}{text}{{% endraw %}}" if "{" in text else text


def source(schema: Schema, table: str) -> str:
    """A table for FROM, without the rows of tables that inherit from it."""
    only = "ONLY " if table in schema.inherited else ""
    return only + escaped(table_in_sql(table))


def same(link: ParentKey, parent: str, child: str) -> str:
    pairs = zip(link.parent_columns, link.columns, link.operators, strict=True)
    compared = (
        _compared(f"{parent}.{template_name(theirs)}", f"{child}.{template_name(ours)}", operator)
        for theirs, ours, operator in pairs
    )
    return " AND ".join([*compared, *when(link, child)])


def when(link: ParentKey, child: str) -> list[str]:
    """For a polymorphic link: that the row names this table."""
    if not isinstance(link, PolymorphicKey):
        return []
    return [f"{child}.{template_name(link.type_column)} = {escaped(literal(link.type_value))}"]


def _compared(one: str, other: str, operator: Operator) -> str:
    if operator == EQUAL:
        return f"{one} = {other}"
    left = one if operator.left is None else f"({one})::{operator.left}"
    right = other if operator.right is None else f"({other})::{operator.right}"
    return f"{left} OPERATOR({in_sql(operator.schema)}.{operator.name}) {right}"


def where(conditions: Iterable[str]) -> list[str]:
    return [f"{'   AND' if number else ' WHERE'} {each}" for number, each in enumerate(conditions)]


def with_queries(shared: Iterable[tuple[str, str]], recursive: str = "") -> str:
    """The queries that a statement names before it begins."""
    parts = [f"{name} AS (\n{indented(text)}\n)" for name, text in shared] + ([recursive] if recursive else [])
    word = "WITH RECURSIVE " if recursive else "WITH "
    return word + ",\n".join(parts) + "\n" if parts else ""


def indented(text: str, spaces: int = 4) -> str:
    return "\n".join(" " * spaces + line if line else line for line in text.split("\n"))
