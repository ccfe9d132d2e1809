"""Schema drift: what a table was when it was backed up, against what it is now."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_backups.model import Column, Table
from clinic_backups.restore.model import Refusal


@dataclass(frozen=True)
class Shape:
    """How the rows of a backup fit into a table.

    :param then: the table as the manifest describes it.
    :param now: the table as it is.
    :param columns: the columns that both have, in the manifest's order: only these are compared and written.
    :param retyped: those of them whose type has changed: their texts are cast.
    :param same: nothing has changed, so that equal blocks are equal rows.
    :param notes: what the plan says about it.
    :param on_insert: why no row can be inserted, if there is something.
    """

    then: Table
    now: Table
    columns: tuple[str, ...]
    retyped: tuple[str, ...]
    same: bool
    notes: tuple[str, ...]
    on_insert: Refusal | None

    @property
    def name(self) -> str:
        """``schema.table``"""
        return self.now.name

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key as it is now; empty where there is none."""
        return self.now.primary_key

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that an update may write: no key, and no identity that is always generated."""
        fixed = {column.name for column in self.now.columns if column.identity == "always"}
        return tuple(name for name in self.columns if name not in self.key and name not in fixed)


# Keys of these types are numbers that a database made up; others may say who a patient is.
PLAIN_KEY_TYPES = ("smallint", "integer", "bigint", "uuid")


def has_plain_key(table: Table) -> bool:
    """The primary key may be shown in plans, logs and errors."""
    types = {column.name: column.type for column in table.columns}
    return bool(table.primary_key) and all(types[name] in PLAIN_KEY_TYPES for name in table.primary_key)


def fit(then: Table, now: Table, *, ignore_dropped: bool) -> Shape | Refusal:
    """Compare a table of a backup with the same table now."""
    old = {column.name: column for column in then.stored_columns}
    new = {column.name: column for column in now.stored_columns}
    dropped = [name for name in old if name not in new]
    if dropped and not ignore_dropped:
        return Refusal(
            now.name,
            f"The backup has columns that {now.name} lacks now: {', '.join(dropped)}.",
            "Bring the columns back, or restore without their values: ignore_dropped.",
        )
    if lost := [name for name in now.primary_key if name not in old]:
        return Refusal(
            now.name,
            f"The primary key of {now.name} has columns that the backup lacks: {', '.join(lost)}.",
            "Restore into another schema and take the rows over by hand.",
        )
    shared = tuple(name for name in old if name in new)
    retyped = tuple(name for name in shared if old[name].type != new[name].type)
    added = [column for name, column in new.items() if name not in old]
    notes = [
        *(f"Column {name} was dropped since: its values are left out." for name in dropped),
        *(f"Column {name} was {old[name].type} and is {new[name].type} now: its values are cast." for name in retyped),
        *(f"Column {column.name} was added since: rows that come back get its default." for column in added),
    ]
    return Shape(
        then=then,
        now=now,
        columns=shared,
        retyped=retyped,
        same=[(column.name, column.type) for column in then.stored_columns]
        == [(column.name, column.type) for column in now.stored_columns],
        notes=tuple(notes),
        on_insert=_unfillable(now, added),
    )


def _unfillable(now: Table, added: list[Column]) -> Refusal | None:
    names = [column.name for column in added if column.not_null and column.default is None and not column.identity]
    if not names:
        return None
    return Refusal(
        now.name,
        f"Columns of {now.name} were added since, may not be NULL and have no default: {', '.join(names)}.",
        "Give them a default for the time of the restore.",
    )
