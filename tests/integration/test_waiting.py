"""Every wait has an end, and a signal ends every command.

The tests use a database that is alive and silent, a proxy that forwards nothing, and a silent store.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.errors import TransientError
from clinic_backups.base.silence import Limits, Silent
from clinic_backups.catalog import locks
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.request import RestoreRequest, Wish
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.s3 import S3Store
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.postgres import HOST
from tests.integration.test_restore_runner import Theatre
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig
from tests.silent_proxy import SilentProxy

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "silence_seconds", 0.4)
    monkeypatch.setattr("clinic_backups.base.silence.ASK_SECONDS", 2)
    monkeypatch.setattr("clinic_backups.base.database.ASK_SECONDS", 2)


def patiently() -> None:
    """What follows is no silence, however slow the machine is."""
    Limits.silence_seconds = 60


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


def through(proxy: SilentProxy, database: DemoDatabase, uri: str) -> str:
    return uri.replace(f"{HOST}:{database.postgres.port}", f"{HOST}:{proxy.port}")


@contextmanager
def proxied(database: DemoDatabase, **options: Any) -> Iterator[SilentProxy]:
    with SilentProxy(HOST, database.postgres.port, **options) as proxy:
        yield proxy


def backends(rig: Rig) -> list[str]:
    """The states of what our roles still do in the database."""
    rows = rig.execute_rows(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'clinic_backups_%'"
    )
    return [state for (state,) in rows if state != "idle"]


@pytest.mark.parametrize("accepts", [True, False], ids=["new connections work", "nothing works"])
def test_a_silence_in_mid_copy_ends_the_backup_and_its_locks(rig: Rig, accepts: bool) -> None:
    rig.fill(20_000)
    with proxied(rig.database, after_bytes=1_000_000, accepts=accepts) as proxy:
        rig.clinic_db = connections.parse("clinic_db", through(proxy, rig.database, rig.database.reader_uri))
        with pytest.raises(TransientError, match=r"was silent for .* while reading public") as caught:
            rig.run(1)
        assert "retry" in caught.value.hint
        (record,) = rig.catalog.find()
        assert record.state == "failed"
        assert "silent" in (record.error or "")
        assert rig.objects() == []
        with rig.catalog.lock(1):
            pass
        if accepts:
            assert backends(rig) == []  # nobody waits for it any more, and so it holds no table
    patiently()
    rig.clinic_db = connections.parse("clinic_db", rig.database.reader_uri)
    assert rig.run(1).state == "completed"


@pytest.mark.parametrize(
    "words", [b"SELECT pg_try_advisory", b"INSERT INTO clinic_backups.backup ", b"UPDATE clinic_b"]
)
def test_a_catalog_that_falls_silent_ends_the_backup(rig: Rig, words: bytes) -> None:
    with proxied(rig.database, until=words) as proxy:
        uri = through(proxy, rig.database, rig.database.catalog_uri)
        rig.catalog = Catalog(connections.parse("backup_catalog", uri))
        with pytest.raises(TransientError, match="silent"):
            rig.run(1)
    patiently()
    rig.catalog = Catalog(connections.parse("backup_catalog", rig.database.catalog_uri))
    assert rig.run(1).state == "completed"


@pytest.mark.parametrize("kind", ["transaction", "short_transaction"])
def test_after_an_unanswered_commit_it_is_said_that_nobody_knows(rig: Rig, kind: str) -> None:
    with proxied(rig.database, until=b"COMMIT\0") as proxy:
        uri = through(proxy, rig.database, rig.database.catalog_uri)
        database = Catalog(connections.parse("backup_catalog", uri)).database
        with (
            pytest.raises(TransientError, match="Nobody knows whether the transaction was committed"),
            getattr(database, kind)("writing") as db,
        ):
            db.exec_driver_sql("SELECT 1")


def test_a_restore_whose_commit_is_not_answered_is_settled_by_asking(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.back_up()
    good = theatre.rows_now(1)
    theatre.execute("DELETE FROM public.inventario_inventario WHERE clinica_id = 1")
    damaged = theatre.rows_now(1)
    with proxied(demo_database) as proxy:
        restore = theatre.restore()
        restore.database = connections.parse("restore_db", through(proxy, demo_database, demo_database.restorer_uri))
        source = source_of(theatre.catalog.find(state="completed")[0])
        plan = restore.plan(source, Wish())
        proxy._until = b"COMMIT\0"
        with pytest.raises(TransientError, match="Nobody knows whether the transaction was committed") as caught:
            restore.apply(source, Wish(), approved=plan.digest)
        assert "if it has nothing to write, the restore was committed" in caught.value.hint
    patiently()
    assert theatre.rows_now(1) in (good, damaged)
    assert theatre.go(RestoreRequest(clinic_id=1)).state == "completed"
    assert theatre.rows_now(1) == good


def test_a_statement_that_the_server_works_at_goes_on(rig: Rig) -> None:
    with Snapshot(rig.clinic_db) as snapshot:
        assert snapshot.rows("SELECT 1 FROM pg_sleep(1.5)", None, "sleeping") == [(1,)]


def test_a_statement_that_ends_while_the_server_is_asked_is_no_silence(rig: Rig) -> None:
    with closing(connect(rig.clinic_db)) as db, db.cursor() as cursor:
        reopen = db.reopen

        def slowly() -> Any:
            time.sleep(0.4)
            return reopen()

        db.reopen = slowly
        cursor.execute("SELECT pg_sleep(0.6)")
        time.sleep(0.5)
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_the_silence_is_the_error_and_not_that_the_connection_is_gone_then(rig: Rig) -> None:
    with proxied(rig.database, until=b"0 = 0") as proxy:
        uri = through(proxy, rig.database, rig.database.reader_uri)
        with Snapshot(connections.parse("clinic_db", uri)) as snapshot, pytest.raises(TransientError, match="silent"):
            snapshot.rows_within(5, "SELECT 1 WHERE 0 = 0", "counting")
        uri = through(proxy, rig.database, rig.database.restorer_uri)
        silent = pytest.raises(TransientError, match="silent")
        with Workspace(connections.parse("restore_db", uri)) as work, silent, work.attempt():
            work.execute("SELECT 1 WHERE 0 = 0", "writing")


def test_a_server_that_waits_for_a_lock_works(rig: Rig) -> None:
    with closing(rig.database.connect()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(77)")
        threading.Timer(1.5, lambda: cursor.execute("SELECT pg_advisory_unlock(77)")).start()
        with Snapshot(rig.clinic_db, lock_timeout_seconds=30) as snapshot:
            assert snapshot.rows("SELECT pg_advisory_xact_lock(77) IS NOT NULL", None, "waiting") == [(True,)]


def test_a_process_of_the_server_that_is_stopped_is_given_up_at_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks busy to everybody who asks."""
    monkeypatch.setattr(Limits, "longest_seconds", 1.2)
    with closing(connect(rig.clinic_db)) as db, db.cursor() as cursor:
        pid = db.info.backend_pid
        threading.Timer(0.3, lambda: os.kill(pid, signal.SIGSTOP)).start()
        try:
            with pytest.raises(Silent):
                cursor.execute("SELECT count(*) FROM generate_series(1, 200000000)")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_slow_store_is_not_the_databases_silence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(30_000)

    def slowly(key: str, source: Any, **options: Any) -> Any:
        time.sleep(0.5)
        time.sleep(0.5)
        time.sleep(0.5)
        return FileStore.put(rig.store, key, source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.store, "put", slowly)
    assert rig.run(1).state == "completed"


