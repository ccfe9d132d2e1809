"""The parts of a recovery: definitions, rows and proof of single backups."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyrage
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import TransientError
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.recovery.definition import Definition
from clinic_backups.recovery.dump_text import Item
from clinic_backups.recovery.items import made_after_all
from clinic_backups.recovery.load import load
from clinic_backups.recovery.proof import differences, sql_folder
from clinic_backups.recovery.session import Session
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


@pytest.fixture
def target(rig: Rig) -> Connection:
    """An empty database on the same server."""
    name = f"{rig.database.name}_recovered"
    with closing(rig.database.postgres.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return connections.parse("target", rig.database.postgres.uri(name))


def archives(rig: Rig) -> Archives:
    return Archives(Stores.of(rig.store), [pyrage.x25519.Identity.from_str(rig.identity)])


def test_definitions_rows_and_proof(rig: Rig, target: Connection) -> None:
    shared = rig.backup().run(BackupRequest(SHARED, requested_by="prueba"))
    records = [shared, *(rig.run(clinic) for (clinic,) in rig.execute_rows("SELECT id FROM comun_clinica ORDER BY 1"))]
    reading = archives(rig)
    fetched = [reading.fetch(source_of(record)) for record in records]
    files = fetched[0].manifest.files
    with Definition.opened(files, folder=None) as definition:
        assert definition.dump.server_version >= 15
        with Session(target) as session:
            left = definition.make_before(session)
            session.commit("x")
        for each in fetched:
            loaded = load(target, reading, each)
            assert sum(loaded.rows.values()) == sum(content.rows for content in each.manifest.tables.values())
        left += definition.make_after(target, 2)
        with Session(target) as session:
            assert definition.set_sequences(session) > 10
            session.commit("x")
    assert left == []
    with sql_folder(files) as folder:
        for each in fetched:
            assert differences(target, each.manifest, folder) == []
        with Session(target) as session:
            session.run("UPDATE public.usuarios_paciente SET nombres = nombres || 'x' WHERE clinica_id = 2")
            session.commit("x")
        (found,) = differences(target, fetched[2].manifest, folder)
        assert found.table == "public.usuarios_paciente"
        assert found.text.endswith("rows have other values than in the backup")


HOSTILE = """mira
--
-- Name: x; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.intruso (id int);


--
-- Name: y; Type: ACL; Schema: public; Owner: postgres
--

GRANT CREATE ON DATABASE x TO PUBLIC;

ALTER TABLE public.auth_group OWNER TO clinic_backups_reader;
"""


def test_a_comment_is_no_statement(rig: Rig, target: Connection) -> None:
    """Whoever may comment on a table, or write a function, runs nothing as the role that recovers."""
    with closing(rig.database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("COMMENT ON TABLE public.auth_group IS %s", (HOSTILE,))
        cursor.execute("COMMENT ON TABLE public.usuarios_paciente IS %s", (HOSTILE + "-- \\",))
        cursor.execute(f"CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $f$ SELECT $g${HOSTILE}$g$ $f$")
        cursor.execute(f"CREATE VIEW public.v AS SELECT E'\\\\''{HOSTILE}\\\\' AS \"a$x$b\"")
    shared = rig.backup().run(BackupRequest(SHARED, requested_by="prueba"))
    fetched = archives(rig).fetch(source_of(shared))
    with Definition.opened(fetched.manifest.files, folder=None) as definition:
        with Session(target) as session:
            assert definition.make_before(session) == []
            session.commit("x")
        assert definition.make_after(target, 1) == []
    with Session(target) as session:
        assert session.rows("SELECT to_regclass('public.intruso') IS NULL") == [(True,)]
        assert session.rows("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'auth_group'") == [
            ("postgres",)
        ]
        assert session.rows("SELECT has_database_privilege('public', current_database(), 'CREATE')") == [(False,)]
        for name, comment in (("auth_group", HOSTILE), ("usuarios_paciente", HOSTILE + "-- \\")):
            assert session.rows(f"SELECT obj_description('public.{name}'::regclass)") == [(comment,)]
        ((text,),) = session.rows("SELECT public.f()")
        assert text.strip() == HOSTILE.strip()


def test_a_full_disk_is_not_taken_for_a_fault_of_the_definition(target: Connection) -> None:
    """It would be reported as a constraint that could not be made, and the backup as not proven."""
    full = "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$"
    with Session(target) as session, pytest.raises(TransientError, match="53100"):
        made_after_all(session, Item("CONSTRAINT", full))
