"""Converts values that were loaded as texts to their columns' types, if no value changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.model import Refusal
from clinic_backups.restore.shape import Shape
from clinic_backups.restore.staging import Staged, compute_keys
from clinic_backups.restore.workspace import Workspace, row_text
from clinic_backups.tenant.drift import FILE, kept_column


@dataclass(frozen=True)
class _Conversion:
    """One way to convert a column's text in the backup to its present type, and back to a text of the backup's type."""

    there: str
    back: str


def convert(workspace: Workspace, staged: Staged, *, as_text: bool) -> list[Refusal]:
    """Give the columns their types; see :func:`_convert`."""
    with workspace.application_path():
        return _convert(workspace, staged, as_text=as_text)


def _convert(workspace: Workspace, staged: Staged, *, as_text: bool) -> list[Refusal]:
    """Give the columns their types. Returns the refusals by column; if there are any, the table stays as it is.

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
        return refusals
    if chosen:
        changes = sql.SQL(", ").join(
            sql.SQL("ALTER COLUMN {0} TYPE {1} USING {2}").format(
                sql.Identifier(name), sql.SQL(shape.typed(name)), _filled(conversion.there, sql.Identifier(name))
            )
            for name, conversion in chosen.items()
        )
        workspace.define(
            sql.SQL("ALTER TABLE {} {}").format(staged.wanted, changes), f"converting values of {shape.name}"
        )
    compute_keys(workspace, staged.wanted, shape)
    return []


def fill_nulls(workspace: Workspace, staged: Staged) -> Iterator[str]:
    """Give the backup's rows a value if a column may no longer be NULL; returns texts for the plan."""
    for name, text in staged.shape.unnulled:
        column = sql.Identifier(name)
        statement = sql.SQL("UPDATE {} SET {} = {} WHERE {} IS NULL").format(
            staged.wanted, column, staged.shape.value_of(name, text), column
        )
        with workspace.application_path():
            count = workspace.execute(statement, f"giving {staged.shape.name}.{name} a value")
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
    known = _is_known(workspace, then)
    # concat gives what COPY writes; a cast to text says true for t, and cuts the blanks of char(n).
    back = f"concat(concat({{}}::{now})::{then})" if known else f"concat({{}}::{now})"
    yield _Conversion(f"{{}}::{now}", back)
    if known and then != now:
        there = f"({{}}::{then})::{now}"
        yield _Conversion(there, f"concat(({there})::{then})")


def _is_known(workspace: Workspace, type_: str) -> bool:
    """Whether the database still has the backup's type."""
    try:
        with workspace.attempt():
            workspace.rows(sql.SQL("SELECT NULL::{}").format(sql.SQL(type_)), None, "looking for a type")
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
            ((changed,),) = workspace.rows(query, None, doing)
            return int(changed)
    except PermanentError:
        # The type refuses a value. A function that catches the error finds the values one by one.
        return _count_refused(workspace, staged, name, conversion)


def _count_unlike(workspace: Workspace, staged: Staged, name: str, conversion: _Conversion) -> tuple[int, int]:
    """How many of the rows that both sides have would get another value than now, and how many such rows there are.

    Only rows whose other columns equal the backup's are compared, because only the change of the type can have touched
    them. If there are none, all rows are compared. A NULL stays NULL in every conversion and proves nothing. A key
    whose type has changed is compared by its texts.
    """
    shape, column = staged.shape, sql.Identifier(name)
    if not shape.key or set(shape.key) & {key.name for key in shape.computed}:
        return 0, 0
    others = [other for other in shape.columns if other not in shape.retyped]
    if set(shape.key) & set(shape.retyped):
        same = sql.SQL(" AND ").join(
            sql.SQL('w.{0}::text = p.{0}::text COLLATE "C"').format(sql.Identifier(key)) for key in shape.key
        )
    else:
        same = shape.same_key("w", "p")
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE concat({}) <> concat(p.{})), count(*) FROM {} AS w JOIN {} AS p ON {}"
        " WHERE w.{} IS NOT NULL AND ({})"
    )

    def counted(which: sql.Composable) -> tuple[int, int]:
        statement = query.format(
            _filled(conversion.there, sql.SQL("w.{}").format(column)), column,
            staged.wanted, staged.present, same, column, which,
        )  # fmt: skip
        ((unlike, rows),) = workspace.rows(statement, None, f"comparing values of {shape.name}.{name}")
        return int(unlike), int(rows)

    unlike, rows = counted(sql.SQL("{} = {}").format(row_text(others, "w"), row_text(others, "p")))
    if rows:
        return unlike, rows
    # People have changed these rows. Equal values are evidence for the conversion; different ones prove nothing.
    unlike, rows = counted(sql.SQL("true"))
    return 0, rows - unlike


