"""Drills: each unit's newest backup is restored into a throw-away PostgreSQL, proven, and certified."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
from psycopg2 import sql

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import IntegrityError, SettingsError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.shared_unit import SHARED, SHARED_ID
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.catalog.proofs import ProofRecord, Proofs
from clinic_backups.catalog.tables import clinic as clinic_table
from clinic_backups.drill import unit
from clinic_backups.drill.inserts import try_inserts
from clinic_backups.drill.night import Drills
from clinic_backups.drill.place import PREFIX, Server, require_other_server
from clinic_backups.drill.signature import SigningKey, verify
from clinic_backups.drill.throwaway import FOLDER, remove_left, throwaway
from clinic_backups.notify.digest import unproven
from clinic_backups.recovery.session import Session
from clinic_backups.restore.archives import Archives
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.web.certificates import certificate_of
from clinic_backups.web.metrics import exposition
from clinic_backups.web.problems import NotVisible
from include.demo.postgres import EmbeddedPostgres
from tests.fleet import Fleet, flip
from tests.integration.test_recover import extension_with_rows, with_table_of  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase, server_folder


class Rig(Fleet):
    """Backups of the demo, and the drills of them."""

    folder: Path
    stores: Stores

    def shared(self) -> BackupRecord:
        return self.backup().run(BackupRequest(SHARED, requested_by="prueba"))

    def drills(self, **changes: Any) -> Drills:
        def archives(note: Any) -> Archives:
            return Archives(self.stores, [pyrage.x25519.Identity.from_str(self.identity)], on_bad_replica=note)

        parts: dict[str, Any] = {"settings": self.settings, "catalog": self.catalog, "folder": self.folder}
        return Drills(archives=archives, **(parts | changes))

    @property
    def proofs(self) -> Proofs:
        return Proofs(self.catalog.database)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, that the server's user may pass: a socket's path has a limit."""
    with tempfile.TemporaryDirectory(prefix="cb-") as place:
        Path(place).chmod(0o711)
        yield Path(place)
        assert list(Path(place).iterdir()) == []  # nothing of a drill is left


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path, folder: Path) -> Rig:
    rig = Rig(demo_database, FileStore(tmp_path / "store"), FileStore(tmp_path / "replica"))
    rig.folder = folder
    return rig


def checks(proof: ProofRecord) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in json.loads(proof.certificate)["checks"]}


def test_each_unit_is_proven_and_the_certificate_says_what_was_compared(rig: Rig, tmp_path: Path) -> None:
    shared, one = rig.shared(), rig.run(1)
    rig.execute("UPDATE public.usuarios_paciente SET nombres = nombres || 'x' WHERE clinica_id = 2")
    rig.kind = "auto"
    rig.run(2)
    rig.execute("UPDATE public.usuarios_paciente SET nombres = nombres || 'y' WHERE clinica_id = 2")
    two = rig.run(2)
    key = SigningKey.generate()
    key.save(tmp_path / "key.pem")
    rig.settings = rig.settings.model_copy(update={"certificate_key_file": tmp_path / "key.pem"})
    amounts: dict[str, Any] = {}
    assert rig.proofs.newest_at() is None
    done = rig.drills(on_proof=lambda proof, drilled: amounts.update({proof.backup_id: drilled.amounts})).run(
        [1, SHARED_ID, 2]
    )
    assert [(proof.backup_id, proof.outcome, proof.error) for proof in done] == [
        (record.backup_id, "proven", None) for record in (one, shared, two)
    ]
    for proof, record in zip(done, (one, shared, two), strict=True):
        document = json.loads(proof.certificate)
        assert {"constraints", "block digests", "counts and sums", "inserts"} == set(checks(proof))
        assert set(checks(proof).values()) == {"passed"}
        assert document["fingerprint"] == record.fingerprint
        assert document["rows"] == record.rows
        assert [each["sha256"] for each in document["archives"]] == [
            record.sha256, *(each.sha256 for each in record.chain)
        ]  # fmt: skip
        assert document["restored_in"] == "embedded"
        assert document["number"] == proof.number
        assert proof.seconds > 0
        assert proof.signature is not None
        verify(proof.certificate.encode(), proof.signature, key.public_pem.encode())
    assert len(two.chain) == 1
    # The sums are those of the clinics' database.
    ((fees,),) = rig.execute_rows(
        "SELECT sum(tarifa_consulta)::text FROM profesionales_odontologo WHERE clinica_id = 1"
    )
    assert amounts[one.backup_id]["public.profesionales_odontologo.tarifa_consulta"] == fees
    assert rig.proofs.last_good(1) == done[0]
    assert rig.proofs.newest_at() == done[-1].finished_at
    # What is recorded is not changed.
    with pytest.raises(Exception, match="only ever added to"):
        rig.execute("UPDATE clinic_backups.proof SET outcome = 'proven'")


