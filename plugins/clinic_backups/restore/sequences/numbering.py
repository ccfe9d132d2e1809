"""Finds out how a sequence's numbers become a column's values. The database is asked; nothing is assumed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.restore.sequences.number_calls import calls
from clinic_backups.restore.sequences.number_rows import PROBE_SECONDS, ROWS_SECONDS, asked, new_row, row_of
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.sql_tokens import replaced, tokens

PROBES = 3
"""The number of values that are asked for. Any two values lie on a line."""
WINDOW = 1000
"""If there is no simple relation, this many numbers are tried, and as many more as the table has rows."""
_INTEGERS = {"smallint": 15, "integer": 31, "bigint": 63}
_NUMBER = re.compile(r"(?:smallint|integer|bigint|numeric(?:\((\d+),(-?\d+)\))?)\Z")
_PLAIN = re.compile(r"[\s()]*g\.n[\s()]*(?:::(?:bigint|integer|smallint|numeric)[\s()]*)*")
_BOUNDED_TEXT = re.compile(r"character(?: varying)?\((\d+)\)\Z")


@dataclass(frozen=True)
class Template:
    """A text around a number. The number is filled with zeros up to a width."""

    before: str
    width: int
    after: str

    def holds(self, number: int, value: str) -> bool:
        """Whether the number gives this value."""
        return number >= 0 and f"{self.before}{number:0{self.width}d}{self.after}" == value


@dataclass(frozen=True)
class Numbering:
    """The value that a number gives: ``factor * number + base``, or a text by one of the templates.

    :param type: the column's, without domains.
    :param whole: SQL of the value, in which the number is ``(g.n)``; none if only a function knows it.
    :param templates: several may fit the observed values. They differ only for numbers of other lengths.
    :param row: other columns of the row, ``new``, that are part of the value. The number is then looked for in its
        digits.
    :param is_searched: numbers are tried one by one, even if a relation is known, because it may hold only nearby.
    """

    type: str
    whole: str | None = None
    factor: int = 0
    base: int = 0
    templates: tuple[Template, ...] = field(default=())
    row: tuple[str, ...] | None = None
    is_searched: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the value is the number itself."""
        return self.factor == 1 and self.base == 0

    def numbers(self, column: str, rows: sql.Composable, window: tuple[int, int, int]) -> sql.Composed:
        """SELECT of ``n`` and ``value``: the numbers that give the values of a column of ``rows``.

        :param window: first, last and step of the numbers that are tried.
        """
        value = sql.Identifier("x", column)
        found = list[sql.Composed]()
        if self.is_searched:
            found.append(
                sql.SQL(
                    "SELECT g.n::numeric AS n, {1}::text AS value"
                    " FROM generate_series({3}::bigint, {4}::bigint, {5}::bigint) AS g (n)"
                    ' JOIN {0} AS x ON {1}::text = ({2})::{6}::text COLLATE "C"'
                ).format(rows, value, sql.SQL(self.whole or ""), *map(sql.Literal, window), sql.SQL(self.type))
            )
        if self.row is not None:
            found.append(self._in_digits(column, rows, self.row))
        elif self.factor or self.templates:
            found.append(self._by_relation(value, rows))
        return sql.SQL(" UNION ").join(sql.SQL("({})").format(each) for each in found)

    def _in_digits(self, column: str, rows: sql.Composable, row: Sequence[str]) -> sql.Composed:
        """For values that also contain other columns: take digits of a value as the number if it gives that value."""
        return sql.SQL(
            "SELECT g.n::numeric AS n, x.{column}::text AS value FROM {rows} AS x CROSS JOIN LATERAL ({new}) AS new"
            " CROSS JOIN LATERAL (SELECT DISTINCT substr(d.run[1], k)::bigint AS n"
            " FROM regexp_matches(x.{column}::text, '[0-9]+', 'g') AS d (run),"
            " generate_series(greatest(1, length(d.run[1]) - 17), length(d.run[1])) AS k) AS g"
            ' WHERE ({whole})::{type}::text COLLATE "C" = x.{column}::text'
        ).format(
            column=sql.Identifier(column), rows=rows, new=new_row(row, column, self.type),
            whole=sql.SQL(self.whole or ""), type=sql.SQL(self.type),
        )  # fmt: skip

    def _by_relation(self, value: sql.Composable, rows: sql.Composable) -> sql.Composed:
        if self.is_plain and self.type in _INTEGERS:
            return sql.SQL("SELECT {0} AS n, {0}::text AS value FROM {1} AS x WHERE {0} IS NOT NULL").format(
                value, rows
            )
        found = sql.SQL(
            "SELECT v.n, {}::text AS value FROM {} AS x CROSS JOIN LATERAL ({}) AS v WHERE v.n IS NOT NULL"
        ).format(value, rows, self._inverse(value))
        if self.whole is None:
            return found
        # The database checks that the number gives this value, because the relation may hold only nearby.
        low, high = self.bounds(-(2**63), 2**63 - 1)
        return sql.SQL(
            "SELECT g.n::numeric AS n, g.value FROM (SELECT v.n::bigint AS n, {value}::text AS value FROM {rows} AS x"
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
        """The first and last number, between these, that the column's type can hold."""
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
    workspace: Workspace, expression: str | None, type_: str, following: int, step: int, *, new: tuple[str, str] | None
) -> Numbering | None:
    """For a default, or an expression that a trigger assigns: put the number in place of ``nextval``.

    None: it cannot be told.

    :param expression: none of an identity, and of a column that owns the sequence: it gets the number itself.
    :param new: the table and the column of a trigger, whose NEW has no values where only that column is looked at.
    """
    if expression is None:
        return Numbering(type_, factor=1)
    whole = with_number(expression)
    if whole is None:
        return None
    if _PLAIN.fullmatch(whole) and _NUMBER.match(type_):
        return Numbering(type_, factor=1)
    given = whole
    if new is not None:
        row = row_of(expression)
        if set(row) - {new[1]}:
            return Numbering(type_, whole, row=row)
        table = qualified(new[0]).as_string(workspace.connection)
        nothing = f"(SELECT 1) AS one LEFT JOIN {table} AS new ON false"
        given = f"(SELECT {whole}\n FROM {nothing})"  # noqa: S608 - the application's own SQL
    query = sql.SQL(
        "SELECT g.n, ({0})::text, ({0})::text FROM generate_series({1}::bigint, {2}::bigint, {3}::bigint) AS g (n)"
    ).format(sql.SQL(given), sql.Literal(following), sql.Literal(following + (PROBES - 1) * step), sql.Literal(step))
    found = asked(workspace, query, columns=3, seconds=PROBE_SECONDS)
    if found is None or any(one is None or one != other for _, one, other in found):
        return None
    seen = [(int(number), str(value)) for number, value, _ in found]
    return _of(type_, seen, given) or Numbering(type_, given, is_searched=True)


