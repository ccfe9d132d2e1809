"""The settings of PostgreSQL under which the clinics' database is read, so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.search_path import OWN_PATH

# The settings that pg_dump sets so that equal rows are equal bytes, and also time zone and currency.
# https://www.postgresql.org/docs/current/runtime-config-client.html#RUNTIME-CONFIG-CLIENT-FORMAT
SESSION = {
    "search_path": OWN_PATH,
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    # A policy that hides rows must make the backup fail, and not just leave rows out.
    "row_security": "off",
    "synchronize_seqscans": "off",
    "quote_all_identifiers": "off",
    # Settings of a role or a database that would change which values are read, written or found.
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "gin_fuzzy_search_limit": "0",
    "xmlbinary": "base64",
    "lc_numeric": "C",
    "lc_time": "C",
    "exit_on_error": "off",
    "check_function_bodies": "off",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    "work_mem": "64MB",
}

HELD = {"client_encoding": "UTF8"} | {
    name: SESSION[name]
    for name in (
        "datestyle", "intervalstyle", "timezone", "extra_float_digits", "bytea_output", "xmloption", "xmlbinary",
        "lc_monetary", "lc_numeric", "lc_time", "row_security", "array_nulls", "transform_null_equals",
        "standard_conforming_strings", "gin_fuzzy_search_limit",
    )
}  # fmt: skip
"""The settings that decide which rows are read and how their values are written. Code that a query runs may change
them for all later queries, so they are compared at the end."""


def held_values() -> dict[str, list[str]]:
    """The values for ``pg_catalog/changed_settings.sql``."""
    return {"settings": list(HELD), "values": list(HELD.values())}


def changed_by_code(changed: Sequence[str], functions: Sequence[str], doing: str) -> PermanentError:
    """The error for settings that are not as they were.

    :param changed: the names of the settings.
    :param functions: the functions whose text sets one of them, as far as it shows.
    """
    setting = changed[0]
    found = f" These functions may do it: {', '.join(functions)}." if functions else ""
    return PermanentError(
        f"Code of the database changed {', '.join(changed)} while {doing}. Values that were read afterwards may have"
        " been cut or written otherwise, so none of them is used.",
        hint=f"A function that an extract, a view, an index, a domain or a type calls uses SET or set_config.{found}"
        f" Take that out of its text, and give it the setting for itself: ALTER FUNCTION … SET {setting} = …;",
    )
