"""How a command names single rows: ``schema.table:key,key``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import one_line


def named_rows(given: Sequence[str]) -> dict[str, list[str]]:
    """The keys by table, as a conf has them. Keys with a comma are given as JSON: ``schema.table:["a,b"]``.

    :raises SettingsError: one names no table or no key.
    """
    found: dict[str, list[str]] = {}
    for each in given:
        table, colon, keys = each.partition(":")
        if not (table and colon and keys):
            raise SettingsError(
                f"{one_line(each)[:80]!r} names no row.", hint="For instance: --rows public.usuarios_paciente:43,44"
            )
        found.setdefault(table, []).extend(_keys(keys))
    return found


def as_given(table: str, key: str) -> str:
    """How one row is named on a command line, quoted for a shell."""
    # Otherwise it would name several rows, or be read as JSON.
    return shlex.quote(f"{table}:{json.dumps([key], ensure_ascii=False) if ',' in key or key[:1] == '[' else key}")


def _keys(given: str) -> list[str]:
    if given.startswith("["):
        try:
            return [str(key) for key in json.loads(given)]
        except (ValueError, TypeError):
            pass  # then it is a key that begins so
    return given.split(",")
