"""The application's functions that use sequences: what each does with the numbers, and which give them to a caller."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from clinic_backups.restore.number_calls import HIDDEN, asked, called, calls, runs_shut
from clinic_backups.restore.number_code import Code, Written
from clinic_backups.restore.sequence_names import Known, Sequences
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import tokens

LONGEST_BODY = 30_000
"""Characters of a function's text that is read. A longer one counts as one that cannot be read."""
_READ = ("plpgsql", "sql")


@dataclass(frozen=True)
class Function:
    """A function as PostgreSQL describes it.

    :param set_path: the search path that it sets for itself.
    :param results: parameters that it gives back.
    :param may_use: it may use a sequence, as far as a search in its text shows; otherwise it only runs other texts.
    """

    oid: int
    schema: str
    name: str
    language: str
    body: str
    set_path: str | None
    is_trigger: bool
    results: Collection[str]
    may_use: bool

    @property
    def said(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def unread(self) -> str | None:
        """Why its text is not read."""
        if self.language not in _READ:
            return f"it is written in {self.language}, which is not read"
        return None if len(self.body) <= LONGEST_BODY else f"it is longer than {LONGEST_BODY:,} characters"

    @cached_property
    def path(self) -> str | None:
        """The search path, if nothing else can change it."""
        found = self.set_path
        return None if found is None or "$user" in found or "search_path" in self.lower else found

    @cached_property
    def is_hidden(self) -> bool:
        """It is not read, but names a function that uses sequences."""
        return self.unread is not None and any(name in self.lower for name in HIDDEN)

    @cached_property
    def lower(self) -> str:
        return self.body.lower()

    def may_call(self, names: Collection[str]) -> bool:
        """Whether its text may call one of these functions."""
        return "u&" in self.lower or any(name.lower() in self.lower for name in names)


class Functions:
    """All of them."""

    def __init__(self, workspace: Workspace, sequences: Sequences) -> None:
        self._sequences = sequences
        rows = workspace.rows(catalog_query("numbering_functions"), {}, "reading functions that use sequences")
        self.all = [Function(*row) for row in rows]
        self.by_oid = {function.oid: function for function in self.all}
        self._by_name: dict[str, list[Function]] = {}
        for function in self.all:
            if not function.is_trigger:
                self._by_name.setdefault(function.name, []).append(function)
        self.codes: dict[int, Code] = {}
        self.giving = self._giving()
        self._making = self.giving - self._giving_keys()

    def _giving(self) -> set[str]:
        """The names of those that give a number to their caller, or whose number may be anywhere after a call."""
        giving = {name for name, found in self._by_name.items() if any(function.is_hidden for function in found)}
        read = [each for each in self.all if each.may_use and each.unread is None and not each.is_trigger]
        waiting = read
        while waiting:
            for function in waiting:
                self.codes[function.oid] = Code(function.body, giving, results=function.results)
            new = {
                function.name
                for function in waiting
                if function.name not in giving
                and any(written.table is None for written in self.codes[function.oid].written())
            }
            giving |= new
            waiting = [function for function in read if new and function.may_call(new)]
        return giving

    def _giving_keys(self) -> set[str]:
        """The names of those that give only keys of rows which a function has written."""
        keys = set[str]()
        while True:
            self._making = self.giving - keys
            new = {
                name
                for name in self._making
                if all(
                    function.oid in self.codes
                    and all(written.table or self.is_key(written) for written in self.codes[function.oid].written())
                    for function in self._by_name[name]
                )
            }
            if not new:
                return keys
            keys |= new

    def is_key(self, written: Written) -> bool:
        """Whether an unknown caller gets nothing but the key of a row that a function has written."""
        return written.is_result and (written.is_key or not asked(written.text, self._making))

    def callers(self, texts: Iterable[str]) -> set[str]:
        """The names of those that other functions, or these texts, call."""
        found = {name for text in texts for name in called(text, self.giving)}
        for function in self.all:
            if function.may_call(self.giving - found):
                found |= called(function.body, self.giving - {function.name})
        return found

    def sources(self, functions: Iterable[Function], seen: set[int] | None = None) -> list[Known]:
        """The sequences that functions name, also through other functions."""
        found, seen = list[Known](), set() if seen is None else seen
        for function in functions:
            if function.oid not in seen:
                seen.add(function.oid)
                found += self._sequences.named_in(function.body, (function.schema,), function.path)
                found += self.sources(self.called_in(function.body), seen)
        return list(dict.fromkeys(found))

    def called_in(self, text: str) -> list[Function]:
        """Those that a text calls."""
        return [function for name in sorted(called(text, self._by_name)) for function in self._by_name[name]]

    def is_unknown(self, function: Function) -> bool:
        """Whether nothing can be told of it: it runs a text that is made at run time, or is not read."""
        if function.unread is not None:
            return not function.is_hidden
        if runs_shut(list(tokens(function.body))):
            return False
        code = self.codes.get(function.oid)
        return (Code(function.body, self.giving) if code is None else code).runs_anything

    def hides(self, functions: Iterable[Function], seen: set[int] | None = None) -> bool:
        """Whether it cannot be told from which sequences they take numbers."""
        seen = set() if seen is None else seen
        for function in functions:
            if function.oid in seen:
                continue
            seen.add(function.oid)
            if function.oid not in self.codes:
                return True
            if self.codes[function.oid].makes or self._is_unclear(function):
                return True
            if self.hides(self.called_in(function.body), seen):
                return True
        return False

    def _is_unclear(self, function: Function) -> bool:
        near = (function.schema,)
        return any(
            call.literal is None or len(self._sequences.named(call.literal, near, function.path)) > 1
            for call in calls(function.body)
        )
