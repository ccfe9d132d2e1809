"""The places where triggers, rules, views and functions take a sequence's numbers, with the words for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clinic_backups.base.text import capitalised
from clinic_backups.restore.sequences.number_calls import actions, in_place
from clinic_backups.restore.sequences.number_code import Code, Written
from clinic_backups.restore.sequences.sequence_functions import Functions
from clinic_backups.restore.sequences.sequence_giving import Giving, Scope
from clinic_backups.restore.sequences.sequence_model import How
from clinic_backups.restore.sequences.sequence_names import Sequences
from clinic_backups.restore.sequences.table_owners import TableOwners
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import literal

_ROW, _WRITES_ROW = 1, 4 | 16
"""Bits of ``pg_trigger.tgtype``: for each row; INSERT and UPDATE."""


@dataclass(frozen=True)
class SequenceText:
    """A text that uses sequences.

    :param by: what it is, in words.
    :param near: schemas in which names are looked up. ``path`` is the search path, if it is known.
    :param unread: why it is not read.
    """

    by: str
    body: str
    near: tuple[str, ...]
    path: str | None = None
    unread: str | None = None

    @property
    def subject(self) -> str:
        """The words at the beginning of a sentence."""
        return capitalised(self.by)


@dataclass(frozen=True)
class Piece:
    """A value that is written into a table. ``table`` is none if it may be any table."""

    table: str | None
    written: Written
    how: How
    source: SequenceText


class Pieces:
    """All of them.

    :param names: the tables that are looked at.
    """

    def __init__(
        self,
        workspace: Workspace,
        owners: TableOwners,
        sequences: Sequences,
        functions: Functions,
        giving: Giving,
        names: Sequence[str],
    ) -> None:
        self._owners, self._sequences, self._names = owners, sequences, names
        self._functions, self._giving = functions, giving
        self._partitioned = {name for name, is_partitioned in workspace.relations().items() if is_partitioned}
        self._triggers = workspace.rows(
            catalog_query("numbering_triggers"),
            owners.values | {"functions": list(functions.by_oid)},
            "reading triggers that use sequences",
        )
        self._found = [*self._of_triggers()]

    def tables(self) -> list[str]:
        """The tables that are written."""
        found = {piece.table for piece in (*self._found, *self._of_functions(set()))}
        return sorted(name for name in found if name is not None)

    def all(self, defaults: Sequence[tuple[str, Sequence[str]]]) -> Iterator[Piece]:
        """All pieces.

        :param defaults: the defaults of columns, each with the schemas that its names are looked up in: a function's
            result goes to whoever calls it.
        """
        yield from self._found
        rules = [(actions(row[6]), (_schema(row[0]),)) for row in self._triggers if row[6] is not None]
        yield from self._of_functions(self._giving.callers([*defaults, *rules]))

    def unknown(self) -> list[str]:
        """The functions of which nothing can be told. A trigger function counts if a trigger calls it."""
        fired = {row[3] for row in self._triggers}
        return sorted(
            function.said
            for function in self._functions.all
            if (not function.is_trigger or function.oid in fired) and self._giving.is_unknown(function)
        )

    def _of_triggers(self) -> Iterator[Piece]:
        for table, name, kind, oid, function, arguments, rule in self._triggers:
            if rule is None:
                yield from self._of_trigger(table, name, kind, oid, function, arguments)
                continue
            by = f"the view {table}" if name == '"_RETURN"' else f"the rule {name} of {table}"
            text = actions(rule)
            source = SequenceText(by, text, (_schema(table),))
            scope = self._giving.scope(text, source.near)
            yield from self._written(Code(text, self._giving.names(scope)), source, scope)

    def _of_trigger(self, table: str, name: str, kind: int, oid: int, said: str, arguments: Any) -> Iterator[Piece]:
        schema, is_view = _schema(table), table not in self._names
        given = [part.decode(errors="replace") for part in bytes(arguments).split(b"\0")[:-1]]
        by = f"the trigger {name} of {table} (function {said})"
        function = self._functions.by_oid.get(oid)
        row = table if kind & _ROW and kind & _WRITES_ROW and not is_view else None
        if function is None or (function.unread is not None and not function.is_hidden):
            if kind & _WRITES_ROW and not is_view:
                yield from self._of_arguments(table, given, by, said, schema)
            return
        said_too = "".join(f"\n, {literal(value)}" for value in given)  # they may name a sequence
        source = SequenceText(by, function.body + said_too, (function.schema, schema), function.path, function.unread)
        if function.unread is not None:
            yield Piece(row, Written(None, None, None), "trigger", source)
            return
        texts = {f"tg_argv[{number}]": literal(value) for number, value in enumerate(given)}
        if table not in self._partitioned:  # for rows of a partition, the names are the partition's
            texts |= {"tg_table_schema": literal(schema), "tg_table_name": literal(table.split(".", 1)[1])}
            texts["tg_relname"] = texts["tg_table_name"]
        body = in_place(function.body, texts)
        scope = self._giving.scope(body, source.near, source.path)
        code = Code(body, self._giving.names(scope), through=is_view, is_trigger=True)
        yield from self._written(code, source, scope, row)

    def _of_arguments(self, table: str, given: list[str], by: str, function: str, schema: str) -> Iterator[Piece]:
        """For a trigger whose function cannot be read: the sequences that its arguments name."""
        for before, text in zip(["", *given], given, strict=False):
            if not self._sequences.named(text, (schema,)):
                continue
            is_told = function.endswith(".autoinc")
            written = Written(None, before if is_told else None, f"nextval({literal(text)})", literal(text))
            yield Piece(table, written, "trigger", SequenceText(by, written.text, (schema,)))

    def _of_functions(self, called: Collection[int]) -> Iterator[Piece]:
        """The values that functions write into tables which they name, or give to an unknown caller.

        If no table of a trusted owner calls the function itself, its owner must be allowed to write into the table.
        """
        for oid, code in self._giving.codes.items():
            function = self._functions.by_oid[oid]
            source = SequenceText(f"the function {function.said}", function.body, function.near, function.path)
            scope = self._giving.scope_of(function)
            for piece in self._written(code, source, scope, is_called=oid in called):
                if piece.table is None or function.is_called or self._owners.may_write(function.owner, piece.table):
                    yield piece

    def _written(
        self, code: Code, source: SequenceText, scope: Scope, row: str | None = None, *, is_called: bool = False
    ) -> Iterator[Piece]:
        """What a text writes.

        :param row: the table whose row NEW is.
        :param is_called: a known caller gets its results.
        """
        for written in code.written():
            if written.table is not None:
                yield Piece(self._table(written.table, source.near), written, "code", source)
            elif row is not None or not (
                written.is_result and (is_called or written.only_sets or self._giving.is_key(written, scope))
            ):
                yield Piece(row, written, "trigger", source)

    def _table(self, parts: tuple[str, ...], near: Sequence[str]) -> str | None:
        if len(parts) > 1:
            return name if (name := ".".join(parts[-2:])) in self._names else None
        found = [name for name in self._names if name.split(".", 1)[1] == parts[0]] if parts else []
        close = [name for name in found if name.split(".", 1)[0] in near]
        return next(iter(close or found), None)


def _schema(table: str) -> str:
    return table.split(".", 1)[0]