def test_a_backup_with_forgotten_rows_is_proven_as_it_is_stored(rig: Rig) -> None:
    """The certificate says how many rows a restore leaves out. The drill compares all of them."""
    rig.shared()
    record, other = rig.run(1), rig.run(2)
    ((patient, visits),) = rig.execute_rows(
        "SELECT paciente_id, count(*) FROM citas_consulta AS v JOIN usuarios_paciente AS p ON p.id = paciente_id"
        " WHERE p.clinica_id = 1 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
    )
    Forgotten(rig.catalog.database).add(1, {"public.usuarios_paciente": [str(patient)]}, by="ana", reason="x")
    one, two = rig.drills().run([1, 2])
    assert (one.backup_id, one.outcome, two.backup_id, two.outcome) == (
        record.backup_id, "proven", other.backup_id, "proven",
    )  # fmt: skip
    document = json.loads(one.certificate)
    assert document["rows"] == record.rows
    (said,) = (check["detail"] for check in document["checks"] if check["name"] == "forgotten rows")
    assert "public.usuarios_paciente: 1 row is forgotten and left out." in said
    assert f"public.citas_consulta: {visits} row" in said
    assert "forgotten rows" not in checks(two)


def test_one_damaged_archive_fails_exactly_its_clinic_and_a_replica_proves_it(rig: Rig) -> None:
    rig.shared()
    rig.run(1)
    two = rig.run(2)
    rig.replicate()
    flip(rig.store, two.archive_key)
    primary, replica = rig.stores.urls
    rig.stores = Stores.of(rig.store)
    good, bad = rig.drills().run([1, 2])
    assert good.is_good
    assert (bad.clinic_id, bad.outcome) == (2, "failed")
    assert bad.error is not None
    assert two.archive_key in bad.error
    assert bad.hint
    # The operator's mail names it, and what to do.
    ((facts,),) = rig.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'drill'")
    assert (facts["clinic_id"], facts["again"]) == (2, "clinic-backups drill --clinic 2")
    assert facts["error"] == bad.error
    assert [each["store"] for each in facts["bad_replicas"]] == [primary]
    # With the other store it is proven from there, and that is said.
    rig.stores = Stores.of(rig.store, FileStore(Path(replica.removeprefix("file://"))))
    steps: list[str] = []
    (proven,) = rig.drills(listener=Listener(steps.append)).run([2])
    assert proven.is_good
    (told,) = json.loads(proven.certificate)["bad_replicas"]
    assert told == {"backup_id": two.backup_id, "problem": "damaged"}
    assert primary not in proven.certificate  # clinics' people get it
    assert any(primary in step and two.backup_id in step for step in steps)


