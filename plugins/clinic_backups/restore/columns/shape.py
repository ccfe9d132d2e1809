"""Compares a table as it was when it was backed up with the same table now."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from psycopg2 import sql

from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import capitalised, in_sql, table_in_sql
from clinic_backups.restore.columns.changed_meaning import (
    ChangedMeaning,
    changed_meaning,
    is_of_application,
    is_same_type,
)
from clinic_backups.restore.columns.identity import was_rewritten, what, what_column
from clinic_backups.restore.columns.proposals import proposed_columns
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import TableRules, compare
from clinic_backups.tenant.drift import FILE, ColumnLine, filled_column, kept_column


@dataclass(frozen=True)
class Shape:
    """How the rows of a backup fit into a table.

    :param then: the table as the manifest describes it.
    :param now: the present table.
    :param columns: the columns that both have, in the manifest's order. Only these are compared and written.
    :param retyped: those whose type has changed. They are loaded as texts and converted.
    :param same: nothing has changed, so equal blocks are equal rows.
    :param notes: notes for the plan.
    :param on_insert: why no row can be inserted; empty if rows can.
    """

    then: Table
    now: Table
    columns: tuple[str, ...]
    retyped: tuple[str, ...]
    same: bool
    notes: tuple[str, ...]
    on_insert: Refusal | None
    rules: TableRules = field(default_factory=TableRules, repr=False)
    computed: tuple[Column, ...] = ()
    """Generated columns of the primary key. No backup holds them, so they are computed on both sides."""
    on_write: tuple[Refusal, ...] = ()
    """Why no row can be inserted or updated."""
    filled: tuple[tuple[str, str], ...] = ()
    """Columns that were added since, with the text of the value that restored rows get."""
    unnulled: tuple[tuple[str, str], ...] = ()
    """Columns that may no longer be NULL, with the text of the value that rows get instead of NULL."""
    confirmed: frozenset[str] = frozenset()
    """Columns that a line declares to have kept their values, whatever their type is now."""
    rewritten: bool | None = None
    """Whether a command wrote all rows of the table anew since the backup; none if that is not known."""
    namesakes: Mapping[str, bool] = field(default_factory=dict)
    """Columns whose type has the name of before and may be another type. True: it is another one."""

    @property
    def name(self) -> str:
        """``schema.table``"""
        return self.now.name

    @property
    def in_sql(self) -> sql.Composable:
        """The table in a statement, without the tables that inherit from it."""
        return self.rules.in_sql(self.name)

    @property
    def key(self) -> tuple[str, ...]:
        """The present primary key, or the columns of a unique index that identify the rows; empty if there is none."""
        other = self.rules.row_key
        return self.now.primary_key or (other if set(other) <= set(self.columns) else ())

    def has(self, names: Collection[str]) -> bool:
        """Whether the loaded rows of the backup have values in all these columns."""
        return set(names) <= {*self.columns, *self.key}

    @property
    def has_another_key(self) -> bool:
        """Whether rows that differed in the backup's key may be equal in the present one."""
        is_same = self.now.primary_key == self.then.primary_key and not set(self.key) & set(self.retyped)
        return not is_same or not self.now.primary_key or any(self.rules.collations)

    def typed(self, name: str) -> str:
        """SQL of a column's present type, with the collation of a key that is compared without regard to case."""
        type_ = next(column.type for column in self.now.columns if column.name == name)
        collation = dict(zip(self.key, self.rules.collations, strict=False)).get(name)
        return f"{type_} COLLATE {collation}" if collation else type_

    @property
    def fixed(self) -> frozenset[str]:
        """Columns that no UPDATE may write: identities that are always generated."""
        return frozenset(column.name for column in self.now.columns if column.identity == "always")

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns that the backup does not have. A row that is written again keeps its values there."""
        return tuple(column.name for column in self.now.stored_columns if column.name not in self.columns)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of everything that decides which values come back in which columns.

        An approval includes it.
        """
        said = (self.then.name, self.now.name, self.then.columns, self.now.columns, self.key, self.columns, self.filled,
                self.unnulled, sorted(self.confirmed))  # fmt: skip
        return hashlib.sha256(repr(said).encode()).hexdigest()

    @property
    def filling(self) -> list[sql.Composed]:
        """SQL of the values of ``filled``, each in its column's type."""
        return [self.value_of(name, value) for name, value in self.filled]

    def value_of(self, name: str, text: str) -> sql.Composed:
        """SQL of a text as a value of a column's type."""
        types = {column.name: column.type for column in self.now.columns}
        return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(types[name]))

    @property
    def op_key(self) -> tuple[str, ...]:
        """The names of the key's columns in tables of this package, which never have names of the application."""
        return tuple(f"k{number}" for number, _ in enumerate(self.key))

    def as_op_key(self, alias: str) -> sql.Composed:
        """SQL: a row's key, under these names."""
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier(alias, name), sql.Identifier(ours))
            for name, ours in zip(self.key, self.op_key, strict=True)
        )

    def same_key(self, left: str, right: str) -> sql.Composed:
        """SQL: the rows of two aliases have the same key."""
        return self._same(left, self.key, right, self.key)

    def is_of(self, op: str, row: str) -> sql.Composed:
        """SQL: the operation of one alias is for the row of another one."""
        return self._same(op, self.op_key, row, self.key)

    def same_op_key(self, left: str, right: str) -> sql.Composed:
        """SQL: the keys of two operations are equal."""
        return self._same(left, self.op_key, right, self.op_key)

    def _same(self, left: str, left_names: Sequence[str], right: str, right_names: Sequence[str]) -> sql.Composed:
        return compare(
            [sql.Identifier(left, name) for name in left_names],
            self.rules.equals,
            [sql.Identifier(right, name) for name in right_names],
        )


