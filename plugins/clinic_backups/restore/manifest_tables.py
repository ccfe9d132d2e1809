"""Checks what a manifest says of tables that are to be created.

Anybody who has a public key and may write to the store can make a manifest. So its names are only quoted, a type is
used only if PostgreSQL itself spells it in the same way, and none of its expressions is ever run.
"""

from __future__ import annotations

import re

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.strict_json import is_text
from clinic_backups.base.table import Table
from clinic_backups.restore.workspace import Workspace

# The form that format_type writes: a name, then optionally a modifier of numbers, words, and an array's brackets.
_TYPE = re.compile(r'([\w ."]{1,300})(\(\d{1,8}(?:,-?\d{1,5})?\))?((?: [a-z ]{1,30})?(?:\[\])?)')


def is_possible(table: Table) -> bool:
    """Whether PostgreSQL could have given these names, and the key consists of existing columns.

    JSON may hold anything else.
    """
    columns = [column.name for column in table.columns]
    schema, _, name = table.name.partition(".")
    types = [column.type for column in table.columns]
    if not all(text and is_text(text) for text in (schema, name, *columns, *types)):
        return False
    return len(set(columns)) == len(columns) and all(key in columns for key in table.primary_key)


class Types:
    """Tells which types of a manifest the database has."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, bool] = {}

    def has(self, type_: str) -> bool:
        """Whether the text is PostgreSQL's own spelling of a type that the role may use.

        It may have numbers in brackets.
        """
        if type_ not in self._known:
            match = _TYPE.fullmatch(type_)
            self._known[type_] = match is not None and self._finds(match[1] + match[3])
        return self._known[type_]

    def is_independent(self, type_: str) -> bool:
        """Whether nobody who changes the application's tables drops it: it is PostgreSQL's own or an extension's."""
        return self.has(type_) and ("." not in type_.partition("(")[0] or self._is_of_extension(type_))

    def _is_of_extension(self, type_: str) -> bool:
        query = (
            "SELECT FROM pg_type AS t WHERE t.oid = to_regtype(%(bare)s) AND EXISTS (SELECT FROM pg_depend AS d"
            " WHERE d.classid = 'pg_type'::regclass AND d.objid IN (t.oid, t.typelem) AND d.deptype = 'e')"
        )
        bare = _TYPE.fullmatch(type_)
        values = {"bare": bare[1] + bare[3] if bare else ""}
        return bool(self._workspace.rows(query, values, "looking for types of extensions"))

    def _finds(self, bare: str) -> bool:
        # The spelling must be the same, so that only a type's name can get into a statement. The two calls are for a
        # type without a modifier and of one that has it taken away, as in character(3).
        query = (
            "SELECT FROM pg_type AS t WHERE t.oid = to_regtype(%(bare)s) AND t.typtype <> 'p'"
            " AND has_type_privilege(t.oid, 'USAGE')"
            " AND %(bare)s IN (format_type(t.oid, -1), format_type(t.oid, NULL))"
        )
        try:
            with self._workspace.attempt():
                return bool(self._workspace.rows(query, {"bare": bare}, "looking for types"))
        except PermanentError:
            return False  # to_regtype does not know the syntax, or may not look into the schema
