"""The shared unit: with the clinics' backups it holds every row that must not be lost, each once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyrage
import pytest

from clinic_backups.archive.reader import Manifest, read_archive
from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.base.shared_unit import DEFINITION, ROLES, SEQUENCES, SHARED, SHARED_ID, SQL, UNDUMPED
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.fleet_moments import FleetMoment, fleet_moments
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.parent_tables import OF_SHARED
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant import people
from clinic_backups.tenant.extract import SqlFolder
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig
from tests.servers import CHECKOUT

NO_BACKUP = {"public.citas_recordatorio", "public.django_admin_log", "public.django_session"}
"""What ``not_backed_up.txt`` gives up on purpose."""


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


def shared(rig: Rig, **options: Any) -> BackupRecord:
    return rig.backup().run(BackupRequest(SHARED, requested_by="prueba", **options))


def manifest(rig: Rig, record: BackupRecord) -> Manifest:
    with rig.store.open(record.archive_key) as stream:
        return read_archive(stream, [pyrage.x25519.Identity.from_str(rig.identity)], expected=record.archive)


def all_rows(rig: Rig, table: str) -> Counter[str]:
    """The rows of a table as PostgreSQL itself writes them, by a superuser."""
    schema, name = table.split(".", 1)
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET datestyle = 'ISO, YMD'")
        rows: list[str] = []

        class Sink:
            def write(self, data: bytes | str) -> None:
                rows.append(data.decode() if isinstance(data, bytes) else data)

        cursor.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            (f'"{schema}"."{name}"',),
        )
        ((columns,),) = cursor.fetchall()
        cursor.copy_expert(f'COPY (SELECT {columns} FROM "{schema}"."{name}") TO STDOUT (FORMAT csv)', Sink())
        return Counter(rows)


def tables_of(rig: Rig) -> list[str]:
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT IN"
            " ('pg_catalog', 'information_schema', 'clinic_backups') ORDER BY 1"
        )
        return [name for (name,) in cursor]


def clinics_of(rig: Rig) -> list[int]:
    with closing(rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT id FROM public.comun_clinica ORDER BY 1")
        return [id_ for (id_,) in cursor]


def lines(data: bytes) -> Counter[str]:
    """The rows of an archive. The demo's values have no line breaks in the tables that are compared."""
    return Counter(line + "\n" for line in data.decode().split("\n")[:-1])


class TestRows:
    def test_with_the_clinics_backups_every_row_is_backed_up_once(self, rig: Rig) -> None:
        rig.kind = "full"
        held: dict[str, Counter[str]] = {}
        for record in (shared(rig), *(rig.run(clinic) for clinic in clinics_of(rig))):
            for name, data in rig.open(record).tables.items():
                held.setdefault(name, Counter()).update(lines(data))
        compared = 0
        for name in set(tables_of(rig)) - NO_BACKUP:
            rows = all_rows(rig, name)
            if any("\n" in row[:-1] for row in rows):
                assert held[name].total() >= rows.total(), name
                continue
            assert held.get(name, Counter()) == rows, name
            compared += rows.total()
        assert compared > 300

    def test_it_holds_what_belongs_to_no_clinic(self, rig: Rig) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.usuarios_usuario WHERE clinica_id IS NULL")
            ((staff,),) = cursor.fetchall()
            cursor.execute("SELECT count(*) FROM public.auth_group")
            ((groups,),) = cursor.fetchall()
        rows = shared(rig).rows
        assert staff > 0
        assert rows["public.usuarios_usuario"] == staff
        assert rows["public.auth_group"] == groups > 0
        assert rows["public.usuarios_paciente"] == 0
        assert not NO_BACKUP & rows.keys()

    def test_equal_rows_without_a_key_are_counted(self, rig: Rig, tmp_path: Path) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE public.notas (clinica_id int REFERENCES public.comun_clinica, texto text);"
                "INSERT INTO public.notas SELECT c, 'igual' FROM unnest(ARRAY[1, 1, 2, NULL, NULL, NULL]) AS c;"
                f"GRANT SELECT ON public.notas TO {rig.database.roles.reader}"
            )
        rig.settings = replace_sql(
            rig, tmp_path, {"extract/notas.sql": "SELECT * FROM public.notas WHERE clinica_id = {{ clinic_id }}"}
        )
        assert rig.open(shared(rig)).tables["public.notas"] == b",igual\n" * 3

    def test_the_next_one_is_incremental(self, rig: Rig) -> None:
        first = shared(rig)
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute("INSERT INTO public.auth_group (name) VALUES ('Nuevos')")
        second = shared(rig)
        assert (second.kind, second.parent_id) == ("incremental", first.backup_id)
        assert second.rows["public.auth_group"] == first.rows["public.auth_group"] + 1
        assert manifest(rig, second).files.keys() == manifest(rig, first).files.keys()


