"""The functions of trusted owners that use sequences, and what a text calls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from clinic_backups.restore.sequences.number_calls import HIDDEN, NamedCall, named_calls
from clinic_backups.restore.sequences.sequence_names import schemas_of
from clinic_backups.restore.sequences.table_owners import TableOwners
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.pg_catalog import catalog_query

LONGEST_BODY = 30_000
"""Characters of a function's text that is read. A longer one counts as one that cannot be read."""
LONGEST_TOGETHER = 3_000_000
"""The same for all functions together."""
_READ = ("plpgsql", "sql")
_FURTHEST = 10
"""How many functions in a row, of other roles than the trusted owners, are looked for by name."""


@dataclass(frozen=True)
class Signature:
    """What a call of a function must be like.

    :param least: the fewest arguments.
    :param most: the most arguments; none if there may be any number.
    :param is_shadowed: PostgreSQL has a function of this name with the same types, which comes first.
    """

    oid: int
    schema: str
    name: str
    least: int
    most: int | None
    is_shadowed: bool

    def fits(self, call: NamedCall) -> bool:
        """Whether a call has such a name and number of arguments."""
        if self.name != call.name or call.schema not in (None, self.schema):
            return False
        is_right = call.given is None or (self.least <= call.given and (self.most is None or call.given <= self.most))
        return is_right and not (self.is_shadowed and call.schema is None)


@dataclass(frozen=True)
class Function:
    """A function as PostgreSQL describes it.

    :param set_path: the search path that it sets for itself.
    :param results: parameters that it gives back.
    :param owner: PostgreSQL's number of the role.
    :param is_called: a trigger, default, rule or view of a trusted owner's table calls it. Otherwise its owner is such
        an owner.
    :param is_listed: it uses sequences, or it may.
    :param may_use: it may use a sequence, as far as a search in its text shows; otherwise it only runs other texts.
    """

    signature: Signature
    language: str
    body: str
    set_path: str | None
    is_trigger: bool
    results: Collection[str]
    owner: int
    is_called: bool
    is_listed: bool
    may_use: bool
    is_too_much: bool = False

    @property
    def oid(self) -> int:
        return self.signature.oid

    @property
    def schema(self) -> str:
        return self.signature.schema

    @property
    def name(self) -> str:
        return self.signature.name

    @property
    def said(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def near(self) -> tuple[str, ...]:
        """The schemas that its names are looked up in."""
        return (self.schema,)

    @property
    def unread(self) -> str | None:
        """Why its text is not read."""
        if self.language not in _READ:
            return f"it is written in {self.language}, which is not read"
        if len(self.body) > LONGEST_BODY:
            return f"it is longer than {LONGEST_BODY:,} characters"
        return f"the functions are longer than {LONGEST_TOGETHER:,} characters together" if self.is_too_much else None

    @cached_property
    def path(self) -> str | None:
        """The search path, if nothing else can change it."""
        found = self.set_path
        return None if found is None or "$user" in found or "search_path" in self.lower else found

    @cached_property
    def is_hidden(self) -> bool:
        """It is not read, but names a function that uses sequences."""
        return self.unread is not None and any(name in self.lower for name in HIDDEN)

    @cached_property
    def lower(self) -> str:
        return self.body.lower()

    @cached_property
    def calls(self) -> list[NamedCall]:
        """The calls in its text, if they matter."""
        return named_calls(self.body) if self.unread is None and (self.may_use or self.is_called) else []


class Functions:
    """All of them.

    :param path: the schemas that a name is looked up in if nothing else is known.
    """

    def __init__(self, workspace: Workspace, owners: TableOwners, path: Sequence[str]) -> None:
        self._path = path
        found = self._read(workspace, owners, [])
        also, known = set[int](), -1
        for _ in range(_FURTHEST):
            if len(also) == known:
                break
            known = len(also)
            also |= self._further(workspace, owners, found)
            found = self._read(workspace, owners, also) if len(also) > known else found
        self.all = _short_enough([function for function in found if function.is_listed])
        self.by_oid = {function.oid: function for function in self.all}
        self._by_name = _by_name(self.all)

    @staticmethod
    def _read(workspace: Workspace, owners: TableOwners, also: Iterable[int]) -> list[Function]:
        values = owners.values | {"also": list(also)}
        rows = workspace.rows(catalog_query("numbering_functions"), values, "reading functions that use sequences")
        return [Function(Signature(*row[:6]), *row[6:]) for row in rows]

    def _further(self, workspace: Workspace, owners: TableOwners, found: Sequence[Function]) -> set[int]:
        """Functions of other roles, if the text of a trusted owner calls them by name."""
        wanted = dict[tuple[str, str], None]()
        for function in found:
            for call in function.calls:
                schemas = [call.schema] if call.schema else self._schemas(function.near, function.path)
                wanted |= dict.fromkeys((schema, call.name) for schema in schemas)
        if not wanted:
            return set()
        values = {"schemas": [schema for schema, _ in wanted], "names": [name for _, name in wanted],
                  "owners": list(owners.roles)}  # fmt: skip
        rows = workspace.rows(catalog_query("named_functions"), values, "looking for functions by name")
        own, others = dict[str, list[Signature]](), dict[str, list[Signature]]()
        for *row, is_other in rows:
            (others if is_other else own).setdefault(row[2], []).append(Signature(*row))
        calls = [(call, each) for each in found for call in each.calls if call.name in others]
        result = set[int]()
        for call, function in calls:
            schemas = [call.schema] if call.schema else self._schemas(function.near, function.path)
            anywhere = function.path is None or call.schema is not None
            if not any(
                each.fits(call) and (anywhere or each.schema in (*schemas, "pg_catalog"))
                for each in own.get(call.name, ())
            ):
                fitting = [each for each in others[call.name] if each.fits(call)]
                result |= {each.oid for each in fitting if each.schema in schemas}
        return result

    def _schemas(self, near: Sequence[str], path: str | None) -> list[str]:
        return [*near, *self._path] if path is None else schemas_of(path)

    def _resolved(
        self, call: NamedCall, names: dict[str, list[Function]], near: Sequence[str], path: str | None
    ) -> list[Function]:
        fitting = [each for each in names.get(call.name, ()) if each.signature.fits(call)]
        if call.schema is not None:
            return fitting
        schemas = self._schemas(near, path)
        here = [each for each in fitting if each.schema in schemas]
        return here or (fitting if path is None else [])

    def called_in(
        self, text: str | Sequence[NamedCall], near: Sequence[str], path: str | None = None
    ) -> list[Function]:
        """Those that a text calls.

        :param near: schemas to look in.
        :param path: the search path, if it is known.
        """
        found = dict[int, Function]()
        for call in named_calls(text) if isinstance(text, str) else text:
            if call.name in self._by_name:
                found |= {each.oid: each for each in self._resolved(call, self._by_name, near, path)}
        return list(found.values())


def _by_name(found: Iterable[Function]) -> dict[str, list[Function]]:
    """Trigger functions are never called by name."""
    names: dict[str, list[Function]] = {}
    for function in found:
        if not function.is_trigger:
            names.setdefault(function.name, []).append(function)
    return names


def _short_enough(found: Iterable[Function]) -> list[Function]:
    """The same functions. Those that make the texts too long together are not read."""
    total, result = 0, list[Function]()
    for function in found:
        if function.unread is None:
            total += len(function.body)
        result.append(replace(function, is_too_much=True) if total > LONGEST_TOGETHER else function)
    return result
