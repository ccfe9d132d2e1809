"""Finds which columns get their numbers from which sequences: from PostgreSQL's catalog, and from functions' texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from clinic_backups.restore.sequences.number_calls import asked, calls
from clinic_backups.restore.sequences.number_code import Written
from clinic_backups.restore.sequences.safe_expression import rewritten
from clinic_backups.restore.sequences.sequence_functions import Function, Functions
from clinic_backups.restore.sequences.sequence_giving import Giving
from clinic_backups.restore.sequences.sequence_model import (
    COMPARE,
    How,
    RunTime,
    SequenceColumn,
    SequenceUse,
    Untold,
    Uses,
)
from clinic_backups.restore.sequences.sequence_names import Known, Sequences, listed
from clinic_backups.restore.sequences.sequence_texts import Piece, Pieces, SequenceText
from clinic_backups.restore.sequences.table_owners import table_owners
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import tokens

T = TypeVar("T", "SequenceUse", "RunTime")
_SHOWN = 5
_IN_SQL = "Write it in standard SQL or with the sequence's name in it, as nextval('schema.name')."


def read(workspace: Workspace, restored: Collection[str]) -> Uses:
    """The columns that get numbers: of restored tables, and of others whose owner could write into these anyway.

    No text that anybody wrote can make this fail.
    """
    return _Reader(workspace, restored).read()


class _Reader:
    def __init__(self, workspace: Workspace, restored: Collection[str]) -> None:
        self._workspace, self._owners = workspace, table_owners(workspace, restored)
        self._names = list(self._owners.tables)
        sequences = Sequences(workspace, self._owners)
        self._uses = Uses(sequences, oids=self._owners.oids)
        self._functions = Functions(workspace, self._owners, sequences.path)
        self._giving = Giving(self._functions, sequences)
        self._pieces = Pieces(workspace, self._owners, sequences, self._functions, self._giving, self._names)
        self._columns: dict[tuple[str, str], SequenceColumn] = {}

    def read(self) -> Uses:
        described = self._workspace.rows(
            catalog_query("numbered_columns"),
            {"names": self._names, "written": self._pieces.tables(), "owners": list(self._owners.roles)},
            "looking for columns with sequences",
        )
        for row in described:
            self._columns[row[0], row[1]] = SequenceColumn(row[0], row[1], row[3], row[9] or row[0], row[10])
        for row in described:
            self._of_default(row)
        for piece in self._pieces.all([(row[4], (row[2],)) for row in described if row[4]]):
            self._of_code(piece)
        self._of_unknown()
        self._uses.uses = _best(self._uses.uses)
        self._uses.made = _of_whole(
            list(dict.fromkeys(self._uses.made)), lambda made: (made.of.column, made.expression)
        )
        self._uses.untold = _once(self._uses.untold)
        self._uses.named = self._giving.sources(self._functions.all)
        return self._uses

    def _of_default(self, row: tuple[Any, ...]) -> None:
        table, name, schema, _, given, view, needed, functions, hiders = row[:9]
        column, expression = self._columns[table, name], given or ""
        if row[11] and (view or column.root not in self._owners.restored):
            return  # a restore does not call the functions of others in it
        source = SequenceText(f"the default of the view {view}" if view else "the default", expression, (schema,))
        before, told = len(self._uses.uses), len(self._uses.untold)
        for each in needed:
            how, oid = each.split(" ")
            known = self._uses.sequences.by_oid.get(int(oid))
            if known is not None:
                of = None if how == "owner" else given
                self._uses.uses.append(SequenceUse(column, known, how, source.by, of))
        self._of_calls(column, expression, "default", source)
        if asked(expression) > len(calls(expression)):
            self._untold_of(column, source, Written(None, name, None, expression))
        called_here = [each for each in self._functions.all if each.may_use and each.oid in functions]
        if called_here:
            self._of_called(column, expression, called_here, source)
        is_said = len(self._uses.untold) > told
        if hiders and not is_said and not any(use.how == "function" for use in self._uses.uses[before:]):
            self._of_hiders(column, hiders, source)

    def _of_hiders(self, column: SequenceColumn, hiders: Collection[str], source: SequenceText) -> None:
        for function in hiders:
            self._uses.untold.append(
                Untold(
                    column.root,
                    column.column,
                    f"{source.subject} of {column.said} calls {function}, and it cannot be seen where that gets"
                    " numbers from. After a restore it may give a value that a row has.",
                    f"Write {function} with a body in standard SQL (RETURN nextval('…')), or name the sequence in"
                    f" it as nextval('schema.name'). {COMPARE}",
                )
            )

    def _of_calls(self, column: SequenceColumn, expression: str, how: How, source: SequenceText) -> None:
        """The sequences that an expression itself uses."""
        sequences, near = self._uses.sequences, source.near
        for call in calls(expression):
            if call.literal is None:
                candidates = tuple(sequences.beginning(call.prefix))
                made = RunTime(column, how, source.by, expression, call.argument, near, source.path, candidates)
                self._uses.made.append(made)
                continue
            found = sequences.named(call.literal, near, source.path)
            if len(found) > 1:
                self._untold(column.root, column.column, source, f"which of {listed(found)} is meant", expression)
            if (likely := sequences.likely(found, near)) is not None:
                self._uses.uses.append(SequenceUse(column, likely, how, source.by, expression))

    def _of_called(
        self, column: SequenceColumn, expression: str, functions: Sequence[Function], source: SequenceText
    ) -> None:
        """The sequences that functions use which an expression calls."""
        found, is_hidden = self._giving.sources(functions), self._giving.hides(functions)
        gives = any(function.oid in self._giving.giving for function in functions)
        if is_hidden or (gives and not found):  # the function may get the name as an argument
            found = list(dict.fromkeys([*self._uses.sequences.named_in(expression, source.near), *found]))
            if gives and not found:
                names = ", ".join(sorted({function.said for function in functions}))
                by = SequenceText(f"{source.by}, which calls {names}", expression, source.near)
                self._untold(column.root, column.column, by, "from which sequence", expression)
        for known in found:
            self._uses.uses.append(SequenceUse(column, known, "function", source.by, expression))

    def _of_code(self, piece: Piece) -> None:
        written, source = piece.written, piece.source
        column = self._columns.get((piece.table or "", written.column or ""))
        # Anybody may have written the text: only what is understood is evaluated, and no function of it is called.
        expression = rewritten(written.expression) if column is not None and written.expression is not None else None
        if column is not None and expression is not None and calls(expression):
            self._of_calls(column, expression, piece.how, source)
            return
        about = self._about(written, source)
        if column is None and written.expression and not about and not _is_made(written.expression):
            return  # the sequence that it names does not exist
        root = next((each.root for (name, _), each in self._columns.items() if name == piece.table), None)
        if column is not None:
            self._untold_of(column, source, written)
        elif piece.table is None:
            self._untold_of_any(source, written, about)
        elif root is not None and (written.column is None or written.expression is None):
            where = f"into which column of {piece.table} those of {listed(about)} go"
            self._untold(root, None, source, where if about else "from which sequence", written.text, about)

    def _untold_of(self, column: SequenceColumn, source: SequenceText, written: Written) -> None:
        about = self._about(written, source)
        self._untold(column.root, column.column, source, self._not_understood(written, about), written.text, about)

    def _about(self, written: Written, source: SequenceText) -> list[Known]:
        """The sequences that may be meant. If the statement names none, those that the whole text names."""
        for text in dict.fromkeys([written.text, source.body]):
            found = self._uses.sequences.named_in(text, source.near, source.path)
            found += self._giving.sources(self._giving.called_in(text, source.near, source.path))
            if found:
                return list(dict.fromkeys(found))
        return []

    def _not_understood(self, written: Written, about: Sequence[Known]) -> str:
        """What cannot be told of a text that is not evaluated."""
        found = calls(written.expression or "")
        begun = [each for call in found if call.literal is None for each in self._uses.sequences.beginning(call.prefix)]
        if begun:
            return f"from which sequence at run time ({listed(begun)})"
        if not about:
            return "from which sequence"
        is_named = found and all(call.literal is not None for call in found)
        return (
            f"how those of {listed(about)} become values" if is_named else f"whether they are those of {listed(about)}"
        )

    def _untold(
        self, root: str, column: str | None, source: SequenceText, what: str, text: str, about: Sequence[Known] = ()
    ) -> None:
        about = about or self._uses.sequences.named_in(text, source.near, source.path)
        where = f"{root}.{column}" if column else root
        self._uses.untold.append(
            Untold(
                root,
                column,
                f"{where} gets numbers by {source.by}, but {what} cannot be told{_because(text, source)}. After a"
                " restore it may get a number that a row has.",
                f"{_IN_SQL} {COMPARE}",
                tuple(about),
                source.by,
            )
        )

    def _untold_of_any(self, source: SequenceText, written: Written, about: Sequence[Known]) -> None:
        into = f" into {'.'.join(written.table)}" if written.table else ""
        self._uses.untold.append(
            Untold(
                None,
                None,
                f"{source.subject} takes numbers of {listed(about) if about else 'a sequence'}{into}, but which column"
                f" gets them cannot be told{_because(written.text, source)}. After a restore it may take a number that"
                " a row has.",
                f"{_IN_SQL} {COMPARE}",
                tuple(about),
                source.by,
            )
        )

    def _of_unknown(self) -> None:
        """Functions of which nothing can be told."""
        names = self._pieces.unknown()
        if not names:
            return
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        self._uses.untold.append(
            Untold(
                None,
                None,
                "Whether these functions take numbers from sequences cannot be told, because they run SQL that is made"
                f" at run time or are written in a language that is not read: {shown}.",
                f"Use format('… %I … %L', …) for names and values in SQL that is made at run time. {COMPARE}",
            )
        )


def _is_made(expression: str) -> bool:
    return not calls(expression) or any(call.literal is None for call in calls(expression))


def _because(text: str, source: SequenceText) -> str:
    """Why it cannot be told, in a few words."""
    found = list(tokens(text))
    if source.unread is not None:
        return f", because {source.unread}"
    if any(token.is_("execute") for token in found):
        return ", because it runs SQL that is made at run time"
    if any(token.is_name and token.value == "setval" for token in found):
        return ", because setval changes the sequence too"
    if any(token.is_name and token.value in ("lastval", "last_value", "pg_sequence_last_value") for token in found):
        return ", because it reads the last number that was taken"
    return ""


def _once(found: Sequence[Untold]) -> list[Untold]:
    """Each fact once. What is known of a column is not said of its table, or of any table, as well."""
    of_columns = {(each.by, known) for each in found if each.column is not None for known in each.about}
    kept = [
        each
        for each in found
        if each.column is not None or not each.about or any((each.by, known) not in of_columns for known in each.about)
    ]
    return list({each.said: each for each in kept}.values())


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
