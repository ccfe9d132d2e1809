"""How a command names single rows: ``schema.table:key,key``."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import one_line
from clinic_backups.restore.row_names import require_keys
from clinic_backups.tenant.declarations import PART, spelled, unquoted

# A table that is written without quotes may be any text; whether there is such a table is checked later.
_TABLE = rf"\s* ({PART} (?: \. {PART})?) \s*"
_QUOTED = re.compile(f"{_TABLE} :", re.VERBOSE)
_ALONE = re.compile(_TABLE, re.VERBOSE)
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


def named_tables(given: Sequence[str] | None) -> list[str]:
    """The tables that ``--table`` names, each as PostgreSQL has it or quoted, as in SQL: ``public."a:b"``."""
    found = []
    for each in given or ():
        quoted = _ALONE.fullmatch(each) if '"' in each else None
        found.append(_unquoted(quoted[1]) if quoted else each)
    return found


def as_given(table: str, key: str) -> str:
    """How one row is named on a command line, quoted for a shell."""
    name = spelled(table)
    # Otherwise it would name several rows or none, or be read as JSON or as a file, or not be seen.
    is_odd = not key or "," in key or key[0] in f"[{_FILE}" or one_line(key) != key
    return shlex.quote(f"{name}:{json.dumps([key], ensure_ascii=one_line(key) != key) if is_odd else key}")


def _apart(given: str) -> tuple[str, str]:
    """The table and what names the keys."""
    table, _, keys = given.partition(":")
    if '"' in table:
        quoted = _QUOTED.match(given)
        table = _unquoted(quoted[1]) if quoted else ""
        keys = given[quoted.end() :] if quoted else ""
    if not (table and keys):
        raise SettingsError(
            f"{one_line(given)[:80]!r} names no row.",
            hint=f"{_EXAMPLE}. A table's name with a dot, a colon or a quote stands in double quotes, as in SQL.",
        )
    return table, keys


def _unquoted(table: str) -> str:
    return ".".join(map(unquoted, re.findall(PART, table, re.VERBOSE)))


def _read(keys: str) -> str:
    """The keys in a file, as a list of JSON: one in each line, or such a list already."""
    shown = f"The keys in {one_line(keys[1:])[:80]!r} cannot be read"
    try:
        content = sys.stdin.buffer.read() if keys == f"{_FILE}-" else Path(keys[1:]).read_bytes()
        # A byte-order mark, which some editors write, is no part of a key.
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{shown}: {error.strerror}.",
            hint="Give a file with one key in each line, or - for standard input. A key that begins with @ is written"
            " as JSON: 'public.t:[\"@ana\"]'",
        ) from None
    except ValueError:
        text = "\0"
    if "\0" in text:  # as in UTF-16
        raise SettingsError(
            f"{shown}: it is not UTF-8.",
            hint="Save it as UTF-8, in the editor or with: iconv -f UTF-16 -t UTF-8 FILE > NEW (or the encoding that it"
            " has, such as WINDOWS-1252).",
        )
    if text.lstrip()[:1] in ("[", "{"):
        if _list(text) is None:
            raise SettingsError(
                f"{shown}: it begins like JSON, and is no list of JSON.",
                hint='Correct the list: ["43", "44"]. If a key begins with [ or {, write all keys as texts in it.',
            )
        return text.strip()
    return json.dumps([line for line in re.split(r"\r?\n", text) if line])


def _list(text: str) -> list[object] | None:
    """A list of JSON; ``None`` for anything else."""
    try:
        # Numbers as they are written: read as floats they would lose digits, and name other rows.
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _keys(given: str, keys: str) -> list[str]:
    if keys.lstrip().startswith("["):
        if (found := _list(keys)) is None:
            raise SettingsError(
                f"{one_line(given)[:80]!r} names no row: what begins with [ is no list of JSON.",
                hint='Correct it: \'public.t:["43", "44"]\'. A key that begins with [ is a text in such a list.',
            )
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
