"""The settings of PostgreSQL under which the clinics' database is read, so that equal rows are equal bytes."""

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