# Keys of these types are numbers that a database made up. Other keys may identify a patient.
PLAIN_KEY_TYPES = ("smallint", "integer", "bigint", "uuid")


def has_plain_key(table: Table) -> bool:
    """Whether the primary key may be shown in plans, logs and errors."""
    types = {column.name: column.type for column in table.columns}
    return bool(table.primary_key) and all(types[name] in PLAIN_KEY_TYPES for name in table.primary_key)


def is_user_defined(type_: str) -> bool:
    """Whether the type belongs to the application or an extension. ``format_type`` then writes its schema before it."""
    return "." in type_.partition("(")[0]


def fit(
    then: Table,
    now: Table,
    rules: TableRules,
    *,
    ignore_dropped: bool,
    fills: Mapping[str, str | None] = MappingProxyType({}),
    kept: Collection[ColumnLine] = (),
    made_again: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
    same_database: bool = False,
) -> Shape | Refusal:
    """Compare a table of a backup with the same table now.

    :param fills: texts of values for columns that were added since, or that may no longer be NULL.
    :param kept: lines which say that columns kept their values.
    :param made_again: columns that have the name of an older column and are another one.
    :param renamed: present names of renamed columns that no line mentions; none if nobody knows.
    :param same_database: the numbers of tables and files mean the same on both sides.
    """
    old = {column.name: column for column in then.stored_columns}
    new = {column.name: column for column in now.stored_columns}
    confirmed = {name for name in old if name in new and _is_kept(old[name], new[name], kept)}
    others = [
        name
        for name in made_again
        if name in old and name in new and not _is_kept(old[name], new[name], kept, by_number=True)
    ]
    if others and not ignore_dropped:
        return _made_again(now, [(old[name], new[name]) for name in others])
    old = {name: column for name, column in old.items() if name not in others}
    dropped = [name for name in old if name not in new]
    told = now.primary_key or (rules.row_key and set(rules.row_key) <= old.keys() & new.keys())
    if not told and set(old) != set(new):
        return Refusal(
            now.name,
            f"{now.name} has no primary key, and its columns differ from the backup: rows cannot be identified.",
            "Give it the columns of the backup for the time of the restore, or restore without this table.",
        )
    proposals = list(proposed_columns(then, now, renamed)) if dropped else []
    if dropped and not ignore_dropped:
        return Refusal(
            now.name,
            f"The backup has columns that {now.name} lacks now: {', '.join(dropped)}.",
            (f"{_renamed(proposals)} Otherwise bring" if proposals else "Bring")
            + " the columns back, or restore without their values: ignore_dropped.",
        )
    generated = {column.name: column for column in now.columns if column.generated is not None}
    if lost := [name for name in now.primary_key if name not in old and name not in generated]:
        return Refusal(
            now.name,
            f"The primary key of {now.name} has columns that the backup lacks: {', '.join(lost)}.",
            f"{_old_key(then, now, new)}Restore into another schema and take the rows over by hand.",
        )
    shared = tuple(name for name in old if name in new)
    values = {name: value for name, value in fills.items() if value is not None}
    unnulled = [name for name in shared if name in values and new[name].not_null and not old[name].not_null]
    # A type outside of pg_catalog may be another one with the same name, so its values are compared as texts.
    retyped = tuple(name for name in shared if old[name].type != new[name].type or is_user_defined(old[name].type))
    were_generated = {column.name for column in then.columns if column.generated is not None}
    # An INSERT gives such a column its default or NULL, which is not the value that was computed then.
    no_longer = [name for name in new if name in were_generated]
    added = [column for name, column in new.items() if name not in old and name not in were_generated]
    notes = [
        *(f"Column {name} was dropped since: its values are left out." for name in (*dropped, *others)),
        *([_renamed(proposals)] if proposals else []),
        *(
            f"Column {name} was {old[name].shown_type} and is {new[name].type} now: its values are converted."
            for name in retyped
            if old[name].type != new[name].type
        ),
        *(
            f"Column {column.name} was added since: restored rows get "
            + (f"'{values[column.name]}' ({FILE})." if column.name in values else "its default.")
            for column in added
        ),
    ]
    meanings = {
        name: found for name in shared if (found := changed_meaning(old[name], new[name], same_database=same_database))
    }
    rewritten = was_rewritten(then, now) if same_database else None
    return Shape(
        then=then,
        now=now,
        columns=shared,
        retyped=retyped,
        same=not others
        and now.primary_key == then.primary_key
        and [(column.name, column.type) for column in then.stored_columns]
        == [(column.name, column.type) for column in now.stored_columns],
        notes=tuple(notes),
        on_insert=_unfillable(now, [column for column in added if column.name not in values]),
        on_write=(
            *(_no_longer_generated(now, name) for name in no_longer),
            *(_other_meaning(now, name, found) for name, found in meanings.items()),
        ),
        rules=rules,
        computed=tuple(generated[name] for name in now.primary_key if name in generated),
        filled=tuple((column.name, values[column.name]) for column in added if column.name in values),
        unnulled=tuple((name, values[name]) for name in unnulled),
        confirmed=frozenset(confirmed),
        rewritten=rewritten,
        namesakes={
            name: bool(is_another)
            for name in retyped
            if name not in meanings
            and (is_another := _is_namesake(old[name], new[name], rewritten, same_database=same_database)) is not False
        },
    )


