"""How a request names single rows: by table, the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import one_line

MOST_CHARACTERS = 1_000_000
"""Of all keys of a request together."""
EXAMPLE = (
    'For instance: {"rows": {"public.usuarios_paciente": [43, 44]}}. It brings these rows back, and what hangs on them.'
)


def keys_of(table: str, given: object) -> tuple[str, ...]:
    """The keys that a conf gives for a table: a list, or a single one. :raises SettingsError: it is something else."""
    keys = given if isinstance(given, list) else [given]
    if not keys or not all(isinstance(key, int | str) and not isinstance(key, bool) for key in keys):
        raise SettingsError(
            f"rows: what is given for {table} is not a list of keys, each a whole number or a text.", hint=EXAMPLE
        )
    return tuple(dict.fromkeys(map(str, keys)))


def require_keys(rows: Mapping[str, Sequence[str]]) -> None:
    """Check named rows. A key may be any text that PostgreSQL can hold, the empty one too.

    :raises SettingsError: one is not such a text, or together they are too long.
    """
    for table, keys in rows.items():
        for key in keys:
            # Half characters come from bytes that are not UTF-8.
            if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
                raise SettingsError(
                    f"rows: {one_line(key)[:60]!r} is no key of {one_line(table)[:120]}: PostgreSQL can hold no such"
                    " text.",
                    hint="Write keys in UTF-8, without the character NUL.",
                )
    if sum(len(key) for keys in rows.values() for key in keys) > MOST_CHARACTERS:
        raise SettingsError(
            f"rows: the keys together have more than {MOST_CHARACTERS:,} characters.",
            hint="Name fewer rows at a time, or restore whole tables.",
        )
