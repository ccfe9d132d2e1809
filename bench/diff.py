"""``clinic-backups diff``: a backup against the clinic now, and against two later backups, after 1,000 changes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing

import psycopg2

from bench.figures import BenchError, Figure, Run, Subject, measure
from bench.world import LargeClinic, World
from clinic_backups.archive.blocks import BlockList
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.row_changes import RowChanges
from clinic_backups.differences.compare import compare
from clinic_backups.differences.found import TableDifference
from clinic_backups.differences.sides import BackupSide, DatabaseSide
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.read_blocks import blocks_of
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store
from clinic_backups.tenant.tenant_db import Snapshot

GROUP = "what changed"
CHANGED = 1_000
BOTH = "one read of the backup and of the clinic"
ARCHIVES, FULL_ARCHIVES = "one read of the archives of a chain", "one read of two full archives"
CHANGE = """
    UPDATE public.citas_consulta SET notas = 'changed' WHERE id IN (
        SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n, count(*) OVER () AS c
                          FROM public.citas_consulta) AS v WHERE n % (c / {changed}) = 0 LIMIT {changed})"""


def figures(world: World) -> list[Figure]:
    """Measure in turn. Both sides are read in blocks for the references, as a backup reads them."""
    large = world.large_clinic(world.scale.rows)
    compared = Compared(world, large)
    subjects = [
        Subject(BOTH, compared.read_both, note="the archive opened and checked; the extracts read and cut into blocks"),
        Subject("diff of the backup and now", compared.with_now, (BOTH,)),
        Subject(
            ARCHIVES,
            lambda: compared.read_archives(compared.second),
            note="the full one and the incremental one that is built on it",
        ),
        Subject("diff of two backups of a chain", lambda: compared.of_backups(compared.second), (ARCHIVES,)),
        Subject(FULL_ARCHIVES, lambda: compared.read_archives(compared.third)),
        Subject("diff of two full backups", lambda: compared.of_backups(compared.third), (FULL_ARCHIVES,)),
    ]
    return measure(GROUP, subjects, world.scale.rounds, facts={"rows": compared.rows}, say=world.say)


class Compared:
    """A full backup, 1,000 changed rows, an incremental backup, and another full one."""

    def __init__(self, world: World, large: LargeClinic) -> None:
        self._world, self._large = world, large
        folder = world.folder / "diff_store"
        folder.mkdir()
        self._store = open_store(folder.as_uri(), None)
        self._archives = Archives(Stores.of(self._store), [world.identity])
        self._first = self._backed_up("full")
        with closing(psycopg2.connect(**large.superuser.libpq_parameters())) as db, db, db.cursor() as cursor:
            cursor.execute(CHANGE.format(changed=CHANGED))
            if cursor.rowcount != CHANGED:
                raise BenchError(f"{cursor.rowcount} rows were changed, and not {CHANGED}.")
        self.second, self.third = self._backed_up("incremental"), self._backed_up("full")
        self.rows = self._first.rows_total

    def _backed_up(self, kind: str) -> BackupRecord:
        settings = Settings(recipients=(self._world.recipient,), store_url=self._store.url)
        backup = ClinicBackup(
            settings=settings, clinic_db=self._large.reader, store=self._store, catalog=Catalog(self._large.catalog)
        )
        made = backup.run(BackupRequest(self._large.clinic, requested_by="bench", kind=kind))  # type: ignore[arg-type]
        if made.kind != kind:
            raise BenchError(f"The backup is {made.kind}, and not {kind}: {made.kind_reason}")
        return made

    def read_both(self) -> Run:
        """Without comparing anything."""
        began = time.perf_counter()
        self._archives.read_in(self._store, source_of(self._first))
        queries = self._large.queries()
        with Snapshot(self._large.reader) as snapshot:
            for name, table in snapshot.tables(sorted(queries)).items():
                blocks_of(snapshot, table, queries[name], BlockList())
        return Run(time.perf_counter() - began)

    def with_now(self) -> Run:
        """The changes since the full backup."""
        began = time.perf_counter()
        queries = self._large.queries()
        with Snapshot(self._large.reader) as snapshot:
            now = DatabaseSide(snapshot, queries, frozenset(), lambda name: None)
            found = compare(BackupSide.fetched(self._archives, source_of(self._first)), now)
        return self._checked(found, began)

    def read_archives(self, later: BackupRecord) -> Run:
        """Without comparing anything."""
        began = time.perf_counter()
        for record in (self._first, later):
            self._archives.read_in(self._store, source_of(record))
        return Run(time.perf_counter() - began)

    def of_backups(self, later: BackupRecord) -> Run:
        """The changes from the first full backup to a later one."""
        began = time.perf_counter()
        listed = RowChanges(Catalog(self._large.catalog).database).listed
        return self._checked(compare(*BackupSide.both(self._archives, self._first, later, listed)), began)

    def _checked(self, found: list[TableDifference], began: float) -> Run:
        seconds = time.perf_counter() - began
        counted = Counter({each.table: each.rows for each in found if each.rows})
        if counted != {"public.citas_consulta": CHANGED}:
            raise BenchError(f"Other rows differ than were changed: {counted}")
        return Run(seconds)
