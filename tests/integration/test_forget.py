"""Rows that must not come back: a patient is forgotten, and no restore brings the patient back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.restore.clinic_restore import ClinicChanged, ClinicRestore
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from clinic_backups.stores.file import FileStore
from tests.integration.test_cli import run as run
from tests.integration.test_diff import change
from tests.integration.test_diff import life as life
from tests.integration.test_find import backed_up, own_sql
from tests.integration.test_restore import PATIENTS, PAYMENTS, STOCK, VISITS, Ward, by_table
from tests.integration.test_restore_rows import BILLS, LEAVES, guardian, one, payment_of, rows_of
from tests.postgres_fixtures import DemoDatabase

__all__ = ["guardian"]


class Forgetting(Ward):
    """Restores with a catalog that knows what was forgotten."""

    @property
    def forgotten(self) -> Forgotten:
        return Forgotten(self.catalog.database)

    def forget(self, *keys: int, table: str = PATIENTS) -> None:
        self.forgotten.add(1, {table: [str(key) for key in keys]}, by="ana", reason="Art. 17")

    def restore(self, identity: str | None = None) -> ClinicRestore:
        made = super().restore(identity)
        made._forgotten = self.forgotten.of_clinic
        return made


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Forgetting:
    return Forgetting(demo_database, FileStore(tmp_path / "store"))


Rows = dict[str, set[tuple[str, ...]]]


def without(ward: Forgetting, patient: int) -> Rows:
    """The oracle: the clinic as it is if the application deletes the patient. Nothing is changed."""
    with closing(ward.database.connect()) as db, db.cursor() as cursor:
        for each in LEAVES:
            cursor.execute(each.format(patient))
        db.commit()
    return rows_of(ward)


def damaged(ward: Forgetting) -> None:
    """Other rows of the clinic change, go and are new."""
    ward.execute(
        "UPDATE usuarios_paciente SET telefono = '+591 1' WHERE clinica_id = 1 AND id % 2 = 0",
        "DELETE FROM citas_recordatorio WHERE consulta_id IN (SELECT v.id FROM citas_consulta AS v"
        " JOIN usuarios_paciente AS p ON p.id = v.paciente_id WHERE p.clinica_id = 1)",
        "INSERT INTO inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
        " VALUES ('N', 'nuevo', 1, 1, 1)",
    )


def test_exact_brings_back_all_but_the_forgotten_patient(ward: Forgetting, guardian: int) -> None:
    record, others, before = ward.run(1), ward.others(), rows_of(ward)
    expected = without(ward, guardian)
    ward.forget(guardian)
    damaged(ward)
    plan = ward.apply(record)
    assert plan.refusals == ()
    assert rows_of(ward) == expected
    assert ward.others() == others
    said = {table.table: " ".join(table.notes) for table in plan.tables}
    for name in (PATIENTS, VISITS, BILLS, PAYMENTS):
        gone = len(before[name]) - len(expected[name])
        assert f"{gone} row{'s' if gone > 1 else ''} of the backup" in said[name], name
        assert "left out" in said[name]
    assert "3 rows refer to a forgotten row: NULL is written in responsable_id." in said[PATIENTS]
    assert "left out" not in said[STOCK]
    assert ward.plan(record).writes == 0


def test_exact_deletes_a_forgotten_patient_who_is_there(ward: Forgetting, guardian: int) -> None:
    record = ward.run(1)
    before = rows_of(ward)
    ward.forget(guardian)
    plan = ward.apply(record)
    now = rows_of(ward)
    assert by_table(plan)[PATIENTS].delete == 1
    assert not any(row[0] == str(guardian) for row in now[PATIENTS])
    assert len(before[PATIENTS]) - len(now[PATIENTS]) == 1
    assert one(ward, f"SELECT count(*) FROM {VISITS} WHERE paciente_id = {guardian}") == 0


def test_missing_brings_back_the_others_only(ward: Forgetting, guardian: int) -> None:
    record, before = ward.run(1), rows_of(ward)
    expected = without(ward, guardian)
    ward.forget(guardian)
    lost = int(one(ward, f"SELECT max(id) FROM {PATIENTS} WHERE responsable_id IS NULL AND clinica_id = 1"))
    without(ward, lost)
    plan = ward.apply(record, Wish(mode="missing"))
    assert plan.refusals == ()
    now = rows_of(ward)
    assert {name: {row[0] for row in rows} for name, rows in now.items()} == {
        name: {row[0] for row in rows} for name, rows in expected.items()
    }
    assert now[VISITS] == expected[VISITS] < before[VISITS]


def test_live_brings_back_all_but_the_forgotten_patient(ward: Forgetting, guardian: int) -> None:
    record = ward.run(1)
    expected = without(ward, guardian)
    ward.forget(guardian)
    damaged(ward)
    wish = Wish(mode="live")
    plan = ward.plan(record, wish)
    assert plan.refusals == ()
    ward.restore().apply(ward.source(record), wish, approved=plan.digest, plan=plan)
    assert rows_of(ward) == expected


def test_rows_brings_back_another_patient_and_not_the_forgotten_one(ward: Forgetting, guardian: int) -> None:
    record = ward.run(1)
    child = int(one(ward, f"SELECT min(id) FROM {PATIENTS} WHERE responsable_id = {guardian}"))
    expected = without(ward, guardian)
    ward.forget(guardian)
    without(ward, child)
    plan = ward.apply(record, Wish(mode="rows", rows={PATIENTS: (str(child),)}))
    assert plan.refusals == ()
    assert rows_of(ward) == expected
    refused = ward.plan(record, Wish(mode="rows", rows={PATIENTS: (str(guardian),)}))
    assert [refusal.message for refusal in refused.refusals] == [
        f"1 of the 1 named rows of {PATIENTS} are not in this backup."
    ]
    assert "forgotten" in refused.refusals[0].hint


def test_a_forgotten_payment_leaves_its_bill(ward: Forgetting, guardian: int) -> None:
    record, before = ward.run(1), rows_of(ward)
    payment = payment_of(ward, guardian)
    ward.forget(payment, table=PAYMENTS)
    ward.execute(f"UPDATE {PATIENTS} SET telefono = '+591 1' WHERE clinica_id = 1")
    ward.apply(record)
    now = rows_of(ward)
    assert {row[0] for row in before[PAYMENTS] - now[PAYMENTS]} == {str(payment)}
    assert (now[PATIENTS], now[VISITS], now[BILLS]) == (before[PATIENTS], before[VISITS], before[BILLS])


@pytest.mark.parametrize("mode", ["exact", "live", "missing"])
def test_a_request_after_the_plan_voids_its_approval(ward: Forgetting, guardian: int, mode: Any) -> None:
    record, wish = ward.run(1), Wish(mode=mode)
    damaged(ward)
    before, plan = rows_of(ward), ward.plan(record, wish)
    ward.forget(987654321)  # no row of this backup: the approval is void all the same
    with pytest.raises(ClinicChanged, match="must not come back"):
        ward.restore().apply(ward.source(record), wish, approved=plan.digest, plan=plan)
    assert rows_of(ward) == before


@pytest.mark.parametrize("mode", ["exact", "live"])
def test_a_request_while_the_restore_writes_stops_it(ward: Forgetting, guardian: int, mode: Any) -> None:
    record, wish = ward.run(1), Wish(mode=mode)
    without(ward, guardian)
    before, plan = rows_of(ward), ward.plan(record, wish)
    with pytest.raises(ClinicChanged, match="must not come back"):
        ward.restore().apply(
            ward.source(record), wish, approved=plan.digest, plan=plan, save=lambda _: ward.forget(guardian)
        )
    assert rows_of(ward) == before


def test_some_tables_alone_are_refused_if_nobody_can_tell(ward: Forgetting, guardian: int) -> None:
    record = ward.run(1)
    ward.forget(guardian)

    def plan(*tables: str) -> RestorePlan:
        return ward.plan(record, Wish(tables=tables))

    (refusal,) = plan(PAYMENTS).refusals
    assert refusal.message.startswith("Rows of this clinic were forgotten. Without ")
    for name in (PATIENTS, VISITS, BILLS):
        assert name in refusal.message
    assert plan(STOCK).refusals == ()


def test_other_clinics_and_other_tables_are_not_concerned(ward: Forgetting) -> None:
    record, before = ward.run(1), rows_of(ward)
    first = int(one(ward, f"SELECT min(id) FROM {PATIENTS} WHERE clinica_id = 1"))
    ward.forgotten.add(2, {PATIENTS: [str(first)]}, by="ana", reason="other clinic")
    ward.forgotten.add(1, {STOCK: [str(first + 7777)]}, by="ana", reason="other table")
    damaged(ward)
    ward.apply(record)
    assert rows_of(ward) == before


def test_records_cannot_be_changed(ward: Forgetting) -> None:
    ward.forget(43)
    for table in ("forgotten", "forgotten_key", "forgotten_sealed"):
        column = {"forgotten": "reason", "forgotten_key": "secret"}.get(table, "sealed")
        for statement in (
            f"UPDATE clinic_backups.{table} SET {column} = {column}",
            f"DELETE FROM clinic_backups.{table}",
            f"TRUNCATE clinic_backups.{table} CASCADE",
            f"SET session_replication_role = replica; DELETE FROM clinic_backups.{table}",
        ):
            with pytest.raises(psycopg2.Error, match="is only ever added to"):
                ward.execute(statement)


@pytest.mark.parametrize(
    ("type_", "key", "given"),
    [
        ("bigint", "43", "043"),
        ("uuid", "6f2c1f6e-0b1a-4c3d-9e8f-001122334455", "6F2C1F6E-0B1A-4C3D-9E8F-001122334455"),
        ("text", 'a "b", (c) \\d', 'a "b", (c) \\d'),
        ("text", "043", "043"),
        ("text", "a/b", "a/b"),
    ],
)
def test_a_key_of_any_type_is_recognised(ward: Forgetting, tmp_path: Path, type_: str, key: str, given: str) -> None:
    """The hash that is made in Python is the one that the database computes."""
    ward.execute(
        f"CREATE TABLE public.nota (id {type_} PRIMARY KEY, texto text,"
        " clinica_id integer NOT NULL REFERENCES comun_clinica)",
        "INSERT INTO public.nota VALUES ('{}', 'x', 1)".format(key.replace("'", "''")),
        "INSERT INTO public.nota VALUES ('{}', 'y', 1)".format(
            {"bigint": "430", "uuid": "6f2c1f6e-0b1a-4c3d-9e8f-001122334456", "text": "43"}[type_]
        ),
        "GRANT ALL ON public.nota TO PUBLIC",
    )
    extract = "SELECT n.* FROM public.nota AS n WHERE n.clinica_id = {{ clinic_id }}\n"
    ward.with_extracts(tmp_path / "sql", {"public.nota": extract})
    record = ward.run(1)
    ward.forgotten.add(1, {"public.nota": [given]}, by="ana", reason="x")
    ward.execute("DELETE FROM public.nota")
    ward.apply(record)
    assert ward.execute_rows("SELECT texto FROM public.nota") == [("y",)]


def test_the_command_shows_and_stores_no_key(life: Any, demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(
            f"UPDATE {PATIENTS} SET id = 424242, apellidos = 'Zzyzx' WHERE id = (SELECT p.id FROM {PATIENTS} AS p"
            f" WHERE clinica_id = 1 AND NOT EXISTS (SELECT FROM {VISITS} AS v WHERE v.paciente_id = p.id) LIMIT 1)"
        )
        if not cursor.rowcount:
            cursor.execute(
                f"INSERT INTO {PATIENTS} (id, nombres, apellidos, cedula, fecha_nacimiento, sexo, telefono, direccion,"
                " alergias, creado_en, clinica_id) OVERRIDING SYSTEM VALUE"
                " VALUES (424242, 'Ana', 'Zzyzx', 'c-9', '2000-01-01', 'F', '', '', '{}', now(), 1)"
            )
        db.commit()
    backup_id = backed_up(life)
    named = f"{PATIENTS}:424242"
    outputs = [life("forget", "--clinic", "1", "--rows", named, "--reason", "Art. 17")]
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"DELETE FROM {PATIENTS} WHERE id = 424242")
        db.commit()
    outputs += [
        life("forget", "--list"),
        life("forget", "--list", "--clinic", "1", "--json"),
        life("restore", "--clinic", "1", "--backup", backup_id, "--plan"),
        life("restore", "--clinic", "1", "--backup", backup_id, "--yes"),
    ]
    (entry,) = outputs[2].json()
    assert (entry["clinic_id"], entry["table"], entry["reason"]) == (1, PATIENTS, "Art. 17")
    assert "1 row of the backup is left out" in outputs[3].err
    said = " ".join(each.out + each.err for each in outputs)
    assert "424242" not in said
    assert "Zzyzx" not in said
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {PATIENTS} WHERE id = 424242")
        assert cursor.fetchall() == [(0,)]
        for table in ("forgotten", "approval", "restore", "audit"):
            cursor.execute(f"SELECT count(*) FROM clinic_backups.{table} AS t WHERE ROW(t.*)::text ~ '424242|Zzyzx'")
            assert cursor.fetchall() == [(0,)], table
    archive = life("list", "--clinic", "1", "--json").json()
    key = next(each["archive_key"] for each in archive if each["backup_id"] == backup_id)
    bare = life("restore", "--clinic", "1", "--archive", key, "--plan")
    assert "1 erasure requests from the stores are followed" in bare.err
    assert "1 row of the backup is left out" in bare.err
    assert "424242" not in bare.out + bare.err


def test_what_cannot_be_meant_is_refused(life: Any) -> None:
    backed_up(life)
    for words, said in (
        (("--clinic", "1", "--reason", "x"), "No row is named."),
        (("--rows", f"{PATIENTS}:43", "--reason", "x"), "No clinic is named."),
        (("--clinic", "1", "--rows", f"{PATIENTS}:43"), "The reason is empty or too long."),
        (("--clinic", "1", "--rows", "public.paciente:43", "--reason", "x"), "has a table public.paciente."),
        (("--clinic", "1", "--list", "--reason", "x"), "--list was given with --rows or --reason."),
    ):
        assert said in life("forget", *words, code=2 if "table" not in said else 1).err
    assert life("forget", "--list", "--json").json() == []


def test_a_record_is_not_shown_by_its_repr(ward: Forgetting) -> None:
    ward.forget(43)
    (record,) = ward.forgotten.find(1)
    assert "hashes" not in repr(record)
    assert record.hashes
    assert isinstance(ward.run(1), BackupRecord)


@pytest.mark.parametrize(
    "statements",
    [
        # A unique index tells the rows apart then.
        ("ALTER TABLE {0} DROP CONSTRAINT inventario_inventario_pkey CASCADE",),
        # Nothing does.
        (
            "ALTER TABLE {0} DROP CONSTRAINT inventario_inventario_pkey CASCADE",
            "ALTER TABLE {0} DROP CONSTRAINT inventario_inventario_clinica_id_codigo_276b0d45_uniq",
        ),
        ("ALTER TABLE {0} ALTER id TYPE text",),
        (
            "ALTER TABLE {0} DROP CONSTRAINT inventario_inventario_pkey CASCADE",
            "ALTER TABLE {0} ADD PRIMARY KEY (clinica_id, id)",
        ),
    ],
    ids=["unique", "none", "type", "columns"],
)
def test_a_row_stays_forgotten_if_the_tables_key_changes(ward: Forgetting, statements: tuple[str, ...]) -> None:
    item = one(ward, f"SELECT min(id) FROM {STOCK} WHERE clinica_id = 1")
    record = ward.run(1)
    ward.forget(item, table=STOCK)
    ward.execute(f"DELETE FROM {STOCK} WHERE id = {item}", f"ALTER TABLE {STOCK} ALTER id DROP IDENTITY IF EXISTS")
    ward.execute(*(each.format(STOCK) for each in statements))
    plan = ward.plan(record)
    assert [refusal.message for refusal in plan.refusals] == []
    assert by_table(plan).get(STOCK) is None, "the forgotten row would come back"


@pytest.mark.parametrize("key", ["abc", "43/44", "43-45", "*", "43,", "1.5"])
def test_what_cannot_be_a_key_is_not_recorded(life: Any, key: str) -> None:
    """Otherwise somebody would be told that it is done, and it cannot be taken back."""
    backed_up(life)
    done = life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:{key}", "--reason", "lo pidio", code=2)
    assert ("names an empty key" if key == "43," else "is not named by a key of that table") in done.err
    assert life("forget", "--list", "--json").json() == []


def test_rows_that_cannot_be_told_apart_are_not_recorded(
    life: Any, demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_sql(tmp_path, monkeypatch)
    table = "public.usuarios_suelta"
    change(
        demo_database,
        f"CREATE TABLE {table} (clinica_id bigint NOT NULL REFERENCES public.comun_clinica, texto text);"
        f" INSERT INTO {table} VALUES (1, 'a'); GRANT SELECT ON {table} TO {demo_database.roles.reader}",
    )
    (folder / "extract" / "usuarios_suelta.sql").write_text(
        f"SELECT * FROM {table} WHERE clinica_id = {{{{ clinic_id }}}}"
    )
    backed_up(life)
    for rows, said in ((f"{table}:a", "has no primary key"), ("public.comun_clinica:1", "are the clinics themselves")):
        assert said in life("forget", "--clinic", "1", "--rows", rows, "--reason", "lo pidio", code=1).err
    assert life("forget", "--list", "--json").json() == []
