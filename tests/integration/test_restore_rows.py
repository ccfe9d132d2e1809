"""The mode ``rows``: named rows come back with what hangs on them, and all work since the backup stays."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.restore.clinic_restore import ClinicChanged
from clinic_backups.restore.request import Wish
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore import PATIENTS, PAYMENTS, RECORDS, STOCK, VISITS, Ward, by_table
from tests.postgres_fixtures import DemoDatabase

BILLS, TREATMENTS = "public.sistema_pagos_factura", "public.historial_clinico_tratamiento"
HOURS, USERS = "public.citas_horario", "public.usuarios_usuario"
# Who is deleted, with all that belongs to them. The order is that of an application without ON DELETE.
LEAVES = (
    "CREATE TEMP TABLE v ON COMMIT DROP AS SELECT id FROM public.citas_consulta WHERE paciente_id = {0}",
    "CREATE TEMP TABLE f ON COMMIT DROP AS SELECT id FROM public.sistema_pagos_factura WHERE consulta_id IN (TABLE v)",
    "DELETE FROM public.sistema_pagos_pagoenlinea AS o USING public.sistema_pagos_pago AS p"
    " WHERE p.id = o.pago_id AND p.factura_id IN (TABLE f)",
    "DELETE FROM public.sistema_pagos_pago WHERE factura_id IN (TABLE f)",
    "DELETE FROM public.sistema_pagos_factura WHERE id IN (TABLE f)",
    "DELETE FROM public.historial_clinico_tratamiento WHERE historial_id IN"
    " (SELECT id FROM public.historial_clinico_historialclinico WHERE paciente_id = {0})",
    "DELETE FROM public.historial_clinico_historialclinico WHERE paciente_id = {0}",
    "DELETE FROM public.citas_recordatorio WHERE consulta_id IN (TABLE v)",
    "DELETE FROM public.citas_consulta WHERE id IN (TABLE v)",
    "UPDATE public.usuarios_paciente SET responsable_id = NULL WHERE responsable_id = {0}",
    "DELETE FROM public.usuarios_paciente WHERE id = {0}",
)


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Ward:
    return Ward(demo_database, FileStore(tmp_path / "store"))


def rows_of(ward: Ward, clinic_id: int = 1) -> dict[str, set[tuple[str, ...]]]:
    """Each table's rows as a set, with the first column as the key."""
    return {
        name: set(map(tuple, csv.reader(io.StringIO(content.decode()))))
        for name, content in ward.rows_now(clinic_id).items()
    }


def payment_of(ward: Ward, patient: int) -> int:
    """The first payment of a patient."""
    payment: int = one(
        ward,
        f"SELECT min(a.id) FROM {PAYMENTS} AS a JOIN {BILLS} AS f ON f.id = a.factura_id"
        f" JOIN {VISITS} AS v ON v.id = f.consulta_id WHERE v.paciente_id = {patient}",
    )
    return payment


def one(ward: Ward, query: str) -> Any:
    return ward.execute_rows(query)[0][0]


@pytest.fixture
def guardian(ward: Ward) -> int:
    """A patient of clinic 1 with visits, bills and payments, who is responsible for two others."""
    found: int = one(
        ward,
        "SELECT p.id FROM usuarios_paciente AS p JOIN citas_consulta AS v ON v.paciente_id = p.id"
        " JOIN sistema_pagos_factura AS f ON f.consulta_id = v.id JOIN sistema_pagos_pago AS a ON a.factura_id = f.id"
        " WHERE p.clinica_id = 1 AND p.responsable_id IS NULL ORDER BY p.id LIMIT 1",
    )
    ward.execute(
        "UPDATE usuarios_paciente SET responsable_id = NULL WHERE clinica_id = 1",
        f"UPDATE usuarios_paciente SET responsable_id = {found} WHERE id IN (SELECT id FROM usuarios_paciente"
        f" WHERE clinica_id = 1 AND id <> {found} ORDER BY id DESC LIMIT 3)",
    )
    return found


WORK = (
    "UPDATE usuarios_paciente SET telefono = '+591 1' WHERE clinica_id = 1 AND id % 2 = 0",
    "UPDATE inventario_inventario SET cantidad = cantidad + 5 WHERE clinica_id = 1",
    "INSERT INTO inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
    " VALUES ('N', 'nuevo', 1, 1, 1)",
    "DELETE FROM citas_recordatorio WHERE consulta_id IN (SELECT v.id FROM citas_consulta AS v"
    " JOIN usuarios_paciente AS p ON p.id = v.paciente_id WHERE p.clinica_id = 1)",
    "INSERT INTO usuarios_paciente (nombres, apellidos, cedula, fecha_nacimiento, sexo, telefono, direccion, alergias,"
    " creado_en, clinica_id) VALUES ('Nueva', 'Paciente', 'c-1', '2000-01-01', 'F', '', '', '{}', now(), 1)",
)


