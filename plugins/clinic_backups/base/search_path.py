"""The search paths of statements: this package's own one, and the application's."""

from __future__ import annotations


def set_local(name: str, value: str) -> str:
    """The statement that sets a setting, or a list of names, for this transaction only."""
    words = ", ".join(f"'{word}'" for word in value.split(", "))
    return f"SET LOCAL {name} = {words}"


OWN_PATH = "pg_catalog, pg_temp"
"""The search path of every statement of this package. Tables of pg_temp would come first if it were not named."""
APPLICATION_PATH = "SET LOCAL search_path TO DEFAULT"
"""For the application's own functions. PostgreSQL finds these by number, and only their bodies look up names."""
IN_OWN_PATH = set_local("search_path", OWN_PATH)
