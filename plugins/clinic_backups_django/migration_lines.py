"""What the project's migrations did to tables and columns, as lines of ``include/sql/drift.txt``.

A restore of an older backup follows these lines. They are read from the migrations themselves, not from the database:
only a migration knows that a column was renamed, and which value AddField gave to the rows that were there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AddField,
    AlterField,
    AlterModelTable,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)  # fmt: skip
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

_OF_INTEREST = (AddField, AlterField, AlterModelTable, RenameField, RenameModel)


@dataclass(frozen=True)
class _Relation:
    """A table, and its columns by what they are to the model."""

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)


_Relations = Mapping[tuple[str, ...], _Relation]
"""By application and model; the tables between two models also by the field's name."""


def lines(schema: str = "public") -> Iterator[str]:
    """A line for each renamed table, renamed column and added column that rows must have a value of, oldest first.

    A value that was computed while the migration ran is a comment: a person has to write it.

    :param schema: where the tables are that name no schema themselves.
    """
    loader = MigrationLoader(None)
    state = ProjectState()
    done = set[tuple[str, str]]()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for app, name in loader.graph.forwards_plan(leaf):
            if (app, name) in done:
                continue
            done.add((app, name))
            for operation in loader.graph.nodes[app, name].operations:
                yield from _lines_of(operation, app, state, schema)


def _lines_of(operation: Operation, app: str, state: ProjectState, schema: str) -> Iterator[str]:
    """Of one operation, which is done to the state."""
    if isinstance(operation, SeparateDatabaseAndState):
        for inner in operation.state_operations:
            yield from _lines_of(inner, app, state, schema)
        return
    for inner in getattr(operation, "state_operations", None) or ():  # RunSQL
        yield from _lines_of(inner, app, state, schema)
        return
    if not isinstance(operation, _OF_INTEREST):
        operation.state_forwards(app, state)
        return
    before = _relations(state)
    operation.state_forwards(app, state)
    after = _relations(state)
    yield from _renamed(before, after, operation, app, schema)
    if isinstance(operation, AddField):
        yield from _added(after, operation, app, state, schema)


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
    """What a model, or the table of a field between two models, is called after the operation."""
    if isinstance(operation, RenameModel) and key[:2] == (app, operation.old_name_lower):
        return (app, operation.new_name_lower, *key[2:])
    if isinstance(operation, RenameField) and key == (app, operation.model_name_lower, operation.old_name):
        return (app, operation.model_name_lower, operation.new_name)
    return key


def _added(after: _Relations, operation: AddField, app: str, state: ProjectState, schema: str) -> Iterator[str]:
    relation = after.get((app, operation.model_name_lower))
    if relation is None or operation.name not in relation.columns:
        return  # a table between two models, or one that somebody else makes
    column = f"{_table(relation.table, schema)}: {_spelled(relation.columns[operation.name])}"
    # The field of the operation has the default that was given for this migration alone.
    added = operation.field
    if getattr(added, "db_default", models.NOT_PROVIDED) is not models.NOT_PROVIDED:
        return
    if added.has_default():
        if added.default is None:
            return
        text = None if callable(added.default) and added.default not in (list, dict) else _text(added)
    elif not added.null and (getattr(added, "auto_now", False) or getattr(added, "auto_now_add", False)):
        text = None
    elif not added.null and added.blank and added.empty_strings_allowed:
        text = "''"
    else:
        return  # NULL; or, as in an initial migration, there were no rows
    yield f"{column} = {text}" if text is not None else f"# {column} = …  (the migration computed the value)"


def _text(added: Any) -> str | None:
    """The default as the file writes values; none where it has no plain form."""
    value = added.default() if callable(added.default) else added.default
    if isinstance(added, models.JSONField):
        return _quoted(json.dumps(value, cls=added.encoder, ensure_ascii=False))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal) or (isinstance(value, float) and value == value):
        text = str(value)
        return text if re.fullmatch(r"[-+]?[0-9][0-9.eE+-]*", text) else _quoted(text)
    if isinstance(value, models.Choices | str | UUID):
        return _quoted(str(getattr(value, "value", value)))
    if isinstance(value, date | time):
        return _quoted(value.isoformat())
    if isinstance(value, list) and not value:
        return "'{}'"
    return None


def _quoted(text: str) -> str | None:
    return None if "\n" in text else "'" + text.replace("'", "''") + "'"


def _table(name: str, schema: str) -> str:
    """``schema.table``. ``"s"."t"`` is how projects make Django write a schema."""
    parts = name.strip('"').split('"."', 1)
    return ".".join(map(_spelled, parts if len(parts) == 2 else [schema, name]))


def _spelled(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else '"' + name.replace('"', '""') + '"'


def new_lines(known: Iterable[str], schema: str = "public") -> list[str]:
    """Those of :func:`lines` that a file does not have yet.

    :param known: the file's lines.
    """
    there = {" ".join(line.split()) for line in known}
    return [line for line in dict.fromkeys(lines(schema)) if " ".join(line.split()) not in there]
