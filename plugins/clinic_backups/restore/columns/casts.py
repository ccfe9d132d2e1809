"""Converts values that were loaded as texts to their columns' types, if no value changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count as numbers

from psycopg2 import sql

from clinic_backups.base.errors import IntegrityError, PermanentError
from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.restore.columns.conversion import Conversion, family, filled, shown_types_of, types_of
from clinic_backups.restore.columns.evidence import Doubt, Evidence, compare_values, doubt
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.manifest_tables import Types
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.staging import Staged
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.drift import FILE, kept_column


@dataclass(frozen=True)
class Converted:
    """What became of a table's columns.

    :param refusals: by column; if there are any, the table stays as it is.
    :param how: the chosen way, as SQL, for each column whose type is another one now.
    :param notes: notes for the plan.
    """

    refusals: tuple[Refusal, ...] = ()
    how: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def convert(workspace: Workspace, staged: Staged, *, as_text: bool) -> Converted:
    """Give the columns their types.

    A value is converted only if converting the result back gives the same text. A number that would be rounded, a text
    that would be cut, or a label that an enum no longer has is refused and counted.

    :param as_text: all columns were loaded as texts, not only those whose type has changed.
    """
    shape, refusals, chosen, notes = staged.shape, list[Refusal](), dict[str, Conversion](), list[str]()
    retyped, types = _really_retyped(shape), Types(workspace)
    in_doubt = (retyped | shape.namesakes.keys()) - shape.confirmed
    for name in shape.columns if as_text else shape.retyped:
        ways = list(_conversions(workspace, shape, name, types))
        counts = [_count_changed(workspace, staged, name, conversion) for conversion in ways]
        safe = [conversion for conversion, changed in zip(ways, counts, strict=True) if not changed]
        if not safe:
            refusals.append(_refusal(shape, name, min(counts)))
            continue
        if len(safe) == 1 and name not in in_doubt:
            chosen[name] = safe[0]  # nothing is in doubt, so the present values need not be looked at
            continue
        unlike = [compare_values(workspace, staged, name, way) for way in safe]
        doubted: Doubt = doubt(workspace, staged, name, min(unlike)) if name in in_doubt else ""
        if doubted == "refused":
            refusals.append(_another_meaning(shape, name, min(unlike)))
            continue
        if doubted == "unshown":
            notes.append(_unshown(shape, name))
        chosen[name] = safe[unlike.index(min(unlike))]
    if refusals:
        return Converted(tuple(refusals))
    if chosen:
        _rewrite(workspace, staged, chosen)
    how = {name: conversion.there for name, conversion in chosen.items() if name in retyped}
    return Converted(how=how, notes=tuple(notes))


def _rewrite(workspace: Workspace, staged: Staged, chosen: Mapping[str, Conversion]) -> None:
    """Make the table of the wanted rows again, with the converted values, and compare these with the texts.

    They were compared before, but a function need not give the same value twice.
    """
    shape, doing = staged.shape, f"converting values of {staged.shape.name}"
    columns = [
        sql.SQL("({})::{} AS {}").format(
            filled(chosen[column.name].there, sql.Identifier(column.name)),
            sql.SQL(shape.typed(column.name)),
            sql.Identifier(column.name),
        )
        if column.name in chosen
        else sql.Identifier(column.name)
        for column in shape.then.stored_columns
    ]
    taken = {column.name for column in shape.then.columns}
    free = (name for number in numbers() if (name := f"text_{number}") not in taken)
    texts = {name: sql.Identifier(text) for name, text in zip(chosen, free, strict=False)}
    kept = [sql.SQL("{} AS {}").format(sql.Identifier(name), text) for name, text in texts.items()]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join([*columns, *kept]), staged.wanted)
    workspace.remake(staged.wanted, query, doing)
    unlike = [_unlike(chosen[name], sql.Identifier("w", name), text) for name, text in texts.items()]
    query = sql.SQL("SELECT count(*) FROM {} AS w WHERE {}").format(staged.wanted, sql.SQL(" OR ").join(unlike))
    ((changed,),) = workspace.as_application(query, 1, doing)
    if changed:
        raise IntegrityError(
            f"{changed} rows of {shape.name} got other values when they were converted for the second time"
            f" ({', '.join(chosen)}).",
            hint="Nothing was changed. A function of a column's type or of a cast gives different values for one text.",
        )


def _unlike(conversion: Conversion, value: sql.Identifier, text: sql.Identifier) -> sql.Composed:
    """SQL: a converted value is not that of its text in the backup."""
    condition = "num_nulls({value}) <> num_nulls({text}) OR {text} IS NOT NULL AND ({back}) IS DISTINCT FROM {text}"
    return sql.SQL(condition).format(value=value, text=text, back=filled(conversion.returned, value))


def fill_nulls(workspace: Workspace, staged: Staged) -> Iterator[str]:
    """Give the backup's rows a value if a column may no longer be NULL; returns texts for the plan."""
    for name, text in staged.shape.unnulled:
        column, doing = sql.Identifier(name), f"giving {staged.shape.name}.{name} a value"
        value = workspace.view(sql.SQL("SELECT {}").format(staged.shape.value_of(name, text)), doing, 1)
        statement = sql.SQL("UPDATE {} AS w SET {} = v.c0 FROM {} AS v WHERE w.{} IS NULL").format(
            staged.wanted, column, value, column
        )
        workspace.seals.require(staged.wanted)
        with workspace.application_path():
            count = workspace.execute(statement, doing)
        workspace.seals.wrote(staged.wanted, updated=count)
        workspace.seals.keep(staged.wanted)
        if count:
            yield f"Column {name} may no longer be NULL: {count:,} of the backup's rows get '{text}' ({FILE})."