def _is_doubtful(workspace: Workspace, staged: Staged, name: str, unlike: int, rows: int) -> bool:
    """Whether the change of the type may have made other values than this conversion gives.

    It is doubtful if the conversion differs from the present value in most of the compared rows. If there are no rows
    to compare, it is doubtful unless only a length or a precision has changed or there are no values.
    """
    if rows:
        return 2 * unlike > rows
    then, now = _types(staged.shape, name)
    if _family(then) == _family(now):
        return False
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)").format(staged.wanted, sql.Identifier(name))
    ((has_values,),) = workspace.rows(query, None, f"looking at {staged.shape.name}.{name}")
    return bool(has_values)


def _family(type_: str) -> str:
    """A type without its length or precision; text and varchar are one."""
    name = re.sub(r"\([0-9, ]*\)", "", type_)
    return "text" if name == "character varying" else name


def _count_refused(workspace: Workspace, staged: Staged, name: str, conversion: _Conversion) -> int:
    body = sql.SQL("BEGIN RETURN ({}) IS NOT DISTINCT FROM value; EXCEPTION WHEN OTHERS THEN RETURN false; END").format(
        _filled(conversion.back, sql.SQL("value"))
    )
    text = body.as_string(workspace.connection)
    make = sql.SQL(
        "CREATE OR REPLACE FUNCTION pg_temp.survives(value text) RETURNS boolean LANGUAGE plpgsql AS {}"
    ).format(sql.Literal(text))
    column = sql.Identifier(name)
    count = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL AND NOT pg_temp.survives({})")
    doing = f"counting values of {staged.shape.name}.{name}"
    with workspace.attempt():
        workspace.define(make, doing)
        ((refused,),) = workspace.rows(count.format(staged.wanted, column, column), None, doing)
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


def _another_meaning(shape: Shape, name: str, unlike: int, rows: int) -> Refusal:
    """The refusal if no known conversion gives the rows' present values: the migration computed them in another way."""
    then, now = _types(shape, name)
    found = (
        f"{unlike:,} rows of {rows:,} have other values than a conversion gives"
        if rows
        else "there is no row to show whether the migration kept the values"
    )
    return Refusal(
        shape.name,
        f"{shape.name}.{name} was {then} in the backup and is {now} now: {found}.",
        "If the migration kept the values, add"
        f" `{kept_column(shape.name, name, then, now)}` to include/sql/{FILE}, with the types. Otherwise: ALTER TABLE"
        f" {shape.name} ALTER COLUMN {name} TYPE {then} for the time of the restore, or restore without this table.",
    )


def _refusal(shape: Shape, name: str, changed: int) -> Refusal:
    then, now = _types(shape, name)
    values = f"{changed:,} value{'s' if changed > 1 else ''}"
    if then == now:
        message = f"{values} of {shape.name}.{name} in the backup {_are(changed)} not allowed by the type {now} now."
        hint = "A label or a rule of the type has changed. Change it back during the restore."
    else:
        message = f"{values} of {shape.name}.{name} would change: the column was {then} in the backup and is {now} now."
        hint = f"ALTER TABLE {shape.name} ALTER COLUMN {name} TYPE {then}; then restore."
    return Refusal(shape.name, message, f"{hint} Or restore without this table.")


def _are(count: int) -> str:
    return "are" if count > 1 else "is"
