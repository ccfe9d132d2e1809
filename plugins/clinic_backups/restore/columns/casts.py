"""Converts values that were loaded as texts to their columns' types, if no value changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace, equal_texts, row_text
from clinic_backups.tenant.drift import FILE, kept_column

_KEPT_BY_ALL = r"^(-?0*(\.0*)?|-?infinity|nan|00:00:00|\{\}|\[\]|empty)$"
"""Values that stay the same when a migration multiplies, shifts or rewrites all values: zero, infinity, nothing."""


@dataclass(frozen=True)
class _Conversion:
    """One way to convert a column's text in the backup to its present type, and back to a text of the backup's type."""

    there: str
    back: str


@dataclass(frozen=True)
class Converted:
    """What became of a table's columns.

    :param refusals: by column; if there are any, the table stays as it is.
    :param how: the chosen way, as SQL, for each column whose type is another one now.
    """

    refusals: tuple[Refusal, ...] = ()
    how: Mapping[str, str] = field(default_factory=dict)


def convert(workspace: Workspace, staged: Staged, *, as_text: bool) -> Converted:
    """Give the columns their types.

    A value is converted only if converting the result back gives the same text. A number that would be rounded, a text
    that would be cut, or a label that an enum no longer has is refused and counted.

    :param as_text: all columns were loaded as texts, not only those whose type has changed.
    """
    shape, refusals, chosen = staged.shape, list[Refusal](), dict[str, _Conversion]()
    retyped = _really_retyped(shape)
    for name in shape.columns if as_text else shape.retyped:
        ways = list(_conversions(workspace, shape, name))
        counts = [_count_changed(workspace, staged, name, conversion) for conversion in ways]
        safe = [conversion for conversion, changed in zip(ways, counts, strict=True) if not changed]
        unlike = [_count_unlike(workspace, staged, name, way) for way in safe]
        if not safe:
            refusals.append(_refusal(shape, name, min(counts)))
        elif name in retyped - shape.confirmed and _is_doubtful(workspace, staged, name, *min(unlike)):
            refusals.append(_another_meaning(shape, name, *min(unlike)))
        else:
            chosen[name] = safe[unlike.index(min(unlike))]
    if refusals:
        return Converted(tuple(refusals))
    if chosen:
        _rewrite(workspace, staged, chosen)
    return Converted(how={name: conversion.there for name, conversion in chosen.items() if name in retyped})


def _rewrite(workspace: Workspace, staged: Staged, chosen: Mapping[str, _Conversion]) -> None:
    """Make the table of the wanted rows again, with the converted values."""
    shape, doing = staged.shape, f"converting values of {staged.shape.name}"
    columns = [
        sql.SQL("({})::{} AS {}").format(
            _filled(chosen[column.name].there, sql.Identifier(column.name)),
            sql.SQL(shape.typed(column.name)),
            sql.Identifier(column.name),
        )
        if column.name in chosen
        else sql.Identifier(column.name)
        for column in shape.then.stored_columns
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), staged.wanted)
    workspace.remake(staged.wanted, query, doing)


def fill_nulls(workspace: Workspace, staged: Staged) -> Iterator[str]:
    """Give the backup's rows a value if a column may no longer be NULL; returns texts for the plan."""
    for name, text in staged.shape.unnulled:
        column, doing = sql.Identifier(name), f"giving {staged.shape.name}.{name} a value"
        value = workspace.view(sql.SQL("SELECT {}").format(staged.shape.value_of(name, text)), doing, 1)
        statement = sql.SQL("UPDATE {} AS w SET {} = v.c0 FROM {} AS v WHERE w.{} IS NULL").format(
            staged.wanted, column, value, column
        )
        with workspace.application_path():
            count = workspace.execute(statement, doing)
        if count:
            yield f"Column {name} may no longer be NULL: {count:,} of the backup's rows get '{text}' ({FILE})."


def _types(shape: Shape, name: str) -> tuple[str, str]:
    """A column's type in the backup and now."""
    then, now = (
        next(column.type for column in table.columns if column.name == name) for table in (shape.then, shape.now)
    )
    return then, now