def test_one_deleted_patient_comes_back_and_three_days_of_work_stay(ward: Ward, guardian: int) -> None:
    before, others = rows_of(ward), ward.others()
    record = ward.run(1)
    ward.execute(*(each.format(guardian) for each in LEAVES))
    gone = {name: rows - rows_of(ward).get(name, set()) for name, rows in before.items()}
    children = [row for row in gone[PATIENTS] if row[0] != str(guardian)]
    assert len(children) == 3  # their link is gone
    gone[PATIENTS] -= set(children)
    assert sum(map(len, gone.values())) > 8
    # One child has another guardian by now, and the second one another telephone.
    moved, called, _ = sorted(int(row[0]) for row in children)
    ward.execute(
        *WORK,
        f"UPDATE usuarios_paciente SET responsable_id = (SELECT max(id) FROM usuarios_paciente WHERE clinica_id = 1)"
        f" WHERE id = {moved}",
        f"UPDATE usuarios_paciente SET telefono = '+591 77' WHERE id = {called}",
    )
    worked = rows_of(ward)
    wish = Wish(mode="rows", rows={PATIENTS: (str(guardian),)})
    plan = ward.plan(record, wish)
    assert plan.refusals == ()
    tables = by_table(plan)
    assert {name: table.insert for name, table in tables.items()} == {
        name: len(rows) for name, rows in gone.items() if rows
    }
    assert (tables[PATIENTS].insert, tables[PATIENTS].update, tables[PATIENTS].columns) == (1, 2, {"responsable_id": 2})
    assert sum(table.update + table.delete for table in plan.tables) == 2
    said = " ".join(tables[PATIENTS].notes)
    assert "2 rows get their former link to a row that comes back again, and keep all other values." in said
    assert "1 row belonged to a row that comes back, and refers to another one now: it stays as it is." in said
    assert not {STOCK, USERS} & {table.table for table in plan.tables}
    # People go on working between the plan and its approval.
    ward.execute("UPDATE inventario_inventario SET cantidad = cantidad + 1 WHERE clinica_id = 1")
    worked[STOCK] = rows_of(ward)[STOCK]
    done = ward.restore().apply(ward.source(record), wish, approved=plan.digest)
    assert done.writes == plan.writes
    now = rows_of(ward)
    linked = {(row[0], str(guardian)) for row in now[PATIENTS] if row[-1] == str(guardian)}
    assert linked == {(row[0], str(guardian)) for row in children if int(row[0]) != moved}
    restored = {row[:-1] for row in worked[PATIENTS]} | {row[:-1] for row in gone[PATIENTS]}
    assert {row[:-1] for row in now.pop(PATIENTS)} == restored
    assert now == {name: rows | gone[name] for name, rows in worked.items() if name != PATIENTS}
    assert ward.others() == others
    assert ward.plan(record, wish).writes == 0


def test_only_the_named_row_and_what_it_needs(ward: Ward, guardian: int) -> None:
    """Without what belongs to it; and, for a row deep below, all that it needs and nothing that hangs on these."""
    record, before = ward.run(1), rows_of(ward)
    payment = payment_of(ward, guardian)
    ward.execute(*(each.format(guardian) for each in LEAVES))
    left = rows_of(ward)
    alone = ward.plan(record, Wish(mode="rows", rows={PATIENTS: (str(guardian),)}, only=True))
    assert {name: table.writes for name, table in by_table(alone).items()} == {PATIENTS: 1}
    wish = Wish(mode="rows", rows={PAYMENTS: (str(payment),)})
    plan = ward.apply(record, wish)
    assert plan.refusals == ()
    counts = {name: table.insert for name, table in by_table(plan).items()}
    online = counts.pop("public.sistema_pagos_pagoenlinea", 0)
    assert counts == {PATIENTS: 1, VISITS: 1, BILLS: 1, PAYMENTS: 1}
    assert online <= 1
    back = {name: rows - left.get(name, set()) for name, rows in rows_of(ward).items()}
    assert {name: len(rows) for name, rows in back.items() if rows and "pagoenlinea" not in name} == counts
    assert all(rows <= before[name] for name, rows in back.items())


def test_a_row_that_is_there_gets_its_former_values_with_those_that_belong_to_it(ward: Ward, guardian: int) -> None:
    record = ward.run(1)
    ward.execute(
        f"UPDATE {PATIENTS} SET notas = 'otra' WHERE id = {guardian}",
        f"UPDATE {RECORDS} SET observaciones = 'otra' WHERE paciente_id = {guardian}",
        f"UPDATE {STOCK} SET nombre = 'otro' WHERE clinica_id = 1",
        # Patients for whom somebody is responsible are no part of that person.
        f"UPDATE {PATIENTS} SET telefono = '+591 5' WHERE responsable_id = {guardian}",
    )
    plan = ward.apply(record, Wish(mode="rows", rows={PATIENTS: (str(guardian),)}))
    assert {name: (table.insert, table.update) for name, table in by_table(plan).items()} == {
        PATIENTS: (0, 1), RECORDS: (0, 1),
    }  # fmt: skip
    assert one(ward, f"SELECT count(*) FROM {STOCK} WHERE clinica_id = 1 AND nombre <> 'otro'") == 0


