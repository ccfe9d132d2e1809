"""The functions that the writing calls, and those that their texts call by name: an approval covers what they do.

PostgreSQL knows the functions of defaults, constraints, domains and triggers. It does not know the names in a text, so
these are looked up: as everywhere, somebody else's function counts only where a text means it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from clinic_backups.restore.sequences.believed import believed
from clinic_backups.restore.sequences.number_calls import NamedCall, named_calls
from clinic_backups.restore.sequences.sequence_functions import LONGEST_BODY, Signature
from clinic_backups.restore.sequences.sequence_names import default_path, schemas_of
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.quiet import Trigger
from clinic_backups.tenant.pg_catalog import catalog_query

_FURTHEST = 10
"""How many functions in a row are looked for by name."""
_FIRST_OF_USERS = 16384
"""PostgreSQL's own functions have smaller numbers."""


@dataclass(frozen=True)
class CalledFunction:
    """A function that the writing calls.

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

    def calls(self) -> list[NamedCall]:
        """The calls in its text, if it can be read."""
        is_read = self.language in ("sql", "plpgsql") and len(self.body) <= LONGEST_BODY
        return named_calls(self.body) if is_read else []


def called_functions(workspace: Workspace, written: Sequence[str], triggers: Sequence[Trigger]) -> list[CalledFunction]:
    """The functions, with those of the triggers.

    :param written: the tables that are written.
    :param triggers: those that the writing would fire.
    """
    if not written:
        return []
    found = _known(workspace, written, triggers, [])
    looked_at, owners, path = set[int](), list[int](), list[str]()
    for _ in range(_FURTHEST):
        new = [each for each in found if each.oid not in looked_at]
        looked_at |= {each.oid for each in new}
        calls = [(each, call) for each in new for call in each.calls()]
        if not calls:
            break
        if not owners:
            owners, path = list(believed(workspace, written).roles), default_path(workspace)
        named = set(_named(workspace, calls, owners, path))
        if named <= looked_at:
            break
        found = _known(workspace, written, triggers, named | looked_at)
    return found


def _known(
    workspace: Workspace, written: Sequence[str], triggers: Sequence[Trigger], also: Collection[int]
) -> list[CalledFunction]:
    values = {
        "names": list(written),
        "functions": list(also),
        "fired_of": [each.relation for each in triggers],
        "fired": [each.name for each in triggers],
    }
    rows = workspace.rows(catalog_query("called_functions"), values, "reading the functions that the writing calls")
    return [CalledFunction(*row) for row in rows]


def _named(
    workspace: Workspace,
    calls: Sequence[tuple[CalledFunction, NamedCall]],
    owners: Sequence[int],
    path: Sequence[str],
) -> Iterator[int]:
    """PostgreSQL's numbers of the functions that calls mean. Those of believed roles may be in any schema."""
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
