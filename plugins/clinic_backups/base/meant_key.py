"""Which table and which columns an erasure request is about, as the clinics' database had them when it was recorded.

A table can get another primary key, its key's columns other names and types, and its name another table. Requests of
older versions do not say what they mean: they are about the key that the table has in each backup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from clinic_backups.base import documents
from clinic_backups.base.documents import Code, Flag, Name
from clinic_backups.base.row_key import bare_type, read_as
from clinic_backups.base.table import Table

_TEXTS = ("text", "character varying", "character", "citext", "name")


@dataclass(frozen=True)
class MeantColumn:
    """A column of the key; ``type`` of a domain is the type that it is made of. ``number`` as :attr:`Column.number`."""

    name: Name
    type: Code
    number: documents.ColumnNumber | None = None


@dataclass(frozen=True)
class MeantKey:
    """What a request is about.

    :param database: see ``source_database``. The numbers of table and columns are valid only there.
    :param is_reused: an older table had the name, and was there under another name: backups of that one are not meant.
    """

    database: Name
    oid: documents.Oid
    columns: Annotated[tuple[MeantColumn, ...], Field(min_length=1, max_length=documents.MAX_COLUMNS)]
    is_reused: Flag = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"columns": [asdict(each) for each in self.columns]}


MEANT = TypeAdapter(MeantKey)


def meant_key(database: str, table: Table, names: Iterable[str], *, is_reused: bool) -> MeantKey | None:
    """What a request about these columns of a table means; none if the table does not have them."""
    there = {column.name: column for column in table.columns}
    names = tuple(names)
    if table.oid is None or not {*names} <= there.keys():
        return None
    columns = tuple(MeantColumn(name, there[name].value_type, there[name].number) for name in names)
    return MeantKey(database, table.oid, columns, is_reused)


def are_alike(one: str, other: str) -> bool:
    """Whether a key that was named as a value of one type can be recognised among values of the other."""
    one, other = (bare_type(each).rpartition(".")[2] for each in (one, other))
    readings = read_as(one)[0], read_as(other)[0]
    known = [reading != "text" or type_ in _TEXTS for reading, type_ in zip(readings, (one, other), strict=True)]
    if one == other or (readings[0] == readings[1] and all(known)):
        return True
    return all(known) and (one in _TEXTS or other in _TEXTS)
