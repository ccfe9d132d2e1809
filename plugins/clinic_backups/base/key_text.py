"""Reads a key that a person wrote where no database is asked: what PostgreSQL writes for such a value of a type.

Only what PostgreSQL reads in the same way under every setting is read. So a date is read as ``2024-1-5``, and not as
``5 Jan``: the server decides about that.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface, ip_network
from uuid import UUID

from clinic_backups.base.row_key import PART, bare_type, plain_decimal
from clinic_backups.base.span import micros_of

MOST_WAYS = 1_000
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?|[+-]?(inf|infinity)|nan", re.ASCII | re.IGNORECASE)
_LIMITS = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_UUID = re.compile(r"(\{)?([0-9a-f]{4}-?){7}[0-9a-f]{4}(?(1)\})", re.IGNORECASE)
_DAY = r"(?P<y>\d{4})(?:-(?P<m>\d{1,2})-(?P<d>\d{1,2})|(?P<md>\d{4}))"
_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?:\.(?P<f>\d{1,6}))?)?"
_ZONE = r"(?P<z>Z|[+-]\d\d(?::?\d\d)?)"
_MOMENT = re.compile(rf"{_DAY}(?:[ T]{_CLOCK} ?{_ZONE}?)?", re.ASCII | re.IGNORECASE)
_TIME = re.compile(rf"{_CLOCK}{_ZONE}?", re.ASCII | re.IGNORECASE)
_BEYOND = re.compile(r"-?infinity|\d{4,6}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d{1,6})?(\+00)?)?( BC)?", re.ASCII)
"""Infinite moments, and those that Python does not know, as PostgreSQL writes them."""


def ways_of(key: str, columns: int) -> Iterator[tuple[str, ...]]:
    """Each way to take a key apart. There are several if a part may hold a slash: ``1/10.0.0.0/8``.

    :raises ValueError: it has too few parts, or far too many.
    """
    parts = key.split(PART)
    if len(parts) < columns or math.comb(len(parts) - 1, columns - 1) > MOST_WAYS:
        raise ValueError("another number of parts")
    for cuts in itertools.combinations(range(1, len(parts)), columns - 1):
        yield tuple(PART.join(parts[begin:end]) for begin, end in itertools.pairwise((0, *cuts, len(parts))))


def as_written(type_: str, text: str) -> str:
    """A text as PostgreSQL writes such a value. Texts, and what only the server can read, are returned as they are.

    :param type_: as ``format_type`` spells it; of a domain, what it is made of.
    :raises ValueError: it cannot be of that type, or it is not written in a way that is the same under all settings.
    """
    bare = bare_type(type_)
    read = _READERS.get("interval" if bare.startswith("interval ") and not bare.endswith("[]") else bare)
    if "\0" in text:
        raise ValueError("no text of PostgreSQL")
    return text if read is None else read(text.strip(" \t\n\r\v\f"))


def _whole(limit: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(r"[+-]?[0-9]{1,40}", text, re.ASCII) or not -limit <= int(text) < limit:
            raise ValueError("no whole number of that size")
        return str(int(text))

    return read


def _oid(text: str) -> str:
    # With a zero before it, the server takes it for an octal number.
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text, re.ASCII) or int(text) >= 2**32:
        raise ValueError("no oid")
    return text


def _float(text: str) -> str:
    if not _FLOAT.fullmatch(text) or (math.isinf(float(text)) and "n" not in text.lower()):
        raise ValueError("no float")
    return text


def _real(text: str) -> str:
    if math.isfinite(float(_float(text))) and abs(float(text)) > 3.4028235e38:
        raise ValueError("no real")
    return text


def _uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise ValueError("no UUID")
    return str(UUID(text))


def _boolean(text: str) -> str:
    """https://www.postgresql.org/docs/current/datatype-boolean.html: also the beginning of such a word."""
    said = text.lower()
    for written, words in (("t", ("true", "yes", "on", "1")), ("f", ("false", "no", "off", "0"))):
        if said and said != "o" and any(word.startswith(said) for word in words):
            return written
    raise ValueError("no boolean")