def replace_sql(rig: Rig, tmp_path: Path, files: dict[str, str], remove: tuple[str, ...] = ()) -> Any:
    """The settings with a copy of the SQL folder that has these files too; lines are appended to existing ones."""
    folder = tmp_path / "sql"
    shutil.copytree(rig.settings.sql_dir, folder)
    for name, text in files.items():
        path = folder / name
        path.write_text((path.read_text() if path.exists() and path.suffix == ".txt" else "") + text)
    for name in remove:
        (folder / name).unlink()
    return rig.settings.model_copy(update={"sql_dir": folder})


class TestGate:
    def test_a_table_that_nobody_has_classified_is_named(self, rig: Rig) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute("CREATE TABLE public.tarifas (id int PRIMARY KEY)")
        with pytest.raises(PermanentError) as found:
            shared(rig)
        assert "public.tarifas leads to no clinic" in str(found.value)
        assert "`public.tarifas: shared, reason`" in str(found.value)
        assert list(rig.store.list("backups/")) == []
        record = shared(rig, allow_gaps=True)
        assert [gap.table for gap in record.gaps] == ["public.tarifas"]
        assert rig.run(1).state == "completed"

    def test_the_id_is_no_clinics(self, rig: Rig, tmp_path: Path) -> None:
        rig.settings = replace_sql(rig, tmp_path, {}, ())
        folder = rig.settings.sql_dir
        (folder / "clinic_table.txt").write_text("public.comun_clinica\nkey: id text\n")
        key = f"CASE id WHEN 1 THEN '{SHARED_ID}' ELSE id::text || 'x' END"
        both = f"SELECT {key}, nombre, idioma FROM public.comun_clinica"
        (folder / "all_clinics.sql").write_text(both)
        (folder / "active_clinics.sql").write_text(both)
        found = people.clinics(rig.clinic_db, SqlFolder(folder))
        assert SHARED_ID not in {clinic.id for clinic in found.every}
        assert [each.key for each in found.unusable] == [SHARED_ID]

    def test_without_pg_dump_it_says_how_to_get_it(self, rig: Rig, tmp_path: Path) -> None:
        empty = tmp_path / "nothing"
        empty.mkdir()
        rig.settings = rig.settings.model_copy(update={"postgres_bin": empty})
        with pytest.raises(PermanentError) as found:
            shared(rig)
        assert "The definition of the database is not in this backup. pg_dump was not found" in str(found.value)
        assert "CLINIC_BACKUPS_POSTGRES_BIN" in str(found.value)
        record = shared(rig, allow_gaps=True)
        assert record.gaps
        assert DEFINITION not in manifest(rig, record).files

    def test_a_sequence_that_may_not_be_read_is_named(self, rig: Rig) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute("CREATE SEQUENCE public.facturas_numero")
            cursor.execute(f"REVOKE ALL ON SEQUENCE public.facturas_numero FROM {rig.database.roles.reader}")
        with pytest.raises(PermanentError) as found:
            shared(rig)
        assert "public.facturas_numero" in str(found.value)
        assert "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public" in str(found.value)


class TestFiles:
    def test_the_definition_makes_the_same_database(self, rig: Rig, tmp_path: Path) -> None:
        files = manifest(rig, shared(rig)).files
        dump = tmp_path / "definition.dump"
        dump.write_bytes(files[DEFINITION])
        restore = find_tool("pg_restore", at_least=17).path
        text = subprocess.run([restore, "-f", "-", dump], capture_output=True, text=True, check=True).stdout
        for name in set(tables_of(rig)) - {"public.django_session"}:
            assert f"CREATE TABLE {name} (" in text, name
        assert "clinic_backups." not in text.replace(rig.database.roles.reader, "")
        assert "FOREIGN KEY" in text
        (undumped,) = json.loads(files[UNDUMPED])
        assert undumped["name"] == "public.django_session"
        with closing(rig.database.connect()) as db, db.cursor() as cursor:
            before = shape_of(cursor, "public.django_session")
            cursor.execute("DROP TABLE public.django_session")
            for statement in (*undumped["before"], *undumped["after"]):
                cursor.execute(statement)
            assert shape_of(cursor, "public.django_session") == before
            db.rollback()

    def test_sequences_roles_and_the_sql_folder(self, rig: Rig) -> None:
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute("SELECT setval('public.auth_group_id_seq', 4711, false)")
        files = manifest(rig, shared(rig)).files
        sequences = {f"{each['schema']}.{each['name']}": each for each in json.loads(files[SEQUENCES])}
        found = sequences["public.auth_group_id_seq"]
        assert (found["last_value"], found["is_called"]) == (4711, False)
        roles = json.loads(files[ROLES])
        assert rig.database.roles.reader in [role["name"] for role in roles["roles"]]
        assert "default_transaction_read_only=on" in [each["setting"] for each in roles["settings"]]
        assert "password" not in files[ROLES].decode().lower()
        texts = json.loads(files[SQL])
        sql = CHECKOUT / "include" / "sql"
        assert texts["extract/usuarios_paciente.sql"] == (sql / "extract" / "usuarios_paciente.sql").read_text()
        assert "clinic_table.txt" in texts