def test_the_lock_of_somebody_who_is_gone_ends_and_that_of_somebody_who_is_there_does_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "IDLE_SECONDS", 1)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.2)
    with rig.catalog.lock(1) as lock:
        for _ in range(4):
            time.sleep(0.4)
        lock.require()
    with proxied(rig.database) as proxy:
        uri = through(proxy, rig.database, rig.database.catalog_uri)
        with Catalog(connections.parse("backup_catalog", uri)).lock(1) as lock:
            proxy.fall_silent()
            for _ in range(5):
                time.sleep(0.4)
            with pytest.raises(TransientError, match="was lost"):
                lock.require()
            with rig.catalog.lock(1):
                pass


def test_a_new_connection_that_is_never_answered(rig: Rig) -> None:
    with closing(socket.create_server((HOST, 0))) as listener:
        connection = Connection("clinic_db", "postgres", host=HOST, port=listener.getsockname()[1], login="x",
                                extra={"connect_timeout": 2})  # fmt: skip
        with pytest.raises(TransientError, match="timeout expired"):
            connect(connection)


def test_a_store_that_accepts_and_says_nothing() -> None:
    import boto3
    from botocore.config import Config

    from clinic_backups.stores.s3 import CLIENT_CONFIG

    with closing(socket.create_server((HOST, 0))) as listener:
        config = CLIENT_CONFIG.merge(Config(read_timeout=0.3, retries={"mode": "standard", "total_max_attempts": 2}))
        client = boto3.client(
            "s3", endpoint_url=f"http://{HOST}:{listener.getsockname()[1]}", config=config, region_name="us-east-1",
            aws_access_key_id="x", aws_secret_access_key="y",
        )  # fmt: skip
        with pytest.raises(TransientError, match="could not be reached"):
            S3Store(client, "clinics").stat("key")


