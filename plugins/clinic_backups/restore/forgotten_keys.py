"""Keys of rows that must not come back, as the catalog hashes them.

A hash cannot be compared as the server compares values. So it is made of what the server writes for the key, and of
what the row itself has for it, while that is there: ``{"a": 1.00}`` for the ``jsonb`` ``{"a": 1}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.row_key import read_as
from clinic_backups.catalog.forgotten import NamedKey
from clinic_backups.restore.keys_now import server_keys
from clinic_backups.restore.link_values import equality_of
from clinic_backups.restore.named_keys import KeyColumns, Parts, ServerKeys
from clinic_backups.tenant.tenant_db import Snapshot


def read_forgotten(
    snapshot: Snapshot, keys: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[NamedKey]], list[str]]:
    """The keys as the server reads them; and the tables in which it is not sure that a row is known by its key.

    A table that is not there any more has its keys as they were written.

    :raises PermanentError: a table has no primary key.
    :raises SettingsError: a text cannot be a key of its table.
    """
    found: dict[str, list[NamedKey]] = {name: list(each) for name, each in keys.items()}
    unsure = []
    for name, table in snapshot.tables(sorted(keys.keys() & snapshot.relations().keys())).items():
        if not table.primary_key:
            raise PermanentError(
                f"{name} has no primary key, so that no restore could tell which of its rows is meant.",
                hint="Nothing was recorded. Forget the row that these rows belong to: they stay away with it.",
            )
        reader = server_keys(snapshot, table)
        read = reader.read(keys[name])
        there = _stored(reader, name, read)
        found[name] = [tuple(dict.fromkeys((each, *there.get(number, ())))) for number, each in enumerate(read)]
        if len(there) < len(read) and not _is_known_by_text(reader.key):
            unsure.append(name)
    return found, unsure


def _stored(reader: ServerKeys, table: str, keys: Sequence[Parts]) -> dict[int, list[Parts]]:
    """The keys of the rows that have one of these, by their numbers."""
    texts = (sql.SQL("format('%s', t.{})").format(sql.Identifier(column.name)) for column in reader.key.columns)
    query = sql.SQL("SELECT v.number, {} FROM {} JOIN {} AS t ON {}").format(
        sql.SQL(", ").join(texts), reader.values(keys), qualified(table), reader.same("t")
    )
    found = dict[int, list[Parts]]()
    for number, *parts in reader.ask(query, None, f"looking for the named rows of {table}"):
        found.setdefault(number, []).append(tuple(parts))
    return found


def _is_known_by_text(key: KeyColumns) -> bool:
    """Whether equal keys have equal hashes, whatever their texts are."""
    return all(
        equality_of(column, column).is_known or read_as(column.base_type or column.type) != ("text",)
        for column in key.columns
    )
