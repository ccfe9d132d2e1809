"""The DAG ``clinic_backup`` in a real Airflow: who is backed up, what a failure does to the others, what is written."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote
from uuid import uuid4

import psycopg2
import pytest

from include.demo import databases
from include.demo.layout import DemoError
from tests.airflow.conftest import OPERATOR, Airflow
from tests.airflow.test_mail import to

ALL = {f"back_up[{number}]": "success" for number in range(6)}
"""The first is the shared data's, the others are those of clinics 1 to 5."""
READY = {"active_clinics": "success", "preflight": "success"}


def test_all_active_clinics_and_nothing_of_a_patient_outside_of_the_store(airflow: Airflow) -> None:
    secret = f"Zacarías-{uuid4().hex}"
    airflow.execute(f"UPDATE public.usuarios_paciente SET nombres = '{secret}', alergias = ARRAY['{secret}']")
    run_id = airflow.scheduled()
    assert (airflow.wait(run_id), airflow.states(run_id)) == (
        "success",
        READY | ALL | {"summary": "success", "tell_assets": "success"},
    )
    records = airflow.records(run_id)
    assert sorted(records, key=str) == [1, 2, 3, 4, 5, "~shared"]
    for record in records.values():
        assert (record.state, record.trigger, record.requested_by) == ("completed", "scheduled", "scheduled")
        assert (record.run_id, record.attempt, record.notes) == (run_id, 1, "")
    # What the application's view and the API say of them.
    file = records[3].archive_key.rpartition("/")[2]
    (tipo,) = airflow.execute(f"SELECT tipo FROM clinic_backups.respaldo WHERE nombre_archivo = '{file}'")[0]
    assert tipo in ("completo", "incremental")
    with closing(airflow.web("admin")) as web:
        for asked, there in ((tipo, True), ("manual", False)):
            found = web.get("/backups/respaldos/", params={"clinica": 3, "tipo": asked}).json()["results"]
            assert (file in [entry["nombre_archivo"] for entry in found]) == there
    tasks = airflow.tasks(run_id)
    assert tasks["back_up[0]"]["rendered_map_index"] == "Datos compartidos"
    assert tasks["back_up[3]"]["rendered_map_index"] == "Clínica D'Ávila"
    # One SQL script, to be read line by line.
    assert "clinica_id = 3;\n\n-- public." in tasks["back_up[3]"]["rendered_fields"]["extract"]
    assert {(tasks[name]["pool"], tasks[name]["priority_weight"]) for name in ALL} == {("clinic_backups", 1)}
    (count,) = airflow.execute(f"SELECT count(*) FROM public.usuarios_paciente WHERE nombres = '{secret}'")
    assert count[0] > 100
    for text in (
        airflow.xcoms(run_id),
        json.dumps(tasks),
        *(airflow.log(run_id, task) for task in ("back_up", "summary")),
    ):
        assert len(text) > 100
        assert secret not in text
    # Nothing on the worker's disk either; the database's own files are the server's.
    for path in airflow.stack.layout.root.rglob("*"):
        if path.is_file() and not path.is_relative_to(airflow.stack.layout.postgres):
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "conf", [{"clinic_id": "seis"}, {"clinic_id": "1, 2"}, {"clinic_ids": []}, {"clinic_ids": ["1"]}, {"clinic_id": 0}]
)
def test_a_conf_of_a_wrong_type_starts_no_run(airflow: Airflow, conf: dict[str, object]) -> None:
    with pytest.raises(DemoError, match="400"):
        airflow.start(conf)