COMMANDS = [
    "backup --all", "backup --clinic 1", "check --no-count", "list", "show 1-x", "verify 1-x", "replicate",
    "retention", "hold 1-x --reason r", "erase-clinic 6 --reason r --yes", "erasures", "catalog verify --record",
    "catalog rebuild", "catalog migrate", "consolidate 1-x", "restore --clinic 1 --plan", "store init", "mail --send",
]  # fmt: skip


class Started:
    """One command in a process of its own."""

    def __init__(self, words: str, variables: dict[str, str]) -> None:
        self.words = words
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clinic_backups.cli", *words.split()],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT / "plugins")} | variables,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def stopped_by(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=15)
        assert self.process.returncode == 130, (self.words, out, err)
        assert f"Stopped by {number.name}" in err, (self.words, err)
        assert "Traceback" not in out + err, (self.words, err)


def wait_until(found: Any) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def variables_of(rig: Rig, key: Path) -> dict[str, str]:
    key.touch(mode=0o600)
    key.write_text(rig.identity)
    return {
        "AIRFLOW_CONN_CLINIC_DB": rig.database.reader_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": rig.database.catalog_uri,
        "AIRFLOW_CONN_RESTORE_DB": rig.database.restorer_uri,
        "CLINIC_BACKUPS_STORE_URL": rig.store.url,
        "CLINIC_BACKUPS_REPLICA_STORES": f'{{"two": "{(key.parent / "two").as_uri()}"}}',
        "CLINIC_BACKUPS_RECIPIENTS": rig.settings.recipients[0],
        "CLINIC_BACKUPS_IDENTITY_FILE": str(key),
    }


FORKS = """
import json, os, signal, sys
from clinic_backups import cli
from clinic_backups.cli import commands

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have turned it off

children = []
for words in json.loads(sys.argv[1]):
    told = os.memfd_create(words)
    if not (pid := os.fork()):
        os.dup2(told, 1)
        os.dup2(told, 2)
        sys.argv = ["clinic-backups", *words.split()]
        cli.main()
        os._exit(99)
    children.append((pid, told, words))
    print(pid, flush=True)
for pid, told, words in children:
    _, status = os.waitpid(pid, 0)
    os.lseek(told, 0, 0)
    print(json.dumps([words, os.waitstatus_to_exitcode(status), os.read(told, 9999).decode()]))
"""


def test_a_signal_ends_every_command_that_waits_for_the_database(rig: Rig, tmp_path: Path) -> None:
    """All at once, each in a process that is forked from one that has imported everything."""
    variables = variables_of(rig, tmp_path / "identity")
    waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT string_agg(oid::regclass::text, ', ') FROM pg_class"
                       " WHERE relnamespace = 'clinic_backups'::regnamespace AND relkind = 'r'")  # fmt: skip
        ((tables,),) = cursor.fetchall()
        cursor.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('clinic_backups:migrate', 0))")
        process = subprocess.Popen(
            [sys.executable, "-c", FORKS, json.dumps(COMMANDS)],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT / "plugins")} | variables, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in COMMANDS]
        wait_until(lambda: rig.execute_rows(waiting) == [(len(COMMANDS),)])
        for number, pid in enumerate(pids):
            os.kill(pid, (signal.SIGTERM, signal.SIGINT)[number % 2])
        out, _ = process.communicate(timeout=60)
        assert rig.execute_rows(waiting) == [(0,)]
    for number, line in enumerate(out.splitlines()):
        words, code, said = json.loads(line)
        assert (code, "Traceback" in said) == (130, False), (words, said)
        assert f"Stopped by {('SIGTERM', 'SIGINT')[number % 2]}" in said, (words, said)


