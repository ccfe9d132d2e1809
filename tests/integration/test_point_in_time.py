"""A clinic comes back from a server that was recovered to an earlier second, from a base backup and archived WAL."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine

from clinic_backups.archive.chain import choose
from clinic_backups.base import connections
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError
from clinic_backups.base.retention_rules import RetentionPolicy, last_good
from clinic_backups.base.retention_rules import plan as plan_retention
from clinic_backups.base.settings import Settings
from clinic_backups.catalog import migrate
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.restore.request import RestoreRequest, parse
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo import database
from include.demo.postgres import SERVER_USER, THROWAWAY, EmbeddedPostgres
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.integration.test_restore_runner import Theatre
from tests.postgres_fixtures import DemoDatabase, copy_files, copy_of, server_folder

STOCK, PATIENT = "public.inventario_inventario", "public.usuarios_paciente"
SETTINGS = {**THROWAWAY, "wal_level": "replica", "archive_mode": "on", "autovacuum": "off"}


@dataclass
class Past:
    """A server whose base backup and WAL are kept, and the second before an accident.

    :param states: the rows of clinics 1 and 2 at that second, by the clinic's id.
    :param accident_at: later than that second, and before the accident.
    """

    present: DemoDatabase
    folder: Path
    states: dict[int, dict[str, bytes]]
    accident_at: datetime

    @contextmanager
    def recovered(self, action: str = "promote") -> Iterator[DemoDatabase]:
        """A copy of the base backup that was recovered to the second before the accident."""
        with server_folder() as place:
            place.mkdir()
            shutil.copytree(self.folder / "cluster", place / "cluster")
            shutil.copy(self.folder / "password", place / "password")
            for path in (place, *place.rglob("*")):
                shutil.chown(path, SERVER_USER)
            (place / "cluster").chmod(0o700)
            (place / "cluster" / "recovery.signal").touch()
            settings = {
                **SETTINGS, "restore_command": f"cp {self.folder.parent}/wal/%f %p", "recovery_target_action": action,
                "recovery_target_time": self.accident_at.isoformat(), "archive_mode": "off",
            }  # fmt: skip
            with EmbeddedPostgres(place, settings=settings) as server:
                copy = replace(self.present, postgres=server)
                ended = (
                    "NOT pg_is_in_recovery()" if action == "promote" else "pg_get_wal_replay_pause_state() = 'paused'"
                )
                wait_for(lambda: ask(copy, f"SELECT {ended}"))
                yield copy


def ask(server: DemoDatabase, query: str) -> Any:
    with closing(server.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


def wait_for(found: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "It never came."
        time.sleep(0.05)


def rows_of(server: DemoDatabase, clinic_id: int) -> dict[str, bytes]:
    """The rows of one clinic, by the program's extracts and psycopg2's own COPY."""
    found = {}
    with closing(server.connect()) as db, db.cursor() as cursor:
        for name, query in SqlExtract().rendered(SqlFolder(Settings().sql_dir), clinic_id).items():
            lines: list[bytes] = []

            class Lines:
                def write(self, data: bytes, into: list[bytes] = lines) -> None:
                    into.append(data)

            cursor.copy_expert(f"COPY ({query}) TO STDOUT", Lines())
            found[name] = b"".join(sorted(b"".join(lines).splitlines(keepends=True)))
    return found


def change(server: DemoDatabase, *statements: str) -> None:
    with closing(server.connect()) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture(scope="module")
def past() -> Iterator[Past]:
    """Work, the second, the accident of clinic 1, and more work of both clinics."""
    with server_folder() as first, server_folder() as base:
        wal = base.parent / "wal"
        wal.mkdir()
        shutil.chown(wal, SERVER_USER)
        keep = {"archive_command": f"cp %p {wal}/%f"}
        with EmbeddedPostgres(first, settings=SETTINGS | keep) as server:
            database.load(server, "demo", clinics=3, patients=10)
            present = DemoDatabase(server, "demo", database.create_roles(server, "demo"))
            with create_engine(present.catalog_uri, poolclass=NullPool).begin() as db:
                migrate.upgrade(db)
            copy_files(server, base)
            change(present, f"UPDATE {STOCK} SET cantidad = cantidad + 7")
            time.sleep(1.1)
            accident_at = ask(present, "SELECT clock_timestamp()")
            states = {clinic_id: rows_of(present, clinic_id) for clinic_id in (1, 2)}
            time.sleep(0.2)
            change(present, "DELETE FROM public.citas_horario AS h USING public.profesionales_odontologo AS o"
                   " WHERE h.odontologo_id = o.id AND o.clinica_id = 1")  # fmt: skip
            change(present, f"UPDATE {STOCK} SET cantidad = cantidad + 1 WHERE clinica_id IN (1, 2)")
            seen = ask(present, "SELECT pg_walfile_name(pg_current_wal_lsn())")
            change(present, "SELECT pg_switch_wal()")
            wait_for(lambda: (wal / seen).exists())
            session = present.session
            yield Past(present, base, states, accident_at)
            session.close()


@pytest.fixture
def theatre(past: Past, tmp_path: Path) -> Iterator[Theatre]:
    """Restores into the present database; what a test changes there is not undone."""
    theatre = Theatre(past.present, FileStore(tmp_path / "store"))
    theatre.now = datetime.now(UTC)
    yield theatre
    theatre.execute("TRUNCATE clinic_backups.backup, clinic_backups.clinic, clinic_backups.restore CASCADE")


@pytest.fixture(scope="module")
def clone(past: Past) -> Iterator[DemoDatabase]:
    with past.recovered() as server:
        yield server


def from_pitr(theatre: Theatre, server: DemoDatabase, **wish: Any) -> RestoreRequest:
    theatre.earlier = {"pitr_db": server.reader_uri}
    return RestoreRequest(clinic_id=1, from_connection="pitr_db", **wish)


def test_one_clinic_comes_back_from_that_second_and_the_undo_takes_it_back(
    theatre: Theatre, past: Past, clone: DemoDatabase
) -> None:
    before = {clinic_id: rows_of(past.present, clinic_id) for clinic_id in (1, 2, 3)}
    assert before[1] != past.states[1]
    at_the_clone = rows_of(clone, 1)
    approved = theatre.approved(from_pitr(theatre, clone))
    record = theatre.runner().apply(approved)
    assert rows_of(past.present, 1) == past.states[1]
    assert {clinic_id: rows_of(past.present, clinic_id) for clinic_id in (2, 3)} == {2: before[2], 3: before[3]}
    assert rows_of(clone, 1) == at_the_clone
    taken = theatre.catalog.require(record.backup_id)
    last = ask(clone, "SELECT pg_last_xact_replay_timestamp()")
    assert taken.data_time == last < past.accident_at
    assert f"pitr_db (database demo at 127.0.0.1:{clone.postgres.port}, timeline 2)" == taken.read_from
    assert record.plan["snapshot_at"] == last.isoformat().replace("+00:00", "Z")
    (said,) = [note for note in (approved.plan or {})["notes"] if "were read from" in note]
    assert taken.read_from in said and last.isoformat(timespec="seconds")[:19] in said
    theatre.go(RestoreRequest(clinic_id=1, backup_id=record.safety_backup_id))
    assert rows_of(past.present, 1) == before[1]


def test_single_rows_come_back_from_that_second_too(theatre: Theatre, past: Past, clone: DemoDatabase) -> None:
    before = rows_of(past.present, 1)
    ((key,),) = theatre.execute_rows("SELECT min(id) FROM public.profesionales_odontologo WHERE clinica_id = 1")
    request = from_pitr(theatre, clone, mode="rows", rows={"public.profesionales_odontologo": (str(key),)})
    theatre.go(request)
    after, hours = rows_of(past.present, 1), "public.citas_horario"
    added = set(after[hours].splitlines()) - set(before[hours].splitlines())
    assert (
        added
        == {line for line in past.states[1][hours].splitlines() if line.split(b"\t")[0] == str(key).encode()}
        != set()
    )
    assert {name: rows for name, rows in after.items() if name != hours} == {
        name: rows for name, rows in before.items() if name != hours
    }


def test_it_counts_for_nothing_but_its_own_restore(theatre: Theatre, clone: DemoDatabase) -> None:
    usual = theatre.back_up()
    theatre.runner().plan(from_pitr(theatre, clone))
    (taken,) = [each for each in theatre.catalog.find(clinic_id=1) if each.read_from]
    theatre.now = taken.started_at + timedelta(minutes=1)
    known = {each.backup_id: each for each in (usual, taken)}
    assert theatre.runner().choose(RestoreRequest(clinic_id=1)) == usual
    assert last_good(known.values(), known, theatre.now) == [usual]
    chosen = choose("auto", [taken, usual], theatre.settings, theatre.now, recipients=usual.recipients,
                    schema_digest=None)  # fmt: skip
    assert chosen.parent_id == usual.backup_id
    assert choose("auto", [taken], theatre.settings, theatre.now, recipients=(), schema_digest=None).chain == ()
    clinic = Clinic(1, "Uno")
    Clinics(theatre.catalog.database).see(active=[clinic], every=[clinic])
    line = Board(theatre.catalog.database).clinic(1, now=theatre.now, objective_hours=26, prove_within_days=0)
    assert line is not None and line.last_good_id == usual.backup_id
    moments = {each.backup_id: each.is_regular for each in History(theatre.catalog.database).moments(1)}
    assert moments == {usual.backup_id: True, taken.backup_id: False}
    assert [each.backup_id for each in theatre.catalog.extremes(theatre.now)] == [usual.backup_id]
    # It is kept for its own time, and no longer than others.
    policy = RetentionPolicy(keep_days=30)

    def kept(now: datetime) -> dict[str, bool]:
        return {each.backup.backup_id: each.keep
                for each in plan_retention([usual, taken], policy, now, zone=UTC)}  # fmt: skip

    assert kept(theatre.now + timedelta(days=29)) == {usual.backup_id: True, taken.backup_id: True}
    assert kept(theatre.now + timedelta(days=40)) == {usual.backup_id: True, taken.backup_id: False}


def test_a_paused_standby_is_a_moment_and_a_following_one_is_none(theatre: Theatre, past: Past) -> None:
    with past.recovered("pause") as standby:
        plan = theatre.runner().plan(from_pitr(theatre, standby, as_of=past.accident_at))
        assert plan.writes and not plan.refusals
        (said,) = [note for note in plan.notes if "were read from" in note]
        assert "recovered to" in said
        change(standby, "SELECT pg_wal_replay_resume()")
        wait_for(lambda: not ask(standby, "SELECT pg_is_in_recovery()"))


def test_a_server_that_was_restarted_does_not_know_its_time_any_more(theatre: Theatre, past: Past) -> None:
    with past.recovered() as server:
        with pytest.raises(PermanentError, match="newer than") as caught:
            theatre.runner().plan(from_pitr(theatre, server, as_of=past.accident_at - timedelta(minutes=1)))
        assert "no as_of" in caught.value.hint
        server.postgres.stop()
        (server.postgres.data_dir / "cluster" / "recovery.signal").unlink(missing_ok=True)
        server.postgres.start()
        with pytest.raises(PermanentError, match="does not know to which time") as caught:
            theatre.runner().plan(from_pitr(theatre, server))
        assert "--as-of" in caught.value.hint
        with pytest.raises(SettingsError, match="in the future"):
            theatre.runner().plan(from_pitr(theatre, server, as_of=datetime.now(UTC) + timedelta(days=1)))
        plan = theatre.runner().plan(from_pitr(theatre, server, as_of=past.accident_at))
        assert plan.snapshot_at == past.accident_at
        assert any("was given with the request" in note for note in plan.notes)
    assert {each.state for each in theatre.catalog.find(clinic_id=1)} == {"completed", "failed"}


def test_the_present_is_no_earlier_time(theatre: Theatre, past: Past) -> None:
    """Under another name, another role and another address of the same server."""
    uris = (
        past.present.reader_uri,
        past.present.restorer_uri,
        past.present.reader_uri.replace("127.0.0.1", "localhost"),
    )
    for uri in uris:
        theatre.earlier = {"pitr_db": uri}
        request = RestoreRequest(clinic_id=1, from_connection="pitr_db", as_of=past.accident_at)
        with pytest.raises(PermanentError, match="same database as restore_db"):
            theatre.runner().plan(request)
    assert theatre.objects() == []


def test_a_server_that_refuses_us_is_not_taken_for_another_one(theatre: Theatre, past: Past) -> None:
    """Backups are read from it, and its password has changed: nobody knows whether it is the same."""
    with past.recovered() as server:
        theatre.clinic_db = connections.parse("clinic_db", past.present.reader_uri.replace("@", "x@"))
        with pytest.raises(PermanentError, match="password authentication failed"):
            theatre.runner().plan(from_pitr(theatre, server))


def test_a_copy_of_the_running_files_is_another_database(theatre: Theatre, past: Past, tmp_path: Path) -> None:
    """As a branch or a snapshot of a volume: the same system identifier and timeline, and not in recovery."""
    with server_folder() as place:
        place.mkdir()
        shutil.copytree(past.folder / "cluster", place / "cluster")
        shutil.copy(past.folder / "password", place / "password")
        for path in (place, *place.rglob("*")):
            shutil.chown(path, SERVER_USER)
        (place / "cluster").chmod(0o700)
        with EmbeddedPostgres(place, settings={**SETTINGS, "archive_mode": "off"}) as server:
            copy = replace(past.present, postgres=server)
            plan = theatre.runner().plan(from_pitr(theatre, copy, as_of=past.accident_at))
            assert plan.writes and not plan.refusals


def test_another_server_needs_an_explicit_word(theatre: Theatre, demo_database: DemoDatabase, past: Past) -> None:
    """Before a row of it is read: its clinic 1 may be somebody else's."""
    request = from_pitr(theatre, demo_database, as_of=past.accident_at)
    with pytest.raises(PermanentError, match="on another server") as caught:
        theatre.runner().plan(request)
    assert "--other-database" in caught.value.hint
    assert theatre.objects() == []
    assert theatre.catalog.find(state="completed") == []
    allowed = theatre.runner().plan(replace(request, other_database=True))
    assert not any("on another server" in refusal.message for refusal in allowed.refusals)


