"""Tells without a database whether the values of a link are equal, as PostgreSQL's equality of their types does.

Equal values may have different texts: 43 and 43.00, the citext 'Ana' and 'ANA', '1 day' and '24:00:00'. So each pair of
types has forms of a value, from the tightest to the loosest. Values with equal forms are equal, if the pair has one
form. If it has several, the tightest form in which some row of the other table has the value decides, see
:class:`Targets`. That is right for every equality, because a foreign key promises that there is exactly one such row.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

from clinic_backups.archive.csv_rows import plain_number
from clinic_backups.base.row_key import bare_type, is_exact_number, kind_of
from clinic_backups.base.span import micros_of
from clinic_backups.base.table import Column
from clinic_backups.base.text import folded

Form = Callable[[bytes], Hashable]
Value = tuple[bytes, ...]

_TEXTS = {"text", "character varying", "character", "name", "citext"}
_MOMENTS = {"date", "timestamp without time zone", "timestamp with time zone"}
_ADDRESSES = {"inet", "cidr"}
_BITS = {"bit", "bit varying"}
_EXACT = {
    "uuid", "boolean", "bytea", "time without time zone", "time with time zone", "macaddr", "macaddr8", "pg_lsn",
}  # fmt: skip
"""Types whose equal values have equal texts. See :func:`_certain` for those with other texts."""
_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i"})
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3}(?![0-9]))?|[^\W_]")
_BETWEEN = re.compile(r'[{}\[\](),"]+')


@dataclass(frozen=True)
class Equality:
    """The equality of two columns.

    :param forms: from the tightest to the loosest. With a single one, equal forms are equal values.
    :param is_known: whether values without an equal form are different. Otherwise nobody can tell but the server.
    """

    forms: tuple[Form, ...]
    is_known: bool = True

    @property
    def is_certain(self) -> bool:
        return len(self.forms) == 1


def equality_of(child: Column, parent: Column) -> Equality:
    """How a column and the one that it refers to are compared."""
    return _equality(*sorted((_plain_type(child), _plain_type(parent))))


def _plain_type(column: Column) -> str:
    """The type without modifiers; of a domain, what it is made of."""
    type_ = bare_type(column.value_type)
    if type_.startswith("interval ") and not type_.endswith("[]"):
        return "interval"
    return "citext" if type_.rpartition(".")[2] == "citext" else type_


@lru_cache(maxsize=1024)
def _equality(one: str, other: str) -> Equality:
    both = {one, other}
    if (form := _certain(both)) is not None:
        return Equality((form,))
    if both <= _TEXTS:
        # The backup does not say which collation a column has. It may make other texts equal than those of equal bytes.
        if "character" in both:
            return Equality((_unpadded, _unpadded_case_less, _letters))
        return Equality((_case_less, _letters) if both == {"citext"} else (_same, _case_less, _letters))
    if both <= _MOMENTS:
        # The moment of a time without a zone depends on the zone of the session that wrote the row.
        return Equality((_moment, _letters), is_known=False)
    # Of one type nearly all equal values have equal texts, but which have not is not known.
    return Equality((_same, _case_less, _tokens), is_known=False)


def _certain(both: set[str]) -> Form | None:
    """The form of these types in which exactly the equal values are equal."""
    if all(kind_of(each) == "number" for each in both):
        return _same
    numbers = {each for each in both if is_exact_number(each)}
    if numbers == both:
        return plain_number
    if "real" in both and both - {"real"} <= numbers | {"double precision"}:
        return _single
    if "double precision" in both and both - {"double precision"} <= numbers:
        return _double
    if both <= _MOMENTS and ("timestamp with time zone" not in both or len(both) == 1):
        return _moment
    if both <= {"interval", "time without time zone"} and "interval" in both:
        return _span
    if both <= _ADDRESSES:
        return _address
    return _same if both <= _BITS or (len(both) == 1 and both <= _EXACT) else None


def _same(value: bytes) -> bytes:
    return value


def _unpadded(value: bytes) -> bytes:
    return value.rstrip(b" ")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _case_less(value: bytes) -> str:
    return unicodedata.normalize("NFC", _text(value)).casefold()


def _unpadded_case_less(value: bytes) -> str:
    return _case_less(_unpadded(value))


def _folded(text: str) -> str:
    """Without case and accents. A letter that Unicode does not take apart, such as ø, becomes its plain letters."""
    return folded(text.casefold()).translate(_LETTERS)


def _letters(value: bytes) -> str:
    """Its letters and digits alone, without case and accents. Texts without any are told apart."""
    plain = _folded(_text(value))
    return "".join(filter(str.isalnum, plain)) or plain


def _tokens(value: bytes) -> str:
    """Its numbers as numbers, its spans of time as spans, and the letters of all else."""
    found = []
    for piece in filter(None, map(str.strip, _BETWEEN.split(_folded(_text(value))))):
        span = micros_of(piece)
        found.append(f"span {span}" if span is not None else "".join(map(_token, _TOKEN.findall(piece))))
    return ",".join(filter(None, found))


def _token(text: str) -> str:
    if not text[0].isascii() or not text[0].isdigit():
        return text
    digits = f"{Decimal(text):f}"
    return f" {digits.rstrip('0').rstrip('.') if '.' in digits else digits} "


def _single(value: bytes) -> Hashable:
    """As a number of four bytes has it."""
    try:
        return _number(float(struct.unpack("<f", struct.pack("<f", float(value)))[0]))
    except OverflowError:
        return float(value)


def _double(value: bytes) -> Hashable:
    return _number(float(value))


def _number(number: float) -> Hashable:
    """0 and -0 are equal, and so are, in PostgreSQL, NaN and NaN."""
    return "NaN" if math.isnan(number) else number


def _moment(value: bytes) -> bytes:
    """A date or a moment in UTC, as backups have them."""
    plain, era = (value[:-3], b" BC") if value.endswith(b" BC") else (value, b"")
    return plain.removesuffix(b"+00").removesuffix(b" 00:00:00") + era


def _span(value: bytes) -> Hashable:
    """https://www.postgresql.org/docs/current/datatype-datetime.html: a month equals 30 days, a day 24 hours."""
    found = micros_of(_text(value))
    return value if found is None else found


