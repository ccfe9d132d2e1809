"""``clinic-backups recover``: the whole service into an empty database, from the store and the key alone."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from clinic_backups import cli
from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.backup.service_files import ServiceFiles
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.errors import TransientError
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.recovery import finishing
from clinic_backups.recovery.choice import Chooser
from clinic_backups.recovery.session import Session
from clinic_backups.stores.file import FileStore
from include.demo.database import dropping
from include.demo.postgres import EmbeddedPostgres
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig
from tests.servers import CHECKOUT

ON_PURPOSE = {"public.citas_recordatorio", "public.django_admin_log", "public.django_session"}
"""What not_backed_up.txt gives up."""


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


class Target:
    """An empty database on the same server, and the command that fills it."""

    def __init__(
        self, rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any,
        server: EmbeddedPostgres | None = None, name: str = "",
    ) -> None:  # fmt: skip
        self.rig, self.postgres, self.name = rig, server or rig.database.postgres, name or f"{rig.database.name}_target"
        self._patch, self._capsys = monkeypatch, capsys
        self._execute_elsewhere(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(self.name)))
        key = folder / "key.txt"
        key.write_text(rig.identity)
        key.chmod(0o600)
        self.variables = {
            "AIRFLOW_CONN_NEW": self.postgres.uri(self.name),
            "CLINIC_BACKUPS_STORE_URL": rig.store.url,
            "CLINIC_BACKUPS_IDENTITY_FILE": str(key),
        }

    def recover(self, *words: str, **changes: str) -> tuple[int, str, str]:
        code: Any = 0
        with self._patch.context() as patch:
            for name, value in (self.variables | changes).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["clinic-backups", "recover", "--target", "new", *words])
            patch.setattr("clinic_backups.cli.stopping.install", lambda: None)
            try:
                cli.main()
            except SystemExit as done:
                code = done.code or 0
        out, err = self._capsys.readouterr()
        return code, out, err

    def report(self, *words: str, code: int = 0, **changes: str) -> Any:
        """What a recovery prints with ``--json``. Its exit code must be this one."""
        done, out, err = self.recover(*words, "--json", **changes)
        assert out, err
        report = json.loads(out)
        assert done == code, (err, json.dumps(report, indent=1))
        return report

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.postgres.connect(self.name)) as db, db.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def execute(self, *statements: str) -> None:
        with closing(self.postgres.connect(self.name)) as db, db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _execute_elsewhere(self, statement: Any) -> None:
        with closing(self.postgres.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute(statement)

    def drop(self) -> None:
        self._execute_elsewhere(dropping(self.name))


@pytest.fixture
def target(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    made = Target(rig, tmp_path, monkeypatch, capsys)
    yield made
    made.drop()


def shared(rig: Rig, **options: Any) -> BackupRecord:
    return rig.backup().run(BackupRequest(SHARED, requested_by="prueba", **options))


def clinics(rig: Rig) -> list[int]:
    return [id_ for (id_,) in rig.execute_rows("SELECT id FROM public.comun_clinica ORDER BY 1")]


def back_up_all(rig: Rig) -> list[BackupRecord]:
    return [shared(rig), *map(rig.run, clinics(rig))]


def contents(connect: Callable[[], Any]) -> dict[str, Counter[str]]:
    """Every row of every table, as PostgreSQL writes it."""
    found: dict[str, Counter[str]] = {}
    with closing(connect()) as db, db.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(
            "SELECT n.nspname || '.' || relname, format('%I.%I', nspname, relname) FROM pg_class AS c"
            " JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN"
            " ('information_schema', 'clinic_backups')"
        )
        for name, in_sql in cursor.fetchall():
            cursor.execute(f"SELECT t::text FROM ONLY {in_sql} AS t")
            found[name] = Counter(row for (row,) in cursor)
    return found


def definitions(rig: Rig, database: str, server: EmbeddedPostgres | None = None) -> list[str]:
    """What pg_dump says of a database, without the catalog of backups and without names of databases."""
    tool = find_tool("pg_dump", at_least=17).path
    uri = (server or rig.database.postgres).uri(database)
    done = subprocess.run(
        [tool, "--schema-only", "--exclude-schema=clinic_backups", "--create", uri],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text = re.sub(r"^\\(?:(?:un)?restrict|connect|encoding) .*$", "", done.stdout, flags=re.MULTILINE)
    text = re.sub(r"-- Name: .*", "", text)
    for name in (f'"{database}"', f"'{database}'", database):
        text = text.replace(name, "DATABASE")
    return sorted(line for line in text.splitlines() if line.strip(" -") and "COMMENT ON DATABASE" not in line)


def sequences(connect: Callable[[], Any]) -> dict[str, Any]:
    with closing(connect()) as db, db.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences"
            " WHERE schemaname <> 'clinic_backups'"
        )
        return dict(cursor.fetchall())


def test_the_service_comes_back_row_by_row(rig: Rig, target: Target) -> None:
    back_up_all(rig)
    report = target.report()
    before, after = contents(rig.database.connect), contents(lambda: target.postgres.connect(target.name))
    assert before.keys() == after.keys()
    for name in before.keys() - ON_PURPOSE:
        assert after[name] == before[name], name
    assert {name: rows for name, rows in report["tables"].items() if rows} == {
        name: rows.total() for name, rows in before.items() if name not in ON_PURPOSE and rows
    }
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)
    assert sequences(lambda: target.postgres.connect(target.name)) == sequences(rig.database.connect)
    assert {unit["state"] for unit in report["units"]} == {"proven"}
    assert len(report["units"]) == len(clinics(rig)) + 1
    assert report["empty"].keys() == ON_PURPOSE
    assert report["left"] == report["missing"] == report["problems"] == []
    assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []


KILLED = """
import itertools, os, signal, sys
from clinic_backups import cli
from clinic_backups.recovery.dump_text import Dump
from clinic_backups.recovery.session import Session
at, commits, real, made = int(os.environ["KILL_AT"]), itertools.count(1), Session.commit, Dump.make_after

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def commit(session, doing):
    if doing.startswith(("looking", "ending", "collecting", "making indexes")):
        return real(session, doing)
    number = next(commits)
    if at % 2 and number == at:
        die()
    real(session, doing)
    # After the last one the recovery is done, and a second one is refused.
    if number == at and not doing.startswith("removing the notes"):
        die()