def test_a_clinic_that_was_not_there_is_named(theatre: Theatre, clone: DemoDatabase) -> None:
    theatre.earlier = {"pitr_db": clone.reader_uri}
    with pytest.raises(PermanentError, match="Clinic 99 is not in the database of pitr_db"):
        theatre.runner().plan(RestoreRequest(clinic_id=99, from_connection="pitr_db"))
    assert theatre.catalog.find(clinic_id=99) == []


def test_a_migration_since_then_is_no_obstacle(theatre: Theatre, past: Past, clone: DemoDatabase) -> None:
    before = rows_of(past.present, 1)
    theatre.execute(f"ALTER TABLE {STOCK} ADD COLUMN lote integer DEFAULT 5")
    try:
        plan = theatre.runner().plan(from_pitr(theatre, clone))
        assert not plan.refusals
        (stock,) = [table for table in plan.tables if table.table == STOCK]
        assert stock.update == len(before[STOCK].splitlines())
        assert set(stock.columns) == {"cantidad"}
    finally:
        theatre.execute(f"ALTER TABLE {STOCK} DROP COLUMN lote")


def test_a_table_that_came_later_is_left_as_it_is(theatre: Theatre, past: Past) -> None:
    """Its extract reads a table that was not there then."""
    with past.recovered() as server:
        change(server, "DROP TABLE public.auditoria_bitacora CASCADE")
        before = rows_of(past.present, 1)["public.auditoria_bitacora"]
        request = from_pitr(theatre, server)
        plan = theatre.runner().plan(request)
        (table,) = [each for each in plan.tables if each.table == "public.auditoria_bitacora"]
        assert "Its rows are left as they are" in table.notes[0]
        assert not plan.refusals
        theatre.go(request)
        assert rows_of(past.present, 1)["public.auditoria_bitacora"] == before