def _really_retyped(shape: Shape) -> set[str]:
    """Columns whose type has another name now."""
    then = {column.name: column.type for column in shape.then.columns}
    return {column.name for column in shape.now.columns if then.get(column.name, column.type) != column.type}


def _conversions(workspace: Workspace, shape: Shape, name: str, types: Types) -> Iterator[Conversion]:
    """The ways to convert: first through the types' texts, which keep every digit; then by a cast, if there is one.

    The type in the backup was written by whoever made the archive. So it gets into SQL only if PostgreSQL spells one of
    its types in exactly this way.
    """
    then, now = types_of(shape, name)
    known = types.has(then)
    # concat gives what COPY writes; a cast to text says true for t, and cuts the blanks of char(n).
    yield Conversion(f"{{}}::{now}", f"concat(concat({{}})::{then})" if known else "concat({})")
    cast = Conversion(f"({{}}::{then})::{now}", f"concat({{}}::{then})")
    # Without a cast back, as from time to timestamp, nothing shows that a value came over whole.
    if known and then != now and _understands(workspace, cast.back.replace("{}", "NULL")):
        yield cast


def _understands(workspace: Workspace, expression: str) -> bool:
    """Whether the database has the types and the casts of an expression. It does not evaluate it."""
    query = sql.SQL("SELECT CASE WHEN now() IS NULL THEN {} END").format(sql.SQL(expression))
    try:
        with workspace.attempt():
            workspace.as_application(query, 1, "looking for a type or a cast")
    except PermanentError:
        return False
    return True


def _count_changed(workspace: Workspace, staged: Staged, name: str, conversion: Conversion) -> int:
    """The number of values that would come back as another text, or that cannot be converted."""
    shape = staged.shape
    count = sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL AND ({}) IS DISTINCT FROM {}")
    column = sql.Identifier(name)
    doing = f"converting {shape.name}.{name}"
    try:
        with workspace.attempt():
            query = count.format(staged.wanted, column, filled(conversion.back, column), column)
            ((changed,),) = workspace.as_application(query, 1, doing)
            return int(changed)
    except PermanentError:
        # The type refuses a value. A function that catches the error finds the values one by one.
        return _count_refused(workspace, staged, name, conversion)


def _count_refused(workspace: Workspace, staged: Staged, name: str, conversion: Conversion) -> int:
    # PostgreSQL looks up the names of the first body now, and those of the second one when it runs.
    same = sql.SQL(
        "CREATE OR REPLACE FUNCTION pg_temp.is_same(value text) RETURNS boolean LANGUAGE sql"
        " RETURN ({}) IS NOT DISTINCT FROM value"
    ).format(filled(conversion.back, sql.SQL("value")))
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


def _another_meaning(shape: Shape, name: str, evidence: Evidence) -> Refusal:
    """The refusal if no known conversion gives the present values: the migration computed them in another way."""
    then, now = shown_types_of(shape, name)
    column = f"{shape.name}.{name}"
    if evidence.values:
        found = f"{evidence.unlike_rows:,} rows of {evidence.rows:,} have other values than a conversion gives"
    else:
        anew = (
            ", and its rows were written anew since the backup"
            if shape.rewritten and family(then) == family(now)
            else ""
        )
        found = f"there is no row to show whether the migration kept the values{anew}"
    if name in shape.namesakes:
        return Refusal(
            shape.name,
            f"{column} has the type {now}, {_namesake(shape, name)}: {found}.",
            f"If the values were kept, add `{kept_column(shape.name, name, then, now)}` to include/sql/{FILE}, with the"
            " types. Otherwise give the column its type and its values of before for the time of the restore, or"
            " restore without this table.",
        )
    return Refusal(
        shape.name,
        f"{column} was {then} in the backup and is {now} now: {found}.",
        "If the migration kept the values, add"
        f" `{kept_column(shape.name, name, then, now)}` to include/sql/{FILE}, with the types. Otherwise:"
        f" {_type_of_before(shape, name)} for the time of the restore, or restore without this table.",
    )


def _namesake(shape: Shape, name: str) -> str:
    """What is known about a type that has the name of the backup's one."""
    if shape.namesakes[name]:
        return "which was dropped since the backup and created again"
    return "which may be another one than that of this name in the backup"


def _unshown(shape: Shape, name: str) -> str:
    then, now = shown_types_of(shape, name)
    types = f"was {then} and is {now} now"
    if name in shape.namesakes:
        types = f"has the type {now}, {_namesake(shape, name)}"
    return (
        f"Column {name} {types}, and no row is left to show whether the migration kept its values."
        " They come back as they are in the backup. If the migration changed them, do not approve this. If it kept"
        f" them: `{kept_column(shape.name, name, then, now)}` in include/sql/{FILE} ends this note."
    )


def _refusal(shape: Shape, name: str, changed: int) -> Refusal:
    then, now = shown_types_of(shape, name)
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
    then, now = shown_types_of(shape, name)
    statement = f"ALTER TABLE {table_in_sql(shape.name)} ALTER COLUMN {in_sql(name)} TYPE {then}"
    # Another type has a cast that PostgreSQL uses by itself only sometimes, and may mean something else.
    return statement if family(then) == family(now) else f"{statement} USING (an expression for the values of before)"


def _are(count: int) -> str:
    return "are" if count > 1 else "is"
