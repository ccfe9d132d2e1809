"""Finds where a query's text uses values without saying which operators it means.

Only as much of SQL is read as this needs. A use that is not understood counts as found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from clinic_backups.tenant.sql_tokens import tokens


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SIGNS = frozenset("+-*/<>=~!@#%^&|`?")
_BY_WORD = {
    "in": ("=", "<>"), "between": ("<", "<=", ">", ">="), "like": ("~~", "!~~"), "ilike": ("~~*", "!~~*"),
    "similar": ("~", "!~"), "distinct": ("=",), "using": ("=",), "natural": ("=",), "when": ("=",), "nullif": ("=",),
}  # fmt: skip
"""The operators that PostgreSQL looks up for words."""
_LISTS = {"select": "list", "returning": "list", "by": "by"}
_CLAUSES = _words("from where having on using limit offset fetch window join union except intersect values set")
_BEFORE_ITEM = ("select", "all", "distinct", "by", ",", "(", "[")
_AFTER_ITEM = _words(
    ", ) ] ; as from asc desc nulls union except intersect order group limit where offset fetch for having rows range"
    " window"
)
_BEFORE_ROWS = ("from", "join", "lateral", "exists", "as", "materialized", "union", "except", "intersect", "recursive")
"""Before a subquery whose columns are only named there, and not compared."""
_TRANSPARENT = _words("any all some array row coalesce greatest least cast")
"""Before a parenthesis: the values in it are those of the whole."""
_KEYWORDS = _words(
    "and or not is in like ilike similar between from where having on using join inner left right full cross natural"
    " outer lateral union except intersect all any some as with recursive materialized select distinct by order group"
    " limit offset fetch for window over filter within operator collate when then else case end values array row cast"
    " exists returning asc desc nulls rows range"
)


@dataclass
class _Group:
    """A parenthesis, or the whole text. The numbers are those of its tokens."""

    parent: _Group | None
    opening: int
    closing: int
    has_select: bool = False


class OperatorUses:
    """The uses of values in one query."""

    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self.names = frozenset(token.value for token in self._tokens if token.is_name)
        """All words and names of the text."""
        self.called = frozenset(
            token.value for index, token in enumerate(self._tokens) if token.is_name and self._is(index + 1, "(")
        )
        """All names of functions, and other words before a parenthesis."""
        self.operators = self._operators()
        """All operators and functions that the text may use by name alone."""
        self._groups: list[_Group] = []
        self._clauses: list[str] = []
        self._read_places()
        self._types: frozenset[str] = frozenset()

    def of(self, watched: Mapping[str, str], relations: Collection[str]) -> list[str]:
        """The watched names that are used without an operator's schema, in order of name.

        :param watched: names of values with their types. Other names that the text gives to them count as well.
        :param relations: ``schema.name`` of relations, which may have the same names as values.
        """
        if not watched:
            return []
        self._types = frozenset(type_.removesuffix("[]").rpartition(".")[2].strip('"') for type_ in watched.values())
        origin, skipped = {name: name for name in watched}, set[int]()
        for opening, closing in self._alias_lists():
            skipped.update(range(opening, closing))
            origin = {one.value: min(watched) for one in self._tokens[opening:closing] if one.is_name} | origin
        while further := self._renamed(origin):
            origin |= further
        found = set[str]()
        for index, token in enumerate(self._tokens):
            if token.is_name and token.value in origin and index not in skipped and not self._is(index + 1, "."):
                start = self._start(index)
                if not self._is_relation(start, index, relations) and not self._is_settled(start, index):
                    found.add(origin[token.value])
            elif token.is_("*") and self._is_star(index) and not self._is_settled(self._start(index), index):
                found.add(min(watched))
        # A natural join compares columns that the text does not name.
        return sorted(watched if any(token.is_("natural") for token in self._tokens) else found)

    def _operators(self) -> frozenset[str]:
        found, run, end = set[str](), "", -1
        for index, token in enumerate(self._tokens):
            is_sign = token.kind == "sign" and token.value != "::" and set(token.value) <= _SIGNS
            if is_sign:
                run, end = run + token.value if token.start == end else token.value, token.end
                # Operators may stand side by side, such as `=-`, so each part counts.
                found.update(run[at:] for at in range(len(run)))
            if token.kind == "word":
                found.update(_BY_WORD.get(token.value, ()))
            if token.is_name and self._is(index + 1, "(") and not self._is(index - 1, "."):
                found.add(token.value)
        return frozenset(found | {"<>"} if "!=" in found else found)

    def _read_places(self) -> None:
        """The parenthesis and the clause of each token."""
        group, clause = _Group(None, -1, len(self._tokens)), ""
        outer: list[str] = []
        for index, token in enumerate(self._tokens):
            if token.is_(")", "]") and group.parent is not None:
                group.closing, group, clause = index, group.parent, outer.pop()
            self._groups.append(group)
            self._clauses.append(clause)
            if token.is_("(", "["):
                outer.append(clause)
                group = _Group(group, index, len(self._tokens))
                clause = "by" if self._is(index - 1, "on") and self._is(index - 2, "distinct") else ""
            elif token.kind == "word" and not self._is(index - 1, ".", "distinct"):
                group.has_select |= token.value == "select"
                clause = _LISTS.get(token.value, "" if token.value in _CLAUSES else clause)

    def _is(self, index: int, *values: str) -> bool:
        return 0 <= index < len(self._tokens) and self._tokens[index].is_(*values)

    def _is_name(self, index: int) -> bool:
        """Whether it is a name that somebody gave, as far as can be told."""
        if not 0 <= index < len(self._tokens):
            return False
        token = self._tokens[index]
        return token.is_name and not (token.kind == "word" and token.value in _KEYWORDS)

    def _start(self, index: int) -> int:
        """The first token of the qualified name that ends here."""
        while self._is(index - 1, ".") and index >= 2 and self._tokens[index - 2].is_name:
            index -= 2
        return index

    def _end(self, index: int) -> int:
        """The last token of the qualified name that begins here."""
        while self._is(index + 1, ".") and index + 2 < len(self._tokens):
            index += 2
        return index

    def _opening(self, closing: int) -> int:
        """The parenthesis that is closed here; -1 if there is none."""
        return next((index for index in range(closing, -1, -1) if self._inside(index) == closing), -1)

    def _inside(self, opening: int) -> int:
        """The end of the parenthesis that is opened here; -1 if none is."""
        is_open = self._is(opening, "(", "[") and opening + 1 < len(self._tokens)
        return self._closing(opening) if is_open else -1

    def _closing(self, opening: int) -> int:
        inner = self._groups[opening + 1]
        return inner.closing if inner.opening == opening else opening + 1

    def _is_relation(self, start: int, end: int, relations: Collection[str]) -> bool:
        """Whether a name of two parts is a relation's, where one may stand."""
        name = f"{self._tokens[start].value}.{self._tokens[end].value}"
        is_there = self._is(start - 1, "from", "join", "only", "lateral", ",") and not self._clauses[start]
        return end - start == 2 and name in relations and is_there

    def _is_star(self, index: int) -> bool:
        """Whether it stands for all columns."""
        return self._is(index - 1, ".") or (
            self._clauses[index] == "list" and self._is(index - 1, "select", "all", "distinct", ",")
        )

    def _alias_lists(self) -> Iterator[tuple[int, int]]:
        """Lists of names for columns, behind a relation, a subquery or the name of a WITH query."""
        for index in range(2, len(self._tokens)):
            closing, name = self._inside(index), index - 1
            inside = self._tokens[index + 1 : closing]
            if not (self._is(index, "(") and self._is_name(name) and inside) or not all(
                one.is_name if n % 2 == 0 else one.is_(",") for n, one in enumerate(inside)
            ):
                continue
            is_query = self._is(closing + 1, "as") and self._is(name - 1, "with", "recursive", ",")
            is_qualified = self._is_name(name - 1) and self._is(name - 2, ".", "from", "join", "only", ",")
            if is_query or is_qualified or self._is(name - 1, "as", ")"):
                yield index, closing

    def _renamed(self, origin: Mapping[str, str]) -> dict[str, str]:
        """Further names that subqueries give to values, such as ``code AS x``."""
        found: dict[str, str] = {}
        for index, token in enumerate(self._tokens):
            alias = index + 1 + self._is(index + 1, "as")
            if (
                token.is_name and token.value in origin
                and self._groups[index].parent is not None and self._clauses[index] == "list"
                and self._is_name(alias) and self._is_item(self._start(index), alias)
            ):  # fmt: skip
                found[self._tokens[alias].value] = origin[token.value]
        return {name: first for name, first in found.items() if name not in origin}

    def _is_item(self, start: int, end: int) -> bool:
        """Whether these tokens are a whole item of a list, or all that is in a parenthesis."""
        is_first = self._is(start - 1, *_BEFORE_ITEM) or (
            # DISTINCT ON (…)
            self._is(start - 1, ")") and self._is(self._opening(start - 1) - 1, "on")
        )
        return is_first and (end + 1 == len(self._tokens) or self._is(end + 1, *_AFTER_ITEM))

    def _is_settled(self, start: int, end: int) -> bool:
        """Whether a value is only named, or its other type or its operator is written."""
        start, end, is_cast = self._whole(start, end)
        if is_cast or self._is_listed(start, end) or self._is_beside_operator(start, end):
            return True
        group, before = self._groups[start], self._groups[start].opening - 1
        is_type = self._is(before, "cast") and self._is(start - 1, "as")
        if group.parent is None or not (is_type or self._is_item(start, end)):
            return False
        if group.has_select and self._clauses[start] != "list":
            return False
        if self._is(before, "count") or (self._is_name(before) and self._is(before - 1, ".")):
            return True  # it only counts, or the function is written with its schema
        if self._is(before, *_TRANSPARENT):
            return self._is_settled(before, group.closing)
        return not self._is_name(before) and self._is_settled(group.opening, group.closing)

    def _is_listed(self, start: int, end: int) -> bool:
        """Whether it is an item of a list of columns or of an order, and nothing else."""
        alias = end + 1 + self._is(end + 1, "as")
        clause = self._clauses[start]
        if not clause or not (self._is_item(start, end) or (self._is_name(alias) and self._is_item(start, alias))):
            return False
        # DISTINCT, GROUP BY and ORDER BY take the type's own operators, in whatever schema these are.
        return clause == "by" or self._gives_rows(self._groups[start])

    def _gives_rows(self, group: _Group) -> bool:
        """Whether the columns of the query in a parenthesis are not compared with anything by the parenthesis."""
        before = group.opening - 1
        if before < 0 or self._is(before, *_BEFORE_ROWS):
            return True
        if self._is(before, "all"):
            return self._is(before - 1, "union", "except", "intersect")
        return self._is(before, "(") and group.parent is not None and self._gives_rows(group.parent)

    def _whole(self, start: int, end: int) -> tuple[int, int, bool]:
        """The value with its casts, fields and subscripts, and whether it is cast to a type without such operators."""
        if self._is(start - 1, "::"):
            start = self._start_of_value(start - 2)
        if end + 1 < len(self._tokens) and self._tokens[end + 1].kind == "text":
            end += 1  # type 'text'
        while True:
            if self._is(end + 1, "::") or (self._is(end + 1, "as") and self._is_cast(start)):
                last = self._end(end + 2)
                if last < len(self._tokens) and self._tokens[last].value not in self._types:
                    return start, last, True
                if self._is(end + 1, "as"):
                    return start, end, False
                end = last
            elif self._is(end + 1, ".", "collate"):
                end = self._end(end + 2)
            elif self._is(end + 1, "[", "(") and end + 2 < len(self._tokens):
                end = self._closing(end + 1)
            else:
                return start, end, False

    def _is_cast(self, start: int) -> bool:
        return self._is(start - 1, "(") and self._is(start - 2, "cast")

    def _start_of_value(self, index: int) -> int:
        """The first token of the value that ends here."""
        if self._is(index, ")", "]"):
            index = self._opening(index)
            is_call = index > 0 and self._tokens[index - 1].is_name
            return self._start(index - 1) if is_call else index
        start = self._start(index)
        return self._start_of_value(start - 2) if self._is(start - 1, "::") else start

    def _is_beside_operator(self, start: int, end: int) -> bool:
        """Whether the operator before or after it is written with its schema, or it is only compared with NULL."""
        null = end + 2 + self._is(end + 2, "not")
        if self._is(end + 1, "is") and self._is(null, "null"):
            return True
        # On its other side there must be no operator without a schema.
        if self._is(end + 1, "operator") and self._is(end + 2, "("):
            return not self._is(start - 1, *_SIGNS, "||", "like", "ilike", "between", "case", "to")
        after = self._is(end + 1, *_SIGNS, "||", "in", "like", "ilike", "between", "similar", "not", "is")
        return not after and self._is(start - 1, ")") and self._is(self._opening(start - 1) - 1, "operator")
