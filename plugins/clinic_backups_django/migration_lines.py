"""Makes lines of ``include/sql/drift.txt`` from the project's migrations.

A restore of an older backup follows these lines. They are read from the migrations and not from the database, because
only a migration knows that a column was renamed, or which value AddField gave to existing rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AddField,
    AlterField,
    AlterModelTable,
    AlterOrderWithRespectTo,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

NULL = " = null"
"""The end of a line for an added column without a value. A text value would end with a quote."""
_OF_INTEREST = (AddField, AlterField, AlterModelTable, AlterOrderWithRespectTo, RenameField, RenameModel)


@dataclass(frozen=True)
class _Relation:
    """A table, with its columns by their fields of the model."""

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)


_Relations = Mapping[tuple[str, ...], _Relation]
"""By application and model. Tables between two models also have the field's name."""


def lines(schema: str = "public") -> Iterator[str]:
    """A line for each renamed table or column, and for each added column that needs a value; oldest first.

    If a value was computed while the migration ran, the line is a comment, because a person has to write the value.

    :param schema: the schema of tables that name none themselves.
    """
    loader = MigrationLoader(None)
    state = ProjectState()
    done, renamed = set[tuple[str, str]](), set[str]()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for key in loader.graph.forwards_plan(leaf):
            if key in done:
                continue
            done.add(key)
            for app, operation in _operations(loader, key):
                for line in _lines_of(operation, app, state, schema):
                    # An added column that may be NULL needs no line, unless it took the name of a renamed one.
                    if not line.endswith(NULL) or f"{line.removesuffix(NULL)} ->" in renamed:
                        yield line
                    renamed.add(f"{line.partition(' ->')[0]} ->")


def _operations(loader: MigrationLoader, key: tuple[str, str]) -> Iterator[tuple[str, Operation]]:
    """A migration's operations.

    For a squashed migration, those of the originals if they exist, because it leaves renames out.
    """
    migration = loader.graph.nodes[key] if key in loader.graph.nodes else loader.disk_migrations[key]
    if migration.replaces and all(tuple(each) in loader.disk_migrations for each in migration.replaces):
        for each in migration.replaces:
            replaced = loader.disk_migrations[tuple(each)]
            if replaced.replaces:
                yield from _operations(loader, tuple(each))
            else:
                yield from ((each[0], operation) for operation in replaced.operations)
        return
    yield from ((key[0], operation) for operation in migration.operations)


def _lines_of(operation: Operation, app: str, state: ProjectState, schema: str) -> Iterator[str]:
    """The lines of one operation. The operation is also applied to the state."""
    if isinstance(operation, SeparateDatabaseAndState):
        # Operations that only change the database, for instance if a table moves to another application.
        beside = state.clone()
        for inner in operation.database_operations:
            yield from _lines_of(inner, app, beside, schema)
        for inner in operation.state_operations:
            yield from _lines_of(inner, app, state, schema)
        return
    if inner_operations := getattr(operation, "state_operations", None):  # RunSQL
        for inner in inner_operations:
            yield from _lines_of(inner, app, state, schema)
        return
    if not isinstance(operation, _OF_INTEREST):
        operation.state_forwards(app, state)
        return
    before = _relations(state)
    was_null = _is_null(operation, app, state) if isinstance(operation, AlterField) else False
    operation.state_forwards(app, state)
    after = _relations(state)
    yield from _renamed(before, after, operation, app, schema)
    not_null = isinstance(operation, AlterField) and was_null and not _is_null(operation, app, state)
    if isinstance(operation, AddField) or not_null:
        yield from _added(after, operation, app, state, schema)
    elif isinstance(operation, AlterOrderWithRespectTo):
        key = (app, operation.name_lower)
        for name, column in after[key].columns.items() if key in after else ():
            if key in before and name not in before[key].columns:
                yield f"{_table(after[key].table, schema)}: {_spelled(column)} = 0"


def _is_null(operation: AlterField, app: str, state: ProjectState) -> bool:
    model = state.apps.get_model(app, operation.model_name)
    return bool(model._meta.get_field(operation.name).null)


def _relations(state: ProjectState) -> dict[tuple[str, ...], _Relation]:
    found: dict[tuple[str, ...], _Relation] = {}
    for model in state.apps.get_models():
        meta = model._meta
        if not meta.managed or meta.proxy:
            continue
        own = {one.name: one.column for one in meta.local_fields if one.column}
        found[meta.app_label, meta.model_name] = _Relation(meta.db_table, own)
        for between in meta.local_many_to_many:
            if between.remote_field.through._meta.auto_created:
                columns = {"from": between.m2m_column_name(), "to": between.m2m_reverse_name()}
                key = (meta.app_label, meta.model_name, between.name)
                found[key] = _Relation(between.remote_field.through._meta.db_table, columns)
    return found


