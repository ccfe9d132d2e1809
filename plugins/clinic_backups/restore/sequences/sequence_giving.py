"""What functions do with a sequence's numbers, and which functions give them to whoever calls them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from clinic_backups.restore.sequences.number_calls import asked, calls, runs_shut, runs_text, texts_in
from clinic_backups.restore.sequences.number_code import Code, Written
from clinic_backups.restore.sequences.sequence_functions import LONGEST_BODY, Function, Functions
from clinic_backups.restore.sequences.sequence_names import Known, Sequences
from clinic_backups.tenant.sql_tokens import tokens

Scope = Mapping[str, Collection[int]]
"""What names mean in a text: PostgreSQL's numbers of functions."""
_AGAIN = 4
"""How often each function is read again, on average, because another one that it calls turns out to give numbers."""


class Giving:
    """All functions that are read, and the ones that give numbers."""

    def __init__(self, functions: Functions, sequences: Sequences) -> None:
        self._functions, self._sequences = functions, sequences
        self._called = {each.oid: functions.called_in(each.calls, each.near, each.path) for each in functions.all}
        self._named: dict[int, list[Known]] = {}
        self._in_texts: dict[tuple[str, tuple[str, ...], str | None], list[Function]] = {}
        self._by_word: dict[str, list[int]] = {}
        for each in functions.all:
            if not each.is_trigger:
                self._by_word.setdefault(each.name, []).append(each.oid)
        self._scopes: dict[int, Scope] = {}
        self.codes: dict[int, Code] = {}
        self.giving: set[int] = set()
        self._find_giving()
        self._making = self.giving - self._giving_keys()

    def scope(self, text: str, near: Sequence[str], path: str | None = None) -> Scope:
        """What the names in a text mean that may call functions."""
        return self._scope(text, self._functions.called_in(text, near, path))

    def _scope(self, text: str, called: Iterable[Function]) -> Scope:
        found: dict[str, set[int]] = {}
        for each in called:
            found.setdefault(each.name, set()).add(each.oid)
        if runs_text(text):  # the texts that it runs are made of its texts
            for name in {token.value for each in texts_in(text) for token in tokens(each) if token.is_name}:
                if name in self._by_word:
                    found.setdefault(name, set()).update(self._by_word[name])
        return found

    def scope_of(self, function: Function) -> Scope:
        """The same for the text of a function."""
        if function.oid not in self._scopes:
            self._scopes[function.oid] = self._scope(function.body, self._called[function.oid])
        return self._scopes[function.oid]

    def names(self, scope: Scope) -> set[str]:
        """The names in a text that mean functions which give numbers."""
        return _names(scope, self.giving)

    def _ordered(self) -> list[Function]:
        """The functions that are read, each behind those that it calls, as far as there are no circles."""
        ordered, seen = list[Function](), set[int]()
        for first in self._functions.all:
            open_ = [(first, iter(self._called_by(first)))] if first.oid not in seen else []
            seen.add(first.oid)
            while open_:
                function, rest = open_[-1]
                further = next((each for each in rest if each.oid not in seen), None)
                if further is None:
                    ordered.append(function)
                    open_.pop()
                else:
                    seen.add(further.oid)
                    open_.append((further, iter(self._called_by(further))))
        return [each for each in ordered if each.may_use and each.unread is None and not each.is_trigger]

    def _called_by(self, function: Function) -> list[Function]:
        oids = dict.fromkeys(oid for oids in self.scope_of(function).values() for oid in oids)
        return [self._functions.by_oid[oid] for oid in oids]

    def _find_giving(self) -> None:
        """Those that give a number to their caller, or whose number may be anywhere after a call."""
        self.giving |= {each.oid for each in self._functions.all if each.is_hidden and not each.is_trigger}
        ordered = self._ordered()
        callers: dict[int, list[Function]] = {}
        for function in ordered:
            for called in self._called_by(function):
                callers.setdefault(called.oid, []).append(function)
        waiting, left = deque(ordered), len(ordered) * _AGAIN
        queued = {function.oid for function in ordered}
        while waiting and left > 0:
            left -= 1
            function = waiting.popleft()
            queued.discard(function.oid)
            names = self.names(self.scope_of(function))
            code = self.codes[function.oid] = Code(function.body, names, results=function.results)
            if function.oid in self.giving or not any(written.table is None for written in code.written()):
                continue
            self.giving.add(function.oid)
            again = [each for each in callers.get(function.oid, ()) if each.oid not in queued]
            waiting.extend(again)
            queued |= {each.oid for each in again}

    def _giving_keys(self) -> set[int]:
        """Those that give only keys of rows which a function has written."""
        keys = set[int]()
        for _ in range(_AGAIN):
            before = len(keys)
            for function in self._ordered():
                self._making = self.giving - keys
                code = self.codes.get(function.oid)
                if function.oid in self._making and code is not None and all(
                    written.table or self.is_key(written, self.scope_of(function)) for written in code.written()
                ):  # fmt: skip
                    keys.add(function.oid)
            if len(keys) == before:
                break
        return keys

    def is_key(self, written: Written, scope: Scope) -> bool:
        """Whether an unknown caller gets nothing but the key of a row that a function has written."""
        return written.is_result and (written.is_key or not asked(written.text, _names(scope, self._making)))

    def callers(self, texts: Iterable[tuple[str, Sequence[str]]]) -> set[int]:
        """Those that other functions call, or these texts, each with the schemas that its names are looked up in."""
        found = {each.oid for text, near in texts for each in self._functions.called_in(text, near)}
        for oid, called in self._called.items():
            found |= {each.oid for each in called if each.oid != oid}
        return found

    def called_in(self, text: str, near: Sequence[str], path: str | None) -> list[Function]:
        """Those that a text calls, also in the texts in it."""
        key = (text, tuple(near), path)
        if key not in self._in_texts:
            parts = (text, *texts_in(text))
            found = {each.oid: each for part in parts for each in self._functions.called_in(part, near, path)}
            self._in_texts[key] = list(found.values())
        return self._in_texts[key]

    def _reached(self, functions: Iterable[Function]) -> Iterator[Function]:
        """These, and those that they call in the end."""
        waiting, seen = list(functions)[::-1], set[int]()
        while waiting:
            function = waiting.pop()
            if function.oid not in seen:
                seen.add(function.oid)
                yield function
                waiting += self._called[function.oid][::-1]

    def sources(self, functions: Iterable[Function]) -> list[Known]:
        """The sequences that functions name, also through other functions."""
        return list(dict.fromkeys(known for each in self._reached(functions) for known in self._named_in(each)))

    def _named_in(self, function: Function) -> list[Known]:
        if function.oid not in self._named:
            body = function.body[:LONGEST_BODY]
            self._named[function.oid] = self._sequences.named_in(body, function.near, function.path)
        return self._named[function.oid]

    def is_unknown(self, function: Function) -> bool:
        """Whether nothing can be told of it: it runs a text that is made at run time, or is not read."""
        if function.unread is not None:
            return not function.is_hidden
        if runs_shut(list(tokens(function.body))):
            return False
        code = self.codes.get(function.oid)
        return (Code(function.body, self.names(self.scope_of(function))) if code is None else code).runs_anything

    def hides(self, functions: Iterable[Function]) -> bool:
        """Whether it cannot be told from which sequences they take numbers."""
        return any(
            each.oid not in self.codes or self.codes[each.oid].makes or self._is_unclear(each)
            for each in self._reached(functions)
        )

    def _is_unclear(self, function: Function) -> bool:
        return any(
            call.literal is None or len(self._sequences.named(call.literal, function.near, function.path)) > 1
            for call in calls(function.body)
        )


def _names(scope: Scope, among: Collection[int]) -> set[str]:
    return {name for name, oids in scope.items() if any(oid in among for oid in oids)}
