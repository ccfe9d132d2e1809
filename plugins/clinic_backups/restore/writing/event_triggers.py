"""The application's event triggers, which fire when a restore makes a table, a view or a function of its own.

Their functions may look up tables by the application's search path. So a definition is parsed under a path that has
pg_catalog first, then the application's schemas, then pg_temp. The first type of a name is taken, so types mean the
same there as under this package's own path. Operators and functions may not: see :attr:`EventTriggers.is_safe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.tenant.pg_catalog import catalog_query

FORBIDS = ("P0001", "42501")
"""SQLSTATE of RAISE EXCEPTION, and of a missing right."""


@dataclass(frozen=True)
class EventTrigger:
    """An enabled event trigger. ``function`` has its schema, both quoted; ``called`` is its bare name."""

    name: str
    function: str
    called: str


@dataclass(frozen=True)
class EventTriggers:
    """The event triggers that would fire.

    :param path: the search path for definitions.
    :param is_safe: every operator and function of PostgreSQL means the same under that path: none of another schema
        fits other types, and only a schema's owner may add one.
    """

    triggers: tuple[EventTrigger, ...] = ()
    path: str = ""
    is_safe: bool = False

    def caused(self, error: PermanentError) -> list[EventTrigger]:
        """The event triggers that an error comes from, as far as it shows. Empty: it comes from something else."""
        refused = refusal_of(error)
        if refused is None:
            return []
        found = [trigger for trigger in self.triggers if trigger.called in refused.functions]
        return found or (list(self.triggers) if refused.state in FORBIDS else [])

    def explained(self, error: PermanentError, what: str) -> PermanentError:
        """The error in plain words if an event trigger caused it; otherwise the error itself.

        :param what: the definitions that a restore makes, for people.
        """
        if not (found := self.caused(error)):
            return error
        refused = refusal_of(error)
        names = ", ".join(trigger.name for trigger in found)
        if refused is not None and refused.state in FORBIDS:
            told = PermanentError(
                f"A restore {what}, and an event trigger of the database forbids it. It has these: {names}.",
                hint=f"{_DISABLE}, or let it pass temporary tables, or {_GRANT}",
            )
        else:
            functions = ", ".join(dict.fromkeys(trigger.function for trigger in found))
            told = PermanentError(
                f"A restore {what}, and the function of an event trigger of the database fails then: {names}"
                f" ({functions}).",
                hint=f"If it names tables without their schema: ALTER FUNCTION {found[0].function}() SET search_path ="
                f" the schemas of these tables; or {_DISABLE}, or {_GRANT}",
            )
        return told


_DISABLE = "ALTER EVENT TRIGGER … DISABLE; for the time of the restore"
_GRANT = "GRANT SET ON PARAMETER session_replication_role TO the role of restore_db."

Rows = Callable[[str, dict[str, Any] | None], Sequence[tuple[Any, ...]]]


def read(rows: Rows) -> EventTriggers:
    """Read them. :param rows: runs a query under this package's own search path, whichever the last one has set."""
    found = tuple(EventTrigger(*row) for row in rows(catalog_query("event_triggers"), None))
    if not found:
        return EventTriggers()
    ((usual,),) = rows("SELECT reset_val FROM pg_settings WHERE name = 'search_path'", None)
    path = ", ".join(filter(None, ("pg_catalog", str(usual).strip(), "pg_temp")))
    schemas_of_path = """
        SELECT pg_catalog.set_config('search_path', %(path)s, true);
        SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]"""
    ((schemas,),) = rows(schemas_of_path, {"path": path})
    ((is_safe,),) = rows(catalog_query("safe_path"), {"schemas": schemas})
    return EventTriggers(found, path, bool(is_safe))


def path_of(triggers: EventTriggers) -> sql.Composed:
    """The statement that sets the path for definitions."""
    return sql.SQL("SELECT pg_catalog.set_config('search_path', {}, true)").format(sql.Literal(triggers.path))