def test_a_sequence_that_would_give_out_a_key_twice_is_found(rig: Rig) -> None:
    # No catalog of PostgreSQL tells which column needs this sequence: the number is inside a text.
    rig.execute(
        "CREATE SEQUENCE folio_seq",
        "CREATE TABLE folio (folio text PRIMARY KEY DEFAULT 'F-' || nextval('folio_seq')::text,"
        " clinica_id bigint NOT NULL REFERENCES comun_clinica, nota text UNIQUE)",
        "INSERT INTO folio (clinica_id, nota) SELECT 1, n::text FROM generate_series(1, 3) AS n",
        "GRANT SELECT ON folio TO PUBLIC",
        "GRANT SELECT ON SEQUENCE folio_seq TO PUBLIC",
    )
    folder = rig.folder.with_name(rig.folder.name + "-sql")
    shutil.copytree(rig.settings.sql_dir, folder)
    (folder / "extract" / "folio.sql").write_text("SELECT * FROM public.folio WHERE clinica_id = {{ clinic_id }}\n")
    try:
        rig.settings = rig.settings.model_copy(update={"sql_dir": folder})
        rig.shared()
        rig.run(1)
        (proof,) = rig.drills().run([1])
        assert proof.is_good, proof.error
        rig.execute("SELECT setval('folio_seq', 1)")
        # Both backups have its position, and the further one counts.
        rig.shared()
        rig.run(1)
        (proof,) = rig.drills().run([1])
    finally:
        shutil.rmtree(folder)
    assert proof.error == (
        "public.folio would give out a key twice: the default of folio gives one that is there."
    )  # fmt: skip
    assert checks(proof)["block digests"] == "passed"
    assert "setval" in (proof.hint or "")