def _really_retyped(shape: Shape) -> set[str]:
    """Columns whose type has another name now."""
    then = {column.name: column.type for column in shape.then.columns}
    return {column.name for column in shape.now.columns if then.get(column.name, column.type) != column.type}


def _conversions(workspace: Workspace, shape: Shape, name: str) -> Iterator[_Conversion]:
    """The ways to convert: first through the types' texts, which keep every digit; then by a cast, if there is one."""
    then, now = _types(shape, name)
    known = _understands(workspace, f"NULL::{then}")
    # concat gives what COPY writes; a cast to text says true for t, and cuts the blanks of char(n).
    back = f"concat(concat({{}}::{now})::{then})" if known else f"concat({{}}::{now})"
    yield _Conversion(f"{{}}::{now}", back)
    there = f"({{}}::{then})::{now}"
    if known and then != now and _understands(workspace, there.replace("{}", "NULL")):
        yield _Conversion(there, f"concat(({there})::{then})")


def _understands(workspace: Workspace, expression: str) -> bool:
    """Whether the database has the types and the casts of an expression. It does not evaluate it."""
    query = sql.SQL("SELECT CASE WHEN now() IS NULL THEN {} END").format(sql.SQL(expression))
    try:
        with workspace.attempt():
            workspace.as_application(query, 1, "looking for a type or a cast")
    except PermanentError:
        return False
    return True


def _count_changed(workspace: Workspace, staged: Staged, name: str, conversion: _Conversion) -> int:
    """The number of values that would come back as another text, or that cannot be converted."""
    shape = staged.shape
    count = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL AND ({}) IS DISTINCT FROM {}")
    column = sql.Identifier(name)
    doing = f"converting {shape.name}.{name}"
    try:
        with workspace.attempt():
            query = count.format(staged.wanted, column, _filled(conversion.back, column), column)
            ((changed,),) = workspace.as_application(query, 1, doing)
            return int(changed)
    except PermanentError:
        # The type refuses a value. A function that catches the error finds the values one by one.
        return _count_refused(workspace, staged, name, conversion)


def _count_unlike(workspace: Workspace, staged: Staged, name: str, conversion: _Conversion) -> tuple[int, int]:
    """How many of the backup's different values are mostly other ones now than the conversion gives, and how many
    values could be compared.

    Only rows that both sides have and whose other columns equal the backup's are compared, because only the change of
    the type can have touched them. If there are none, all rows are compared. Each value counts once,
    however many rows have it. Some values prove nothing, see :data:`_KEPT_BY_ALL`. Nor does a NULL. A key whose type
    has changed is compared by its texts.
    """
    shape, column = staged.shape, sql.Identifier(name)
    if not shape.key or set(shape.key) & {key.name for key in shape.computed}:
        return 0, 0
    others = [other for other in shape.columns if other not in shape.retyped]
    if set(shape.key) & set(shape.retyped):
        same = sql.SQL(" AND ").join(equal_texts(key, "w", "p") for key in shape.key)
    else:
        same = shape.same_key("w", "p")
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE 2 * unlike > rows), count(*) FROM"
        " (SELECT count(*) FILTER (WHERE concat({}) <> concat(p.{})) AS unlike, count(*) AS rows"
        " FROM {} AS w JOIN {} AS p ON {} WHERE concat(w.{}) !~* {} AND ({}) GROUP BY concat(w.{})) AS v"
    )

    def counted(which: sql.Composable) -> tuple[int, int]:
        statement = query.format(
            _filled(conversion.there, sql.SQL("w.{}").format(column)), column,
            staged.wanted, staged.present, same, column, sql.Literal(_KEPT_BY_ALL), which, column,
        )  # fmt: skip
        ((unlike, values),) = workspace.as_application(statement, 2, f"comparing values of {shape.name}.{name}")
        return int(unlike), int(values)

    unlike, values = counted(sql.SQL("{} = {}").format(row_text(others, "w"), row_text(others, "p")))
    if values:
        return unlike, values
    # People have changed these rows. Equal values are evidence for the conversion; different ones prove nothing.
    unlike, values = counted(sql.SQL("true"))
    return 0, values - unlike