def _address(value: bytes) -> bytes:
    return value.removesuffix(b"/128" if b":" in value else b"/32")


@dataclass
class Targets:
    """The values of some columns in rows that stay out, for links of some types.

    :param equalities: one for each column.
    """

    equalities: tuple[Equality, ...]
    gone: list[set[Hashable]] = field(default_factory=list, init=False)
    """For each form, from the tightest to the loosest."""
    there: list[set[int]] = field(default_factory=list, init=False)
    """The same of all rows whose loosest form is that of one that stays out; if it must be known, of all rows.

    Hashes stand for them, because these may be many.
    """
    pending: set[Value] = field(default_factory=set, init=False)
    """Values of rows that stay out, until it is known which other rows are like them."""
    _seen: set[Value] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        levels = max(len(each.forms) for each in self.equalities)
        self.gone = [set() for _ in range(levels)]
        self.there = [set() for _ in range(levels)]

    @property
    def is_certain(self) -> bool:
        """Whether equal forms are equal values, so that no other rows have to be looked at."""
        return len(self.gone) == 1

    @property
    def is_known(self) -> bool:
        return all(each.is_known for each in self.equalities)

    def add(self, value: Value) -> bool:
        """Note a row that stays out. Returns whether its value is new."""
        if self.is_certain:
            form = self._form(value, 0)
            is_new = form not in self.gone[0]
            self.gone[0].add(form)
            return is_new
        if value in self._seen:
            return False
        self._seen.add(value)
        self.pending.add(value)
        return True

    def settle(self) -> None:
        """Let the pending values count, after :meth:`look` saw all rows."""
        for value in self.pending:
            for level, gone in enumerate(self.gone):
                gone.add(self._form(value, level))
        self.pending.clear()

    @property
    def like(self) -> set[Hashable]:
        """The loosest forms of all rows that stay out, of the pending ones too."""
        return self.gone[-1] | {self._form(value, -1) for value in self.pending}

    def look(self, value: Value, like: set[Hashable]) -> None:
        """See the value of a row of the table. :param like: see :attr:`like`."""
        if not self.is_known or self._form(value, -1) in like:
            for level, there in enumerate(self.there):
                there.add(hash(self._form(value, level)))

    def has(self, value: Value) -> bool:
        """Whether it is the value of a row that stays out."""
        if not self.gone[0]:
            return False
        for level, gone in enumerate(self.gone):
            form = self._form(value, level)
            if form in gone:
                return True
            if not self.is_certain and hash(form) in self.there[level]:
                return False
        return False

    def is_unclear(self, value: Value) -> bool:
        """Whether it may be that of a row that stays out, although no form says so: it is that of no row."""
        if self.is_known or not self.gone[0]:
            return False
        forms = [self._form(value, level) for level in range(len(self.gone))]
        return not any(
            form in gone or hash(form) in there for form, gone, there in zip(forms, self.gone, self.there, strict=True)
        )

    def _form(self, value: Value, level: int) -> Hashable:
        """One of the forms of a value. Columns with fewer forms have their loosest one instead."""
        return tuple(
            each.forms[min(level, len(each.forms) - 1) if level >= 0 else -1](part)
            for each, part in zip(self.equalities, value, strict=True)
        )


def equalities_of(child: Sequence[Column], parent: Sequence[Column]) -> tuple[Equality, ...]:
    """How the columns of a link are compared with those that they refer to."""
    return tuple(equality_of(one, other) for one, other in zip(child, parent, strict=True))