def _bytea(text: str) -> str:
    if text.startswith("\\x"):
        return "\\x" + bytes.fromhex(text[2:]).hex()
    if "\\" in text or not text.isascii():
        raise ValueError("bytes whose text depends on the server")
    return "\\x" + text.encode().hex()


def _clock(found: re.Match[str]) -> str:
    hours, minutes, seconds = int(found["H"]), int(found["M"]), int(found["S"] or 0)
    if (hours, minutes, seconds) > (23, 59, 59) or minutes > 59 or seconds > 59:
        raise ValueError("no time of a day")
    fraction = (found["f"] or "").rstrip("0")
    return f"{hours:02}:{minutes:02}:{seconds:02}" + (f".{fraction}" if fraction else "")


def _zone(text: str) -> str:
    """An offset as PostgreSQL writes it."""
    if text in "Zz":
        return "+00"
    digits = text[1:].replace(":", "")
    return text[:3] if digits[2:] in ("", "00") else f"{text[:3]}:{digits[2:]}"


def _time(text: str) -> str:
    found = _TIME.fullmatch(text)
    if found is None or found["z"]:
        raise ValueError("no time, or one with an offset")
    return _clock(found)


def _timetz(text: str) -> str:
    found = _TIME.fullmatch(text)
    # Without an offset it has that of the session.
    if found is None:
        raise ValueError("no time")
    zone = _zone(found["z"] or "+00")
    return _clock(found) + ("+00" if zone == "-00" else zone)


def _moment(text: str, *, zoned: bool) -> str:
    found = _MOMENT.fullmatch(text)
    if found is None or int(found["y"]) == 0:
        if _BEYOND.fullmatch(text):
            return text
        raise ValueError("no moment in ISO 8601")
    month, day = (found["m"], found["d"]) if found["m"] else (found["md"][:2], found["md"][2:])
    clock = _clock(found) if found["H"] else "00:00:00"
    moment = datetime.fromisoformat(f"{found['y']}-{int(month):02}-{int(day):02}T{clock[:8]}")
    if zoned and found["z"]:
        zone = _zone(found["z"])
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:] or 0))
        moment += offset if zone[0] == "-" else -offset
    return f"{moment.replace(tzinfo=UTC):%H:%M:%S}".join((f"{moment.date().isoformat()} ", clock[8:])) + (
        "+00" if zoned else ""
    )


def _date(text: str) -> str:
    return _moment(text, zoned=False).partition(" ")[0] if _MOMENT.fullmatch(text) else _moment(text, zoned=False)


def _interval(text: str) -> str:
    if micros_of(text) is None and text not in ("infinity", "-infinity"):
        raise ValueError("no interval as PostgreSQL writes it")
    return text


def _address(text: str) -> str:
    found = ip_interface(text)
    if found.version == 6 and int(found.ip) >> 32 in (0, 0xFFFF) and int(found.ip) >= 2**16 and "." not in text:
        raise ValueError("an address that holds another one, which the server writes with dots")
    whole = found.network.prefixlen == found.max_prefixlen
    return str(found.ip) if whole else str(found)


def _network(text: str) -> str:
    ip_network(text)  # refuses one with bits of a host
    return _address(text)


def _hardware(digits: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        found = re.sub(r"[:.-]", "", text).lower()
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", found):
            raise ValueError("no hardware address")
        return ":".join(re.findall("..", found))

    return read


def _bits(text: str) -> str:
    found = text[1:] if text[:1] in ("b", "B") else text
    if not re.fullmatch("[01]*", found):
        raise ValueError("no bits")
    return found


_READERS: dict[str, Callable[[str], str]] = {
    **{type_: _whole(limit) for type_, limit in _LIMITS.items()},
    "oid": _oid, "numeric": plain_decimal, "real": _real, "double precision": _float, "uuid": _uuid,
    "boolean": _boolean, "bytea": _bytea, "date": _date, "time without time zone": _time,
    "time with time zone": _timetz, "timestamp without time zone": lambda text: _moment(text, zoned=False),
    "timestamp with time zone": lambda text: _moment(text, zoned=True), "interval": _interval, "inet": _address,
    "cidr": _network, "macaddr": _hardware(12), "macaddr8": _hardware(16), "bit": _bits, "bit varying": _bits,
}  # fmt: skip
