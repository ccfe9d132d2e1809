"""Gives masked columns other values, before they leave this process.

The key of a copy is random, never stored, and gone with the process: nobody can find out a value by trying. Within one
copy the same value gives the same mask, so that joins and foreign keys survive.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache

from clinic_backups.archive.csv_rows import checked_rows, raw_fields_of, row_of, value_of, written
from clinic_backups.base.table import Table
from clinic_backups.restore.copying.made_up_names import FAMILY, GIVEN
from clinic_backups.restore.copying.odd_values import HINT, not_of_postgres
from clinic_backups.restore.copying.other_numbers import LARGEST, other_number
from clinic_backups.tenant.mask_rules import MaskFacts, spelled_type
from clinic_backups.tenant.masks import Rule

KEY_BYTES = 32
LEAST_DAYS, MOST_DAYS = 30, 365
_DATE = re.compile(rb"(\d{4,7})-(\d\d)-(\d\d)(.*?)( BC)?", re.DOTALL)
_WORDS = "Texto oculto en esta copia. "
_MAIL = "@example.invalid"
_OF_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_LETTERS = bytes.maketrans(_OF_BASE64.encode(), ("abcdefghijklmnopqrstuvwxyz234567" * 2).encode())
Mask = Callable[[bytes], bytes | None]


class Masking:
    """Masks the rows of one copy.

    :param rules: by table and column, by the names in the backup.
    :param facts: which columns are unique.
    """

    def __init__(self, tables: Mapping[str, Table], rules: Mapping[str, Mapping[str, Rule]], facts: MaskFacts) -> None:
        self._key = secrets.token_bytes(KEY_BYTES)
        self._days = -(LEAST_DAYS + secrets.randbelow(MOST_DAYS - LEAST_DAYS + 1))
        self._masks: dict[str, dict[int, Mask]] = {}
        self._tables = tables
        for name, columns in rules.items():
            places = {column.name: place for place, column in enumerate(tables[name].stored_columns)}
            types = {column.name: column.type for column in tables[name].stored_columns}
            unique = {*facts.unique.get(name, ()), *tables[name].primary_key}
            self._masks[name] = {
                places[column]: self._mask(rule, facts.bases.get(types[column], types[column]), column in unique)
                for column, rule in columns.items()
            }

    def changed(self, name: str, data: bytes, times: int = 1) -> bytes:
        """A block with masked values.

        :raises IntegrityError: a row has other columns than the manifest says. The text names no value.
        """
        masks = self._masks.get(name)
        if not masks:
            return data
        found = checked_rows(self._tables[name], data, raw_fields_of, hint=HINT)
        return b"".join(self._row(raw, masks) for _, raw in found)

    @staticmethod
    def _row(raw: list[bytes], masks: Mapping[int, Mask]) -> bytes:
        for place, mask in masks.items():
            if (value := value_of(raw[place])) is not None:
                raw[place] = written(mask(value))
        return row_of(raw)

    def _mask(self, rule: Rule, type_: str, unique: bool) -> Mask:
        bare, length = spelled_type(type_)
        if rule == "null":
            return lambda value: None
        if rule == "shift":
            return lambda value: shifted(value, self._days)
        if rule == "empty":
            return _empty(bare)
        if rule == "number":
            return lambda value: other_number(value, self._key, LARGEST.get(bare))
        if bare == "uuid":
            return lambda value: str(uuid.UUID(bytes=self._digest(value)[:16], version=4)).encode()
        makes: dict[str, Callable[[bytes], str]] = {
            "hash": lambda value: self._letters(value)[: length or 16],
            "name": lambda value: self._name(value, length, unique),
            "email": lambda value: self._letters(value)[:12] + _MAIL,
            "phone": lambda value: self._number(value)[:length],
            "text": _filler,
        }
        make = makes[rule]
        if bare == "character":
            pads = length or 0
            return lambda value: make(value.rstrip(b" ")).ljust(pads).encode() if value.strip(b" ") else value
        if bare.endswith(".citext"):  # equal values in capitals get the same mask
            return lambda value: make(value.decode().lower().encode()).encode() if value.strip(b" ") else value
        return lambda value: make(value).encode() if value.strip(b" ") else value

    def _digest(self, value: bytes) -> bytes:
        return hashlib.blake2b(value, key=self._key, digest_size=16).digest()

    def _letters(self, value: bytes) -> str:
        """Sixteen small letters and digits, of 32 different ones."""
        return base64.b64encode(self._digest(value))[:16].translate(_LETTERS).decode()

    def _name(self, value: bytes, length: int | None, unique: bool) -> str:
        digest = self._digest(value)
        given, family = GIVEN[digest[0] % len(GIVEN)], FAMILY[digest[1] % len(FAMILY)]
        name = f"{given} {family}"
        if unique:
            mark = self._letters(value)[: min(16, length or 16)]
            room = (length or 200) - len(mark) - 1
            return f"{name[:room].rstrip()} {mark}" if room > 2 else mark
        return name if length is None or len(name) <= length else given[:length]

    def _number(self, value: bytes) -> str:
        digits = sum(48 <= byte < 58 for byte in value)
        number = int.from_bytes(self._digest(value))
        return str(number).zfill(30)[-min(max(digits, 7), 15) :]


def _filler(value: bytes) -> str:
    length = len(value.decode("utf-8", "replace"))
    return (_WORDS * (length // len(_WORDS) + 1))[:length].rstrip() or "."


def _empty(bare: str) -> Mask:
    if bare in ("json", "jsonb"):
        return lambda value: b"[]" if value.lstrip()[:1] == b"[" else b"{}"
    return lambda value: b"{}" if bare.endswith("[]") else b"\\x" if bare == "bytea" else b""


def shifted(value: bytes, days: int) -> bytes:
    """A date or time, as PostgreSQL's style ISO writes it, by so many days. ``infinity`` stays.

    :raises IntegrityError: it is neither. The text does not name it.
    """
    found = _DATE.fullmatch(value)
    if found is None:
        if value in (b"infinity", b"-infinity"):
            return value
        raise not_of_postgres("dates")
    is_before = found[5] is not None
    day, moved_before = _moved(found[1], found[2], found[3], is_before, days)
    return day + found[4] + moved_before


@lru_cache(maxsize=100_000)
def _moved(year: bytes, month: bytes, day: bytes, is_before_christ: bool, days: int) -> tuple[bytes, bytes]:
    """A day that was moved, and what stands behind the time of day."""
    number = 1 - int(year) if is_before_christ else int(year)
    y, m, d = _civil_of(_days_of(number, int(month), int(day)) + days)
    return b"%04d-%02d-%02d" % (1 - y if y < 1 else y, m, d), b" BC" if y < 1 else b""


# Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": days_from_civil and civil_from_days. Python's own dates
# end with the year 9999 and have none before Christ.
def _days_of(year: int, month: int, day: int) -> int:
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year


def _civil_of(days: int) -> tuple[int, int, int]:
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    moved = (5 * of_year + 2) // 153
    month = moved + (3 if moved < 10 else -9)
    return year + era * 400 + (month <= 2), month, of_year - (153 * moved + 2) // 5 + 1
