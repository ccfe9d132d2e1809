"""A clinic comes back from what pgBackRest restored to a second: a base backup, WAL, and Debian's PostgreSQL 15.

This is the way of docs/point-in-time.md, command for command.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine

from clinic_backups.catalog import migrate
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.file import FileStore
from include.demo import database
from include.demo.postgres import SERVER_USER, THROWAWAY, EmbeddedPostgres
from tests.integration.test_point_in_time import ask, change, rows_of, wait_for
from tests.integration.test_restore_runner import Theatre
from tests.matrix import DEBIAN
from tests.missing import needs
from tests.postgres_fixtures import DemoDatabase, server_folder

PATIENTS = "public.usuarios_paciente"


@dataclass
class PgBackRest:
    """pgBackRest with a repository of its own, run by the server's user."""

    place: Path
    server: EmbeddedPostgres

    def configure(self) -> None:
        """Write its configuration, and let the server archive and answer on a socket."""
        for name in ("repo", "log", "lock", "spool", "socket"):
            (self.place / name).mkdir()
            shutil.chown(self.place / name, SERVER_USER)
        lines = [
            "[global]", f"repo1-path={self.place}/repo", f"log-path={self.place}/log", f"lock-path={self.place}/lock",
            f"spool-path={self.place}/spool", "start-fast=y", "log-level-file=off", "[demo]",
            f"pg1-path={self.server.data_dir}/cluster", f"pg1-port={self.server.port}",
            f"pg1-socket-path={self.place}/socket", "pg1-user=postgres",
        ]  # fmt: skip
        self.file.write_text("\n".join(lines) + "\n")
        push = f"pgbackrest --config={self.file} --stanza=demo archive-push %p"
        self.server.psql("postgres", f"ALTER SYSTEM SET unix_socket_directories = '{self.place}/socket'")
        self.server.psql("postgres", f"ALTER SYSTEM SET archive_command = '{push}'")
        self.server.stop()
        self.server.start()

    @property
    def file(self) -> Path:
        return self.place / "pgbackrest.conf"

    def run(self, *words: str) -> None:
        command = [*self.server._drop_root(), "env", f"PGPASSWORD={self.server.password}", "pgbackrest",
                   f"--config={self.file}", "--stanza=demo", *words]  # fmt: skip
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs("pgbackrest")
@pytest.mark.skipif(not (DEBIAN / "initdb").exists(), reason="Debian's PostgreSQL 15 is not there")
def test_a_clinic_comes_back_from_a_restored_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDED_POSTGRES_BIN", str(DEBIAN))
    settings = {**THROWAWAY, "wal_level": "replica", "max_wal_senders": "4", "archive_mode": "on"}
    with server_folder() as first, server_folder() as beside, EmbeddedPostgres(first, settings=settings) as server:
        database.load(server, "demo", clinics=3, patients=10)
        present = DemoDatabase(server, "demo", database.create_roles(server, "demo"))
        with create_engine(present.catalog_uri, poolclass=NullPool).begin() as db:
            migrate.upgrade(db)
        tool = PgBackRest(beside.parent, server)
        tool.configure()
        tool.run("stanza-create")
        tool.run("backup", "--type=full")

        change(present, f"UPDATE {PATIENTS} SET telefono = '+59170000000' WHERE clinica_id = 1")
        time.sleep(1.1)
        second = ask(present, "SELECT clock_timestamp()")
        then = rows_of(present, 1)
        time.sleep(0.2)
        change(present, f"UPDATE {PATIENTS} SET telefono = '', notas = 'x'")
        seen = ask(present, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        change(present, "SELECT pg_switch_wal()")
        wait_for(lambda: ask(present, f"SELECT last_archived_wal >= '{seen}' FROM pg_stat_archiver"), 60)
        others = [rows_of(present, clinic_id) for clinic_id in (2, 3)]

        beside.mkdir()
        (beside / "cluster").mkdir(mode=0o700)
        shutil.chown(beside / "cluster", SERVER_USER)
        shutil.copy(first / "password", beside / "password")
        target = second.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        tool.run(
            "restore", f"--pg1-path={beside}/cluster", "--type=time", f"--target={target}", "--target-action=promote"
        )
        with EmbeddedPostgres(beside, settings={**settings, "archive_mode": "off"}) as recovered:
            copy = replace(present, postgres=recovered)
            wait_for(lambda: not ask(copy, "SELECT pg_is_in_recovery()"))
            theatre = Theatre(present, FileStore(tmp_path / "store"))
            theatre.now = datetime.now(UTC)
            theatre.earlier = {"pitr_db": copy.reader_uri}
            record = theatre.go(RestoreRequest(clinic_id=1, from_connection="pitr_db", as_of=second))
            assert rows_of(present, 1) == then
            assert [rows_of(present, clinic_id) for clinic_id in (2, 3)] == others
            assert theatre.catalog.require(record.backup_id).data_time <= second
        present.session.close()