def _is_doubtful(workspace: Workspace, staged: Staged, name: str, unlike: int, values: int) -> bool:
    """Whether the change of the type may have made other values than this conversion gives.

    It is doubtful if half of the compared values are other ones, or more than half if only a length or a precision has
    changed. If there is no value to compare, it is doubtful unless only a length or a precision has changed or the
    column has no values.
    """
    then, now = _types(staged.shape, name)
    same_family = _family(then) == _family(now)
    if values:
        return 2 * unlike > values or (2 * unlike == values and not same_family)
    if same_family:
        return False
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)").format(staged.wanted, sql.Identifier(name))
    ((has_values,),) = workspace.rows(query, None, f"looking at {staged.shape.name}.{name}")
    return bool(has_values)


def _family(type_: str) -> str:
    """A type without its length or precision; text and varchar are one."""
    name = re.sub(r"\([0-9, ]*\)", "", type_)
    return "text" if name == "character varying" else name


def _count_refused(workspace: Workspace, staged: Staged, name: str, conversion: _Conversion) -> int:
    # PostgreSQL looks up the names of the first body now, and those of the second one when it runs.
    same = sql.SQL(
        "CREATE OR REPLACE FUNCTION pg_temp.is_same(value text) RETURNS boolean LANGUAGE sql"
        " RETURN ({}) IS NOT DISTINCT FROM value"
    ).format(_filled(conversion.back, sql.SQL("value")))
    survives = sql.SQL(
        "CREATE OR REPLACE FUNCTION pg_temp.survives(value text) RETURNS boolean LANGUAGE plpgsql AS"
        " 'BEGIN RETURN pg_temp.is_same(value); EXCEPTION WHEN OTHERS THEN RETURN false; END'"
    )
    column = sql.Identifier(name)
    count = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL AND NOT pg_temp.survives({})")
    doing = f"counting values of {staged.shape.name}.{name}"
    with workspace.savepoint():
        workspace.define(same, doing)
        workspace.define(survives, doing)
        ((refused,),) = workspace.as_application(count.format(staged.wanted, column, column), 1, doing)
        return int(refused)


def _filled(template: str, value: sql.Composable) -> sql.Composed:
    """A conversion with a column or variable in place of its value.

    It is no format string, because a type's name may hold braces.
    """
    parts = [sql.SQL(part) for part in template.split("{}")]
    filled: list[sql.Composable] = [parts[0]]
    for part in parts[1:]:
        filled += [value, part]
    return sql.Composed(filled)


def _another_meaning(shape: Shape, name: str, unlike: int, values: int) -> Refusal:
    """The refusal if no known conversion gives the present values: the migration computed them in another way."""
    then, now = _types(shape, name)
    found = (
        f"{unlike:,} of {values:,} different values have become other ones than a conversion gives"
        if values
        else "there is no value to show whether the migration kept the values"
    )
    return Refusal(
        shape.name,
        f"{shape.name}.{name} was {then} in the backup and is {now} now: {found}.",
        "If the migration kept the values, add"
        f" `{kept_column(shape.name, name, then, now)}` to include/sql/{FILE}, with the types. Otherwise:"
        f" {_type_of_before(shape, name)} for the time of the restore, or restore without this table.",
    )


def _refusal(shape: Shape, name: str, changed: int) -> Refusal:
    then, now = _types(shape, name)
    values = f"{changed:,} value{'s' if changed > 1 else ''}"
    if then == now:
        message = f"{values} of {shape.name}.{name} in the backup {_are(changed)} not allowed by the type {now} now."
        hint = "A label or a rule of the type has changed. Change it back during the restore."
    else:
        message = f"{values} of {shape.name}.{name} would change: the column was {then} in the backup and is {now} now."
        hint = f"{_type_of_before(shape, name)}; then restore."
    return Refusal(shape.name, message, f"{hint} Or restore without this table.")


def _type_of_before(shape: Shape, name: str) -> str:
    """The statement that gives a column the type that it had in the backup."""
    then, now = _types(shape, name)
    statement = f"ALTER TABLE {table_in_sql(shape.name)} ALTER COLUMN {in_sql(name)} TYPE {then}"
    # Another type has a cast that PostgreSQL uses by itself only sometimes, and may mean something else.
    return statement if _family(then) == _family(now) else f"{statement} USING (an expression for the values of before)"


def _are(count: int) -> str:
    return "are" if count > 1 else "is"
