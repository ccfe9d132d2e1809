"""Restoring one clinic is exact or does not happen, touches no other clinic, and follows the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.base import connections
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, SettingsError
from clinic_backups.base.listening import Listener
from clinic_backups.restore.archives import Archives, Source
from clinic_backups.restore.clinic_restore import ClinicChanged, ClinicRestore
from clinic_backups.restore.plan import RestorePlan, TablePlan
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from include.demo.restore import damage
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

PATIENTS, VISITS, STOCK = "public.usuarios_paciente", "public.citas_consulta", "public.inventario_inventario"
PAYMENTS, RECORDS = "public.sistema_pagos_pago", "public.historial_clinico_historialclinico"
OTHERS = (2, 3, 4, 5, 6)

# Numbers of a clinic's rows are six apart.
DELETE_PATIENTS = damage(1)


class Ward(Rig):
    """A rig that restores."""

    def source(self, record: BackupRecord) -> Source:
        assert record.size_bytes is not None and record.sha256 and record.md5
        info = ArchiveInfo(record.archive_key, record.size_bytes, record.sha256, record.md5)
        return Source(record.backup_id, record.clinic_id, info)

    def restore(self, identity: str | None = None) -> ClinicRestore:
        return ClinicRestore(
            settings=self.settings,
            restore_db=connections.parse("restore_db", self.database.restorer_uri),
            archives=Archives(Stores.of(self.store), [pyrage.x25519.Identity.from_str(identity or self.identity)]),
        )

    def plan(self, record: BackupRecord, wish: Wish = Wish()) -> RestorePlan:  # noqa: B008 - frozen
        return self.restore().plan(self.source(record), wish)

    def apply(self, record: BackupRecord, wish: Wish = Wish(), **options: Any) -> RestorePlan:  # noqa: B008
        plan = self.plan(record, wish)
        return self.restore().apply(self.source(record), wish, approved=plan.digest, **options)

    def others(self) -> list[dict[str, bytes]]:
        return [self.rows_now(clinic_id) for clinic_id in OTHERS]


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Ward:
    return Ward(demo_database, FileStore(tmp_path / "store"))


def by_table(plan: RestorePlan) -> dict[str, TablePlan]:
    return {table.table: table for table in plan.tables if table.writes}


def test_what_was_deleted_changed_and_added_becomes_what_it_was_and_nobody_else_notices(ward: Ward) -> None:
    before, others = ward.rows_now(1), ward.others()
    record = ward.run(1)
    ward.execute(*DELETE_PATIENTS)
    ward.execute(
        "UPDATE public.usuarios_paciente SET telefono = '+1', notas = NULL WHERE clinica_id = 1 AND id / 6 % 3 = 0",
        f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, clinica_id) VALUES ('N', 'nuevo', 1, 1, 1)",
        "UPDATE public.citas_horario SET sala = 'otra' WHERE odontologo_id IN"
        " (SELECT id FROM public.profesionales_odontologo WHERE clinica_id = 1) AND dia_semana = 2",
        "DELETE FROM public.auditoria_bitacora USING public.usuarios_usuario AS u"
        " WHERE u.id = usuario_id AND u.clinica_id = 1",
    )
    damaged = ward.rows_now(1)
    plan = ward.plan(record)
    assert ward.rows_now(1) == damaged
    assert plan.refusals == ()
    tables = by_table(plan)
    assert tables[STOCK].delete == 1
    assert tables[PATIENTS].insert == 20
    assert tables[PATIENTS].columns.keys() >= {"telefono"}
    assert len(tables[VISITS].keys["insert"]) == 5
    assert tables["public.auditoria_bitacora"].insert > 0
    applied = ward.apply(record)
    assert applied == plan
    assert ward.rows_now(1) == before
    assert ward.others() == others
    again = ward.plan(record)
    assert again.writes == 0
    assert ward.run(1).fingerprint == record.fingerprint
    # Keys that came back are not given out again.
    ward.execute(
        f"INSERT INTO {PATIENTS} (nombres, apellidos, cedula, fecha_nacimiento, sexo, telefono, direccion, alergias,"
        " creado_en, clinica_id) VALUES ('a', 'b', 'c', '2000-01-01', 'F', '', '', '{}', now(), 1)"
    )


def test_a_deleted_clinic_comes_back_whole(ward: Ward) -> None:
    record = ward.run(6)
    before = ward.rows_now(6)
    ward.execute(
        "SET session_replication_role = replica",
        *(
            f"DELETE FROM {name} WHERE ROW({name}.*)::text IN (SELECT ROW(r.*)::text FROM ({query}) AS r)"
            for name, query in queries(ward, 6).items()
        ),
        "DELETE FROM public.citas_recordatorio WHERE consulta_id NOT IN (SELECT id FROM public.citas_consulta)",
        "DELETE FROM public.django_admin_log WHERE user_id NOT IN (SELECT id FROM public.usuarios_usuario)",
    )
    assert ward.rows_now(6) == {}
    ward.apply(record)
    assert ward.rows_now(6) == before


def queries(ward: Ward, clinic_id: int) -> dict[str, str]:
    """Extracts, those that hang on others first."""
    from clinic_backups.tenant.extract import SqlExtract, SqlFolder

    found = SqlExtract().rendered(SqlFolder(ward.settings.sql_dir), clinic_id)
    return dict(sorted(found.items(), key=lambda item: -item[1].count("JOIN")))


def test_only_missing_rows_come_back_when_that_is_wanted(ward: Ward) -> None:
    record = ward.run(1)
    ward.execute(
        f"UPDATE {STOCK} SET cantidad = 999 WHERE clinica_id = 1 AND id / 6 % 2 = 0",
        f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 5 = 0",
        f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, clinica_id) VALUES ('N', 'nuevo', 1, 1, 1)",
    )
    plan = ward.apply(record, Wish(mode="missing"))
    (table,) = by_table(plan).values()
    assert (table.table, table.update, table.delete) == (STOCK, 0, 0)
    assert table.insert > 0
    now = ward.rows_now(1)[STOCK].decode()
    assert "nuevo" in now
    assert ",999," in now


def test_what_was_approved_is_what_is_applied(ward: Ward) -> None:
    record = ward.run(1)
    ward.execute(f"UPDATE {STOCK} SET cantidad = 1 WHERE clinica_id = 1")
    plan = ward.plan(record)
    assert ward.plan(record) == plan
    ward.execute(f"UPDATE {STOCK} SET cantidad = 2 WHERE clinica_id = 1 AND id = (SELECT min(id) FROM {STOCK})")
    now = ward.rows_now(1)
    with pytest.raises(ClinicChanged, match="has changed since the plan was made"):
        ward.restore().apply(ward.source(record), Wish(), approved=plan.digest)
    assert ward.rows_now(1) == now


class TestRefused:
    def refusal(self, ward: Ward, record: BackupRecord, wish: Wish = Wish()) -> str:  # noqa: B008
        before = ward.rows_now(1)
        plan = ward.plan(record, wish)
        assert plan.refusals
        with pytest.raises(PermanentError) as caught:
            ward.restore().apply(ward.source(record), wish, approved=plan.digest)
        assert ward.rows_now(1) == before
        for refusal in plan.refusals:
            assert refusal.message in str(caught.value)
            assert refusal.hint
        return str(caught.value)

    def test_a_key_that_belongs_to_another_clinic_now(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(f"UPDATE {STOCK} SET clinica_id = 2, codigo = 'X' || id WHERE clinica_id = 1")
        assert "belong to rows outside of this clinic" in self.refusal(ward, record)

    def test_a_row_that_would_vanish_under_another_clinics(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(
            "INSERT INTO public.usuarios_usuario SELECT 9001, password, last_login, false, 'nuevo', first_name,"
            " last_name, email, is_staff, is_active, date_joined, tipo, preferencias, 1 FROM public.usuarios_usuario"
            " WHERE id = 4",
            "UPDATE public.citas_consulta SET registrada_por_id = 9001 WHERE id = (SELECT min(c.id) FROM"
            " public.citas_consulta AS c JOIN public.usuarios_paciente AS p ON p.id = paciente_id"
            " WHERE clinica_id = 2)",
        )
        said = self.refusal(ward, record)
        assert "1 rows of public.citas_consulta refer to rows of public.usuarios_usuario" in said
        assert "registrada_por_i" in said

    def test_a_shared_row_that_is_gone(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(
            "DELETE FROM public.usuarios_usuario_groups WHERE group_id = 2",
            "DELETE FROM public.auth_group WHERE id = 2",
        )
        said = self.refusal(ward, record)
        assert "refer to rows of public.auth_group that do not exist" in said
        assert "Bring the rows of public.auth_group back first" in said

    def test_a_subset_without_the_parents_that_it_needs(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(*DELETE_PATIENTS)
        said = self.refusal(ward, record, Wish(tables=(RECORDS,)))
        assert f"refer to rows of {PATIENTS} that do not exist" in said
        ward.apply(record, Wish(tables=(RECORDS, PATIENTS)))
        assert ward.rows_now(1)[RECORDS] == ward.open(record).tables[RECORDS]

    def test_constraints_in_a_circle_that_cannot_be_deferred_refuse_nothing(self, ward: Ward) -> None:
        ward.execute(
            "ALTER TABLE public.profesionales_odontologo ADD COLUMN titular bigint",
            "ALTER TABLE public.profesionales_odontologo ADD CONSTRAINT circulo_a FOREIGN KEY (titular)"
            " REFERENCES public.usuarios_usuario",
            "ALTER TABLE public.usuarios_usuario ADD COLUMN ficha bigint",
            "ALTER TABLE public.usuarios_usuario ADD CONSTRAINT circulo_b FOREIGN KEY (ficha)"
            " REFERENCES public.profesionales_odontologo",
        )
        record = ward.run(1)
        before = ward.rows_now(1)
        ward.execute(*DELETE_PATIENTS)
        ward.apply(record)
        assert ward.rows_now(1) == before

    @pytest.mark.parametrize(
        ("drift", "said"),
        [
            (f"ALTER TABLE {STOCK} DROP COLUMN caducidad", "lacks now: caducidad"),
            (f"ALTER TABLE {STOCK} ADD COLUMN lote text NOT NULL DEFAULT 'x';"
             f" ALTER TABLE {STOCK} ALTER lote DROP DEFAULT", "no default: lote"),
            (f"ALTER TABLE {STOCK} ALTER codigo TYPE bigint USING id", "would change: the column was"),
            (f"ALTER TABLE {STOCK} ALTER caducidad TYPE boolean USING false", "was date in the backup and is boolean"),
            ("ALTER TABLE public.sistema_pagos_pagoenlinea RENAME TO otra", "no longer exists"),
        ],
    )  # fmt: skip
    def test_drift_that_cannot_be_bridged(self, ward: Ward, drift: str, said: str) -> None:
        record = ward.run(1)
        ward.execute(f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0")
        ward.execute(drift)
        before = ward.execute_rows(f"SELECT count(*) FROM {STOCK}")
        plan = ward.plan(record)
        assert said in " ".join(refusal.message for refusal in plan.refusals)
        with pytest.raises(PermanentError):
            ward.restore().apply(ward.source(record), Wish(), approved=plan.digest)
        assert ward.execute_rows(f"SELECT count(*) FROM {STOCK}") == before


class TestDrift:
    def test_added_and_retyped_columns_are_bridged_and_said(self, ward: Ward) -> None:
        record = ward.run(1)
        before = ward.execute_rows(f"SELECT id, codigo::text, nombre FROM {STOCK} WHERE clinica_id = 1 ORDER BY id")
        ward.execute(
            f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0",
            f"UPDATE {STOCK} SET nombre = 'otro' WHERE clinica_id = 1 AND id / 6 % 3 = 0",
            f"ALTER TABLE {STOCK} ADD COLUMN lote text NOT NULL DEFAULT 'sin lote'",
            f"ALTER TABLE {STOCK} ALTER cantidad TYPE bigint",
        )
        plan = ward.apply(record)
        notes = " ".join(by_table(plan)[STOCK].notes)
        assert "cantidad was integer and is bigint now" in notes
        assert "lote was added since" in notes
        assert (
            ward.execute_rows(f"SELECT id, codigo::text, nombre FROM {STOCK} WHERE clinica_id = 1 ORDER BY id")
            == before
        )

    def test_a_dropped_column_is_left_out_on_demand(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(
            f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0", f"ALTER TABLE {STOCK} DROP COLUMN caducidad"
        )
        plan = ward.apply(record, Wish(ignore_dropped=True))
        assert "caducidad was dropped since" in " ".join(by_table(plan)[STOCK].notes)


class TestTriggers:
    TRIGGER = (
        "CREATE FUNCTION public.estorba() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.nombre := 'ajeno';"
        " RETURN NEW; END$$",
        f"CREATE TRIGGER estorba BEFORE INSERT ON {STOCK} FOR EACH ROW EXECUTE FUNCTION public.estorba()",
    )

    def test_one_that_changes_rows_makes_the_restore_undo_itself(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0", *self.TRIGGER)
        damaged = ward.rows_now(1)
        plan = ward.plan(record)
        assert "will fire: this role may not turn them off: estorba" in " ".join(by_table(plan)[STOCK].notes)
        assert "would not be what the backup holds" in plan.refusals[0].message
        with pytest.raises(IntegrityError, match="would not be what the backup holds"):
            ward.apply(record)
        assert ward.rows_now(1) == damaged

    def test_the_tables_owner_turns_them_off(self, ward: Ward) -> None:
        record = ward.run(1)
        before = ward.rows_now(1)
        ward.execute(
            f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0",
            *self.TRIGGER,
            f"ALTER TABLE {STOCK} OWNER TO {ward.database.roles.restorer}",
        )
        assert "are turned off meanwhile" in " ".join(by_table(ward.plan(record))[STOCK].notes)
        ward.apply(record)
        assert ward.rows_now(1) == before
        assert ward.execute_rows("SELECT tgenabled FROM pg_trigger WHERE tgname = 'estorba'") == [("O",)]

    def test_one_that_writes_elsewhere_is_counted(self, ward: Ward) -> None:
        record = ward.run(1)
        ward.execute(
            f"DELETE FROM {STOCK} WHERE clinica_id = 1 AND id / 6 % 2 = 0",
            "CREATE FUNCTION public.apunta() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN"
            " UPDATE public.comun_clinica SET telefono = 'x' WHERE id = 2; RETURN NULL; END$$",
            f"CREATE TRIGGER apunta AFTER INSERT ON {STOCK} FOR EACH STATEMENT EXECUTE FUNCTION public.apunta()",
        )
        others = ward.others()
        plan = ward.plan(record)
        assert "public.comun_clinica: update touched 1 rows, but the plan has 0" in plan.refusals[0].message
        with pytest.raises(IntegrityError, match=r"public\.comun_clinica: update touched 1 rows, but the plan has 0"):
            ward.apply(record)
        assert ward.others() == others


@pytest.mark.parametrize(
    "keyless",
    ["(texto text, numero int)", "(texto text, numero int, datos json)"],
)
def test_a_table_without_key_is_a_bag_of_rows(ward: Ward, tmp_path: Path, keyless: str) -> None:
    import shutil

    sql = tmp_path / "sql"
    shutil.copytree(ward.settings.sql_dir, sql)
    (sql / "extract" / "bolsa.sql").write_text("SELECT b.* FROM public.bolsa AS b WHERE b.clinica_id = {{ clinic_id }}")
    ward.settings = ward.settings.model_copy(update={"sql_dir": sql})
    ward.execute(
        f"CREATE TABLE public.bolsa {keyless}",
        "ALTER TABLE public.bolsa ADD COLUMN clinica_id bigint REFERENCES public.comun_clinica",
        "INSERT INTO public.bolsa (texto, numero, clinica_id)"
        " SELECT 'x', n % 3, 1 + n % 2 FROM generate_series(1, 60) AS n",
        f"GRANT ALL ON public.bolsa TO {ward.database.roles.reader}, {ward.database.roles.restorer}",
    )
    record = ward.run(1)
    before, others = ward.rows_now(1), ward.others()
    ward.execute(
        "DELETE FROM public.bolsa WHERE ctid IN (SELECT ctid FROM public.bolsa WHERE clinica_id = 1 LIMIT 7)",
        "INSERT INTO public.bolsa (texto, numero, clinica_id) VALUES ('x', 1, 1), ('y', 1, 1), ('y', 1, 1)",
    )
    ward.apply(record)
    assert ward.rows_now(1) == before
    assert ward.others() == others


class TestWrongArchive:
    def unchanged(self, ward: Ward, act: Callable[[], object], kind: type[ClinicBackupsError], said: str) -> None:
        before = ward.rows_now(1)
        with pytest.raises(kind, match=said):
            act()
        assert ward.rows_now(1) == before

    def test_of_another_clinic_or_time(self, ward: Ward) -> None:
        mine, theirs = ward.run(1), ward.run(2)
        source = ward.source(theirs)
        swapped = replace(source, clinic_id=1, backup_id=mine.backup_id)
        self.unchanged(
            ward,
            lambda: ward.restore().plan(swapped, Wish()),
            IntegrityError,
            "holds backup 2-.* of clinic 2, not backup 1-",
        )
        lying = replace(source, clinic_id=1, archive=replace(source.archive, key=mine.archive_key))
        self.unchanged(ward, lambda: ward.restore().plan(lying, Wish()), IntegrityError, "is cut short or was replaced")

    def test_a_wrong_key(self, ward: Ward) -> None:
        record = ward.run(1)
        restore = ward.restore(generate_identity()[0])
        self.unchanged(ward, lambda: restore.plan(ward.source(record), Wish()), PermanentError, "key")

    def test_one_flipped_byte(self, ward: Ward) -> None:
        record = ward.run(1)
        path = Path(ward.store.url[7:]) / record.archive_key
        kept = path.read_bytes()
        for place in range(100, len(kept), len(kept) // 25):
            path.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
            self.unchanged(ward, lambda: ward.plan(record), ClinicBackupsError, "rchive|age|header")

    def test_an_unknown_table(self, ward: Ward) -> None:
        record = ward.run(1)
        self.unchanged(
            ward, lambda: ward.plan(record, Wish(tables=("public.nada",))), SettingsError, "no table public.nada"
        )


def test_a_row_that_somebody_else_writes_meanwhile_stops_the_restore(ward: Ward) -> None:
    record = ward.run(1)
    ward.execute(f"UPDATE {STOCK} SET cantidad = 1 WHERE clinica_id = 1")
    plan = ward.plan(record)
    restore = ward.restore()
    done: list[bool] = []

    def meanwhile(step: str) -> None:
        if step.startswith("writing") and not done:
            done.append(True)
            ward.execute(f"UPDATE {STOCK} SET nombre = 'vivo' WHERE clinica_id = 1 AND id / 6 % 2 = 0")

    restore.listener = Listener(meanwhile)
    # It compares again, and the clinic is another one by then.
    with pytest.raises(ClinicChanged):
        restore.apply(ward.source(record), Wish(), approved=plan.digest)
    assert b"vivo" in ward.rows_now(1)[STOCK]
