"""How a command names single rows: ``schema.table:key,key``."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import in_sql, one_line
from clinic_backups.restore.row_names import require_keys
from clinic_backups.tenant.declarations import PART, unquoted

# A table that is written without quotes may be any text; whether there is such a table is checked later.
_QUOTED = re.compile(rf"\s* ({PART} (?: \. {PART})?) \s* :", re.VERBOSE)
_FILE = "@"
_EXAMPLE = "For instance: --rows public.usuarios_paciente:43,44"


def named_rows(given: Sequence[str]) -> dict[str, list[str]]:
    """The keys by table, as a conf has them.

    Keys with a comma are given as JSON: ``schema.table:["a,b"]``. A table's name with a colon or a dot is quoted, as in
    SQL: ``public."a:b":43``. ``schema.table:@FILE`` reads the keys from a file, ``@-`` from standard input.

    :raises SettingsError: one names no table or no key.
    """
    found: dict[str, list[str]] = {}
    for each in given:
        table, keys = _apart(each)
        found.setdefault(table, []).extend(_keys(each, _read(keys) if keys.startswith(_FILE) else keys))
    require_keys(found)
    return found


def as_given(table: str, key: str) -> str:
    """How one row is named on a command line, quoted for a shell."""
    name = table
    if one_line(table) != table or set(table) & set(':"'):
        name = ".".join(map(in_sql, table.split(".", 1)))
    # Otherwise it would name several rows or none, or be read as JSON or as a file, or not be seen.
    is_odd = not key or "," in key or key[0] in f"[{_FILE}" or one_line(key) != key
    return shlex.quote(f"{name}:{json.dumps([key], ensure_ascii=one_line(key) != key) if is_odd else key}")


def _apart(given: str) -> tuple[str, str]:
    """The table and what names the keys."""
    table, _, keys = given.partition(":")
    if '"' in table:
        quoted = _QUOTED.match(given)
        table = ".".join(map(unquoted, re.findall(PART, quoted[1], re.VERBOSE))) if quoted else ""
        keys = given[quoted.end() :] if quoted else ""
    if not (table and keys):
        raise SettingsError(
            f"{one_line(given)[:80]!r} names no row.",
            hint=f"{_EXAMPLE} A table's name with a colon or a quote stands in double quotes, as in SQL.",
        )
    return table, keys


def _read(keys: str) -> str:
    """The keys in a file: one in each line, or a list as JSON."""
    try:
        text = sys.stdin.read() if keys == f"{_FILE}-" else Path(keys[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"The keys in {one_line(keys[1:])[:80]!r} cannot be read: {why}.",
            hint="Give a file with one key in each line, or - for standard input. A key that begins with @ is written"
            " as JSON: 'public.t:[\"@ana\"]'",
        ) from None
    if text.lstrip().startswith("["):
        return text.strip()
    return json.dumps([line for line in re.split(r"\r?\n", text.removeprefix("\ufeff")) if line])


def _keys(given: str, keys: str) -> list[str]:
    try:
        # Numbers as they are written: read as floats they would lose digits, and name other rows.
        found = json.loads(keys, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        found = None
    if keys.startswith("[") and isinstance(found, list):
        if not found:
            raise SettingsError(f"{one_line(given)[:80]!r} names no row: the list is empty.", hint=_EXAMPLE)
        return [_text(given, each) for each in found]
    if "" in (parts := keys.split(",")):
        raise SettingsError(
            f"{one_line(given)[:80]!r} names an empty key.",
            hint="Remove the comma. If the key is the empty text, write it as JSON: 'public.t:[\"\"]'",
        )
    return parts


def _text(given: str, key: object) -> str:
    """One key of a JSON list."""
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str):
        return key
    raise SettingsError(
        f"{one_line(given)[:80]!r} names no row: null, lists and objects are no keys.",
        hint='A key is a number or a text. A key that is made of such signs is written as a text: ["{1,2}"]',
    )