def make_after(*arguments):
    # pg_restore lives on for a while after its parent.
    import subprocess, threading
    run = subprocess.run
    def begin(command, **options):
        subprocess.Popen(command, env=options["env"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
        threading.Event().wait(0.1)
        die()
    if os.environ.get("KILL_RESTORE"):
        subprocess.run = begin
    return made(*arguments)

Session.commit, Dump.make_after = commit, make_after
sys.argv = ["clinic-backups", "recover", "--target", "new", "--json"]
cli.main()
"""


class TestKilled:
    def run(self, target: Target, **variables: str) -> int:
        # A killed run leaves its temporary folders: definitions and SQL, no rows.
        folder = Path(target.variables["CLINIC_BACKUPS_IDENTITY_FILE"]).parent
        environment = {**os.environ, **target.variables, "TMPDIR": str(folder), "KILL_AT": "0", **variables}
        done = subprocess.run(
            [sys.executable, "-c", KILLED], env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    def test_it_goes_on_wherever_it_was_killed(self, rig: Rig, target: Target) -> None:
        back_up_all(rig)
        killed = 0
        # Each run gets a little further, and dies before or after a commit.
        for at in itertools.cycle((2, 5)):
            if self.run(target, KILL_AT=str(at)) == 0:
                break
            killed += 1
            assert killed < 30
            if killed == 2:
                assert self.run(target, KILL_RESTORE="1") == -signal.SIGKILL
                assert target.rows("SELECT count(*) FROM clinic_backups_recovery.unit")[0][0] >= len(clinics(rig))
        assert killed >= 3
        self.require_same(rig, target)

    def test_sessions_that_end_during_the_proof_are_no_finding(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared(rig)
        rig.run(1)

        def ended(snapshot: Any, *arguments: Any) -> Any:
            snapshot.rows("SELECT pg_terminate_backend(pg_backend_pid())", None, "reading")

        with monkeypatch.context() as patch:
            patch.setattr("clinic_backups.recovery.proof.blocks_of", ended)
            code, out, err = target.recover("--clinic", "1", "--json")
        assert (code, out) == (75, ""), err
        report = target.report("--clinic", "1")
        assert {unit["state"] for unit in report["units"]} == {"proven"}

    @pytest.mark.parametrize("json_", [True, False])
    def test_a_report_that_was_not_printed_is_printed_by_the_next_run(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch, json_: bool
    ) -> None:
        rig.execute(
            "CREATE MATERIALIZED VIEW public.vista AS SELECT 1 / (current_database() = 'x')::int AS n WITH NO DATA"
        )
        shared(rig)
        rig.run(1)

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("clinic_backups.cli.recover." + ("print_json" if json_ else "_show"), killed)
            assert target.recover("--clinic", "1", *(["--json"] if json_ else []))[0] not in (0, 1)
        report = target.report("--clinic", "1", code=1)
        assert [each["sql"] for each in report["left"]] == ['REFRESH MATERIALIZED VIEW "public"."vista";']
        assert {unit["state"] for unit in report["units"]} == {"proven"}
        assert "is not empty" in target.recover("--clinic", "1")[2]

    def require_same(self, rig: Rig, target: Target) -> None:
        before, after = contents(rig.database.connect), contents(lambda: target.postgres.connect(target.name))
        assert before.keys() == after.keys()
        for name in before.keys() - ON_PURPOSE:
            assert after[name] == before[name], name
        assert definitions(rig, target.name) == definitions(rig, rig.database.name)

    def test_other_backups_than_before_are_refused(self, rig: Rig, target: Target) -> None:
        records = back_up_all(rig)
        assert self.run(target, KILL_AT="4") == -signal.SIGKILL
        later = rig.run(1)
        code, _, err = target.recover("--as-of", "2199-01-01T00:00:00Z")
        assert code == 1
        assert "An interrupted recovery of this database used other backups, for 1 units." in err
        assert records[1].backup_id in err
        assert later.backup_id in err
        # Without --as-of it goes on with the moment of the first run.
        code, out, err = target.recover("--json")
        assert code == 0, err
        assert {unit["backup_id"] for unit in json.loads(out)["units"]} == {record.backup_id for record in records}
        self.require_same(rig, target)


@pytest.fixture
def extension_with_rows(rig: Rig) -> Iterator[str]:
    """An extension whose table has rows of its own: two files in the server's folder."""
    ((place,),) = rig.execute_rows("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")
    folder, name = Path(place) / "extension", f"medidas_{os.getpid()}"
    (folder / f"{name}.control").write_text(
        "default_version = '1'\nrelocatable = false\nsuperuser = false\nschema = public\n"
    )
    (folder / f"{name}--1.sql").write_text(
        "CREATE TABLE medida (id int PRIMARY KEY, v text);"
        " INSERT INTO medida VALUES (1, 'propia'), (2, 'propia');"
        " SELECT pg_catalog.pg_extension_config_dump('medida', '');"
    )
    yield name
    for file in folder.glob(f"{name}*"):
        file.unlink()


def with_table_of(extension: str, rig: Rig, folder: Path) -> None:
    """Its table has other rows than those of the extension, and is shared. :param folder: the SQL folder is copied."""
    reader = rig.database.roles.reader
    rig.execute(
        f"CREATE EXTENSION {extension}", "INSERT INTO public.medida VALUES (3, 'mía')",
        "UPDATE public.medida SET v = 'otra' WHERE id = 1", f"GRANT SELECT ON public.medida TO {reader}",
    )  # fmt: skip
    shutil.copytree(rig.settings.sql_dir, folder)
    with (folder / "not_backed_up.txt").open("a", encoding="utf-8") as file:
        file.write("\npublic.medida: shared, the same for all\n")
    rig.settings = rig.settings.model_copy(update={"sql_dir": folder})


def test_rows_of_a_table_of_an_extension(rig: Rig, target: Target, tmp_path: Path, extension_with_rows: str) -> None:
    """As of PostGIS's spatial_ref_sys: CREATE EXTENSION has filled the table before the rows come."""
    with_table_of(extension_with_rows, rig, tmp_path / "sql")
    shared(rig)
    rig.run(1)
    target.report("--clinic", "1")
    assert target.rows("SELECT * FROM public.medida ORDER BY 1") == [(1, "otra"), (2, "propia"), (3, "mía")]


def forge(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """The next archives of the shared data have these changes in their JSON files."""
    made = ServiceFiles.made

    def forged(self: ServiceFiles, pause: Any) -> dict[str, bytes]:
        files = made(self, pause)
        texts = {name: json.loads(data) for name, data in files.items() if name.endswith(".json")}
        change(texts)
        return files | {name: json.dumps(data).encode() for name, data in texts.items()}

    monkeypatch.setattr(ServiceFiles, "made", forged)


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("roles.json", []), ("roles.json", {"roles": [{"name": "x"}]}), ("roles.json", {"roles": [], "settings": [{}]}),
        ("sequences.json", [{"schema": "public", "name": "s", "last_value": 10**30, "is_called": True}]),
        ("sequences.json", {}), ("undumped.json", [{"name": "x", "before": "SELECT 1", "after": []}]),
        ("clinics.json", [{"id": None, "name": "x"}]), ("clinics.json", {"x": 1}), ("sql.json", []),
        ("sql.json", {"a\0.sql": ""}), ("sql.json", {"a": "", "a/b.sql": ""}), ("sql.json", {"a" * 300: ""}),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_named_before_anything_is_touched(
    rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch, file: str, data: Any
) -> None:
    forge(monkeypatch, lambda texts: texts.update({file: data}))
    record = shared(rig)
    rig.run(1)
    code, _, err = target.recover("--clinic", "1")
    assert code == 1
    assert f"Error: The file {file} in the archive of {record.backup_id} cannot be used: " in err
    assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []


def test_a_clinic_that_was_deleted_before_comes_back_by_name(
    rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = rig.run(2)
    later = rig.run(1)
    forge(monkeypatch, lambda texts: texts.update({"clinics.json": [{"id": later.clinic_id, "name": "x"}]}))
    shared(rig)
    report = target.report()
    (said,) = [each["what"] for each in report["left"] if "was not in the database any more" in each["what"]]
    assert said.startswith(f"Clinic 2 {gone.clinic_name!r} came back from {gone.backup_id}. ")


def test_an_empty_as_of_is_not_taken_for_now(rig: Rig, target: Target) -> None:
    shared(rig)
    code, _, err = target.recover("--plan", "--as-of", "")
    assert code != 0
    assert "--as-of is empty." in err


class TestItEnds:
    """What the application's own code refuses does not keep a recovery from its end."""

    def test_a_materialized_view_that_cannot_be_filled(self, rig: Rig, target: Target) -> None:
        rig.execute(
            "CREATE FUNCTION public.solo_aqui() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
            f" IF current_database() <> '{rig.database.name}' THEN RAISE EXCEPTION 'elsewhere'; END IF; RETURN 1;"
            " END $$",
            "CREATE MATERIALIZED VIEW public.resumen AS SELECT public.solo_aqui() AS n",
        )
        shared(rig)
        rig.run(1)
        report = target.report("--clinic", "1", code=1)
        assert [each["what"][:60] for each in report["left"] if each["is_problem"]] == [
            "The materialized view public.resumen was not filled. The dat"
        ]
        assert {unit["state"] for unit in report["units"]} == {"proven"}
        assert "public.resumen" not in report["tables"]

    @pytest.mark.parametrize("event", ["sql_drop", "ddl_command_start"])
    def test_an_event_trigger_that_forbids_ddl(self, rig: Rig, target: Target, event: str) -> None:
        rig.execute(
            "CREATE FUNCTION public.prohibido() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'not in production'; END $$",
            f"CREATE EVENT TRIGGER prohibido ON {event} EXECUTE FUNCTION public.prohibido()",
        )
        try:
            shared(rig)
            rig.run(1)
        finally:
            rig.execute("DROP EVENT TRIGGER prohibido")
        report = target.report("--clinic", "1")
        assert report["left"] == []
        assert target.rows("SELECT evtname FROM pg_event_trigger") == [("prohibido",)]
        assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []

    def test_notes_that_cannot_be_removed_do_not_cost_the_report(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As a role that is not a superuser, where the provider lets it make event triggers.
        monkeypatch.setattr("clinic_backups.recovery.session.Session.without_event_triggers", lambda session: None)
        rig.execute(
            "CREATE FUNCTION public.prohibido() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'not in production'; END $$",
            "CREATE EVENT TRIGGER prohibido ON sql_drop EXECUTE FUNCTION public.prohibido()",
        )
        try:
            shared(rig)
            rig.run(1)
        finally:
            rig.execute("DROP EVENT TRIGGER prohibido")
        report = target.report("--clinic", "1", code=1)
        assert {unit["state"] for unit in report["units"]} == {"proven"}
        assert [each["sql"] for each in report["left"]] == ["DROP SCHEMA clinic_backups_recovery CASCADE;"]


class TestRefused:
    def test_a_target_that_is_not_empty(self, rig: Rig, target: Target) -> None:
        back_up_all(rig)
        target.execute("CREATE TABLE public.suelta (id int)", "CREATE EXTENSION pgcrypto")
        code, _, err = target.recover()
        assert code == 1
        assert f"The database {target.name} is not empty. It has: table public.suelta." in err
        target.execute("DROP TABLE public.suelta")
        code, _, err = target.recover()
        assert code == 0, err

    def test_a_damaged_archive_is_named_before_anything_is_touched(self, rig: Rig, target: Target) -> None:
        old = rig.run(2)
        back_up_all(rig)
        record = rig.catalog.latest(2)
        assert record is not None
        damage(rig, record)
        code, _, err = target.recover()
        assert code == 1
        assert f"{record.backup_id}" in err
        assert "Nothing was changed" in err
        assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []
        code, out, err = target.recover("--allow-missing", "--json")
        report = json.loads(out)
        assert code == 1, "what is missing is no success"
        assert report["missing"]
        (unit,) = [unit for unit in report["units"] if unit["unit"] == 2]
        assert (unit["backup_id"], unit["state"]) == (old.backup_id, "proven")

    def test_a_good_replica_is_taken_and_the_bad_one_named(self, rig: Rig, target: Target, tmp_path: Path) -> None:
        back_up_all(rig)
        shutil.copytree(tmp_path / "store", tmp_path / "replica")
        record = rig.catalog.latest(2)
        assert record is not None
        damage(rig, record)
        replicas = json.dumps({"second": (tmp_path / "replica").as_uri()})
        code, out, err = target.recover("--json", CLINIC_BACKUPS_REPLICA_STORES=replicas)
        assert code == 0, err
        assert any(record.archive_key in text for text in json.loads(out)["bad_replicas"])

    def test_without_the_shared_data_and_a_definition_nothing_begins(
        self, rig: Rig, target: Target, tmp_path: Path
    ) -> None:
        rig.run(1)
        code, _, err = target.recover()
        assert code == 1
        assert "The shared data has no backup that can be restored." in err
        code, _, err = target.recover("--allow-missing")
        assert code == 1
        assert "--definition FILE" in err
        dump = tmp_path / "definition.dump"
        uri = rig.database.postgres.uri(rig.database.name)
        words = ["--schema-only", "-Fc", "--exclude-schema=clinic_backups", f"--file={dump}", uri]
        subprocess.run([find_tool("pg_dump", at_least=17).path, *words], check=True)
        code, out, err = target.recover("--allow-missing", "--definition", str(dump), "--json")
        assert out, err
        report = json.loads(out)
        assert code == 1
        assert [(unit["unit"], unit["state"]) for unit in report["units"]] == [(1, "proven")]
        loose = [each for each in report["left"] if "does not hold for" in each["what"]]
        assert any("public.usuarios_usuario_groups" in each["what"] for each in loose)
        (found,) = [each for each in loose if "usuarios_usuario_groups" in each["what"]]
        statement = found["sql"].split(";")[0]
        number = re.search(r"does not hold for ([\d,]+) rows", found["what"])
        assert number is not None
        assert len(target.rows(statement)) == int(number[1].replace(",", "")) > 0

    def test_an_error_of_the_database_names_no_patient(self, rig: Rig, target: Target, tmp_path: Path) -> None:
        rig.kind = "full"
        back_up_all(rig)
        rig.execute("ALTER TABLE public.usuarios_paciente ALTER COLUMN notas TYPE varchar(1) USING ''")
        dump = tmp_path / "definition.dump"
        uri = rig.database.postgres.uri(rig.database.name)
        words = ["--schema-only", "-Fc", "--exclude-schema=clinic_backups", f"--file={dump}", uri]
        subprocess.run([find_tool("pg_dump", at_least=17).path, *words], check=True)
        code, out, err = target.recover("--definition", str(dump))
        assert code == 1
        assert "The database refused while loading public.usuarios_paciente of clinic" in err
        assert "A migration lies between the two backups." in " ".join(err.split())
        for name, other in rig.execute_rows("SELECT nombres, apellidos FROM public.usuarios_paciente"):
            assert name not in out + err
            assert other not in out + err
        target.execute(
            "DROP SCHEMA clinic_backups_recovery CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"
        )
        code, out, err = target.recover("--definition", str(dump), "--allow-missing", "--json")
        assert code == 1
        failed = [unit for unit in json.loads(out)["units"] if unit["state"] == "not proven"]
        assert failed
        assert all("clinic-backups restore --clinic" in unit["problems"][0] for unit in failed)

    def test_another_key_is_told_before_anything_is_touched(self, rig: Rig, target: Target, tmp_path: Path) -> None:
        back_up_all(rig)
        (tmp_path / "key.txt").write_text(generate_identity()[0])
        code, _, err = target.recover()
        assert code == 1
        assert "it was made for other keys" in err
        assert "Nothing was changed" in err

    def test_an_archive_that_the_catalog_does_not_know(self, rig: Rig, target: Target) -> None:
        rig.initialise()
        back_up_all(rig)
        old, new = rig.catalog.latest(3), rig.run(3)
        assert old is not None
        rig.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id = '{new.backup_id}'")
        code, out, _ = target.recover("--plan", "--json")
        assert code == 0
        plan = json.loads(out)
        assert {unit["backup_id"] for unit in plan["units"] if unit["unit"] == 3} == {new.backup_id}
        assert "Encryption does not prove who wrote one" in plan["belief"]
        catalog = {
            "AIRFLOW_CONN_CLINIC_DB": rig.database.reader_uri,
            "AIRFLOW_CONN_BACKUP_CATALOG": rig.database.catalog_uri,
        }
        code, out, err = target.recover("--plan", "--json", **catalog)
        assert code == 0, err
        plan = json.loads(out)
        (unit,) = [unit for unit in plan["units"] if unit["unit"] == 3]
        assert unit["backup_id"] == old.backup_id
        assert unit["notes"] == [f"{new.backup_id} is not taken: the catalog does not know it."]


class TestCatalogKnowsMore:
    """A store that shows less than the catalog knows: an older backup is not taken without a word."""

    @pytest.mark.parametrize("what", ["newest gone", "all gone", "another archive", "none"])
    def test_what_no_store_has_is_missing(self, rig: Rig, target: Target, what: str) -> None:
        rig.initialise()
        records = {record.clinic_id: record for record in back_up_all(rig)}
        newest = rig.run(3)
        gone = {"newest gone": [newest], "all gone": [records[3], newest]}.get(what, [])
        for record in gone:
            for key in (record.archive_key, envelope_key_of(record.archive_key)):
                rig.store.delete(key)
        if what == "another archive":
            write_envelope(rig, newest, rows={})
            forged = "sha256 = repeat('0', 64)"
            rig.execute(f"UPDATE clinic_backups.backup SET {forged} WHERE backup_id = '{newest.backup_id}'")
        catalog = {
            "AIRFLOW_CONN_CLINIC_DB": rig.database.reader_uri,
            "AIRFLOW_CONN_BACKUP_CATALOG": rig.database.catalog_uri,
        }
        code, out, err = target.recover("--json", **catalog)
        if what == "none":
            assert code == 0, err
            assert newest.backup_id in {unit["backup_id"] for unit in json.loads(out)["units"]}
            return
        assert code == 1
        assert f"By the catalog, {newest.backup_id}" in " ".join(err.split())
        assert "Nothing was changed" in err
        assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []
        code, out, _ = target.recover("--plan", "--json", "--clinic", "2", **catalog)
        assert (code, json.loads(out)["missing"]) == (0, [])
        code, out, err = target.recover("--json", "--allow-missing", **catalog)
        assert code == 1
        report = json.loads(out)
        assert any(newest.backup_id in text for text in report["missing"])
        taken = {unit["unit"]: unit["backup_id"] for unit in report["units"]}
        assert taken.get(3) == (None if what == "all gone" else records[3].backup_id)

    def test_a_backup_that_ends_while_the_stores_are_listed_is_not_missed(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig.initialise()
        back_up_all(rig)
        listed, newest = Chooser.read, list[BackupRecord]()

        def read(chooser: Chooser, *options: Any) -> None:
            listed(chooser, *options)
            newest.append(rig.run(3))

        monkeypatch.setattr(Chooser, "read", read)
        code, out, err = target.recover("--json", **known_to(rig))
        assert code == 0, err
        assert newest[0].backup_id not in out

    def test_a_run_goes_on_although_a_backup_of_that_moment_ended_since(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig.initialise()
        records = {record.clinic_id: record for record in back_up_all(rig)}
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "refresh_views", interrupted)
            assert target.recover(**known_to(rig))[0] != 0
        newest = rig.run(3)
        # It had its snapshot before the recovery was begun.
        at = f"'{records[3].started_at.isoformat()}'::timestamptz + interval '1 ms'"
        rig.execute(
            f"UPDATE clinic_backups.backup SET started_at = {at}, data_at = {at} WHERE backup_id = '{newest.backup_id}'"
        )
        code, out, err = target.recover("--json", **known_to(rig))
        assert code == 0, err
        taken = {unit["unit"]: unit["backup_id"] for unit in json.loads(out)["units"]}
        assert taken[3] == records[3].backup_id != newest.backup_id

    def test_a_suspect_backup_that_was_accepted_is_taken(self, rig: Rig, target: Target) -> None:
        rig.initialise()
        records = {record.clinic_id: record for record in back_up_all(rig)}
        newest = rig.run(3)
        write_envelope(rig, newest, suspect="Half of the rows are gone.")
        rig.execute(f"UPDATE clinic_backups.backup SET suspect = 'x' WHERE backup_id = '{newest.backup_id}'")
        for accepted, expected in ((False, records[3]), (True, newest)):
            if accepted:
                rig.execute(
                    "UPDATE clinic_backups.backup SET accepted_at = now(), accepted_by = 'ana' WHERE suspect = 'x'"
                )
            code, out, err = target.recover("--plan", "--json", **known_to(rig))
            assert code == 0, err
            (unit,) = [unit for unit in json.loads(out)["units"] if unit["unit"] == 3]
            assert unit["backup_id"] == expected.backup_id

    def test_an_archive_that_is_gone_after_it_was_loaded(
        self, rig: Rig, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = back_up_all(rig)
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "refresh_views", interrupted)
            assert target.recover()[0] != 0
        rig.store.delete(records[2].archive_key)
        for words in ((), ("--plan",), ("--allow-missing",)):
            code, out, err = target.recover(*words)
            assert code == 1
            assert f"{records[2].backup_id} of clinic {records[2].clinic_id} is loaded already" in " ".join(err.split())
            assert "Traceback" not in out + err


def known_to(rig: Rig) -> dict[str, str]:
    """The connections with which a recovery has the catalog."""
    return {
        "AIRFLOW_CONN_CLINIC_DB": rig.database.reader_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": rig.database.catalog_uri,
    }


def interrupted(session: Session) -> None:
    raise TransientError("The server went away.")


def damage(rig: Rig, record: BackupRecord) -> None:
    with rig.store.open(record.archive_key) as stream:
        data = bytearray(stream.read())
    data[len(data) // 2] ^= 1
    rig.store.delete(record.archive_key)
    rig.store.put(record.archive_key, io.BytesIO(bytes(data)))


def write_envelope(rig: Rig, record: BackupRecord, **changes: Any) -> None:
    key = envelope_key_of(record.archive_key)
    with rig.store.open(key) as stream:
        data = json.load(stream) | changes
    rig.store.delete(key)
    rig.store.put(key, io.BytesIO(json.dumps(data).encode()))


class TestPlan:
    def test_it_says_which_backup_of_each_unit_and_how_far_apart_they_are(self, rig: Rig, target: Target) -> None:
        records = back_up_all(rig)
        code, out, err = target.recover("--plan")
        assert code == 0, err
        for record in records:
            assert record.backup_id in out
        assert re.search(r"The moments of the backups are \d+ seconds apart\.", err)
        assert target.rows("SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []

    def test_suspect_and_incomplete_backups_are_named(self, rig: Rig, target: Target) -> None:
        back_up_all(rig)
        good = rig.catalog.latest(1)
        assert good is not None
        new = rig.run(1)
        write_envelope(rig, new, suspect="half of the rows are gone")
        gap = rig.catalog.latest(2)
        assert gap is not None
        write_envelope(rig, gap, gaps=[{"table": "public.x", "reason": "public.x was not readable."}])
        code, out, err = target.recover("--plan", "--json")
        assert code == 0, err
        units = {unit["unit"]: unit for unit in json.loads(out)["units"]}
        assert units[1]["backup_id"] == good.backup_id
        (note,) = units[1]["notes"]
        assert note.startswith(f"{new.backup_id} is newer and suspect, so it is not taken: half of the rows are gone.")
        assert units[2]["notes"] == ["Incomplete: public.x was not readable."]

    def test_as_of_and_some_clinics(self, rig: Rig, target: Target) -> None:
        records = back_up_all(rig)
        newer = [rig.run(clinic) for clinic in (1, 2)]
        moment = newer[1].data_at
        assert moment is not None
        _, out, _ = target.recover("--as-of", moment.isoformat(), "--clinic", "1", "--clinic", "3", "--json")
        report = json.loads(out)
        taken = {unit["unit"]: unit["backup_id"] for unit in report["units"]}
        assert taken == {"~shared": records[0].backup_id, 1: newer[0].backup_id, 3: records[3].backup_id}
        assert target.rows("SELECT DISTINCT clinica_id FROM public.usuarios_paciente ORDER BY 1") == [(1,), (3,)]