def test_a_wrong_conf_fails_at_once_with_the_list_and_touches_nothing(airflow: Airflow) -> None:
    before, mails = sorted(airflow.stack.layout.store.rglob("*")), len(airflow.mails())
    run_id, state = airflow.run({"clinic_id": 99})
    assert (state, airflow.states(run_id)) == ("failed", {
        "active_clinics": "failed", "preflight": "upstream_failed", "back_up": "upstream_failed", "summary": "failed",
        "tell_assets": "success",
    })  # fmt: skip
    assert "The clinics are: 1 'Clínica Sonrisas', 2 'Odontología" in airflow.log(run_id, "active_clinics")
    assert airflow.tasks(run_id)["active_clinics"]["try_number"] == 1
    assert "No clinic was backed up. active_clinics: No clinic has the id 99." in airflow.log(run_id, "summary")
    assert airflow.records(run_id) == {}
    assert sorted(airflow.stack.layout.store.rglob("*")) == before
    (digest,) = airflow.mails()[mails:]
    assert "No clinic has the id 99." in digest.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_the_kind_is_as_asked_and_the_log_says_why(airflow: Airflow) -> None:
    for conf, kind, why in (
        ({"kind": "full"}, "full", "a full one was asked for"),
        ({}, "incremental", "built on 3-"),
        ({"kind": "full"}, "full", "a full one was asked for"),
    ):
        run_id, _ = airflow.run({"clinic_id": 3, **conf})
        record = airflow.records(run_id)[3]
        assert record.kind == kind
        assert f"Backup {record.backup_id} ({kind}: {why}" in airflow.log(run_id, "back_up")


def test_an_explicit_id_also_backs_up_an_inactive_clinic(airflow: Airflow) -> None:
    run_id, state = airflow.run({"clinic_id": 6, "notes": "prueba"})
    assert state == "success"
    record = airflow.records(run_id)[6]
    assert (record.trigger, record.requested_by, record.notes) == ("manual", "admin", "prueba")
    assert airflow.tasks(run_id)["back_up[0]"]["priority_weight"] == 1000
    assert {number: record.state for number, record in airflow.records(run_id).items()} == {6: "completed"}


@pytest.fixture
def clinic_3_broken(airflow: Airflow) -> Iterator[None]:
    """Its extract of one table fails, and no other clinic's. So it is not known which rows there are nobody's."""
    with airflow.stock_condition("1 / ({{ clinic_id }} - 3) IS NOT NULL"):
        yield


def test_one_clinics_failure_stops_no_other_and_the_summary_names_it(airflow: Airflow, clinic_3_broken: None) -> None:
    run_id, state = airflow.run()
    assert (state, airflow.states(run_id)) == (
        "failed", READY | ALL
        | {"back_up[0]": "failed", "back_up[3]": "failed", "summary": "failed", "tell_assets": "success"},
    )  # fmt: skip
    records = airflow.records(run_id)
    assert {number: record.state for number, record in records.items()} == dict.fromkeys((1, 2, 4, 5), "completed") | {
        3: "failed",
        "~shared": "failed",
    }
    assert (records[3].state, records[3].attempt) == ("failed", 1)
    assert "22012" in (records[3].error or "")
    summary = airflow.log(run_id, "summary")
    assert "2 of 6 backups of this run are missing: 3" in summary
    assert "public.inventario_inventario" in summary and "22012" in summary
    assert summary.count(" rows, ") == 4
    # Each clinic's task leads to its backup, that of the failed one too.
    pages = f"{airflow.stack.url}/backups/ui/clinics"
    for number in (1, 2, 3):
        link = f"{pages}/{number}/runs/{quote(run_id, safe='')}"
        assert airflow.links(run_id, "back_up", number) == {"Backup": link}
    assert "extra link" not in airflow.log(run_id, "back_up")


def test_more_clinics_than_tasks_are_divided_and_each_has_its_own_backup(airflow: Airflow) -> None:
    """The sixth clinic is active for once, and the third fails in whatever task it is."""
    airflow.execute("UPDATE public.comun_clinica SET activa = true WHERE id = 6")
    try:
        with airflow.stock_condition("1 / ({{ clinic_id }} - 3) IS NOT NULL"):
            run_id, state = airflow.run()
        shares = {name: task["rendered_map_index"] for name, task in airflow.tasks(run_id).items() if name in ALL}
        assert set(shares) == set(ALL)
        (share,) = [name for name in shares.values() if name.startswith("2 clinics, ")]
        assert "Datos compartidos" in shares.values()
        records = airflow.records(run_id)
        assert {number: record.state for number, record in records.items()} == dict.fromkeys(
            (1, 2, 4, 5, 6), "completed"
        ) | {3: "failed", "~shared": "failed"}
        assert (state, "2 of 7 backups of this run are missing: 3" in airflow.log(run_id, "summary")) == (
            "failed",
            True,
        )
        log = airflow.log(run_id, "back_up")
        first, last = share.removeprefix("2 clinics, ").split(" to ")
        # They were under way at the same time: whichever ended first is the first.
        assert sorted(re.findall(r"[12] of 2: clinic (\d) ", log)) == sorted((first, last))
    finally:
        airflow.execute("UPDATE public.comun_clinica SET activa = false WHERE id = 6")


