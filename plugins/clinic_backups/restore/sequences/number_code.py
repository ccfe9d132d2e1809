"""Reads from the text of the application's SQL and PL/pgSQL functions what they do with a sequence's numbers.

Only what the text shows with certainty is reported as written to a column. Any other use of a sequence is reported as a
value whose place cannot be told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product

from clinic_backups.restore.sequences.number_calls import HIDDEN, asked, asked_in, calls, is_shut, says
from clinic_backups.restore.sequences.statement_values import Place, Statements, name_at, statements
from clinic_backups.tenant.sql_tokens import Token, closing, plain, replaced, split, tokens

_CONDITIONS = ("if", "elsif", "while", "assert", "raise", "exit", "continue", "when", "case")
"""Statements that only look at a value."""
_MOST, _DEPTH = 8, 4
"""The most ways in which a variable gets its value, and the most variables in a row, that are followed."""
_LONGEST = 5_000
"""The most characters that may replace variables. A longer text cannot be evaluated."""
_MOST_EXPANDED = 300_000
"""The most characters of all texts together in which variables were replaced. Nothing is followed beyond that."""
_MOST_WRITTEN = 100
"""The most values that are told of one text. If there are more, it is told that there are others."""


@dataclass(frozen=True)
class Written:
    """A value that is made of a sequence's number, and the place where it is written.

    :param table: the parts of its name; none for the row NEW of a trigger.
    :param column: none if it cannot be told.
    :param expression: none if it is made at run time.
    :param text: the statement, or the part of it that says where the value comes from.
    :param is_result: whoever calls the function gets the value.
    :param is_key: the function has also written it into a table, so it is the key of that row.
    """

    table: tuple[str, ...] | None
    column: str | None
    expression: str | None
    text: str = ""
    is_result: bool = False
    is_key: bool = False

    @property
    def only_sets(self) -> bool:
        """It is what ``setval`` returns, which is of use to nobody unless it is put somewhere."""
        sets = sum(token.is_name and token.value == "setval" for token in tokens(self.text))
        return 0 < sets == asked(self.text)


@dataclass(frozen=True)
class _Part:
    """A value in a statement. ``name`` is the variable, the column of NEW, or a table with its column."""

    kind: Place
    name: tuple[str, ...]
    expression: str | None
    text: str = ""


class Code:
    """The body of a function.

    :param functions: names of functions that give numbers of sequences.
    :param through: NEW is not a table's row. Its values go where the function inserts it.
    :param results: the function's parameters that it gives back.
    :param is_trigger: it is called for a row whose number somebody may have given. If it sets a sequence, that matters.
    """

    def __init__(
        self,
        body: str,
        functions: Collection[str] = (),
        *,
        through: bool = False,
        results: Collection[str] = (),
        is_trigger: bool = False,
    ) -> None:
        self._is_trigger = is_trigger
        self._text, self._results = _with_last(plain(body)), results
        self._words = frozenset({*HIDDEN, *functions})
        self._variables: dict[str, list[_Part]] = {}
        self._followed: set[str] = set()
        self._ways: dict[tuple[str, int], list[str | None]] = {}
        self._known_to_ask: dict[str, int] = {}
        self._left = _MOST_EXPANDED
        found = list(tokens(self._text))
        self._executes = any(token.is_("execute") for token in found)
        self._makes = self._executes and says(found, self._words)
        self._rest = list[_Part]()
        self._statements = Statements(self._text, self.asks, through=through)
        for is_declared, statement in statements(found):
            for part in self._whole(statement, is_declared):
                if part.kind == "variable":
                    self._variables.setdefault(part.name[0], []).append(part)
                else:
                    self._rest.append(part)

    def written(self) -> list[Written]:
        """The values that come from sequences, and where they are written."""
        return self._written

    @cached_property
    def _written(self) -> list[Written]:
        result = list[Written]()
        for part in self._rest:
            table = part.name[:-1] if part.kind == "table" else None
            column = (part.name[-1] or None) if part.name else None
            result += [
                Written(table, column, found, found or part.text, part.kind == "result")
                for found in self._expanded(part.expression)
                if found is None or self.asks(found)
            ]
        result += [
            Written(None, None, part.expression, part.expression or part.text, name in self._results)
            for name, found in self._variables.items()
            for part in found
            if name not in self._followed and (part.expression is None or self.asks(part.expression))
        ]
        keys = {written.expression for written in result if written.table is not None and written.expression}
        told = dict.fromkeys(replace(each, is_key=each.is_result and each.expression in keys) for each in result)
        if len(told) > _MOST_WRITTEN:
            return [*islice(told, _MOST_WRITTEN), Written(None, None, None)]
        return list(told)

    @property
    def makes(self) -> bool:
        """Whether it runs a text, and names a function that uses sequences in a text."""
        return self._makes

    @property
    def runs_anything(self) -> bool:
        """Whether it runs a text of which nothing is known."""
        if self._makes or not self._executes:
            return False
        found = list(tokens(self._text))
        return any(
            token.is_("execute") and not is_shut(self._run(found[index + 1 :])) for index, token in enumerate(found)
        )

    def _run(self, found: Sequence[Token]) -> list[Token]:
        """What EXECUTE runs: for a variable, all that is assigned to it."""
        ends = next((index for index, token in enumerate(found) if token.is_(";", "into", "using", "loop")), len(found))
        ways = self._expanded(self._statements.text_of(found[:ends]))
        return [token for way in ways for token in tokens("unknown" if way is None else way)]

    def asks(self, text: str) -> bool:
        """Whether a text uses a sequence, itself or through a function."""
        return self._asked(text) > 0

    def _asked(self, text: str) -> int:
        if text not in self._known_to_ask:
            self._known_to_ask[text] = asked_in(list(tokens(text)), self._words, is_made=self._makes)
        return self._known_to_ask[text]

    def _whole(self, found: list[Token], is_declared: bool) -> list[_Part]:
        """The parts of a statement. If they do not show all its uses of sequences, there is one more part."""
        text = self._statements.text_of(found)
        parts = [
            _Part(kind, name, expression, text)
            for kind, name, expression in self._statements.values(found, is_declared)
        ]
        if found[0].is_(*_CONDITIONS) or any(part.expression is None for part in parts) or self._is_alone(found):
            return parts
        count = asked_in(found, self._words, is_made=self._makes)
        if count and count > sum(self._asked(part.expression or "") for part in parts):
            is_written = found[0].is_("insert", "update") and any(part.kind == "table" for part in parts)
            name = (*parts[0].name[:-1], "") if is_written else ()
            parts.append(_Part("table" if is_written else "nowhere", name, text, text))
        return parts

    def _is_alone(self, found: list[Token]) -> bool:
        """Whether a statement takes a number and does nothing with it, or calls a function that does the rest."""
        return found[0].is_("perform") and all(self._is_call_alone(item) for item in split(found[1:], ","))

    def _is_call_alone(self, found: list[Token]) -> bool:
        _, at = name_at(found, 0)
        is_call = 0 < at < len(found) and found[at].is_("(") and closing(found, at) == len(found) - 1
        is_set = found[at - 1].value == "setval" and self._is_trigger
        return is_call and not is_set and not self.asks(self._statements.text_of(found[at + 1 : -1]))

    def _expanded(self, expression: str | None, depth: int = _DEPTH) -> list[str | None]:
        """The text with the variables' values in their place, once for each value that the text assigns."""
        if expression is None or depth == 0:
            return [expression]
        found, places = list(tokens(expression)), list[tuple[int, int, list[str | None]]]()
        for index, token in enumerate(found):
            before = found[index - 1] if index else None
            after = found[index + 1] if index + 1 < len(found) else None
            name, end = token.value, token.end
            if token.is_("new") and after is not None and after.is_(".") and index + 2 < len(found):
                name, end = f"new.{found[index + 2].value}", found[index + 2].end
            elif (before and before.is_(".")) or (after and after.is_("(", ".")):
                continue
            if token.is_name and name in self._variables:
                places.append((token.start, end, self._ways_of(name, depth)))
        results = list[str | None]()
        for chosen in islice(product(*(ways for _, _, ways in places)), _MOST):
            if None in chosen:
                results.append(None)
                continue
            changes = [(start, end, f"({value})") for (start, end, _), value in zip(places, chosen, strict=True)]
            size = sum(len(value or "") for value in chosen)
            if changes and (size > _LONGEST or self._left <= 0):
                asks = any(self.asks(text or "") for text in (expression, *chosen))
                results.append(None if asks else expression)
                continue
            results.append(replaced(expression, changes))
            self._left -= size + len(expression) if changes else 0
        return results

    def _ways_of(self, name: str, depth: int) -> list[str | None]:
        """The values of a variable.

        The one that uses a sequence comes first, and no more are returned than can be followed.
        """
        if (name, depth) not in self._ways:
            self._followed.add(name)
            ways = dict.fromkeys(
                way for part in self._variables[name] for way in self._expanded(part.expression, depth - 1)
            )
            asking = [way for way in ways if way is None or self.asks(way)]
            others = [way for way in ways if way is not None and way not in asking]
            is_cut = len(asking) > _MOST
            self._ways[name, depth] = [None, *asking[: _MOST - 1]] if is_cut else [*asking, *others][:_MOST]
        return self._ways[name, depth]


def _with_last(text: str) -> str:
    """With the only sequence that a text asks in the place of ``lastval``."""
    if "lastval" not in text.lower():
        return text
    sequences, found = {call.argument for call in calls(text)}, list(tokens(text))
    if len(sequences) != 1:
        return text
    places = [
        (found[index].start, found[index + 2].end, f"currval({next(iter(sequences))})")
        for index in range(len(found) - 2)
        if found[index].is_("lastval") and found[index + 1].is_("(") and found[index + 2].is_(")")
    ]
    return replaced(text, places)
