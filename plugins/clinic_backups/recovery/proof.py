"""Reads one unit back with the queries of the backed-up SQL folder, and compares every block with its backup."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clinic_backups.archive.manifest import TableContent
from clinic_backups.archive.reader import Manifest
from clinic_backups.base import strict_json
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.shared_unit import SQL, is_shared
from clinic_backups.restore.leaving_out import Leaving
from clinic_backups.restore.read_blocks import blocks_of, read_blocks
from clinic_backups.restore.row_sets import RowSet
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.shared_rows import shared_rows
from clinic_backups.tenant.tenant_db import Snapshot

_PLANNING = (
    "SELECT set_config('random_page_cost', '1.1', true), set_config('max_parallel_workers_per_gather', '0', true)"
)
"""A unit's rows were loaded together a moment ago. So looking them up is cheaper than reading the rows of all units.
Other sessions prove other units meanwhile."""


@dataclass(frozen=True)
class Difference:
    """A table that is not as in the backup. The block lists differ although the numbers of rows may be equal."""

    table: str
    rows: int
    expected_rows: int
    problem: str = ""

    @property
    def text(self) -> str:
        """The difference, for people."""
        if self.problem:
            return f"{self.table}: {self.problem}"
        if self.rows == self.expected_rows:
            return f"{self.table}: the {self.rows:,} rows have other values than in the backup"
        return f"{self.table}: {self.rows:,} rows, and the backup has {self.expected_rows:,}"


@contextmanager
def sql_folder(files: Mapping[str, bytes]) -> Iterator[SqlFolder]:
    """The SQL folder of the shared unit's archive while the block lasts.

    :raises PermanentError: the archive does not hold one.
    """
    if SQL not in files:
        raise PermanentError(
            "The SQL folder is not in the backup of the shared data, so nothing can be proven.",
            hint="Choose another backup with --as-of.",
        )
    with tempfile.TemporaryDirectory(prefix="clinic-backups-sql-") as place:
        for name, text in strict_json.loads(files[SQL]).items():
            path = PurePosixPath(name)
            # The names come out of an archive: none may lead out of the folder.
            if path.is_absolute() or not 1 <= len(path.parts) <= 3 or any(part in (".", "..") for part in path.parts):
                raise PermanentError(
                    f"The SQL folder in the backup of the shared data has a file that cannot be one: {name!r}.",
                    hint="Somebody may have made this archive who may not. Choose another backup with --as-of.",
                )
            file = Path(place) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text), encoding="utf-8")
        yield SqlFolder(Path(place))


def queries_of(snapshot: Snapshot, folder: SqlFolder, unit: ClinicId) -> Mapping[str, str]:
    """The SELECT of each table of a clinic or of the shared unit.

    :raises ClinicBackupsError: they cannot be made.
    """
    if is_shared(unit):
        return shared_rows(snapshot, folder).queries
    return SqlExtract().rendered(folder, unit)


def differences(
    target: Connection, manifest: Manifest, folder: SqlFolder, leaving: Leaving | None = None,
    proven: Collection[str] = (),
) -> list[Difference]:  # fmt: skip
    """Read a unit in one snapshot, and compare the digests of all its blocks. None are left out.

    :param proven: tables that were compared already, see :mod:`~clinic_backups.recovery.together`.
    :param leaving: what was not loaded, because it must not come back. Of such tables each row of the rest is compared.
    :raises ClinicBackupsError: the queries cannot be made, or an error may pass by itself, such as a lost connection.
    """
    found = list[Difference]()
    left = {name: content for name, content in manifest.tables.items() if name not in proven}
    if not left:
        return found
    with Snapshot(target) as snapshot:
        snapshot.rows(_PLANNING, None, "preparing the proof")
        queries = queries_of(snapshot, folder, manifest.clinic.id)
        for name, content in left.items():
            if name not in queries:
                problem = "the backed-up SQL folder has no query for it"
                found.append(Difference(name, 0, content.rows, problem))
                continue
            rest = leaving.rest.get(name) if leaving is not None else None
            try:
                if rest is not None:
                    with snapshot.savepoint():
                        there = _rows_of(snapshot, content, queries[name])
                    if there != rest:
                        found.append(Difference(name, there.rows, rest.rows))
                    continue
                with snapshot.savepoint():
                    blocks = blocks_of(snapshot, content.table, queries[name], content.blocks)
            except TransientError:
                raise  # it says nothing of the rows
            except ClinicBackupsError as error:
                found.append(Difference(name, 0, content.rows, error.message))
                continue
            if not blocks.equals(content.blocks):
                found.append(Difference(name, blocks.rows, content.rows))
    return found


def _rows_of(snapshot: Snapshot, content: TableContent, query: str) -> RowSet:
    """The rows of a table, whatever their blocks: where rows were left out, blocks are cut elsewhere."""
    found = RowSet()
    read_blocks(snapshot, content.table, query, content.blocks, lambda data, _: found.add(data))
    return found
