"""What stays out of one backup because it must not come back, and what the rest of it is, so that it can be proven."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.manifest import TableContent
from clinic_backups.base.table import Table
from clinic_backups.base.text import one_line
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.restore import table_notes
from clinic_backups.restore.archives import Archives, Fetched, Wanted
from clinic_backups.restore.heirs import requests_for
from clinic_backups.restore.left_out import LeftOut, Read
from clinic_backups.restore.links_now import under_old_names
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.row_sets import RowSet
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.drift import Drift


@dataclass(frozen=True)
class Leaving:
    """What stays out of a backup.

    :param left_out: gives the rest of each block.
    :param rows: by table, how many rows stay out.
    :param emptied: by table, how many rows get NULL where they refer to such a row.
    :param rest: by table of these, the rows that stay.
    """

    left_out: LeftOut
    rows: Mapping[str, int]
    emptied: Mapping[str, int]
    rest: Mapping[str, RowSet]

    @property
    def notes(self) -> list[str]:
        """What may be such a row, or belong to one, and is not left out, as sentences."""
        return [*self.past, *self._not_followed]

    @property
    def past(self) -> list[str]:
        """The requests of which nothing can be recognised."""
        return self.left_out.past_notes

    @property
    def _not_followed(self) -> list[str]:
        return [
            one_line(f"{link.child}: {table_notes.not_left_out(link.parent, link.columns)}")
            for link in self.left_out.not_followed
            if self.rows.get(link.parent)
        ]

    @property
    def said(self) -> dict[str, str]:
        """What was done to each table, as a sentence."""
        found = {}
        for name in sorted({*self.rows, *self.emptied}):
            parts = []
            if count := self.rows.get(name, 0):
                parts.append(f"{count:,} {'rows are' if count > 1 else 'row is'} forgotten and left out")
            if count := self.emptied.get(name, 0):
                parts.append(f"{count:,} {'rows refer' if count > 1 else 'row refers'} to a forgotten row and got NULL")
            found[name] = f"{one_line(name)}: {', and '.join(parts)}."
        return found


def asked_about(
    described: Mapping[str, Table], forgotten: ForgottenOfClinic, drift: Drift, *, tables: Collection[str],
    links: Sequence[Reference], database: str | None = None, moment: datetime | None = None,
) -> LeftOut | None:  # fmt: skip
    """What is to be looked for in one state; none if no table of it has requests. See :func:`looked_for`.

    :param described: the tables of the state.
    :param database: the one that it is of; none if that is not known. :param moment: likewise.
    """
    named = requests_for(described, forgotten.tables, drift, database=database, moment=moment)
    left_out = LeftOut(described, named, under_old_names(links, described, drift)) if named else None
    asked = left_out is not None and (not tables or {*left_out.concerned, *left_out.past} & {*tables})
    return left_out if asked else None


def looked_for(
    archives: Archives, backup: Fetched, forgotten: ForgottenOfClinic, drift: Drift | None = None, *,
    tables: Collection[str] = (), links: Sequence[Reference] = (),
) -> LeftOut | None:  # fmt: skip
    """Tells the rows of a backup that must not come back; none if no table of it has requests.

    :param drift: the tables that were renamed. Somebody may have named a row by another name than the backup's.
    :param tables: only these are asked about. By default all are.
    :param links: further links, by the present names of tables and columns.
    :raises PermanentError: it cannot be told which rows of a table stay out.
    :raises ClinicBackupsError: see :meth:`Archives.read`.
    """
    contents = backup.manifest.tables
    described = {name: content.table for name, content in contents.items()}
    left_out = asked_about(
        described,
        forgotten,
        drift or Drift(),
        tables=tables,
        links=links,
        database=backup.manifest.database,
        moment=backup.manifest.snapshot_at,
    )
    if left_out is None:
        return None
    left_out.find(reader_of(contents, lambda wanted: archives.read(backup, wanted)))
    return left_out


def reader_of(contents: Mapping[str, TableContent], read: Callable[[Wanted], object]) -> Read:
    """Reads the tables of a backup. :param read: gives the blocks of the archives, as ``Archives.read``."""

    def read_tables(names: Collection[str], use: Callable[[str, bytes], object]) -> None:
        wanted = MissingBlocks.every(
            {name: contents[name] for name in names}, lambda table, _block, data, _times: use(table, data)
        )
        read(wanted)
        wanted.require_all()

    return read_tables


def leaving_out(
    archives: Archives, backup: Fetched, forgotten: ForgottenOfClinic, drift: Drift | None = None, *,
    tables: Collection[str] = (), links: Sequence[Reference] = (),
) -> Leaving | None:  # fmt: skip
    """What stays out of a backup; none if it has no such row, and there is nothing to say.

    Reads the tables that may have one, twice or more.

    The parameters and errors are those of :func:`looked_for`.
    """
    left_out = looked_for(archives, backup, forgotten, drift, tables=tables, links=links)
    if left_out is None:
        return None
    contents = backup.manifest.tables
    rest = {name: RowSet() for name in left_out.concerned}

    def add(table: str, _: Block, data: bytes, times: int) -> None:
        rest[table].add(left_out.kept(table, data, times), times)

    wanted = MissingBlocks.every({name: contents[name] for name in rest}, add)
    archives.read(backup, wanted)
    wanted.require_all()
    rows, emptied = +left_out.counts, +left_out.emptied
    left_out.counts.clear()
    left_out.emptied.clear()
    if not rows and not emptied and not left_out.past:
        return None
    return Leaving(left_out, rows, emptied, {name: each for name, each in rest.items() if name in {*rows, *emptied}})