def _renamed(before: _Relations, after: _Relations, operation: Operation, app: str, schema: str) -> Iterator[str]:
    for key, old in before.items():
        new = after.get(_later(key, operation, app))
        if new is None:
            continue
        names = {operation.old_name: operation.new_name} if isinstance(operation, RenameField) else {}
        of_model = isinstance(operation, RenameField) and key == (app, operation.model_name_lower)
        for name, column in old.columns.items():
            now = new.columns.get(names.get(name, name) if of_model else name, column)
            if now != column:
                yield f"{_table(old.table, schema)}: {_spelled(column)} -> {_spelled(now)}"
        if new.table != old.table:
            yield f"{_table(old.table, schema)} -> {_table(new.table, schema)}"


def _later(key: tuple[str, ...], operation: Operation, app: str) -> tuple[str, ...]:
    """The name after the operation of a model, or of the table of a field between two models."""
    if isinstance(operation, RenameModel) and key[:2] == (app, operation.old_name_lower):
        return (app, operation.new_name_lower, *key[2:])
    if isinstance(operation, RenameField) and key == (app, operation.model_name_lower, operation.old_name):
        return (app, operation.model_name_lower, operation.new_name)
    return key


def _added(
    after: _Relations, operation: AddField | AlterField, app: str, state: ProjectState, schema: str
) -> Iterator[str]:
    """The value that existing rows got, for an added column or one that may no longer be NULL."""
    relation = after.get((app, operation.model_name_lower))
    if relation is None or operation.name not in relation.columns:
        return  # a table between two models, or one that another application creates
    column = f"{_table(relation.table, schema)}: {_spelled(relation.columns[operation.name])}"
    # The operation's field has the default that was given for this migration only.
    added = operation.field
    if getattr(added, "generated", False):
        return
    if getattr(added, "db_default", models.NOT_PROVIDED) is not models.NOT_PROVIDED:
        return
    if added.has_default():
        if added.default is None:
            yield f"{column}{NULL}"
            return
        computed = callable(added.default) and added.default not in (list, dict)
        text = None if computed else _text(added, operation, app, state)
    elif added.null:
        yield f"{column}{NULL}"  # no value, but the line identifies older backups
        return
    elif getattr(added, "auto_now", False) or getattr(added, "auto_now_add", False):
        text = None
    elif added.blank and added.empty_strings_allowed:
        text = "''"
    else:
        return  # as in an initial migration, there were no rows
    yield f"{column} = {text}" if text is not None else f"# {column} = …  (the migration computed the value)"


def _text(added: Any, operation: AddField | AlterField, app: str, state: ProjectState) -> str | None:
    """The default as Django stores it, in the file's spelling; none if it has no plain form."""
    value = added.default() if callable(added.default) else added.default
    field = state.apps.get_model(app, operation.model_name)._meta.get_field(operation.name)
    if isinstance(field, models.JSONField):
        return _quoted(json.dumps(field.get_prep_value(value), cls=field.encoder, ensure_ascii=False))
    saved = field.get_db_prep_save(value, connection)
    if isinstance(saved, bool):
        return "true" if saved else "false"
    if isinstance(saved, int | Decimal | float):
        text = str(saved)
        return text if re.fullmatch(r"[-+]?[0-9][0-9.eE+-]*", text) else _quoted(text)
    if isinstance(saved, str | UUID):
        return _quoted(str(saved))
    if isinstance(saved, date | time):
        return _quoted(saved.isoformat())
    if isinstance(saved, timedelta):
        return _quoted(f"{saved.days} days {saved.seconds}.{saved.microseconds:06} seconds")
    if isinstance(saved, list) and not saved:
        return "'{}'"
    return None


def _quoted(text: str) -> str | None:
    """The text quoted on one line; none if a character would be invisible or would end the line."""
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else None


def _table(name: str, schema: str) -> str:
    """``schema.table``. Projects write ``"s"."t"`` to make Django use a schema."""
    parts = name.strip('"').split('"."', 1)
    return ".".join(map(_spelled, parts if len(parts) == 2 else [schema, name]))


def _spelled(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else '"' + name.replace('"', '""') + '"'


_SUBJECT = re.compile(r"#?\s*((?:[^:=>'-]|-(?!>))*(?::(?:[^:=>'-]|-(?!>))*)?)(->|=)")


def _subject(line: str) -> str | None:
    """The subject of a line. Two lines with the same subject are an error in the file."""
    found = _SUBJECT.match(line.strip())
    return "".join(found[1].split()) + found[2] if found else None


def new_lines(known: Iterable[str], schema: str = "public") -> list[str]:
    """Those of :func:`lines` whose subject is not in a file yet, whatever the file says about it.

    If two are about the same column, the last one counts, because an earlier column of that name is gone.

    :param known: the file's lines.
    """
    there = {_subject(line) for line in known}
    found: dict[str | None, str] = {}
    for line in lines(schema):
        subject = _subject(line)
        found.pop(subject, None)
        found[subject] = line
    return [line for subject, line in found.items() if subject not in there]