def shape_of(cursor: Any, table: str) -> list[Any]:
    """Columns, constraints, indexes and rights of a table."""
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attcollation,"
        " pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute LEFT JOIN pg_attrdef AS d ON adrelid = attrelid AND"
        " adnum = attnum WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        (table,),
    )
    found = cursor.fetchall()
    cursor.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass ORDER BY 1",
        (table,),
    )
    found += cursor.fetchall()
    cursor.execute("SELECT indexdef FROM pg_indexes WHERE schemaname || '.' || tablename = %s ORDER BY 1", (table,))
    found += cursor.fetchall()
    cursor.execute(
        "SELECT pg_get_userbyid(relowner), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) AS a)"
        " FROM pg_class WHERE oid = %s::regclass",
        (table,),
    )
    return [*found, *cursor.fetchall()]


def restoring(rig: Rig) -> ClinicRestore:
    archives = Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])
    restore_db = connections.parse("restore_db", rig.database.restorer_uri)
    return ClinicRestore(settings=rig.settings, restore_db=restore_db, archives=archives)


class TestRestored:
    @pytest.fixture
    def undone(self, rig: Rig) -> Rig:
        """A shared backup, and then lost rows of the SaaS's own staff."""
        shared(rig)
        with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
            cursor.execute(
                "GRANT SELECT, INSERT ON public.auth_group, public.django_content_type,"
                f" public.django_migrations TO {rig.database.roles.restorer}"
            )
            cursor.execute(
                "DELETE FROM public.auditoria_bitacora WHERE usuario_id IN"
                " (SELECT id FROM public.usuarios_usuario WHERE clinica_id IS NULL);"
                "DELETE FROM public.usuarios_usuario_groups WHERE usuario_id IN"
                " (SELECT id FROM public.usuarios_usuario WHERE clinica_id IS NULL)"
            )
        return rig

    def test_what_is_missing_comes_back_and_nothing_else_changes(self, undone: Rig) -> None:
        rig = undone
        with closing(rig.database.connect()) as db, db.cursor() as cursor:
            cursor.execute("UPDATE public.auth_group SET name = name || ' (nuevo)' WHERE id = 1")
            db.commit()
        before = {name: all_rows(rig, name) for name in tables_of(rig)}
        restore = restoring(rig)
        record = rig.catalog.latest(SHARED_ID)
        assert record is not None
        plan = restore.plan(source_of(record), Wish())
        assert plan.refusals == ()
        lost = {table.table: table.insert for table in plan.tables if table.insert}
        assert lost.keys() >= {"public.auditoria_bitacora"}
        assert all(table.update == table.delete == 0 for table in plan.tables)
        assert OF_SHARED in plan.notes
        restore.apply(source_of(record), Wish(), approved=plan.digest)
        after = {name: all_rows(rig, name) for name in tables_of(rig)}
        for name in after:
            assert not before[name] - after[name], name
            assert (after[name] - before[name]).total() == lost.get(name, 0), name
        assert restore.plan(source_of(record), Wish()).writes == 0


class TestFleetMoments:
    def test_a_day_is_whole_with_the_shared_data_and_all_clinics(self, rig: Rig) -> None:
        ids = clinics_of(rig)
        clinics = [Clinic(id_, f"Clínica {id_}") for id_ in ids]
        Clinics(rig.catalog.database).see(active=[*clinics, SHARED], every=[*clinics, SHARED])

        def moments() -> list[FleetMoment]:
            return fleet_moments(rig.catalog.database, ZoneInfo("UTC"), rig.catalog.clock(), 3)

        assert moments() == []
        rig.run(ids[0])
        (moment,) = moments()
        assert (moment.is_whole, moment.shared_id, moment.clinics) == (False, None, 1)
        assert moment.missing == tuple(ids[1:])
        made = [shared(rig), *(rig.run(id_) for id_ in ids[1:])]
        (moment,) = moments()
        assert (moment.is_whole, moment.shared_id) == (True, made[0].backup_id)
        assert (moment.clinics, moment.missing) == (len(ids), ())
        assert moment.last_at == made[-1].data_time
        assert moment.to_json()["apart_seconds"] == (moment.last_at - moment.first_at).total_seconds() > 0
        again = rig.run(ids[0])
        (moment,) = moments()
        assert moment.last_at < again.data_time, "the backup nearest to that of the shared data counts"
