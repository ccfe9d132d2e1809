"""The functions that the writing calls, and what their texts use by name: an approval covers what they do.

PostgreSQL knows the functions of defaults, constraints, domains and triggers. It does not know the names in a text, so
these are looked up: functions, views, operators, and types for their casts. As everywhere, what belongs to somebody
else counts only where a text means it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from clinic_backups.restore.sequences.number_calls import NamedCall, named_calls, texts_in
from clinic_backups.restore.sequences.sequence_functions import LONGEST_BODY, Signature
from clinic_backups.restore.sequences.sequence_names import default_path, schemas_of
from clinic_backups.restore.sequences.table_owners import table_owners
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.quiet_triggers import Trigger
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import names_in, signs_in

_FURTHEST = 10
"""How many functions in a row are looked for by name."""
_NO_FUNCTIONS = ("view", "type", "text search configuration")
_FIRST_OF_USERS = 16384
"""PostgreSQL's own functions have smaller numbers."""
_Object = tuple[str, int]
"""PostgreSQL's catalog and its number there."""


@dataclass(frozen=True)
class CalledFunction:
    """A function that the writing calls; or a view, a type or a configuration of text search that it uses.

    :param said: its name with its arguments.
    :param set_path: the search path that it sets for itself.
    :param definition: a digest of what it does.
    """

    oid: int
    schema: str
    said: str
    language: str
    body: str
    set_path: str | None
    is_trigger: bool
    definition: str

    @property
    def kind(self) -> str:
        """``function``, ``view``, ``type`` or ``text search configuration``."""
        return self.language if self.language in _NO_FUNCTIONS else "function"

    @property
    def is_read(self) -> bool:
        """Whether its text can be read."""
        return self.language in ("sql", "plpgsql") and len(self.body) <= LONGEST_BODY

    def names(self) -> set[str]:
        """The names in its text, also in texts that it may run."""
        return {name for text in (self.body, *texts_in(self.body, 1)) for name in names_in(text)}

    def signs(self) -> set[str]:
        """What may be an operator in its text."""
        return signs_in(self.body)


def called_functions(workspace: Workspace, written: Sequence[str], triggers: Sequence[Trigger]) -> list[CalledFunction]:
    """The functions, with those of the triggers.

    :param written: the tables that are written.
    :param triggers: those that the writing would fire.
    """
    if not written:
        return []
    also = set[_Object]()
    found = _known(workspace, written, triggers, also)
    looked_at, owners, path = set[_Object](), list[int](), list[str]()
    for _ in range(_FURTHEST):
        new = [each for each in found if each.is_read and ("pg_proc", each.oid) not in looked_at]
        looked_at |= {("pg_proc", each.oid) for each in new}
        if not new:
            break
        if not owners:
            owners, path = list(table_owners(workspace, written).roles), default_path(workspace)
        calls = [(each, call) for each in new for call in named_calls(each.body)]
        named = {("pg_proc", oid) for oid in (_named(workspace, calls, owners, path) if calls else ())}
        named |= _objects(workspace, new, owners, path)
        if named <= also | looked_at:
            break
        also |= named
        found = _known(workspace, written, triggers, also)
    return found


def _known(
    workspace: Workspace, written: Sequence[str], triggers: Sequence[Trigger], also: Collection[_Object]
) -> list[CalledFunction]:
    values = {
        "names": list(written),
        "classes": [catalog for catalog, _ in also],
        "ids": [oid for _, oid in also],
        "fired_of": [each.relation for each in triggers],
        "fired": [each.name for each in triggers],
    }
    rows = workspace.rows(
        catalog_query("called_functions", reached="reached_code"),
        values,
        "reading the functions that the writing calls",
    )
    return [CalledFunction(*row) for row in rows]


def _objects(
    workspace: Workspace, new: Sequence[CalledFunction], owners: Sequence[int], path: Sequence[str]
) -> set[_Object]:
    """The views, types and operators that texts may mean."""
    names = {name for each in new for name in each.names()}
    paths = (path if each.set_path is None else schemas_of(each.set_path) for each in new)
    values = {
        "names": sorted(names),
        "signs": sorted({sign for each in new for sign in each.signs()}),
        "schemas": sorted({*names, *(schema for each in paths for schema in each), *(each.schema for each in new)}),
        "owners": list(owners),
    }
    found = workspace.rows(catalog_query("named_objects"), values, "looking for views, types and operators by name")
    return {(catalog, oid) for catalog, oid in found}


def _named(
    workspace: Workspace,
    calls: Sequence[tuple[CalledFunction, NamedCall]],
    owners: Sequence[int],
    path: Sequence[str],
) -> Iterator[int]:
    """PostgreSQL's numbers of the functions that calls mean. Those of trusted owners may be in any schema."""
    looked_in = [
        (
            call,
            [call.schema]
            if call.schema
            else [each.schema, *path]
            if each.set_path is None
            else schemas_of(each.set_path),
        )
        for each, call in calls
    ]
    pairs = list(dict.fromkeys((schema, call.name) for call, schemas in looked_in for schema in schemas))
    values = {"schemas": [schema for schema, _ in pairs], "names": [name for _, name in pairs], "owners": list(owners)}
    by_name = dict[str, list[tuple[Signature, bool]]]()
    for *row, is_other in workspace.rows(catalog_query("named_functions"), values, "looking for functions by name"):
        by_name.setdefault(row[2], []).append((Signature(*row), is_other))
    for call, schemas in looked_in:
        fitting = [(each, is_other) for each, is_other in by_name.get(call.name, ()) if each.fits(call)]
        here = [each for each, _ in fitting if each.schema in schemas]
        meant = here or [each for each, is_other in fitting if not is_other]
        yield from (each.oid for each in meant if each.oid >= _FIRST_OF_USERS)
