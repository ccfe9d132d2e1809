"""What a manifest may say of tables that are to be made.

Whoever has a public key and may write to the store can make one. So its names are only quoted, a type is used where
PostgreSQL itself spells it so, and no expression of it is ever run.
"""

from __future__ import annotations

import re

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.model import Table
from clinic_backups.base.strict_json import is_text
from clinic_backups.restore.workspace import Workspace

# What format_type writes: a name, perhaps a modifier of numbers and words after it, perhaps an array's brackets.
_TYPE = re.compile(r'([\w ."]{1,300})(\(\d{1,8}(?:,-?\d{1,5})?\))?((?: [a-z ]{1,30})?(?:\[\])?)')


def is_possible(table: Table) -> bool:
    """Names that PostgreSQL could have given, and a key of columns that are there: JSON may hold anything else."""
    columns = [column.name for column in table.columns]
    schema, _, name = table.name.partition(".")
    types = [column.type for column in table.columns]
    if not all(text and is_text(text) for text in (schema, name, *columns, *types)):
        return False
    return len(set(columns)) == len(columns) and all(key in columns for key in table.primary_key)


class Types:
    """Which types of a manifest the database has."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, bool] = {}

    def has(self, type_: str) -> bool:
        """The text is PostgreSQL's own spelling of a type that the role may use, at most with numbers in brackets."""
        if type_ not in self._known:
            match = _TYPE.fullmatch(type_)
            self._known[type_] = match is not None and self._finds(match[1] + match[3])
        return self._known[type_]

    def _finds(self, bare: str) -> bool:
        # Its spelling must be the same, so that nothing but a type's name can get into a statement. The two are of a
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
            return False  # to_regtype knows no such syntax, or may not look into the schema
