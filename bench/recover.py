"""The whole service into an empty database: `clinic-backups recover` against `pg_restore -j` of the same rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import children
from bench.figures import Figure, Run, Subject, measure
from bench.world import LargeClinic, World
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.connect import open_store
from clinic_backups.tenant import people
from clinic_backups.tenant.extract import SqlFolder
from include.demo.database import dropping

GROUP = "the whole service into an empty database"
PG_RESTORE = "pg_restore -j of pg_dump -Fc"
CLINICS = 20
TARGET = "recovered"
PROVEN = ("checking the archives", "statistics", "proof")
"""The steps that pg_restore does not have."""


def figures(world: World) -> list[Figure]:
    """Measure both in turn, from the same database."""
    large = world.large_clinic(world.scale.rows // CLINICS, clinics=CLINICS)
    jobs = min(os.cpu_count() or 1, 8)
    recovered = Recovered(world, large, jobs)
    facts: dict[str, Any] = {"clinics": CLINICS, "jobs": jobs, "rows": recovered.rows}
    subjects = [
        Subject(
            PG_RESTORE, recovered.pg_restore, note="indexes and constraints too; no statistics, and nothing proven"
        ),
        Subject("clinic-backups recover", recovered.recover, (PG_RESTORE,), note="with statistics and proof"),
        Subject("- without checks, statistics and proof", recovered.without_proof, (PG_RESTORE,), note="the same runs"),
    ]
    return measure(GROUP, subjects, min(3, world.scale.rounds), facts=facts, say=world.say)


class Recovered:
    """One dump and one backup of each unit of the same database."""

    def __init__(self, world: World, large: LargeClinic, jobs: int) -> None:
        self._world, self._large, self._jobs = world, large, jobs
        self._dump, self._store = world.folder / "all.dump", world.folder / "recovery"
        self._key = world.folder / "recovery.key"
        self._key.write_text(str(world.identity))
        self._key.chmod(0o600)
        self._steps: dict[str, float] = {}
        uri = world.postgres.uri(large.superuser.schema)
        world.say("Dumping and backing up")
        subprocess.run(
            [find_tool("pg_dump", at_least=17).path, "-Fc", "-Z1", "-N", "clinic_backups", f"--file={self._dump}", uri],
            check=True,
        )
        self.rows = self._back_up()

    def pg_restore(self) -> Run:
        """With as many sessions."""
        self._make()
        command = [
            str(find_tool("pg_restore", at_least=17).path), f"--jobs={self._jobs}", "-d", TARGET, str(self._dump),
        ]  # fmt: skip
        login = self._large.superuser
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "PGHOST": login.host, "PGPORT": str(login.port),
            "PGUSER": login.login, "PGPASSWORD": login.password,
        }  # fmt: skip
        return children.pipe([command], input_="", environment=environment)

    def recover(self) -> Run:
        """The command, from the start of its process."""
        self._make()
        output = self._world.folder / "recovered.json"
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(Path(__file__).parent.parent / "plugins"),
            "AIRFLOW_CONN_NEW": self._world.postgres.uri(TARGET),
            "CLINIC_BACKUPS_STORE_URL": self._store.as_uri(),
            "CLINIC_BACKUPS_IDENTITY_FILE": str(self._key),
            "CLINIC_BACKUPS_SQL_DIR": os.environ.get("CLINIC_BACKUPS_SQL_DIR", ""),
        }
        command = [sys.executable, "-m", "clinic_backups.cli", "recover", "--target", "new", "--json"]
        run = children.pipe(
            [[*command, f"--jobs={self._jobs}"]], input_="",
            environment={name: value for name, value in environment.items() if value}, output=output,
        )  # fmt: skip
        self._steps = json.loads(output.read_text())["seconds"]
        told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self._steps.items())
        self._world.say(f"Steps: {told}")
        self._last = run.seconds
        return run

    def without_proof(self) -> Run:
        """The last run without the steps that pg_restore does not have."""
        return Run(self._last - sum(self._steps[name] for name in PROVEN))

    def _back_up(self) -> int:
        self._store.mkdir()
        store = open_store(self._store.as_uri(), None)
        settings = Settings(recipients=(self._world.recipient,), store_url=self._store.as_uri())
        catalog, rows, began = Catalog(self._large.catalog), 0, time.monotonic()
        clinics = people.clinics(self._large.reader, SqlFolder(settings.sql_dir)).every
        for clinic in (SHARED, *clinics):
            backup = ClinicBackup(settings=settings, clinic_db=self._large.reader, store=store, catalog=catalog)
            rows += backup.run(BackupRequest(clinic, requested_by="bench")).rows_total
        self._world.say(f"Backed up {rows:,} rows in {time.monotonic() - began:.1f} s")
        return rows

    def _make(self) -> None:
        with closing(self._world.postgres.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute(dropping(TARGET))
            cursor.execute(f"CREATE DATABASE {TARGET} TEMPLATE template0")
            cursor.execute("CHECKPOINT")
