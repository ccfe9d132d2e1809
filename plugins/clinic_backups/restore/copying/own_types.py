"""The types of a copy: enums, domains, composite types and ranges of its own.

A copy that referred to the original's types would stand in the way of a migration: DROP TYPE would fail because of it,
or with CASCADE take its columns along. And another database does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.strict_json import is_text
from clinic_backups.base.table import Column, Table
from clinic_backups.base.text import one_line, unused
from clinic_backups.restore.columns.changed_meaning import types_in
from clinic_backups.restore.copying.original import Definition, Original, OriginalType, element_of
from clinic_backups.restore.copying.own_names import OwnNames
from clinic_backups.restore.copying.steps import MAKES, Steps
from clinic_backups.restore.manifest_tables import Types
from clinic_backups.restore.workspace import Workspace

_NAME = r'(?:"(?:[^"]|"")+"|[^".\s\[\]()]+)'
_SPELLED = re.compile(rf"({_NAME})\.({_NAME})")


class OwnTypes:
    """Makes the types that the columns of a copy need.

    :param taken: names of relations in the new schema: a table has a type of its name too.
    """

    def __init__(
        self, workspace: Workspace, original: Original, tables: Iterable[Table], names: OwnNames, taken: Collection[str]
    ) -> None:
        self._workspace, self._names, self._taken = workspace, names, set(taken)
        self._here = Types(workspace)
        columns = [column for table in tables for column in table.columns]
        self._types = _needed(original.types, columns)

    def make(self) -> None:
        """Make them, each after those that it is made of. One that cannot be made is not in the names then."""
        left = dict(self._types)
        while ready := [each for each in left.values() if not self._waits(each, left)]:
            for each in ready:
                del left[each.name]
                if self._can_be_made(each):
                    self._make(each)

    def _waits(self, type_: OriginalType, left: Mapping[str, OriginalType]) -> bool:
        return any(element_of(need) in left and element_of(need) != type_.name for need in type_.needs)

    def _can_be_made(self, type_: OriginalType) -> bool:
        return all(element_of(need) in self._names.types or self._here.is_independent(need) for need in type_.needs)

    def _make(self, type_: OriginalType) -> None:
        bare = type_.bare if type_.bare not in self._taken else f"{type_.schema}_{type_.bare}"
        bare = unused(bare, self._taken)
        made = self._names.of(bare)
        try:
            with self._workspace.attempt():
                self._workspace.define_for_good(
                    self._statement(type_, sql.SQL(made)), f"making the type {one_line(bare)}", MAKES, names_only=False
                )
        except PermanentError:
            return
        self._taken.add(bare)
        self._names.types[type_.name] = made

    def _statement(self, type_: OriginalType, made: sql.SQL) -> sql.Composable:
        if type_.kind == "e":
            return sql.SQL("CREATE TYPE {} AS ENUM ({})").format(
                made, sql.SQL(", ").join(map(sql.Literal, type_.labels))
            )
        if type_.kind == "d":
            default = type_.default
            return sql.SQL("CREATE DOMAIN {} AS {}{}{}").format(
                made, self._type(type_.base),
                sql.SQL(f" COLLATE {type_.collation}" if type_.collation else ""),
                sql.SQL(" DEFAULT {}").format(self._names.rewritten(default.text))
                if default is not None and not self._names.lacks(default) else sql.SQL(""),
            )  # fmt: skip
        if type_.kind == "c":
            attributes = sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), self._type(spelled)) for name, spelled in type_.attributes
            )
            return sql.SQL("CREATE TYPE {} AS ({})").format(made, attributes)
        return sql.SQL("CREATE TYPE {} AS RANGE (SUBTYPE = {}{})").format(
            made, self._type(type_.subtype), sql.SQL(f", SUBTYPE_DIFF = {type_.diff}" if type_.diff else "")
        )

    def _type(self, spelled: str) -> sql.SQL:
        return sql.SQL(self._names.type_(spelled) or spelled)

    def checks(self, steps: Steps) -> None:
        """What a domain demands of its values, once all rows are there: older rows may not fulfil it."""
        for type_ in self._types.values():
            if type_.kind != "d" or type_.name not in self._names.types:
                continue
            made, shown = sql.SQL(self._names.types[type_.name]), one_line(type_.name)
            if type_.not_null:
                steps.try_(sql.SQL("ALTER DOMAIN {} SET NOT NULL").format(made), f"NOT NULL of the type {shown}", "")
            for check in type_.checks:
                self._check(steps, made, shown, check)

    def _check(self, steps: Steps, made: sql.SQL, shown: str, check: Definition) -> None:
        what = f"Check {one_line(check.name)} of the type {shown}"
        if lacking := self._names.lacks(check):
            steps.leave_out(what, lacking)
            return
        adding = sql.SQL("ALTER DOMAIN {} ADD CONSTRAINT {} {}")
        text = self._names.rewritten(check.condition)
        steps.add_checked(adding.format(made, sql.Identifier(check.name), text), what, is_valid=check.is_valid)


def _needed(known: Mapping[str, OriginalType], columns: Iterable[Column]) -> dict[str, OriginalType]:
    """The types of the original. Enums have the labels of the backup, because the backup's rows have them."""
    found = dict(known)
    for column in columns:
        for name, said in types_in(column).items():
            labels = tuple(label for label, _ in said["labels"])
            parts = _SPELLED.fullmatch(name)
            if not labels or not parts or not all(map(is_text, (name, *labels))):
                continue
            if name in known:
                found[name] = replace(known[name], kind="e", labels=labels)
            else:
                schema, bare = (_plain(part) for part in parts.groups())
                found[name] = OriginalType(name, schema, bare, "e", labels)
    return found


def _plain(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
