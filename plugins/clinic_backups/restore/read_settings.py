"""The settings that the functions of a writing read: an approval covers the values that its session has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from clinic_backups.base.errors import PermanentError
from clinic_backups.restore.called_functions import CalledFunction
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

_DOING = "reading the settings that functions read"


def settings_read(
    workspace: Workspace, tables: Sequence[str], called: Collection[CalledFunction]
) -> Mapping[str, str | None]:
    """By name, the settings that the functions or the tables' expressions name; ``None``: it has no value."""
    values = {"tables": list(tables), "functions": [each.oid for each in called if each.kind == "function"]}
    found: dict[str, str | None] = {}
    perhaps: dict[str, bool] = {}
    for name, value, is_quoted in workspace.rows(catalog_query("read_settings"), values, _DOING):
        if value is not None:
            found[name] = value
        else:
            perhaps[name] = is_quoted
    # A name in quotes may be a setting that somebody gives a value later.
    for name, value in _values(workspace, sorted(perhaps)):
        if value is not None or perhaps[name]:
            found[name] = value
    return found


def _values(workspace: Workspace, names: Sequence[str]) -> list[tuple[str, str | None]]:
    """The values of settings that may exist. Those that this role may not read are left out."""
    if not names:
        return []
    query = "SELECT name, current_setting(name, true) FROM unnest(%(names)s::text[]) AS name"
    try:
        with workspace.attempt():
            return [(name, value) for name, value in workspace.rows(query, {"names": list(names)}, _DOING)]
    except PermanentError:
        half = len(names) // 2
        return [] if not half else _values(workspace, names[:half]) + _values(workspace, names[half:])