@pytest.mark.parametrize(
    ("where", "words"),
    [("a silent proxy", "backup --clinic 1"), ("a silent proxy", "backup --all"), ("a silent store", "store init")],
)
def test_a_signal_ends_what_waits_for_somebody_who_is_silent(rig: Rig, tmp_path: Path, where: str, words: str) -> None:
    variables = variables_of(rig, tmp_path / "identity") | {"CLINIC_BACKUPS_REPLICA_STORES": "{}"}
    rig.initialise()
    if where == "a silent proxy":
        with proxied(rig.database, until=b"COPY (SELECT") as proxy:
            uri = through(proxy, rig.database, rig.database.reader_uri)
            command = Started(words, variables | {"AIRFLOW_CONN_CLINIC_DB": uri})
            proxy.wait_for_silence()
            under_way = 1 if words == "backup --clinic 1" else 4
            wait_until(lambda: len(rig.catalog.find()) == under_way)
            command.stopped_by(signal.SIGTERM)
        records = rig.catalog.find()
        assert len(records) == under_way
        assert ({record.state for record in records}, rig.objects()) == ({"failed"}, [])
    else:
        with closing(socket.create_server((HOST, 0))) as listener:
            url = f"http%3A%2F%2F{HOST}%3A{listener.getsockname()[1]}"
            changes = {
                "CLINIC_BACKUPS_STORE_URL": "s3://clinics/x",
                "AIRFLOW_CONN_BACKUP_STORE": f"aws://a:b@/?endpoint_url={url}&region_name=us-east-1",
            }
            command = Started(words, variables | changes)
            listener.settimeout(60)
            with closing(listener.accept()[0]):
                command.stopped_by(signal.SIGTERM)
    with rig.catalog.lock(1):
        pass


def test_a_signal_in_the_first_second_is_no_traceback(rig: Rig, tmp_path: Path) -> None:
    command = Started("list", variables_of(rig, tmp_path / "identity"))
    proc = Path(f"/proc/{command.process.pid}/fd")

    def is_ready() -> bool:
        """It has the pipe that its signals go through. What it imports just now is open for a moment only."""
        with suppress(FileNotFoundError):
            return any("pipe:" in str(each.readlink()) for each in proc.iterdir() if int(each.name) > 2)
        return False

    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("LOCK TABLE clinic_backups.backup IN ACCESS EXCLUSIVE MODE")  # on a slow machine it waits for us
        wait_until(is_ready)
        command.stopped_by(signal.SIGTERM)


@pytest.mark.parametrize("ends", ["None", "sys.exit()", "sys.exit(2)"])
def test_a_signal_after_the_work_changes_nothing(tmp_path: Path, ends: str) -> None:
    (tmp_path / "started.py").write_text(
        "import os, signal, sys, time\nfrom clinic_backups import cli\nfrom clinic_backups.cli import commands\n"
        f"commands.run = lambda: {ends}\n"
        "try:\n    cli.main()\nfinally:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.01)\n"
    )
    paths = f"{CHECKOUT / 'plugins'}{os.pathsep}{tmp_path}"
    ended = subprocess.run(
        [sys.executable, "-m", "started"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2 if "2" in ends else 0, b"", b"")


def test_a_signal_while_python_makes_a_dataclass_is_130_too(tmp_path: Path) -> None:
    """Python says "killed by SIGINT" for every module of -m that was once interrupted within exec() of a string."""
    (tmp_path / "started.py").write_text(
        "import os, signal\nfrom clinic_backups.cli import stopping\nstopping.install()\n"
        "try:\n    exec('import time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)')\n"
        "except KeyboardInterrupt:\n    stopping.leave()\n"
    )
    paths = f"{CHECKOUT / 'plugins'}{os.pathsep}{tmp_path}"
    ended = subprocess.run(
        [sys.executable, "-m", "started"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert (ended.returncode, ended.stderr[:19]) == (130, b"Stopped by SIGTERM.")


def test_a_signal_while_python_makes_a_class_is_no_error(tmp_path: Path) -> None:
    """Before Python 3.12 whatever is raised there becomes a RuntimeError."""
    (tmp_path / "started.py").write_text(
        "import os, signal, time\nfrom clinic_backups import cli\nfrom clinic_backups.cli import commands\n"
        "class Named:\n    def __set_name__(self, owner, name):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(5)\n"
        "commands.run = lambda: type('Owner', (), {'named': Named()})\ncli.main()\n"
    )
    paths = f"{CHECKOUT / 'plugins'}{os.pathsep}{tmp_path}"
    ended = subprocess.run(
        [sys.executable, "-m", "started"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert (ended.returncode, ended.stderr[:19]) == (130, b"Stopped by SIGTERM.")


def test_the_connection_is_an_ordinary_one_otherwise(rig: Rig) -> None:
    with closing(connect(rig.clinic_db)) as db:
        with db.cursor() as cursor, pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1/0")
        db.rollback()
        with db.cursor("named") as cursor:
            cursor.execute("SELECT generate_series(1, 5)")
            assert cursor.fetchone() == (1,)
            assert cursor.fetchmany(2) == [(2,), (3,)]
            assert cursor.fetchall() == [(4,), (5,)]