@pytest.mark.parametrize("how", ["drift.txt", "number"])
def test_a_table_that_was_only_renamed_did_not_come_later(
    theatre: Theatre, past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """No other extract joins it, so nothing else fails. Its rows would not come back."""
    with past.recovered() as server:
        change(server, "ALTER TABLE public.auditoria_bitacora RENAME TO auditoria_vieja")
        request = from_pitr(theatre, server)
        if how == "drift.txt":
            now = tmp_path / "now"
            shutil.copytree(theatre.settings.sql_dir, now)
            (now / "drift.txt").write_text("public.auditoria_vieja -> public.auditoria_bitacora\n")
            theatre.settings = theatre.settings.model_copy(update={"sql_dir": now})
            monkeypatch.setattr(
                "clinic_backups.restore.point_in_time._NUMBERS", "SELECT 0::bigint WHERE %(names)s IS NULL"
            )
        with pytest.raises(PermanentError, match=r"had other names at that time: public\.auditoria_vieja") as caught:
            theatre.runner().plan(request)
        assert "CLINIC_BACKUPS_POINT_IN_TIME_SQL_DIR" in caught.value.hint


def test_tables_that_were_others_need_the_sql_of_then(theatre: Theatre, past: Past, tmp_path: Path) -> None:
    """A table was renamed since, and other extracts join it."""
    with past.recovered() as server:
        change(server, f"ALTER TABLE {PATIENT} RENAME TO usuarios_enfermo")
        request = from_pitr(theatre, server)
        with pytest.raises(PermanentError, match="cannot be read from pitr_db") as caught:
            theatre.runner().plan(request)
        assert "CLINIC_BACKUPS_POINT_IN_TIME_SQL_DIR" in caught.value.hint
        then = tmp_path / "then"
        shutil.copytree(theatre.settings.sql_dir, then)
        for file in [*then.rglob("*.sql"), *then.rglob("*.txt")]:
            file.write_text(file.read_text().replace("usuarios_paciente", "usuarios_enfermo"))
        (then / "extract" / "usuarios_paciente.sql").rename(then / "extract" / "usuarios_enfermo.sql")
        now = tmp_path / "now"
        shutil.copytree(theatre.settings.sql_dir, now)
        (now / "drift.txt").write_text("public.usuarios_enfermo -> public.usuarios_paciente\n")
        theatre.settings = theatre.settings.model_copy(update={"sql_dir": now, "point_in_time_sql_dir": then})
        plan = theatre.runner().plan(request)
        (patients,) = [table for table in plan.tables if table.table == PATIENT]
        assert not plan.refusals and patients.unchanged > 0


def test_a_remedy_is_about_the_connection_that_was_read(theatre: Theatre, past: Past) -> None:
    with past.recovered() as server:
        change(server, f"REVOKE SELECT ON {STOCK} FROM {server.roles.reader}")
        with pytest.raises(PermanentError, match="cannot be read from pitr_db") as caught:
            theatre.runner().plan(from_pitr(theatre, server))
        assert "connection pitr_db" in caught.value.hint and "clinic_db" not in caught.value.hint


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"from_connection": "clinic_db"}, "not named as a connection to a point in time"),
        ({"from_connection": "otra; DROP"}, "not named as a connection to a point in time"),
        ({"from_connection": "pitr_db", "backup_id": "1-20261124T060000Z"}, "both backup_id and from_connection"),
        ({"from_connection": "pitr_db", "mode": "into", "schema": "look"}, "do not fit together"),
        ({"from_connection": ["pitr_db"]}, "not the name of a connection"),
        ({"from_connection": "pitr\n_db"}, "not the name of a connection"),
    ],
)
def test_a_conf_names_only_connections_that_the_settings_name(
    theatre: Theatre, more: dict[str, Any], said: str
) -> None:
    def planned() -> object:
        request, _ = parse({"clinic_id": 1, **more}, every=[], requested_by="x", run_id=None, zone=UTC)
        return theatre.runner().plan(request)

    with pytest.raises(SettingsError, match=said):
        planned()
    assert theatre.catalog.find() == []