def with_number(expression: str) -> str | None:
    """An expression with ``(g.n)`` in place of the call to the sequence.

    None: it has no such call, or more than one.
    """
    found = calls(expression)
    if len({call.argument for call in found}) != 1 or sum(call.function == "nextval" for call in found) > 1:
        return None
    if any(token.is_("lastval") for token in tokens(expression)):
        return None
    return replaced(expression, [(call.start, call.end, "(g.n)") for call in found])


def unread(
    workspace: Workspace, found: Numbering, column: str, rows: sql.Composable, window: tuple[int, int, int]
) -> int | None:
    """The number of values of these rows that no known number gives. None: it cannot be told."""
    query = sql.SQL(
        'SELECT count(*) FROM (SELECT x.{0}::text COLLATE "C" FROM {1} AS x WHERE x.{0} IS NOT NULL'
        ' EXCEPT SELECT n.value COLLATE "C" FROM ({2}) AS n) AS u'
    ).format(sql.Identifier(column), rows, found.numbers(column, rows, window))
    counted = asked(workspace, query, seconds=ROWS_SECONDS)
    return None if counted is None else int(counted[0][0])


def by_function(workspace: Workspace, expression: str, type_: str, sequence: int) -> Numbering | None:
    """For a default that calls a function: it is called and takes :data:`PROBES` numbers. None: it cannot be told.

    :param sequence: PostgreSQL's number of it.
    """
    found = asked(
        workspace,
        sql.SQL(
            "SELECT currval({}::oid::regclass), v.value FROM (SELECT ({})::text AS value FROM generate_series(1, {})"
            " OFFSET 0) AS v"
        ).format(sql.Literal(sequence), sql.SQL(expression), sql.Literal(PROBES)),
        columns=2,
    )  # fmt: skip
    if found is None or any(value is None for _, value in found):
        return None
    return _of(type_, [(int(number), str(value)) for number, value in found])


def holds_for(workspace: Workspace, found: Numbering, column: str, rows: sql.Composable, following: int) -> bool:
    """Whether the database can say which numbers give these rows' values. An expression may fail for some numbers."""
    if found.whole is None:
        return True  # nothing of the application's is evaluated
    window = (following, following + WINDOW, 1)
    query = sql.SQL("SELECT max(a.n) FROM ({}) AS a").format(found.numbers(column, rows, window))
    return asked(workspace, query, seconds=ROWS_SECONDS) is not None


def _of(type_: str, seen: Sequence[tuple[int, str]], whole: str | None = None) -> Numbering | None:
    """The relation that holds for all observed values."""
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
