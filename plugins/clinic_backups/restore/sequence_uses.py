"""Finds which columns get their numbers from which sequences: from PostgreSQL's catalog, and from functions' texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from clinic_backups.restore.number_code import Code, Written, actions, called, calls, in_place
from clinic_backups.restore.safe_expression import rewritten
from clinic_backups.restore.sequence_model import COMPARE, Column, How, RunTime, SequenceUse, Untold, Uses
from clinic_backups.restore.sequence_names import Known, Sequences, listed
from clinic_backups.restore.sql_tokens import tokens
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

T = TypeVar("T", "SequenceUse", "RunTime")
_ROW = 1
LONGEST_BODY = 30_000
"""Characters of a function's text that is read. A longer one counts as one that cannot be read."""
_IN_SQL = "Write it in standard SQL or with the sequence's name in it, as nextval('schema.name')."


@dataclass(frozen=True)
class _Function:
    oid: int
    schema: str
    name: str
    language: str
    body: str
    path: str | None
    is_trigger: bool

    @property
    def said(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def is_read(self) -> bool:
        return self.language in ("plpgsql", "sql") and len(self.body) <= LONGEST_BODY


def read(workspace: Workspace, names: Sequence[str]) -> Uses:
    """The columns of these tables that get numbers. No text that anybody wrote can make this fail."""
    return _Reader(workspace, names).read()


class _Reader:
    def __init__(self, workspace: Workspace, names: Sequence[str]) -> None:
        self._workspace, self._names = workspace, list(names)
        self._uses = Uses(Sequences(workspace))
        self._functions = [
            _Function(*row)
            for row in workspace.rows(catalog_query("numbering_functions"), {}, "reading functions that use sequences")
        ]
        self._asking = {function.name for function in self._functions if not function.is_trigger}
        self._columns: dict[tuple[str, str], Column] = {}

    def read(self) -> Uses:
        triggers = self._workspace.rows(
            catalog_query("numbering_triggers"),
            {"functions": [function.oid for function in self._functions]},
            "reading triggers that use sequences",
        )
        pieces = [*self._of_triggers(triggers), *self._of_functions()]
        described = self._workspace.rows(
            catalog_query("numbered_columns"),
            {"names": self._names, "written": sorted({table for table, *_ in pieces})},
            "looking for columns with sequences",
        )
        for row in described:
            self._columns[row[0], row[1]] = Column(row[0], row[1], row[3], row[9] or row[0], row[10])
        for row in described:
            self._of_default(row)
        for table, written, how, by, near, path in pieces:
            self._of_code(table, written, how, by, near, path)
        self._uses.uses = _best(self._uses.uses)
        self._uses.made = _of_whole(
            list(dict.fromkeys(self._uses.made)), lambda made: (made.of.column, made.expression)
        )
        self._uses.untold = list(dict.fromkeys(self._uses.untold))
        return self._uses

    def _of_default(self, row: tuple[Any, ...]) -> None:
        table, name, schema, _, expression, view, needed, functions, hiders = row[:9]
        column = self._columns[table, name]
        by = f"the default of the view {view}" if view else "the default"
        before = len(self._uses.uses)
        for each in needed:
            how, oid = each.split(" ")
            known = self._uses.sequences.by_oid.get(int(oid))
            if known is not None:
                self._uses.uses.append(SequenceUse(column, known, how, by, None if how == "owner" else expression))
        self._of_calls(column, expression or "", "default", by, (schema,), None)
        called_here = [function for function in self._functions if function.oid in functions]
        if called_here:
            self._of_called(column, expression or "", called_here, by, (schema,))
        if hiders and not any(use.how == "function" for use in self._uses.uses[before:]):
            for function in hiders:
                self._uses.untold.append(
                    Untold(
                        column.root,
                        name,
                        f"{by.capitalize()} of {column.said} calls {function}, and it cannot be seen where that gets"
                        " numbers from. After a restore it may give a value that a row has.",
                        f"Write {function} with a body in standard SQL (RETURN nextval('…')), or name the sequence in"
                        f" it as nextval('schema.name'). {COMPARE}",
                    )
                )

    def _of_calls(
        self, column: Column, expression: str, how: How, by: str, near: tuple[str, ...], path: str | None
    ) -> None:
        """The sequences that an expression itself uses."""
        for call in calls(expression):
            if call.literal is None:
                candidates = tuple(self._uses.sequences.beginning(call.prefix))
                made = RunTime(column, how, by, expression, call.argument, near, path, candidates)
                self._uses.made.append(made)
                continue
            found = self._uses.sequences.named(call.literal, near, path)
            if len(found) > 1:
                self._untold(column.root, column.column, by, f"which of {listed(found)} is meant")
            elif found:
                self._uses.uses.append(SequenceUse(column, found[0], how, by, expression))

    def _of_called(
        self, column: Column, expression: str, functions: Sequence[_Function], by: str, near: tuple[str, ...]
    ) -> None:
        """The sequences that functions use which an expression calls."""
        found, is_hidden = self._sources(functions, set())
        if is_hidden:  # the function may get the name as an argument
            texts = [token.value for token in tokens(expression) if token.kind == "text"]
            told = [known for text in texts for known in self._uses.sequences.named(text, near)]
            if not told:
                names = ", ".join(sorted({function.said for function in functions}))
                self._untold(column.root, column.column, f"{by}, which calls {names}", "which sequence")
            found += told
        for known in dict.fromkeys(found):
            self._uses.uses.append(SequenceUse(column, known, "function", by, expression))

    def _sources(self, functions: Sequence[_Function], seen: set[int]) -> tuple[list[Known], bool]:
        """The sequences that functions use, also through other functions; and whether one of them cannot be told."""
        found, is_hidden = list[Known](), False
        for function in functions:
            if function.oid in seen:
                continue
            seen.add(function.oid)
            for call in calls(function.body):
                named = self._uses.sequences.named(call.literal or "", (function.schema,), function.path)
                is_hidden |= call.literal is None or len(named) > 1
                found += named if len(named) == 1 else []
            is_hidden |= not function.is_read
            names = called(function.body, self._asking)
            others, hidden = self._sources([each for each in self._functions if each.name in names], seen)
            found, is_hidden = found + others, is_hidden or hidden
        return found, is_hidden

    def _of_triggers(self, triggers: Sequence[tuple[Any, ...]]) -> Iterator[Piece]:
        for table, name, kind, oid, function_name, arguments, rule in triggers:
            schema = table.split(".", 1)[0]
            if rule is not None:
                yield from self._written(
                    Code(actions(rule), self._asking), table, f"the rule {name} of {table}", (schema,), None
                )
                continue
            given = [part.decode(errors="replace") for part in bytes(arguments).split(b"\0")[:-1]]
            by = f"the trigger {name} of {table} (function {function_name})"
            function = next((each for each in self._functions if each.oid == oid), None)
            if function is None:
                yield from self._of_arguments(table, given, by, function_name, schema)
                continue
            near = (function.schema, schema)
            if not function.is_read:
                yield table, Written(None, None, None), "trigger", by, near, function.path
                continue
            texts = {f"tg_argv[{number}]": _text(value) for number, value in enumerate(given)}
            texts |= {"tg_table_schema": _text(schema), "tg_table_name": _text(table.split(".", 1)[1])}
            texts["tg_relname"] = texts["tg_table_name"]
            is_view = table not in self._names
            code = Code(in_place(function.body, texts), self._asking, through=is_view)
            yield from self._written(code, table, by, near, function.path, is_row=kind & _ROW > 0 and not is_view)

    def _of_arguments(self, table: str, given: list[str], by: str, function: str, schema: str) -> Iterator[Piece]:
        """For a trigger whose function cannot be read: the sequences that its arguments name."""
        for before, text in zip(["", *given], given, strict=False):
            if not self._uses.sequences.named(text, (schema,)):
                continue
            is_told = function.endswith(".autoinc")
            expression = f"nextval({_text(text)})"
            yield table, Written(None, before if is_told else None, expression), "trigger", by, (schema,), None

    def _of_functions(self) -> Iterator[Piece]:
        """The values that functions write into tables which they name."""
        for function in self._functions:
            if function.is_read:
                by = f"the function {function.said}"
                code = Code(function.body, self._asking)
                yield from self._written(code, None, by, (function.schema,), function.path)

    def _written(
        self, code: Code, table: str | None, by: str, near: tuple[str, ...], path: str | None, *, is_row: bool = False
    ) -> Iterator[Piece]:
        for written in code.written():
            if written.table is not None:
                target = self._table(written.table, near)
                if target is not None:
                    yield target, written, "code", by, near, path
            elif table is not None and is_row:
                yield table, written, "trigger", by, near, path

    def _table(self, parts: tuple[str, ...], near: Sequence[str]) -> str | None:
        if len(parts) > 1:
            return name if (name := ".".join(parts[-2:])) in self._names else None
        found = [name for name in self._names if name.split(".", 1)[1] == parts[0]] if parts else []
        close = [name for name in found if name.split(".", 1)[0] in near]
        return next(iter(close or found), None)

    def _of_code(
        self, table: str, written: Written, how: How, by: str, near: tuple[str, ...], path: str | None
    ) -> None:
        column = self._columns.get((table, written.column or ""))
        if column is None or written.expression is None:
            known = [
                each
                for call in calls(written.expression or "")
                for each in self._uses.sequences.named(call.literal or "", near, path)
            ]
            if written.column is None and written.expression and not known and not _is_made(written.expression):
                return  # the sequence that it names does not exist
            root = column.root if column else self._root(table)
            if root is None or (column is None and written.column is not None):
                return
            what = f"into which column of {table} those of {listed(known)} go" if known else "from which sequence"
            self._untold(root, written.column, by, what)
            return
        # Anybody may have written the text: only what is understood is evaluated, and no function of it is called.
        expression = rewritten(written.expression)
        if expression is None:
            self._untold(column.root, column.column, by, self._not_understood(written.expression, near, path))
        elif calls(expression):
            self._of_calls(column, expression, how, by, near, path)
        else:
            self._untold(column.root, column.column, by, "from which sequence")

    def _not_understood(self, expression: str, near: Sequence[str], path: str | None) -> str:
        """What cannot be told of a text that is not evaluated."""
        found = calls(expression)
        known = [each for call in found for each in self._uses.sequences.named(call.literal or "", near, path)]
        if known:
            return f"how those of {listed(known)} become values"
        begun = [each for call in found if call.literal is None for each in self._uses.sequences.beginning(call.prefix)]
        return f"from which sequence at run time ({listed(begun)})" if begun else "from which sequence"

    def _root(self, table: str) -> str | None:
        return next((column.root for (name, _), column in self._columns.items() if name == table), None)

    def _untold(self, root: str, column: str | None, by: str, what: str) -> None:
        where = f"{root}.{column}" if column else root
        self._uses.untold.append(
            Untold(
                root,
                column,
                f"{where} gets numbers by {by}, but {what} cannot be told. After a restore it may get a number that a"
                " row has.",
                f"{_IN_SQL} {COMPARE}",
            )
        )


Piece = tuple[str, Written, How, str, tuple[str, ...], str | None]
"""A table, the value that is written into it, by what, and the schemas in which names are looked up."""


def _is_made(expression: str) -> bool:
    return not calls(expression) or any(call.literal is None for call in calls(expression))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _best(uses: Collection[SequenceUse]) -> list[SequenceUse]:
    """The uses without duplicates. A default counts before mere ownership of the sequence."""
    told = {(use.of, use.sequence) for use in uses if use.how != "owner"}
    kept = [use for use in uses if use.how != "owner" or (use.of, use.sequence) not in told]
    once = {(use.of, use.sequence, use.how == "function", use.expression): use for use in reversed(kept)}
    return _of_whole(list(reversed(once.values())), lambda use: (use.column, use.sequence, use.expression))


def _of_whole(found: list[T], what: Callable[[T], object]) -> list[T]:
    """The uses of whole tables. A partition has its table's defaults, unless it has its own."""
    whole = {(each.of.table, what(each)) for each in found}
    return [each for each in found if each.of.root == each.of.table or (each.of.root, what(each)) not in whole]