def test_a_transient_error_is_tried_again(airflow: Airflow) -> None:
    with closing(airflow.stack._postgres.connect("clinica")) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('clinic_backups:clinic:4', 0))")
        run_id, state = airflow.run({"clinic_ids": [4, 5]})
    assert (state, airflow.states(run_id)["back_up[0]"]) == ("failed", "failed")
    assert airflow.tasks(run_id)["back_up[0]"]["try_number"] == 2
    assert airflow.log(run_id, "back_up").count("The lock of clinic 4 in the catalog is held by session") >= 2
    assert {number: record.state for number, record in airflow.records(run_id).items()} == {5: "completed"}


def test_a_clinic_that_another_process_backs_up_is_waited_for_without_a_retry(airflow: Airflow) -> None:
    """With a large clinic, a backup by hand may take longer than all retries of the night's."""
    uri = airflow.stack.variables()["AIRFLOW_CONN_BACKUP_CATALOG"]
    with closing(psycopg2.connect(uri)) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('clinic_backups:clinic:4', 0))")
        run_id = airflow.start({"clinic_ids": [4, 5]})
        deadline = time.monotonic() + 60
        while airflow.log(run_id, "back_up").count("Clinic 4 is already being backed up") < 2:
            assert time.monotonic() < deadline, airflow.states(run_id)
            time.sleep(0.3)
    assert airflow.wait(run_id) == "success"
    assert airflow.tasks(run_id)["back_up[0]"]["try_number"] == 1
    assert {number: record.state for number, record in airflow.records(run_id).items()} == {
        4: "completed", 5: "completed",
    }  # fmt: skip


def test_a_retry_keeps_the_backup_that_an_earlier_try_completed_before_it_died(airflow: Airflow) -> None:
    """A worker may be killed between the commit of a backup and the moment in which Airflow hears of it."""
    run_id, state = airflow.run({"clinic_ids": [4, 5]})
    made = airflow.records(run_id)[4].backup_id
    with closing(airflow.stack._postgres.connect(databases.AIRFLOW)) as db, db, db.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET state = 'up_for_retry', end_date = now()"
            " WHERE run_id = %s AND task_id = 'back_up' AND map_index = 0",
            (run_id,),
        )
        cursor.execute("UPDATE dag_run SET state = 'running', end_date = NULL WHERE run_id = %s", (run_id,))
    assert (state, airflow.wait(run_id)) == ("success", "success")
    assert airflow.tasks(run_id)["back_up[0]"]["try_number"] == 2
    assert [r.backup_id for r in airflow.catalog.find(run_id=run_id) if r.clinic_id == 4] == [made]
    assert f"Clinic 4 has its backup of this run already: {made}." in airflow.log(run_id, "back_up")
    # Who clears the task wants another one.
    airflow.api.clear("clinic_backup", run_id, [("back_up", 0)])
    assert airflow.wait(run_id) == "success"
    assert len([r for r in airflow.catalog.find(run_id=run_id) if r.clinic_id == 4]) == 2


def test_a_failed_clinic_that_is_cleared_with_what_follows_turns_the_run_green(airflow: Airflow) -> None:
    before = len(airflow.mails())
    with closing(airflow.stack._postgres.connect("clinica")) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('clinic_backups:clinic:4', 0))")
        run_id, state = airflow.run({"clinic_ids": [4, 5]})
    assert (state, airflow.states(run_id)["back_up[0]"]) == ("failed", "failed")
    assert "clear the failed tasks back_up, with Downstream" in airflow.log(run_id, "summary")
    (digest,) = to(airflow.mails()[before:], OPERATOR)
    body = " ".join(digest.get_body(("plain",)).get_content().split())  # type: ignore[union-attr]
    assert "limpie (Clear) la tarea fallida junto con las que le siguen (Downstream)" in body
    kept = airflow.records(run_id)[5].backup_id
    airflow.api.clear("clinic_backup", run_id, [("back_up", 0)])
    assert airflow.wait(run_id) == "success"
    assert {number: record.state for number, record in airflow.records(run_id).items()} == {
        4: "completed", 5: "completed",
    }  # fmt: skip
    assert airflow.tasks(run_id)["back_up[1]"]["try_number"] == 1
    assert airflow.records(run_id)[5].backup_id == kept


