"""How a column's values are made of a sequence's numbers: asked of the database, and never assumed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.workspace import Workspace

PROBES = 3
"""So many values are asked for: two would lie on a line whatever they are."""
WINDOW = 1000
"""So many numbers are tried, and as many more as the table has rows, where no simple relation is seen."""
_NEXTVAL = re.compile(r"(?:pg_catalog\.)?nextval\s*\(\(?\s*'(?:[^']|'')+'(?:::text\)?)?(?:::regclass)?\s*\)", re.I)
_INTEGERS = {"smallint": 15, "integer": 31, "bigint": 63}
_NUMBER = re.compile(r"(?:smallint|integer|bigint|numeric(?:\((\d+),(-?\d+)\))?)\Z")
_PLAIN = re.compile(r"[\s()]*g\.n[\s()]*(?:::(?:bigint|integer|smallint|numeric)[\s()]*)*")
_BOUNDED_TEXT = re.compile(r"character(?: varying)?\((\d+)\)\Z")


@dataclass(frozen=True)
class Template:
    """A text around a number, which has zeros before it up to a width."""

    before: str
    width: int
    after: str

    def holds(self, number: int, value: str) -> bool:
        """The number gives this value."""
        return number >= 0 and f"{self.before}{number:0{self.width}d}{self.after}" == value


@dataclass(frozen=True)
class Numbering:
    """What value a number gives: ``factor * number + base``, or a text by one of the templates.

    :param type: the column's, without domains.
    :param whole: SQL of the value, in which the number is ``(g.n)``; none where only a function knows it.
    :param templates: several may fit to what was seen: they differ only for numbers of other lengths.
    """

    type: str
    whole: str | None = None
    factor: int = 0
    base: int = 0
    templates: tuple[Template, ...] = field(default=())

    @property
    def is_searched(self) -> bool:
        """No relation is known: numbers are tried one by one."""
        return not self.factor and not self.templates

    def numbers(self, column: str, rows: sql.Composable, window: tuple[int, int, int]) -> sql.Composed:
        """SELECT of ``n``: the numbers that give the values of a column of ``rows``.

        :param window: first, last and step of the numbers that are tried where nothing else is known.
        """
        value = sql.Identifier("x", column)
        if self.is_searched:
            return sql.SQL(
                "SELECT g.n::numeric AS n FROM generate_series({}::bigint, {}::bigint, {}::bigint) AS g (n)"
                ' JOIN {} AS x ON {}::text = ({})::{}::text COLLATE "C"'
            ).format(*map(sql.Literal, window), rows, value, sql.SQL(self.whole or ""), sql.SQL(self.type))
        if self.factor == 1 and self.base == 0 and self.type in _INTEGERS:
            return sql.SQL("SELECT {0} AS n FROM {1} AS x WHERE {0} IS NOT NULL").format(value, rows)
        found = sql.SQL("SELECT v.n FROM {} AS x CROSS JOIN LATERAL ({}) AS v WHERE v.n IS NOT NULL").format(
            rows, self._inverse(value)
        )
        if self.whole is None:
            return found
        # The database itself says whether the number gives this value: the relation may hold near by and not far away.
        low, high = self.bounds(-(2**63), 2**63 - 1)
        return sql.SQL(
            "SELECT g.n::numeric AS n FROM (SELECT v.n::bigint AS n, {value}::text AS value FROM {rows} AS x"
            " CROSS JOIN LATERAL ({inverse}) AS v WHERE v.n BETWEEN {low} AND {high}) AS g"
            ' WHERE CASE WHEN g.n BETWEEN {low} AND {high} THEN ({whole})::{type}::text COLLATE "C" = g.value END'
        ).format(
            value=value, rows=rows, inverse=self._inverse(value), low=sql.Literal(low), high=sql.Literal(high),
            whole=sql.SQL(self.whole), type=sql.SQL(self.type),
        )  # fmt: skip

    def _inverse(self, value: sql.Composable) -> sql.Composable:
        if self.factor:
            times = sql.SQL("({}::numeric - {})").format(value, sql.Literal(self.base))
            return sql.SQL("SELECT CASE WHEN {0} % {1} = 0 THEN {0} / {1} END AS n").format(
                times, sql.Literal(self.factor)
            )
        return sql.SQL(" UNION ALL ").join(self._inverse_of(value, template) for template in self.templates)

    @staticmethod
    def _inverse_of(value: sql.Composable, template: Template) -> sql.Composable:
        return sql.SQL("""
            SELECT CASE WHEN m.digits ~ '^[0-9]{{1,18}}$' THEN
                   CASE WHEN {before} || lpad(m.digits::numeric::text,
                                              greatest({width}, length(m.digits::numeric::text)), '0') || {after}
                             = {value}::text COLLATE "C" THEN m.digits::numeric END END AS n
              FROM (SELECT substr({value}::text, {start}, greatest(0, length({value}::text) - {around})) AS digits) AS m
            """).format(
            before=sql.Literal(template.before),
            after=sql.Literal(template.after),
            width=sql.Literal(template.width),
            value=value,
            start=sql.Literal(len(template.before) + 1),
            around=sql.Literal(len(template.before) + len(template.after)),
        )

    def bounds(self, lowest: int, highest: int) -> tuple[int, int]:
        """Of the numbers between these, the first and the last that the column's type takes."""
        if self.templates:
            room = _BOUNDED_TEXT.match(self.type)
            if room is not None:
                around = max(len(each.before) + len(each.after) for each in self.templates)
                highest = min(highest, 10 ** max(0, int(room[1]) - around) - 1)
            return max(lowest, 0), highest
        number = _NUMBER.match(self.type)
        if not self.factor or number is None:
            return lowest, highest
        if self.type in _INTEGERS:
            least, most = -(1 << _INTEGERS[self.type]), (1 << _INTEGERS[self.type]) - 1
        elif number[1] is not None:
            most = 10 ** max(0, int(number[1]) - int(number[2])) - 1
            least = -most
        else:
            return lowest, highest
        ends = ((least - self.base) / Decimal(self.factor), (most - self.base) / Decimal(self.factor))
        first, last = min(ends), max(ends)
        return max(lowest, -int(-first // 1)), min(highest, int(last // 1))


def by_expression(
    workspace: Workspace, expression: str | None, type_: str, following: int, step: int, *, new: str | None = None
) -> Numbering | None:
    """Of a default or what a trigger assigns: the number is put in the place of ``nextval``. None: it cannot be told.

    :param expression: none of an identity, and of a column that owns the sequence: it gets the number itself.
    :param new: the table of a trigger, whose NEW has no values here.
    """
    if expression is None:
        return Numbering(type_, factor=1)
    whole, times = _NEXTVAL.subn("(g.n)", expression)
    if times != 1 or "nextval" in whole.lower():
        return None
    if _PLAIN.fullmatch(whole) and _NUMBER.match(type_):
        return Numbering(type_, factor=1)
    if new is not None:
        table = qualified(new).as_string(workspace.connection)
        nothing = f"(SELECT 1) AS one LEFT JOIN {table} AS new ON false"
        whole = f"(SELECT {whole}\n FROM {nothing})"  # noqa: S608 - the application's own SQL
    query = sql.SQL(
        "SELECT g.n, ({0})::text, ({0})::text FROM generate_series({1}::bigint, {2}::bigint, {3}::bigint) AS g (n)"
    ).format(sql.SQL(whole), sql.Literal(following), sql.Literal(following + (PROBES - 1) * step), sql.Literal(step))
    found = _asked(workspace, query)
    if found is None or any(one is None or one != other for _, one, other in found):
        return None
    return _of(type_, [(int(number), str(value)) for number, value, _ in found], whole) or Numbering(type_, whole)


def by_function(workspace: Workspace, expression: str, type_: str, sequence: str) -> Numbering | None:
    """Of a default that calls a function: it is called, and takes :data:`PROBES` numbers. None: it cannot be told."""
    found = _asked(
        workspace,
        sql.SQL("SELECT currval({}::regclass), v.value FROM (SELECT ({})::text AS value FROM generate_series(1, {})"
                " OFFSET 0) AS v").format(sql.Literal(sequence), sql.SQL(expression), sql.Literal(PROBES)),
    )  # fmt: skip
    if found is None or any(value is None for _, value in found):
        return None
    return _of(type_, [(int(number), str(value)) for number, value in found])


def _asked(workspace: Workspace, query: sql.Composed) -> list[tuple[Any, ...]] | None:
    """What the application's own SQL gives, which is taken back but for the numbers. None: it fails."""
    try:
        with workspace.savepoint(), workspace.application_path():
            return workspace.rows(query, None, "asking how a sequence's numbers become values")
    except PermanentError:
        return None


def holds_for(workspace: Workspace, found: Numbering, column: str, rows: sql.Composable, following: int) -> bool:
    """The database can say which numbers give the values of these rows: an expression may fail for some numbers."""
    if found.whole is None:
        return True
    window = (following, following + WINDOW, 1)
    query = sql.SQL("SELECT max(a.n) FROM ({}) AS a").format(found.numbers(column, rows, window))
    return _asked(workspace, query) is not None


def _of(type_: str, seen: Sequence[tuple[int, str]], whole: str | None = None) -> Numbering | None:
    """The relation that holds for all that was seen."""
    if _NUMBER.match(type_):
        return _line(type_, seen, whole)
    number, value = seen[0]
    found = [
        template for template in _templates(number, value) if all(template.holds(other, given) for other, given in seen)
    ]
    return Numbering(type_, whole, templates=tuple(found)) if found else None


def _line(type_: str, seen: Sequence[tuple[int, str]], whole: str | None) -> Numbering | None:
    try:
        points = [(number, Decimal(value)) for number, value in seen]
    except InvalidOperation:
        return None
    (first, low), (second, high) = points[:2]
    if first == second or not all(value.is_finite() and value == value.to_integral_value() for _, value in points):
        return None
    factor, rest = divmod(int(high - low), second - first)
    base = int(low) - factor * first
    if rest or not factor or any(factor * number + base != value for number, value in points):
        return None
    return Numbering(type_, whole, factor=factor, base=base)


def _templates(number: int, value: str) -> list[Template]:
    """Every way to read the number in the value."""
    digits, found = str(number), list[Template]()
    start = value.find(digits)
    while start >= 0:
        after, zeros = value[start + len(digits) :], start
        found.append(Template(value[:start], len(digits), after))
        while zeros > 0 and value[zeros - 1] == "0":
            zeros -= 1
            found.append(Template(value[:zeros], start - zeros + len(digits), after))
        start = value.find(digits, start + 1)
    return found
