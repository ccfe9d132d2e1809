"""``clinic-backups restore --from-connection``: reading a clinic from a copy of the database, and the plan with it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import psycopg2
from psycopg2 import sql

from bench.figures import BenchError, Figure, Run, Subject, measure
from bench.large_clinic import COPY, ByHand
from bench.restore import DAMAGE, DAMAGED_ROWS
from bench.world import LargeClinic, World
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.connections import Connection
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.point_in_time import PointInTime
from clinic_backups.restore.request import RestoreRequest, Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store
from clinic_backups.tenant.data_time import AskTime

GROUP = "one clinic from a copy of the database"
READ = "reading it into a backup"


def figures(world: World) -> list[Figure]:
    """Measure in turn. The copy is another database of the same server, with the rows of before the damage."""
    large = world.large_clinic(world.scale.rows)
    copied = Copied(world, large)
    subjects = [
        Subject(COPY, ByHand(world, large).copy_to_null, note="all of the clinic's rows read; by psql"),
        Subject(READ, copied.take, (COPY,), note="what --from-connection adds to a plan"),
        Subject(f"plan of {DAMAGED_ROWS:,} damaged rows", copied.plan, (COPY,), note="with that backup"),
    ]
    return measure(GROUP, subjects, min(3, world.scale.rounds), facts={"rows": large.rows}, say=world.say)


class Copied:
    """A copy of the clinic's database, and damage in the original."""

    def __init__(self, world: World, large: LargeClinic) -> None:
        self._large = large
        self._record: BackupRecord | None = None
        name, copy = large.reader.schema, f"{large.reader.schema}_copy"
        folder = world.folder / "point_store"
        folder.mkdir()
        self._store = open_store(folder.as_uri(), None)
        self._settings = Settings(recipients=(world.recipient,), store_url=self._store.url)
        self._archives = Archives(Stores.of(self._store), [world.identity])
        made = [
            # The template of a database may have no sessions, not even idle ones of the catalog.
            sql.SQL("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(name)
            ),
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name)),
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                sql.Identifier(copy), sql.Identifier(large.reader.login)
            ),
        ]
        with closing(world.postgres.connect("postgres")) as db, db.cursor() as cursor:
            db.autocommit = True
            for statement in made:
                cursor.execute(statement)
        self._copy = replace(large.reader, conn_id="pitr_db", schema=copy)
        with closing(psycopg2.connect(**large.superuser.libpq_parameters())) as db, db, db.cursor() as cursor:
            for damage in DAMAGE:
                cursor.execute(damage)

    def take(self) -> Run:
        """Back up the clinic from the copy."""

        def backup(connection: Connection, ask_time: AskTime) -> ClinicBackup:
            return ClinicBackup(
                settings=self._settings, clinic_db=connection, store=self._store,
                catalog=Catalog(self._large.catalog), ask_time=ask_time,
            )  # fmt: skip

        catalog = Catalog(self._large.catalog)
        point = PointInTime(
            settings=self._settings, backup=backup, connection_of=lambda name: self._copy,
            productive=[self._large.superuser, self._large.reader],
        )  # fmt: skip
        request = RestoreRequest(clinic_id=self._large.clinic.id, from_connection="pitr_db", as_of=catalog.clock())
        time.sleep(1)
        began = time.perf_counter()
        self._record = point.take(request)
        return Run(time.perf_counter() - began)

    def plan(self) -> Run:
        """Plan the restore from what was read last."""
        record = self._record
        if record is None:
            raise BenchError("Nothing was read yet.")
        restore = ClinicRestore(
            settings=self._settings, restore_db=self._large.superuser, archives=self._archives
        )  # fmt: skip
        began = time.perf_counter()
        made = restore.plan(source_of(record), Wish(other_database=True))
        seconds = time.perf_counter() - began
        if made.writes != DAMAGED_ROWS or made.refusals:
            raise BenchError(f"The plan would write {made.writes} rows, damaged are {DAMAGED_ROWS}. {made.refusals}")
        return Run(seconds)
