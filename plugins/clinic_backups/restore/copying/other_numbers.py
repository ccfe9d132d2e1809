"""Gives a number another one of the same length. Different numbers stay different.

A balanced Feistel network permutes the numbers of so many bits, whatever its round function is. A result outside of the
range is permuted again: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, method 2.
"""

from __future__ import annotations

import hashlib
import re

from clinic_backups.restore.copying.odd_values import not_of_postgres

ROUNDS = 10
MOST_DIGITS = 1000
"""Digits behind these become zeros: no column of a practice has so many."""
LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
_NUMBER = re.compile(rb"(-?)(\d+)(?:(\.)(\d+))?")
_NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity")


def other_number(value: bytes, key: bytes, largest: int | None = None) -> bytes:
    """A number, as PostgreSQL writes it, with other digits: the sign, the length and the decimal places stay.

    Zero and what is no number (``NaN``, ``Infinity``) stay too.

    :param largest: the largest number of the type, if it has one. The smallest is one further from zero.
    :raises IntegrityError: the value is no number. The error's text does not hold the value.
    """
    found = _NUMBER.fullmatch(value)
    if found is None:
        if value in _NO_NUMBERS:
            return value
        raise not_of_postgres("numbers")
    sign, whole, point, places = found[1], found[2], found[3] or b"", found[4] or b""
    digits = whole + places
    told = digits.lstrip(b"0")
    if not told:
        return value
    head = told[:MOST_DIGITS]
    low, high = 10 ** (len(head) - 1), 10 ** len(head) - 1
    if largest is not None:
        high = min(high, largest + (sign == b"-"))
    made = str(_permuted(int(head), low, high, key)).encode().ljust(len(told), b"0").rjust(len(digits), b"0")
    return sign + made[: len(whole)] + point + made[len(whole) :]


def _permuted(number: int, low: int, high: int, key: bytes) -> int:
    """The place of a number among those from ``low`` to ``high`` in an order that the key decides."""
    size = high - low + 1
    half = max(1, (size.bit_length() + 1) // 2)
    span, length = 1 << half, (half + 7) // 8
    place = number - low
    while True:
        left, right = divmod(place, span)
        for turn in range(ROUNDS):
            told = b"%d %d %d" % (size, turn, right)
            mixed = int.from_bytes(hashlib.shake_256(key + told).digest(length)) % span
            left, right = right, left ^ mixed
        place = left * span + right
        if place < size:
            return low + place
