"""The id of a clinic: opaque, a number or a text, and one value in one form.

A text that is a whole number as PostgreSQL writes a bigint is an ``int``. Every other id is a ``str``, a UUID too. So
the form alone says what an id is: paths, JSON and the catalog need no type beside it. The type that SQL needs is that
of the clinics' table: see ``clinic_backups.tenant.clinic_key``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from functools import lru_cache
from urllib.parse import quote, unquote
from uuid import UUID

ClinicId = int | str

MAX_CHARACTERS = 200
MAX_COMPONENT = 240
"""The most bytes of an id in a path. A folder's name on a disk has at most 255."""
_IN_NAMES, _CUT = 60, re.compile(r"%[0-9A-F]?\Z")
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_NEAREST = 5


def clinic_id_of(value: object) -> ClinicId:
    """The id in a value from anywhere: a conf, a command's argument, a path, JSON, a row of a database.

    :raises ValueError: it cannot be an id. The text says why, and repeats nothing of the value.
    """
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not _SMALLEST <= value <= _LARGEST:
            raise ValueError("it is a number outside PostgreSQL's bigint")
        return int(value)
    if not isinstance(value, str):
        raise ValueError("it is neither a whole number nor a text")
    if reason := _unusable(value):
        raise ValueError(reason)
    number = _number(value)
    return str(value) if number is None else number


def in_order(ids: Iterable[ClinicId]) -> list[ClinicId]:
    """The ids in their order: numbers by value, then texts by their characters, as the catalog orders them."""
    return sorted(ids, key=order_of)


def order_of(id_: ClinicId) -> tuple[bool, int, str]:
    """The key for sorting by ids."""
    return (False, id_, "") if isinstance(id_, int) else (True, 0, id_)


def component_of(id_: ClinicId) -> str:
    """The id as one part of a path: percent-encoded, and a number as it is."""
    text = quote(str(id_), safe="~")  # quote leaves letters, digits and _.-~ as they are
    return text.replace(".", "%2E") if text in (".", "..") else text


@lru_cache(maxsize=4096)
def from_component(text: str) -> ClinicId | None:
    """The reverse of :func:`component_of`; none for a text that it does not write, so that one id has one path."""
    try:
        id_ = clinic_id_of(unquote(text, errors="strict"))
    except ValueError:
        return None
    return id_ if component_of(id_) == text else None


def name_of(id_: ClinicId) -> str:
    """The id as a part of a file's name, which has room for less: the beginning of a long one."""
    return _CUT.sub("", component_of(id_)[:_IN_NAMES])


def in_shell(id_: ClinicId) -> str:
    """The id as a word of a command that somebody may copy into a shell."""
    return shlex.quote(str(id_))


def in_json(id_: ClinicId) -> str:
    """The id as a value of a conf."""
    return json.dumps(id_, ensure_ascii=False)


def nearest(id_: ClinicId, known: Collection[ClinicId]) -> list[ClinicId]:
    """Known ids that look like this one, the most similar first."""
    texts = {str(other): other for other in known}
    return [texts[text] for text in get_close_matches(str(id_), texts, n=_NEAREST, cutoff=0.4)]


def _number(text: str) -> int | None:
    """The number that a text is the only way to write; none for every other text."""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if _SMALLEST <= number <= _LARGEST else None


def _unusable(text: str) -> str:
    """Why a text cannot be an id; empty if it can."""
    if not text:
        return "it is empty"
    if len(text) > MAX_CHARACTERS:
        return f"it is longer than {MAX_CHARACTERS} characters"
    if text != text.strip():
        return "it begins or ends with a space"
    if not text.isprintable():  # control characters, half characters, marks that nobody sees, other spaces
        return "it has a character that cannot be shown"
    if len(component_of(text)) > MAX_COMPONENT:
        return f"it takes more than {MAX_COMPONENT} bytes in a path"
    return ""
