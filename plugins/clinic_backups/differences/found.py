"""What a comparison found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class TableDifference:
    """The rows of one table that differ from the first side to the second.

    :param columns: the columns that differ in changed rows, each with the number of these rows.
    :param dropped: columns that only the first side has; ``new``: only the second one. They are not compared.
    :param retyped: columns that have other types on both sides, with the first side's and the second side's.
    :param is_keyed: whether rows are told apart by a key. Without one a changed row counts as removed and added.
    :param only_first: whether the second side does not have the table; ``only_second``: the first one.
    :param is_parent: whether its rows are not this clinic's alone.
    """

    table: str
    added: int = 0
    removed: int = 0
    changed: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    dropped: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    is_keyed: bool = True
    only_first: bool = False
    only_second: bool = False
    is_parent: bool = False

    @property
    def rows(self) -> int:
        """How many rows differ."""
        return self.added + self.removed + self.changed

    @property
    def is_worth_saying(self) -> bool:
        """Whether anything differs, columns included."""
        return bool(self.rows or self.dropped or self.new or self.retyped or self.only_first or self.only_second)

    @property
    def turned(self) -> TableDifference:
        """The same from the second side to the first."""
        return replace(
            self, added=self.removed, removed=self.added, dropped=self.new, new=self.dropped,
            retyped=tuple((name, after, before) for name, before, after in self.retyped),
            only_first=self.only_second, only_second=self.only_first,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "table": self.table, "added": self.added, "removed": self.removed, "changed": self.changed,
            "columns": dict(sorted(self.columns.items())), "dropped_columns": list(self.dropped),
            "new_columns": list(self.new), "retyped_columns": [list(each) for each in self.retyped],
            "is_keyed": self.is_keyed, "only_first": self.only_first,
            "only_second": self.only_second, "is_parent": self.is_parent,
        }  # fmt: skip


@dataclass(frozen=True)
class RowDifference:
    """One row that differs, with its values as texts. An added row has no ``before``, a removed one no ``after``.

    :param columns: of a changed row: the columns that differ.
    :param is_forgotten: it must not come back, or it belongs to such a row. Neither key nor values are given.
    :param is_hidden: nor are they of this row, because it may belong to such a row.
    """

    table: str
    key: tuple[str, ...]
    before: dict[str, str | None] | None
    after: dict[str, str | None] | None
    columns: tuple[str, ...] = ()
    is_forgotten: bool = False
    is_hidden: bool = False

    @property
    def turned(self) -> RowDifference:
        """The same from the second side to the first."""
        return replace(self, before=self.after, after=self.before)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. Of a changed row: only the columns that differ."""
        if self.is_forgotten:
            return {"table": self.table, "forgotten": True}
        if self.is_hidden:
            return {"table": self.table, "hidden": True}
        before, after = self.before, self.after
        if before is not None and after is not None:
            before, after = ({name: side[name] for name in self.columns} for side in (before, after))
        return {"table": self.table, "key": list(self.key), "before": before, "after": after}