def test_what_refuses_a_copy_of_a_row_is_no_failure(rig: Rig) -> None:
    rig.execute(
        "CREATE TABLE solo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uno boolean UNIQUE, dos text)",
        "INSERT INTO solo (uno, dos) VALUES (true, 'a')",
        "CREATE TABLE nunca (id serial PRIMARY KEY)",
        "INSERT INTO nunca DEFAULT VALUES",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$",
        "CREATE TRIGGER never BEFORE INSERT ON nunca FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    target = connections.parse("target", rig.database.postgres.uri(rig.database.name))
    tried = try_inserts(target)
    assert "public.nunca: SQLSTATE P0001" in tried.not_possible
    assert not [name for name in tried.not_possible if name.startswith("public.solo")]
    assert tried.failed == []
    # Nothing of it stays.
    assert rig.execute_rows("SELECT count(*) FROM solo") == [(1,)]
    rig.execute("ALTER TABLE solo ALTER id RESTART WITH 1")
    assert try_inserts(target).failed == [
        "public.solo would give out a key twice: the default of id gives one that is there"
    ]


def test_objects_that_only_a_superuser_may_make_fail_no_drill(rig: Rig) -> None:
    rig.execute(
        "CREATE EXTENSION pageinspect", "CREATE PUBLICATION todo FOR ALL TABLES",
        "CREATE FUNCTION public.nada() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
        "CREATE EVENT TRIGGER vigilante ON sql_drop EXECUTE FUNCTION public.nada()",
        "CREATE SUBSCRIPTION copia CONNECTION 'host=otro password=secreto-marcado' PUBLICATION p"
        " WITH (connect = false)",
    )  # fmt: skip
    try:
        # Only a superuser's pg_dump writes subscriptions.
        rig.clinic_db = connections.parse("clinic_db", rig.database.postgres.uri(rig.database.name))
        rig.shared()
    finally:
        rig.execute(
            "DROP EVENT TRIGGER vigilante", "ALTER SUBSCRIPTION copia SET (slot_name = NONE)",
            "DROP SUBSCRIPTION copia", "DROP PUBLICATION todo",
        )  # fmt: skip
    rig.run(1)
    (proof,) = rig.drills().run([1])
    assert (proof.outcome, proof.error) == ("proven", None)
    (apart,) = [check for check in json.loads(proof.certificate)["checks"] if check["name"] == "objects of superusers"]
    assert apart["outcome"] == "not possible"
    for name in ("pageinspect", "todo", "vigilante", "copia"):
        assert name in apart["detail"], name
    assert "secreto-marcado" not in proof.certificate


def test_rows_of_a_table_of_an_extension_are_proven(
    rig: Rig,
    tmp_path: Path,
    extension_with_rows: str,  # noqa: F811 - the fixture
) -> None:
    with_table_of(extension_with_rows, rig, tmp_path / "sql")
    rig.shared()
    rig.run(1)
    assert [(proof.outcome, proof.error) for proof in rig.drills().run([1, SHARED_ID])] == [("proven", None)] * 2


def test_a_session_that_dies_in_a_drop_says_so(rig: Rig) -> None:
    """As when the disk of the drills' server is full: it stops while the database is dropped."""
    with (
        Session(connections.parse("drill_db", rig.database.postgres.uri("postgres"))) as session,
        pytest.raises(TransientError, match=r"while dropping the database of a drill"),
    ):
        session.run_alone(sql.SQL("SELECT pg_terminate_backend(pg_backend_pid())"), "dropping the database of a drill")


def test_the_error_of_a_drill_outlives_that_of_the_drop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.shared()
    rig.run(1)
    drop = Server.drop

    def refused(server: Server, name: str) -> None:
        drop(server, name)
        raise TransientError("The server is gone.")

    def differing(*_: Any) -> Any:
        raise TransientError("No space left on device.")

    monkeypatch.setattr(Server, "drop", refused)
    monkeypatch.setattr(unit, "differences", differing)
    (proof,) = rig.drills().run([1])
    assert proof.error == "No space left on device."


def test_the_server_of_the_clinics_is_refused(rig: Rig) -> None:
    own = rig.database.postgres.uri("postgres")
    productive = [rig.clinic_db]
    rig.shared()
    with pytest.raises(SettingsError, match="leads to the server of clinic_db"):
        rig.drills(drill_db=connections.parse("drill_db", own), productive=productive).run([SHARED_ID])
    assert rig.execute_rows(f"SELECT count(*) FROM pg_database WHERE starts_with(datname, '{PREFIX}')") == [(0,)]
    # A role that may not ask leaves it open, so it is refused, too.
    rig.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
    try:
        with pytest.raises(SettingsError, match="cannot be told"):
            require_other_server(connections.parse("drill_db", own), productive)
    finally:
        rig.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO PUBLIC")


def test_drills_on_another_server_leave_nothing_there(rig: Rig) -> None:
    rig.shared()
    rig.run(1)
    with server_folder() as place, EmbeddedPostgres(place) as other:
        drill_db = connections.parse("drill_db", other.uri("postgres"))
        with closing(other.connect()) as db:
            db.autocommit = True
            with db.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {PREFIX}1_left")
                cursor.execute("SELECT rolname FROM pg_roles ORDER BY 1")
                before = cursor.fetchall()
                (proof,) = rig.drills(drill_db=drill_db, productive=[rig.clinic_db]).run([1])
                cursor.execute("SELECT rolname FROM pg_roles ORDER BY 1")
                assert cursor.fetchall() == before
                cursor.execute(f"SELECT datname FROM pg_database WHERE starts_with(datname, '{PREFIX}')")
                assert cursor.fetchall() == []
    assert (proof.error, proof.place) == (None, "connection drill_db")


KILLED_ELSEWHERE = """
import os, sys
from clinic_backups.base import connections
from clinic_backups.drill.place import Server
from clinic_backups.recovery import roles
from clinic_backups.recovery.session import Session
told = {"roles": [{"name": "jefe", "login": True, "inherit": True}]}
with Server.opened(connections.parse("drill_db", sys.argv[1]), []) as place:
    place.prepare(told)
    with Session(place.make("a")) as session:
        roles.make_roles(session, told)
        session.commit("making roles")
    os.kill(os.getpid(), 9)
"""


def test_a_drill_that_was_killed_on_another_server_leaves_no_role_there() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with server_folder() as place, EmbeddedPostgres(place) as other:
        words = [sys.executable, "-c", KILLED_ELSEWHERE, other.uri("postgres")]
        assert subprocess.run(words, env=environment).returncode == -signal.SIGKILL
        with closing(other.connect()) as db, db.cursor() as cursor:
            cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = 'jefe'")
            assert cursor.fetchall() == [("jefe",)]
            db.commit()
            with Server.opened(connections.parse("drill_db", other.uri("postgres")), []):
                pass
            cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = 'jefe'")
            assert cursor.fetchall() == []


def test_two_drills_on_one_server_by_two_databases() -> None:
    with server_folder() as place, EmbeddedPostgres(place) as other:
        with closing(other.connect()) as db:
            db.autocommit = True
            with db.cursor() as cursor:
                cursor.execute("CREATE DATABASE segunda")
        one, two = (connections.parse("drill_db", other.uri(name)) for name in ("postgres", "segunda"))
        with (
            Server.opened(one, []),
            pytest.raises(TransientError, match=r"Another drill runs on this server"),
            Server.opened(two, []),
        ):
            pass


KILLED = """
import sys, time
from pathlib import Path
from clinic_backups.drill.throwaway import throwaway
with throwaway(at_least=0, tools=None, parent=Path(sys.argv[1])) as place:
    place.make("a")
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_killed_drill_leaves_nothing_after_the_next_run(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (left,) = folder.glob(f"{FOLDER}*")
        assert left.stat().st_mode & 0o077 == 0
        # A living run's folder is not touched.
        assert remove_left(folder) == []
        server = int((left / "cluster" / "postmaster.pid").read_text().split()[0])
        process.send_signal(signal.SIGKILL)
        process.wait()
    os.kill(server, 0)  # the server has outlived it
    with throwaway(at_least=0, tools=None, parent=folder):
        assert not left.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(server, 0)


def test_the_drills_role_may_run_no_program_and_read_no_file(folder: Path) -> None:
    import psycopg2

    with throwaway(at_least=0, tools=None, parent=folder) as place:
        place.prepare({"roles": [{"name": "pg_execute_server_program"}, {"name": "jefe", "superuser": True}]})
        target = place.make("a")
        with closing(psycopg2.connect(**target.libpq_parameters())) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname IN ('jefe', current_user)")
            assert cursor.fetchall() == [(False, False)] * 2
            for statement in (
                "COPY (SELECT 1) TO PROGRAM 'true'",
                "SELECT pg_read_file('postgresql.conf')",
                "GRANT pg_execute_server_program TO current_user",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)


def test_openssl_verifies_a_certificate_and_a_changed_one_fails(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "secret.pem")
    assert (tmp_path / "secret.pem").stat().st_mode & 0o777 == 0o600
    document = '{"clinic":"Ñandú"}'.encode()
    signature = SigningKey.load(tmp_path / "secret.pem").sign(document)
    (tmp_path / "public.pem").write_text(key.public_pem)
    (tmp_path / "certificate.json").write_bytes(document)
    (tmp_path / "certificate.sig").write_bytes(signature)

    def openssl() -> int:
        return subprocess.run(
            [
                "openssl",
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                "public.pem",
                "-rawin",
                "-in",
                "certificate.json",
                "-sigfile",
                "certificate.sig",
            ],
            cwd=tmp_path,
            check=False,
            capture_output=True,
        ).returncode

    assert openssl() == 0
    verify(document, signature, key.public_pem.encode())
    (tmp_path / "certificate.json").write_bytes(document.replace(b"nd", b"nt"))
    assert openssl() != 0
    for changed, signed, by in (
        (document + b" ", signature, key),
        (document, signature[:-1] + bytes([signature[-1] ^ 1]), key),
        (document, signature, SigningKey.generate()),
    ):
        with pytest.raises(IntegrityError, match="does not belong"):
            verify(changed, signed, by.public_pem.encode())
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        verify(document, signature, b"x")


def test_the_board_the_metrics_and_the_page_show_the_last_proof(rig: Rig) -> None:
    now = rig.catalog.clock()
    clinics = [Clinic(1, "Uno"), Clinic(2, "Dos")]
    Clinics(rig.catalog.database).see(active=clinics, every=clinics)
    key = SigningKey.generate()

    def add(clinic_id: int, *, good: bool = True, age: float = 0, signed: bool = True) -> int:
        number, document = rig.proofs.next_number(), f'{{"clinic":{clinic_id}}}'
        rig.proofs.add(
            ProofRecord(
                number, clinic_id, "Uno", f"{clinic_id}-x", "proven" if good else "failed", now,
                now - timedelta(days=age), 8.4, "embedded", document,
                key.sign(document.encode()) if signed else None, key.public_pem if signed else None,
                None if good else "It is damaged.", None if good else "Back it up.",
            )
        )  # fmt: skip
        return number

    add(1, age=5)
    newest = add(1, age=3)
    add(1, good=False)
    board = Board(rig.catalog.database)
    line = board.clinic(1, now=now, objective_hours=26, prove_within_days=0)
    assert line is not None
    assert (line.proven_at, line.proof_seconds, line.proof_number) == (now - timedelta(days=3), 8.4, newest)
    one, two = board.metrics(visible=None, now=now)
    assert (one.proven_at, one.proof_seconds, one.drills_failed) == (line.proven_at, 8.4, 1)
    assert (two.proven_at, two.proof_seconds, two.drills_failed) == (None, None, 0)
    text = exposition([one, two], now).decode()
    assert 'clinic_backups_drill_proven_age_seconds{clinic="Uno",clinic_id="1"} 259200.0' in text
    assert 'clinic_backups_recovery_seconds{clinic="Uno",clinic_id="1"} 8.4' in text
    assert 'clinic_backups_drills_failed{clinic="Uno",clinic_id="1"} 1.0' in text
    # The file for the clinic's people: with it and the key alone the signature can be checked.
    data, name = certificate_of(rig.proofs, 1)
    assert name == f"certificate_{newest}.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    assert set(files) == {"certificate.json", "certificate.sig", "public.pem", "verify.txt"}
    verify(files["certificate.json"], files["certificate.sig"], files["public.pem"])
    with pytest.raises(NotVisible):
        certificate_of(rig.proofs, 2)
    add(2, signed=False)
    with zipfile.ZipFile(io.BytesIO(certificate_of(rig.proofs, 2)[0])) as packed:
        assert packed.namelist() == ["certificate.json"]


DRILLED = [
    # Ages of a clinic's drills in days, the oldest first; a negative one failed. Since how many days it is known. Its
    # standing with proofs of 7 days, and with proofs of any age.
    ([2], 90, "ok", "ok"),
    ([9], 90, "unproven", "ok"),
    ([], 90, "unproven", "ok"),
    ([], 3, "ok", "ok"),
    ([2, -1], 90, "unproven", "unproven"),
    ([-2, 1], 90, "ok", "ok"),
    ([20, -9], 90, "unproven", "unproven"),
    ([-0.5], 1, "unproven", "unproven"),
]


@pytest.mark.parametrize("drilled", [DRILLED[:4], DRILLED[4:]], ids=["old", "failed"])
def test_a_clinic_is_on_time_only_if_it_is_proven(rig: Rig, drilled: list[tuple[list[float], float, str, str]]) -> None:
    now = rig.catalog.clock()
    cases = dict(enumerate(drilled, 1))
    clinics = [Clinic(number, f"Clínica {number}") for number in cases]
    Clinics(rig.catalog.database).see(active=clinics, every=clinics)
    for number, (ages, known, _, _) in cases.items():
        rig.run(number)
        with rig.catalog.database.transaction("a clinic that is known for some time") as db:
            row = clinic_table.update().where(clinic_table.c.clinic_id == number)
            db.execute(row.values(proof_since=now - timedelta(days=known)))
        for age in ages:
            rig.proofs.add(
                ProofRecord(
                    rig.proofs.next_number(), number, "Una", f"{number}-x", "proven" if age > 0 else "failed", now,
                    now - timedelta(days=abs(age)), 1, "embedded", "{}", error=None if age > 0 else "It is damaged.",
                )
            )  # fmt: skip
    board = Board(rig.catalog.database)
    for column, days in ((2, 7), (3, 0)):
        asked = {"visible": list(cases), "now": now, "objective_hours": 26, "prove_within_days": days}
        expected = {number: case[column] for number, case in cases.items()}
        lines = board.page(**asked).lines
        assert {line.clinic_id: line.standing for line in lines} == expected
        ranks = [("never", "late", "unproven", "ok").index(line.standing) for line in lines]
        assert ranks == sorted(ranks)
        for standing in ("ok", "unproven"):
            assert {line.clinic_id for line in board.page(**asked, standing=standing).lines} == {
                number for number, found in expected.items() if found == standing
            }
        counts = board.counts(**asked)
        assert (counts.ok, counts.unproven, counts.late, counts.never) == (
            *(list(expected.values()).count(standing) for standing in ("ok", "unproven")), 0, 0,
        )  # fmt: skip
        alone = {key: value for key, value in asked.items() if key != "visible"}
        found = {number: board.clinic(number, **alone) for number in cases}
        assert {number: line and line.standing for number, line in found.items()} == expected
        failed = {number for number, case in cases.items() if case[0] and -(days or 30) < case[0][-1] < 0}
        assert {number for number, line in found.items() if line and line.drill_error} == failed
        # The alarm is about the age alone: a failed drill has had a mail of its own.
        too_old = {each.clinic_id for each in unproven(rig.proofs.candidates(now), now, days)} if days else set()
        assert too_old <= {number for number, standing in expected.items() if standing == "unproven"}


def test_a_damaged_backup_of_the_shared_data_fails_by_name_and_stops_no_clinic(rig: Rig) -> None:
    older = rig.shared()
    rig.run(1)
    newest = rig.backup().run(BackupRequest(SHARED, requested_by="prueba", kind="full"))
    flip(rig.store, newest.archive_key)
    rig.stores = Stores.of(rig.store)
    bad, good = rig.drills().run([SHARED_ID, 1])
    assert (bad.backup_id, bad.outcome) == (newest.backup_id, "failed")
    assert newest.archive_key in (bad.error or "")
    assert json.loads(bad.certificate)["bad_replicas"] == [{"backup_id": newest.backup_id, "problem": "damaged"}]
    assert good.is_good, good.error
    assert json.loads(good.certificate)["shared_backup"] == older.backup_id


def test_a_row_that_moved_between_the_two_moments_is_no_failure(rig: Rig) -> None:
    rig.shared()
    ((moved,),) = rig.execute_rows("SELECT min(id) FROM public.usuarios_usuario WHERE clinica_id IS NULL")
    rig.execute(f"UPDATE public.usuarios_usuario SET clinica_id = 1 WHERE id = {moved}")
    rig.run(1)
    (proof,) = rig.drills().run([1])
    assert proof.is_good, proof.error
    assert checks(proof)["rows in both backups"] == "passed"


def test_a_row_that_refers_to_a_row_in_neither_backup_fails_by_name(rig: Rig) -> None:
    rig.shared()
    # A group that came after the shared data were read, and a user of the clinic who is in it.
    rig.execute(
        "INSERT INTO public.auth_group (name) VALUES ('nuevo')",
        "INSERT INTO public.usuarios_usuario_groups (usuario_id, group_id)"
        " SELECT (SELECT min(id) FROM public.usuarios_usuario WHERE clinica_id = 1), max(id) FROM public.auth_group",
    )
    rig.run(1)
    (proof,) = rig.drills().run([1])
    assert "public.usuarios_usuario_groups refer to rows that are in neither backup" in (proof.error or "")
    assert checks(proof) == {"constraints": "failed"}
    rig.shared()
    assert rig.drills().run([1])[0].is_good
