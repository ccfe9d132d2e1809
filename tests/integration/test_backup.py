"""The promises of a backup, on a real database and real stores: one moment, complete or absent, one at a time."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError
from clinic_backups.base.settings import Settings
from clinic_backups.base.throttle import Throttle
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores import envelopes
from clinic_backups.stores.file import FileStore
from tests.conftest import BUCKET, MakeStore
from tests.missing import needs
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig, once
from tests.servers import CHECKOUT, HOST, Server

PATIENTS = "public.usuarios_paciente"
STOCK = "public.inventario_inventario"


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


def assert_absent(rig: Rig, record: BackupRecord | None, error: BaseException) -> None:
    """The record says why it failed; nothing in the store looks like a backup."""
    assert rig.objects() == []
    assert record is not None
    assert record.state == "failed"
    assert isinstance(error, ClinicBackupsError)
    assert (record.error, record.hint) == (error.message, error.hint)
    assert record.finished_at is not None


def only_record(rig: Rig) -> BackupRecord:
    (record,) = rig.catalog.find()
    return record


class TestComplete:
    def test_on_every_store_the_archive_holds_the_clinics_rows(
        self, demo_database: DemoDatabase, make_store: MakeStore
    ) -> None:
        rig = Rig(demo_database, make_store(f"backups-{uuid4().hex}", part_size_bytes=5 * 1024 * 1024))
        expected = rig.rows_now(3)
        record = rig.run(3, run_id="run-1")
        opened = rig.open(record)
        assert opened.tables == expected
        assert len(expected) > 12
        assert record == rig.catalog.get(record.backup_id)
        assert record.rows == {table["name"]: table["rows"] for table in opened.manifest["tables"]}
        assert record.raw_bytes == sum(map(len, expected.values()))
        assert (record.state, record.requested_by, record.run_id) == ("completed", "prueba", "run-1")
        stored = rig.store.stat(record.archive_key)
        assert stored.size_bytes == record.size_bytes
        assert stored.md5 in (None, record.md5)
        assert rig.objects() == sorted([record.archive_key, envelope_key_of(record.archive_key)])
        envelope = envelopes.load(record.archive_key, rig.store, now=rig.catalog.clock())
        assert envelope is not None
        assert record.completed(envelope, rig.store.url) == record
        assert record.expires_at == envelope.finished_at + timedelta(days=30)

    def test_equal_rows_have_equal_fingerprints_and_one_changed_row_another(self, rig: Rig) -> None:
        clock = (datetime(2026, 11, 24, 6, tzinfo=UTC) + timedelta(seconds=second) for second in itertools.count())
        first, second = (rig.run(1, now=lambda: next(clock)) for _ in range(2))
        rig.execute(f"UPDATE {STOCK} SET cantidad = cantidad + 1 WHERE id = (SELECT min(id) FROM {STOCK})")
        third = rig.run(1, now=lambda: next(clock))
        assert first.fingerprint == second.fingerprint != third.fingerprint
        assert first.backup_id != second.backup_id
        kept = rig.open(first).tables
        assert kept == rig.open(second).tables
        changed = rig.open(third).tables
        assert [name for name in kept if kept[name] != changed[name]] == [STOCK]

    def test_nothing_of_a_patient_outside_of_the_archive(self, rig: Rig) -> None:
        secret = f"Zacarías {uuid4().hex}"
        rig.execute(f"UPDATE {PATIENTS} SET nombres = '{secret}', notas = '{secret}'")
        record = rig.run(1)
        assert secret.encode() in rig.open(record).tables[PATIENTS]
        root = Path(rig.store.url.removeprefix("file://"))
        for path in root.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
        assert secret not in json.dumps(record.to_json())

    @needs("age", "zstd", "tar")
    def test_age_zstd_tar_and_psql_bring_the_rows_back(self, rig: Rig, tmp_path: Path) -> None:
        record = rig.run(2)
        archive = tmp_path / "store" / record.archive_key
        (tmp_path / "identity").write_text(rig.identity)
        subprocess.run(
            f"age -d -i identity '{archive}' | zstd -dq | tar x", cwd=tmp_path, shell=True, check=True,
            executable="/bin/bash",
        )  # fmt: skip
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        script = tmp_path / "load.sql"
        for table in manifest["tables"]:
            name = table["name"]
            columns = ", ".join(f'"{column["name"]}"' for column in table["columns"] if column["generated"] is None)
            segments = sorted((tmp_path / "tables" / name).glob("*.csv"))
            assert b"".join(segment.read_bytes() for segment in segments) == rig.rows_now(2).get(name, b"")
            loads = "".join(f"\\copy copia ({columns}) FROM '{segment}' (FORMAT csv)\n" for segment in segments)
            script.write_text(
                f"BEGIN;\nCREATE TEMP TABLE copia (LIKE {name});\n{loads}"
                f"SELECT 1 / (count(*) = {table['rows']})::int FROM copia;\n"
                f"SELECT 1 / (count(*) = 0)::int FROM (SELECT {columns} FROM copia EXCEPT SELECT {columns} FROM {name})"
                " AS d;\nROLLBACK;\n"
            )
            rig.database.postgres.psql(rig.database.name, script, {})


class TestOneMoment:
    def test_what_others_change_meanwhile_is_in_all_tables_or_none(self, rig: Rig) -> None:
        before = rig.rows_now(1)

        def change() -> None:
            rig.execute(
                "SET CONSTRAINTS ALL DEFERRED",
                "DELETE FROM public.sistema_pagos_pagoenlinea",
                "DELETE FROM public.sistema_pagos_pago",
                "UPDATE public.usuarios_usuario SET last_name = 'Otro'",
                f"DELETE FROM {STOCK}",
                f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, clinica_id)"
                " VALUES ('N1', 'nuevo', 1, 1, 1)",
                "INSERT INTO public.citas_horario SELECT odontologo_id, 7, hora_inicio, hora_fin, sala"
                " FROM public.citas_horario WHERE dia_semana = 1",
            )

        # The second table: the first one was read before the change, the others come after it.
        record = rig.run(1, on_progress=once(lambda progress: progress.table_number == 2, change))
        assert rig.open(record).tables == before
        assert rig.rows_now(1) != before


class TestOneAtATime:
    def test_a_second_backup_of_the_clinic_says_so_and_another_clinics_goes_on(self, rig: Rig) -> None:
        seen: list[object] = []

        def meanwhile() -> None:
            other = Catalog(rig.catalog._connection)
            with pytest.raises(AlreadyRunning, match="Clinic 1 is already being backed up") as caught:
                rig.run(1, catalog=other)
            seen.extend([caught.value, rig.run(2, catalog=other)])

        record = rig.run(1, on_progress=once(lambda progress: progress.table_number == 3, meanwhile))
        assert len(seen) == 2
        assert [found.clinic_id for found in rig.catalog.find()] == [2, 1]
        assert record.state == "completed"

    def test_a_lost_lock_keeps_the_backup_from_being_committed(self, rig: Rig) -> None:
        def cut() -> None:
            rig.execute(
                "SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks AS l WHERE l.locktype = 'advisory'"
                " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

        with pytest.raises(TransientError, match="lock in the catalog was lost") as caught:
            rig.run(1, on_progress=once(lambda progress: progress.table_number == 3, cut))
        assert_absent(rig, only_record(rig), caught.value)


class TestAbsent:
    def test_a_connection_that_is_cut_in_mid_copy(self, rig: Rig) -> None:
        rig.fill(200_000)

        def cut() -> None:
            rig.execute(
                "SELECT 1 / count(*) FROM (SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE query LIKE '%; COPY' || ' (SELECT%' AND state = 'active' AND datname = current_database())"
                " AS cut"
            )

        with pytest.raises(TransientError, match=f"reading {STOCK}") as caught:
            rig.run(
                1, on_progress=once(lambda progress: progress.table == STOCK and progress.raw_bytes > 3_000_000, cut)
            )
        assert_absent(rig, only_record(rig), caught.value)

    def test_a_table_that_cannot_be_read(self, rig: Rig) -> None:
        rig.execute(f"REVOKE SELECT ON public.citas_consulta FROM {rig.database.roles.reader}")
        with pytest.raises(PermanentError, match=r"may not read public\.citas_consulta") as caught:
            rig.run(1)
        assert_absent(rig, only_record(rig), caught.value)

    def test_a_clinic_that_was_removed(self, rig: Rig) -> None:
        with pytest.raises(PermanentError, match=r"Clinic 77 has 0 rows in public\.comun_clinica") as caught:
            rig.run(77)
        assert_absent(rig, only_record(rig), caught.value)

    def test_a_disk_that_fills_up(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        import resource

        rig.fill(100_000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(ClinicBackupsError) as caught:
                rig.run(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert_absent(rig, only_record(rig), caught.value)

    def test_a_task_that_is_told_to_stop(self, rig: Rig) -> None:
        rig.fill(100_000)
        backup = rig.backup(
            on_progress=once(
                lambda progress: progress.raw_bytes > 2_000_000,
                lambda: backup.stop(TransientError("Airflow stopped the task.", hint="Clear it.")),
            )
        )
        with pytest.raises(TransientError, match="Airflow stopped the task") as caught:
            backup.run(rig.request())
        assert_absent(rig, only_record(rig), caught.value)

    @pytest.mark.parametrize("fault", ["500", "hang"])
    def test_a_store_that_fails_in_the_middle(
        self, demo_database: DemoDatabase, s3_connection: Any, s3_server: Server, fault: str
    ) -> None:
        from clinic_backups.base.connections import Connection
        from clinic_backups.stores.s3 import S3Store
        from tests.store_clients import make_client

        with faulty(s3_server, fault) as url:
            connection = Connection(
                "backup_store", "aws", login=s3_server.login, password=s3_server.password,
                extra={"endpoint_url": url, "config_kwargs": {"read_timeout": 1, "retries": {"total_max_attempts": 2}}},
            )  # fmt: skip
            prefix = f"broken-{uuid4().hex}"
            rig = Rig(demo_database, S3Store(make_client(connection), BUCKET, prefix, part_size_bytes=5 * 1024 * 1024))
            fill_with_noise(rig)
            with pytest.raises(TransientError) as caught:
                rig.run(1)
        healthy = S3Store(make_client(s3_connection), BUCKET, prefix)
        rig.store = healthy
        assert_absent(rig, only_record(rig), caught.value)

    @pytest.mark.parametrize("recipients", [(), ("age1nonsense",), (generate_identity()[0],)])
    def test_without_a_usable_recipient_nothing_is_touched(self, rig: Rig, recipients: tuple[str, ...]) -> None:
        rig.settings = Settings(recipients=recipients)
        with pytest.raises(SettingsError) as caught:
            rig.run(1)
        assert "keygen" in caught.value.hint
        assert "SECRET-KEY-1" not in str(caught.value)
        assert (rig.objects(), rig.catalog.find()) == ([], [])


class TestRetry:
    def test_continues_the_same_record(self, rig: Rig) -> None:
        rig.execute(f"REVOKE SELECT ON {PATIENTS} FROM {rig.database.roles.reader}")
        with pytest.raises(PermanentError):
            rig.run(1, run_id="run-1")
        failed = only_record(rig)
        rig.execute(f"GRANT SELECT ON {PATIENTS} TO {rig.database.roles.reader}")
        completed = rig.run(1, run_id="run-1")
        assert only_record(rig) == completed
        assert (completed.backup_id, completed.attempt, completed.state) == (failed.backup_id, 2, "completed")
        assert (completed.error, completed.hint) == (None, None)
        assert completed.started_at > failed.started_at
        # A cleared task of a run that was complete makes another backup.
        assert rig.run(1, run_id="run-1").backup_id != completed.backup_id

    def test_after_the_envelope_only_finishes_the_record(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        down = TransientError("the catalog is down")

        def fail(*args: Any, **options: Any) -> None:
            raise down

        with monkeypatch.context() as patch, pytest.raises(TransientError) as caught:
            patch.setattr(Catalog, "finish", fail)
            rig.run(1, run_id="run-1")
        assert caught.value is down
        assert "is stored" in down.__notes__[0]
        assert only_record(rig).state == "running"
        archive, _envelope = rig.objects()
        written = rig.store.stat(archive).last_modified
        completed = rig.run(1, run_id="run-1")
        assert completed.state == "completed"
        assert rig.store.stat(archive).last_modified == written
        assert only_record(rig) == completed
        assert rig.open(completed).tables == rig.rows_now(1)

    def test_an_envelope_without_its_archive_completes_nothing(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(Catalog, "finish", lambda *arguments, **options: 1 / 0)
            rig.run(1, run_id="run-1")
        archive, _envelope = rig.objects()
        rig.store.delete(archive)
        completed = rig.run(1, run_id="run-1")
        assert (completed.state, completed.attempt) == ("completed", 2)
        assert rig.open(completed).tables == rig.rows_now(1)

    @pytest.mark.parametrize("state", ["lost", "deleting", "deleted"])
    def test_a_cleared_task_whose_backup_is_gone_by_now_makes_another_one(self, rig: Rig, state: str) -> None:
        first = rig.run(1, run_id="run-1", now=lambda: datetime(2026, 11, 24, 6, tzinfo=UTC))
        rig.store.delete(first.archive_key)
        deleted_at = "now()" if state == "deleted" else "NULL"
        rig.execute(f"UPDATE clinic_backups.backup SET state = '{state}', deleted_at = {deleted_at}")
        second = rig.run(1, run_id="run-1")
        assert second.backup_id != first.backup_id
        assert second.state == "completed"
        gone = rig.catalog.get(first.backup_id)
        assert gone is not None
        assert gone.state == state
        assert rig.open(second).tables == rig.rows_now(1)

    def test_an_archive_without_envelope_is_made_again(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        def die(*args: Any, **options: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        pid = os.fork()
        if pid == 0:
            envelopes.write = die  # type: ignore[assignment]
            rig.catalog = Catalog(rig.catalog._connection)
            rig.run(1, run_id="run-1")
            os._exit(1)
        os.waitpid(pid, 0)
        assert len(rig.objects()) == 1
        assert only_record(rig).state == "running"
        completed = rig.run(1, run_id="run-1")
        assert completed.attempt == 2
        assert rig.open(completed).tables == rig.rows_now(1)

    @pytest.mark.parametrize("content", [b'{"backup_id": "7-other"}', b"", b"[" * 100_000])
    def test_a_strange_envelope_is_not_believed_and_stops_nothing(self, rig: Rig, content: bytes) -> None:
        first = rig.run(1, run_id="run-1")
        rig.execute(
            "UPDATE clinic_backups.backup SET state = 'running', finished_at = NULL",
            "DELETE FROM clinic_backups.backup_blocks",
        )
        rig.store.delete(envelope_key_of(first.archive_key))
        rig.store.put(envelope_key_of(first.archive_key), io.BytesIO(content))
        again = rig.run(1, run_id="run-1")
        assert (again.backup_id, again.attempt) == (first.backup_id, 2)
        assert rig.objects() == sorted([again.archive_key, envelope_key_of(again.archive_key)])
        assert rig.open(again).tables == rig.rows_now(1)


class TestKilled:
    def kill_on_the_way(self, rig: Rig, folder: Path) -> None:
        """Kill a process that backs up clinic 1 once a part of the archive is in the store."""
        rig.initialise()
        process = subprocess.Popen(
            [sys.executable, "-m", "clinic_backups.cli", "backup", "--clinic", "1"],
            env=os.environ
            | {
                "AIRFLOW_CONN_CLINIC_DB": rig.database.reader_uri,
                "AIRFLOW_CONN_BACKUP_CATALOG": rig.database.catalog_uri,
                "CLINIC_BACKUPS_STORE_URL": rig.store.url,
                "CLINIC_BACKUPS_SQL_DIR": str(rig.settings.sql_dir),
                "CLINIC_BACKUPS_RECIPIENTS": rig.settings.recipients[0],
                "PYTHONPATH": str(CHECKOUT / "plugins"),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 500_000 for path in folder.rglob("*.part")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()

    def test_a_killed_process_leaves_a_record_that_the_next_backup_closes(self, rig: Rig, tmp_path: Path) -> None:
        fill_with_noise(rig)
        # The last table that is read: the backup waits there for its death, with the rest on its way already.
        with rig.gate(tmp_path / "sql", "public.usuarios_usuario_groups"):
            self.kill_on_the_way(rig, tmp_path / "store" / "backups")
        dead = only_record(rig)
        assert (dead.state, rig.objects()) == ("running", [])
        deadline = time.monotonic() + 20  # the server notices that the process is gone, and with it its lock
        while True:
            try:
                completed = rig.run(1)
                break
            except AlreadyRunning:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert completed.state == "completed"
        closed = rig.catalog.get(dead.backup_id)
        assert closed is not None
        assert closed.state == "failed"
        assert "ended without a result" in (closed.error or "")


def test_an_envelope_survives_its_own_json() -> None:
    from clinic_backups.base.backup_facts import ArchiveInfo

    moment = datetime(2026, 11, 24, 6, 0, 1, 234567, tzinfo=UTC)
    envelope = Envelope(
        backup_id="7-x", clinic_id=7, clinic_name='Clínica "Ñ" 🦷', kind="full", trigger="manual", parent_id=None,
        started_at=moment, finished_at=moment, expires_at=moment, archive=ArchiveInfo("k", 1, "a", "b"),
        rows={"public.t": 3}, raw_bytes=99, recipients=("age1x",), fingerprint="f", requested_by="yo", notes="una nota",
    )  # fmt: skip
    assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope


def fill_with_noise(rig: Rig) -> None:
    """Rows that do not compress, so that an upload has several parts."""
    rig.execute(
        f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, etiquetas, clinica_id)"
        " SELECT 'R' || n, 'ruido', 1, 1, ARRAY(SELECT md5(n || '-' || k) FROM generate_series(1, 40) AS k), 1"
        " FROM generate_series(1, 16000) AS n"
    )


class faulty:
    """A way to a server that, after 6 MB, answers 500 or nothing at all to whatever comes. Yields its address."""

    def __init__(self, server: Server, fault: str) -> None:
        self._target = int(server.url.rpartition(":")[2])
        self._fault, self._budget = fault, 6_000_000
        self._listener = socket.create_server((HOST, 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def _serve(self) -> Iterator[None] | None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return None
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection((HOST, self._target)) as upstream:
            threading.Thread(target=self._back, args=(upstream, client), daemon=True).start()
            while True:
                try:
                    data = client.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                self._budget -= len(data)
                if self._budget > 0:
                    upstream.sendall(data)
                elif self._fault == "500":
                    client.sendall(
                        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    return

    def _back(self, upstream: socket.socket, client: socket.socket) -> None:
        try:
            while data := upstream.recv(65536):
                client.sendall(data)
        except OSError:
            pass


def test_a_row_that_needs_too_much_memory_is_refused_by_its_table(rig: Rig) -> None:
    rig.execute(f"""
        UPDATE public.inventario_inventario SET nombre = nombre WHERE false;
        ALTER TABLE public.inventario_inventario ADD COLUMN foto bytea;
        UPDATE public.inventario_inventario SET foto = decode(repeat('00ff', {1024**2 // 2}), 'hex')
         WHERE id = (SELECT max(id) FROM public.inventario_inventario WHERE clinica_id = 1)""")
    rig.settings = rig.settings.model_copy(update={"max_row_mib": 1})
    with pytest.raises(
        PermanentError, match=r"A row of public\.inventario_inventario has 2,\d{3},\d{3} bytes"
    ) as caught:
        rig.run()
    assert "CLINIC_BACKUPS_MAX_ROW_MIB" in caught.value.hint
    assert "ff00" not in str(caught.value)
    assert (rig.objects(), [record.state for record in rig.catalog.find()]) == ([], ["failed"])
    rig.settings = rig.settings.model_copy(update={"max_row_mib": 3})
    assert rig.open(rig.run()).tables == rig.rows_now()


def test_a_throttled_backup_waits_as_long_as_its_rows_should_take_and_can_be_stopped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    rig.settings = rig.settings.model_copy(update={"throttle_mb_s": 0.01})
    real = Throttle.__init__
    clock = Ticks(slept)
    monkeypatch.setattr(Throttle, "__init__", functools.partialmethod(real, sleep=slept.append, now=clock))
    record = rig.run(1)
    assert record.raw_bytes
    assert sum(slept) == pytest.approx(record.raw_bytes / 10_000)
    assert rig.rows_now(1) == rig.open(record).tables
    slept.clear()
    backup = rig.backup()

    def stop(seconds: float) -> None:
        slept.append(seconds)
        backup.stop(TransientError("Somebody stopped it.", hint="x"))

    monkeypatch.setattr(Throttle, "__init__", functools.partialmethod(real, sleep=stop, now=clock))
    with pytest.raises(TransientError, match="Somebody stopped it"):
        backup.run(rig.request(1))
    assert len(slept) == 1


class Ticks:
    """A clock that only sleeping moves."""

    def __init__(self, slept: list[float]) -> None:
        self._slept = slept

    def __call__(self) -> float:
        return sum(self._slept)


def test_a_lock_that_somebody_else_holds_is_no_backup_and_is_said_so(rig: Rig) -> None:
    rig.execute(
        "CREATE ROLE forastero LOGIN PASSWORD 'x'", f"GRANT CONNECT ON DATABASE {rig.database.name} TO forastero"
    )
    try:
        with closing(rig.database.connect(user="forastero", password="x")) as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended('clinic_backups:clinic:1', 0))")
            with pytest.raises(
                AlreadyRunning, match="of the role forastero, which is not the catalog's role"
            ) as caught:
                rig.run(1)
            assert f"end session {other.info.backend_pid}" in caught.value.hint
            rig.run(2)
        assert rig.run(1).state == "completed"
    finally:
        rig.execute("DROP OWNED BY forastero", "DROP ROLE forastero")