def test_what_every_backup_needs_stops_a_run_before_any_clinic_and_the_operator_hears_why(airflow: Airflow) -> None:
    before = len(airflow.mails())
    with airflow.slots(0), closing(airflow.web("admin")) as web, airflow.paused("clinic_backup_watch"):
        run_id, state = airflow.run()
        board = web.get("/backups/ui/", headers={"Accept-Language": "en"}).text
        assert "has no slots: backups wait and do not begin." in board
        assert "The newest run for all clinics failed before it backed up any clinic." in board
        assert quote(run_id, safe="") in board
        with airflow.paused("clinic_backup"):
            paused = web.get("/backups/ui/", headers={"Accept-Language": "en"}).text
            assert "The DAG clinic_backup is paused" in paused
            assert {"paused", "no_slots", "failed"} <= set(web.get("/backups/health").json()["alerts"])
            assert 'clinic_backups_alert{kind="paused"} 1.0' in web.get("/backups/metrics").text
    assert (state, airflow.states(run_id)) == ("failed", {
        "active_clinics": "success", "preflight": "failed", "back_up": "upstream_failed", "summary": "failed",
        "tell_assets": "success",
    })  # fmt: skip
    assert airflow.tasks(run_id)["preflight"]["try_number"] == 1
    assert airflow.records(run_id) == {}
    (digest,) = airflow.mails()[before:]
    assert digest["X-Envelope-To"] == OPERATOR
    assert str(digest["Subject"]) == "❌ Respaldos: 0 de 6, 6 con error"
    body = digest.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "POR QUÉ NO EMPEZÓ NINGÚN RESPALDO" in body
    assert "The pool clinic_backups has no slots" in " ".join(body.split())


def test_a_pool_that_is_gone_is_made_anew(airflow: Airflow) -> None:
    assert airflow.api._request("DELETE", "/pools/clinic_backups").status_code == 204
    run_id, state = airflow.run({"clinic_id": 2})
    assert (state, airflow.states(run_id)["back_up[0]"]) == ("success", "success")
    assert airflow.api._call("GET", "/pools/clinic_backups")["slots"] == 4


def test_what_is_wrong_with_a_table_fails_each_backup_that_it_touches_with_its_cause(airflow: Airflow) -> None:
    before = len(airflow.mails())
    airflow.execute(
        "CREATE TABLE public.citas_nueva (id int PRIMARY KEY, paciente_id bigint REFERENCES public.usuarios_paciente)"
    )
    try:
        run_id, state = airflow.run({"clinic_ids": [2, 3]})
    finally:
        airflow.execute("DROP TABLE public.citas_nueva")
    assert (state, airflow.states(run_id)) == ("failed", READY | {
        "back_up[0]": "failed", "back_up[1]": "failed", "summary": "failed", "tell_assets": "success",
    })  # fmt: skip
    cause = "public.citas_nueva leads to the clinic"
    for task in ("preflight", "back_up", "summary"):
        assert cause in airflow.log(run_id, task)
    for record in airflow.records(run_id).values():
        assert record.state == "failed"
        assert cause in (record.error or "")
    mails = {mail["X-Envelope-To"]: mail for mail in airflow.mails()[before:]}
    assert len(mails) == 3  # the administrators of both clinics, and the operator
    assert cause in " ".join(mails[OPERATOR].get_body(("plain",)).get_content().split())
    assert all(str(mail["Subject"]).startswith("❌") for mail in mails.values())


def test_a_backfill_is_refused(airflow: Airflow) -> None:
    period = {"from_date": "2026-03-01T00:00:00Z", "to_date": "2026-03-03T00:00:00Z"}
    with pytest.raises(DemoError, match=r"answered 4\d\d"):
        airflow.api._call("POST", "/backfills", json={"dag_id": "clinic_backup", **period, "run_backwards": False})


def test_a_backup_by_hand_does_not_wait_for_the_nights_run(airflow: Airflow) -> None:
    with airflow.slots(1):
        night, hand = airflow.scheduled(), airflow.start({"clinic_id": 6})
        assert (airflow.wait(hand), airflow.wait(night)) == ("success", "success")
    last = max(record.started_at for record in airflow.records(night).values())
    assert airflow.records(hand)[6].started_at < last