def test_a_key_of_several_columns(ward: Ward) -> None:
    record = ward.run(1)
    rows = ward.execute_rows(
        f"SELECT h.odontologo_id, h.dia_semana, h.hora_inicio::text FROM {HOURS} AS h"
        " JOIN profesionales_odontologo AS o ON o.id = h.odontologo_id WHERE o.clinica_id = 1 ORDER BY 1, 2, 3 LIMIT 2"
    )
    before = rows_of(ward)
    ward.execute("DELETE FROM citas_horario WHERE odontologo_id IN"
                 " (SELECT id FROM profesionales_odontologo WHERE clinica_id = 1)")  # fmt: skip
    keys = tuple("/".join(map(str, row)) for row in rows)
    plan = ward.apply(record, Wish(mode="rows", rows={HOURS: keys}))
    assert {name: table.insert for name, table in by_table(plan).items()} == {HOURS: 2}
    assert {row[:3] for row in rows_of(ward)[HOURS]} == {tuple(map(str, row)) for row in rows}
    assert rows_of(ward)[HOURS] < before[HOURS]
    with pytest.raises(SettingsError) as caught:
        ward.plan(record, Wish(mode="rows", rows={HOURS: ("3",)}))
    assert "odontologo_id/dia_semana/hora_inicio" in caught.value.hint


def test_what_is_not_in_the_backup_is_refused_by_its_number_alone(ward: Ward, guardian: int) -> None:
    record = ward.run(1)
    other = one(ward, f"SELECT id FROM {PATIENTS} WHERE clinica_id = 2 LIMIT 1")
    plan = ward.plan(record, Wish(mode="rows", rows={PATIENTS: ("987654321", str(other), str(guardian))}))
    (refusal,) = plan.refusals
    assert refusal.message == f"2 of the 3 named rows of {PATIENTS} are not in this backup."
    assert plan.writes == 0
    for table, key in ((PATIENTS, "abc"), (PATIENTS, "1;2"), ("public.nada", "1")):
        with pytest.raises(SettingsError):
            ward.plan(record, Wish(mode="rows", rows={table: (key,)}))


def test_a_change_of_what_comes_back_voids_the_approval(ward: Ward, guardian: int) -> None:
    record = ward.run(1)
    ward.execute(*(each.format(guardian) for each in LEAVES))
    wish = Wish(mode="rows", rows={PATIENTS: (str(guardian),)})
    plan = ward.plan(record, wish)
    for other in (Wish(mode="rows", rows={PATIENTS: (str(guardian),)}, only=True), Wish()):
        with pytest.raises(ClinicChanged):
            ward.restore().apply(ward.source(record), other, approved=plan.digest)
    ward.execute(f"UPDATE {PATIENTS} SET responsable_id = id WHERE clinica_id = 1 AND id = (SELECT max(id)"
                 f" FROM {PATIENTS} WHERE clinica_id = 1)")  # fmt: skip
    with pytest.raises(ClinicChanged):
        ward.restore().apply(ward.source(record), wish, approved=plan.digest)


def test_what_others_have_taken_by_now_is_refused(ward: Ward, guardian: int) -> None:
    """A unique value of the named row belongs to a new row; the named row is another clinic's."""
    record = ward.run(1)
    wish = Wish(mode="rows", rows={PATIENTS: (str(guardian),)})
    card = one(ward, f"SELECT cedula FROM {PATIENTS} WHERE id = {guardian}")
    ward.execute(*(each.format(guardian) for each in LEAVES))
    ward.execute(WORK[-1].replace("'c-1'", f"'{card}'"))
    before = rows_of(ward)
    (refusal, *_) = ward.plan(record, wish).refusals
    assert refusal.table == PATIENTS
    assert card not in refusal.message + refusal.hint
    assert rows_of(ward) == before


def test_a_row_that_another_clinic_has_now_is_refused(ward: Ward, guardian: int) -> None:
    record = ward.run(1)
    ward.execute(f"UPDATE {PATIENTS} SET clinica_id = 2, cedula = 'nueva' WHERE id = {guardian}")
    others = ward.others()
    plan = ward.plan(record, Wish(mode="rows", rows={PATIENTS: (str(guardian),)}))
    assert PATIENTS in {refusal.table for refusal in plan.refusals}
    assert ward.others() == others
