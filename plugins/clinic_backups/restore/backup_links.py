"""The links between a backup's tables, for who reads its rows without a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clinic_backups.base.table import Table
from clinic_backups.restore.link_values import Targets
from clinic_backups.restore.named_links import named_links
from clinic_backups.restore.table_rules import NO_ACTION, Reference

Values = Sequence[bytes | None]


@dataclass(frozen=True)
class BackupLink:
    """A link by the places of its columns in a row.

    :param columns: their names.
    :param loose: the places that may be NULL; none if a row cannot be without the link.
    :param targets: what it may refer to and stays out.
    :param is_promised: it is a foreign key of the tables, so each value is that of a row.
    """

    parent: str
    columns: tuple[str, ...]
    places: tuple[int, ...]
    loose: tuple[int, ...]
    targets: Targets
    is_promised: bool

    def value(self, values: Values) -> tuple[bytes, ...] | None:
        """What a row refers to; none if it refers to nothing."""
        return present(self.places, values)


def links_of(tables: Mapping[str, Table]) -> Iterator[Reference]:
    """The foreign keys of a backup's tables, and the columns whose names are clearly those of one."""
    for name, table in tables.items():
        for key in table.foreign_keys:
            yield Reference(
                key.name, name, key.columns, key.references, key.references_columns, (),
                on_delete=key.on_delete or NO_ACTION, match_full=bool(key.match_full),
            )  # fmt: skip
    yield from named_links(tables)


def present(places: Sequence[int], values: Values) -> tuple[bytes, ...] | None:
    """The values at these places, if none is NULL."""
    found = tuple(value for place in places if (value := values[place]) is not None)
    return found if len(found) == len(places) else None