def test_a_source_that_dies_leaves_nothing_and_is_worth_a_retry(theatre: Theatre, past: Past) -> None:
    with past.recovered() as server:
        request = from_pitr(theatre, server)
    with pytest.raises(TransientError):
        theatre.runner().plan(request)
    assert theatre.objects() == []


def test_it_is_read_only(theatre: Theatre, clone: DemoDatabase) -> None:
    """The connection's role may write. The session may not."""
    with Snapshot(connections.parse("pitr_db", clone.restorer_uri)) as snapshot, pytest.raises(ClinicBackupsError):
        snapshot.rows(f"UPDATE {STOCK} SET cantidad = 0 RETURNING 1", None, "trying to write")


def test_the_command_restores_and_lists_it(
    run: Run,  # noqa: F811
    demo_template: DemoDatabase,
    tmp_path: Path,
) -> None:
    """The database of the earlier time is another one of the same server, so its time has to be given."""
    with copy_of(demo_template) as earlier, copy_of(demo_template) as present:
        change(present, f"DELETE FROM {STOCK} WHERE clinica_id = 1")
        at = datetime.now(UTC) - timedelta(hours=3)
        more = restore_keys(run, tmp_path / "identity", present) | {
            "AIRFLOW_CONN_CLINIC_DB": present.reader_uri, "AIRFLOW_CONN_BACKUP_CATALOG": present.catalog_uri,
            "AIRFLOW_CONN_PITR_DB": earlier.reader_uri,
        }  # fmt: skip
        run("store", "init", **more)
        words = ("restore", "--clinic", "1", "--identity", str(tmp_path / "identity"), "--from-connection", "pitr_db")
        unknown = run(*words, "--plan", "--other-database", **more)
        assert (unknown.code, "--as-of" in unknown.err) == (1, True)
        words = (*words, "--as-of", at.isoformat())
        refused = run(*words, "--plan", **more)
        assert (refused.code, "--other-database" in refused.err) == (1, True)
        done = run(*words, "--other-database", "--yes", **more)
        assert done.code == 0, done.err
        assert rows_of(present, 1) == rows_of(earlier, 1)
        listed = run("list", "--clinic", "1", "--json", **more).json()
        assert [record["read_from"] is not None for record in listed if record["state"] == "completed"].count(True) == 1
        shown = run("list", "--clinic", "1", **more).out
        assert "pitr_db" in shown
        usual = run("restore", "--clinic", "1", "--identity", str(tmp_path / "identity"), "--plan", **more)
        assert "except safety backups and backups of a point in time" in usual.err
        for option in ("--backup", "--archive"):
            both = run(*words, option, "1-20261124T060000Z", **more)
            assert both.code == 2