def _is_kept(then: Column, now: Column, lines: Collection[ColumnLine], *, by_number: bool = False) -> bool:
    """Whether a line says that the column kept its values, between these very types or these very columns.

    A line without them counts for backups without the numbers of columns, because it was the only form then.

    :param by_number: the line must name the columns.
    """
    pairs = [(what_column(then), what_column(now))]
    if not by_number:
        pairs += [(what(then), what(now)), *([("", "")] if then.number is None else [])]
    return any(line.new == now.name and (line.was, line.becomes) in pairs for line in lines)


def _is_namesake(then: Column, now: Column, rewritten: bool | None, *, same_database: bool) -> bool | None:
    """Whether a column's type is another one than in the backup, with the same name; none if that is not known."""
    if then.type != now.type or not is_of_application(now):
        return False
    is_same = is_same_type(then, now) if same_database else None
    if is_same is None:
        # Another type whose values are computed from those of before has all rows written anew.
        return False if rewritten is False else None
    return not is_same


def _made_again(now: Table, columns: Sequence[tuple[Column, Column]]) -> Refusal:
    lines = ", ".join(
        f"`{kept_column(now.name, new.name, what_column(old), what_column(new))}`" for old, new in columns
    )
    return Refusal(
        now.name,
        f"Columns of {now.name} were dropped since the backup, and others were created with their names:"
        f" {', '.join(column.name for _, column in columns)}.",
        f"If the migration gave them the same values, add to include/sql/{FILE}: {lines}. Otherwise restore without"
        " their values: ignore_dropped.",
    )


def _old_key(then: Table, now: Table, columns: Collection[str]) -> str:
    """How the key of the backup can tell the rows apart beside the present one."""
    if not then.primary_key or not set(then.primary_key) <= set(columns):
        return ""
    names = [in_sql(name) for name in then.primary_key]
    filled = "".join(f"ALTER {name} SET NOT NULL, " for name in names)
    return (
        "If the columns of the key in the backup still tell the rows apart, for the time of the restore:"
        f" ALTER TABLE {table_in_sql(now.name)} {filled}ADD UNIQUE ({', '.join(names)}); Or: "
    )


def _renamed(lines: Sequence[str]) -> str:
    """A proposal for the hint, if columns were renamed."""
    said = ", ".join(f"`{line}`" for line in lines)
    return f"If a migration renamed columns, add to include/sql/{FILE}: {said}."


def _no_longer_generated(now: Table, name: str) -> Refusal:
    return Refusal(
        now.name,
        f"Column {name} of {now.name} was generated when the backup was made, and is an ordinary one now. The backup"
        " does not hold its values.",
        "Make it a generated column again for the time of the restore, or restore without this table.",
    )


def _other_meaning(now: Table, name: str, found: ChangedMeaning) -> Refusal:
    return Refusal(
        now.name,
        f"{capitalised(found.message)}, and column {name} of {now.name} has this type."
        " Values would come back with another meaning.",
        f"{found.hint}, or restore without this table.",
    )


def _unfillable(now: Table, added: list[Column]) -> Refusal | None:
    names = [column.name for column in added if column.not_null and column.default is None and not column.identity]
    if not names:
        return None
    lines = ", ".join(f"`{filled_column(now.name, name, '…')}`" for name in names)
    return Refusal(
        now.name,
        f"Columns of {now.name} were added since, may not be NULL and have no default: {', '.join(names)}.",
        f"Add to include/sql/{FILE} the value that restored rows get there: {lines}. The application's"
        " migration that added the column shows it. Or give the columns a default for the time of the restore.",
    )
