"""Implausible rows are counted again. The backup then fails, or is suspect until somebody accepts it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.envelope_checks import problem_of
from clinic_backups.backup.stream import ArchiveStream
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.catalog.audit import Audit
from clinic_backups.catalog.board import Board
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.notify.digest import digest_facts
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant import plausibility
from tests.fleet import Fleet
from tests.postgres_fixtures import DemoDatabase

STOCK, VISITS, LOG = "public.inventario_inventario", "public.citas_consulta", "public.auditoria_bitacora"
PAYMENTS = "public.sistema_pagos_pagoenlinea"
DELETE_DENTIST = (
    "DELETE FROM public.profesionales_odontologo WHERE id = (SELECT min(o.id) FROM public.profesionales_odontologo o"
    " JOIN public.citas_consulta c ON c.odontologo_id = o.id"
    " JOIN public.usuarios_paciente p ON p.id = c.paciente_id WHERE p.clinica_id = 1)"
)
SILENT = "SET session_replication_role = replica"
"""Foreign keys and triggers are not looked at."""


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    fleet = Fleet(demo_database, FileStore(tmp_path / "store"))
    fleet.kind, fleet.allow_gaps = "auto", True
    clinics = [Clinic(1, "Clínica N.º 1")]
    Clinics(fleet.catalog.database).see(active=clinics, every=clinics)
    return fleet


ODD = {
    "an emptied table": (f"DELETE FROM {STOCK}", rf"{STOCK} has no rows, but had [0-9]+ in 1-"),
    "a truncated table": (f"TRUNCATE {PAYMENTS}", rf"{PAYMENTS} has no rows"),
    "an emptied log": (f"DELETE FROM {LOG}", rf"{LOG} has no rows"),
    "rows that lost their parent": (
        DELETE_DENTIST,
        rf"{VISITS} \(\w+\): [0-9]+ rows? points? to rows of public\.profesionales_odontologo that do not exist",
    ),
    "a parent that is not backed up": (
        "INSERT INTO public.usuarios_usuario_groups (id, usuario_id, group_id)"
        " SELECT 90001, id, 77777 FROM public.usuarios_usuario WHERE clinica_id = 1 LIMIT 1",
        None,
    ),
}


@pytest.mark.parametrize(("statement", "reason"), ODD.values(), ids=ODD)
def test_what_stays_odd_makes_the_backup_suspect(fleet: Fleet, statement: str, reason: str | None) -> None:
    assert fleet.on_day(0).suspect is None
    fleet.execute(SILENT, statement)
    record = fleet.on_day(1)
    assert record.state == "completed"
    assert fleet.catalog.get(record.backup_id) == record
    if reason is None:
        assert record.suspect is None
    else:
        assert re.search(reason, record.suspect or "")


def test_a_suspect_backup_is_neither_built_on_nor_the_last_good_one(fleet: Fleet) -> None:
    good = fleet.on_day(0)
    fleet.execute(f"CREATE TABLE public.kept AS TABLE {STOCK}", f"DELETE FROM {STOCK}")
    suspect = fleet.on_day(1)
    assert suspect.suspect
    third = fleet.on_day(2)
    assert third.parent_id == good.backup_id
    assert third.suspect, "as long as nobody accepts the loss each backup says so"
    line = Board(fleet.catalog.database).clinic(1, now=fleet.now, objective_hours=24, prove_within_days=0)
    assert line is not None
    assert (line.last_good_id, line.standing) == (good.backup_id, "late")
    assert (line.suspect, line.suspect_id) == (third.suspect, third.backup_id)
    (cleaned,) = fleet.clean(200)
    reasons = {decision.backup.backup_id: (decision.keep, decision.reason) for decision in cleaned.decisions}
    assert reasons[good.backup_id] == (True, "the clinic's last good backup")
    assert not reasons[suspect.backup_id][0]


@pytest.mark.parametrize("table", [STOCK, LOG])
def test_a_table_that_may_be_empty_makes_no_backup_suspect(fleet: Fleet, tmp_path: Path, table: str) -> None:
    fleet.with_extracts(tmp_path / "sql", {})
    with (tmp_path / "sql" / "not_backed_up.txt").open("a", encoding="utf-8") as file:
        file.write(f"{table}: may be empty, it is emptied when the month is closed\n")
    fleet.on_day(0)
    fleet.execute(f"DELETE FROM {table}")
    assert fleet.on_day(1).suspect is None
    fleet.execute(f"DELETE FROM {PAYMENTS}")
    suspect = fleet.on_day(2).suspect or ""
    assert PAYMENTS in suspect
    assert table not in suspect


def test_a_safety_backup_makes_no_clinic_green(fleet: Fleet) -> None:
    good = fleet.on_day(0)
    fleet.execute(f"DELETE FROM {STOCK}")
    safety = fleet.on_day(3)
    fleet.execute(
        f"UPDATE clinic_backups.backup SET safety_of = '{good.backup_id}', suspect = NULL"
        f" WHERE backup_id = '{safety.backup_id}'"
    )
    board = Board(fleet.catalog.database)
    line = board.clinic(1, now=fleet.now, objective_hours=24, prove_within_days=0)
    assert line is not None
    assert (line.standing, line.last_good_id, line.suspect_id) == ("late", good.backup_id, None)
    assert board.counts(visible=None, now=fleet.now, objective_hours=24, prove_within_days=0).late == 1
    (health,) = Clinics(fleet.catalog.database).health(fleet.now)
    assert health.last_good_at == good.data_time
    # Nor is it what a later backup is compared with.
    assert STOCK in (fleet.on_day(4).suspect or "")


def test_where_all_are_suspect_none_is_deleted(fleet: Fleet) -> None:
    fleet.execute(SILENT, DELETE_DENTIST)
    suspect = fleet.on_day(0)
    assert suspect.suspect
    (cleaned,) = fleet.clean(200)
    assert [decision.reason for decision in cleaned.decisions if decision.keep] == [
        "all of the clinic's backups are suspect"
    ]
    again = fleet.on_day(201)
    assert again.kind_reason == "all of the clinic's backups are suspect, and nobody accepted one"


def test_accepted_it_counts_and_the_same_is_not_said_again(fleet: Fleet) -> None:
    fleet.on_day(0)
    fleet.execute(
        SILENT,
        f"DELETE FROM {STOCK}",
        DELETE_DENTIST,
    )
    suspect = fleet.on_day(1)
    accepted = fleet.holds().accept(suspect.backup_id, "cierre de caja", "ana")
    assert (accepted.accepted_by, accepted.is_trusted) == ("ana", True)
    assert fleet.holds().accept(suspect.backup_id, "cierre de caja", "ana").accepted_at == accepted.accepted_at
    with pytest.raises(PermanentError, match="ana already accepted"):
        fleet.holds().accept(suspect.backup_id, "otra vez", "beto")
    (entry, *_) = Audit(fleet.catalog.database).page(visible=None).entries
    assert (entry.action, entry.actor, entry.backup_id, entry.detail) == (
        "accept", "ana", suspect.backup_id, "cierre de caja",
    )  # fmt: skip
    third = fleet.on_day(2, incremental_percent=1000)
    assert (third.accepted_by, third.parent_id) == ("ana", suspect.backup_id)
    fleet.execute(
        "INSERT INTO public.citas_consulta SELECT (jsonb_populate_record(c, '{\"id\": 90001}')).*"
        " FROM public.citas_consulta c JOIN public.usuarios_paciente p ON p.id = c.paciente_id"
        " JOIN public.profesionales_odontologo o ON o.id = c.odontologo_id WHERE p.clinica_id = 1 LIMIT 1"
    )
    fourth = fleet.on_day(3, incremental_percent=1000)
    assert (fourth.accepted_by, fourth.parent_id, fourth.suspect) == ("ana", third.backup_id, third.suspect)
    assert fleet.catalog.require(fourth.backup_id) == fourth
    fleet.execute(SILENT, DELETE_DENTIST)
    fifth = fleet.on_day(4)
    assert (fifth.is_trusted, fifth.suspect != fourth.suspect) == (False, True)
    good = fleet.on_day(5, clinic_id=2)
    with pytest.raises(PermanentError, match="is not suspect"):
        fleet.holds().accept(good.backup_id, "x", "ana")


def test_a_rebuilt_catalog_knows_what_is_suspect(fleet: Fleet) -> None:
    fleet.on_day(0)
    fleet.execute(f"DELETE FROM {STOCK}")
    suspect = fleet.on_day(1)
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    fleet.rebuild()
    found = fleet.catalog.require(suspect.backup_id)
    assert (found.suspect, found.data_at) == (suspect.suspect, suspect.data_at)
    assert found.to_json()["suspect"] == suspect.suspect


def test_an_envelope_from_before_is_read_and_one_with_a_strange_moment_is_not(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    data = record.envelope().to_json()
    old = Envelope.from_json({name: value for name, value in data.items() if name not in ("suspect", "data_at")})
    found = BackupRecord.of(old, "file:///x")
    assert (found.suspect, found.data_at, found.data_time) == (None, None, record.started_at)
    assert problem_of(old, 1, fleet.now) == ""
    for wrong in ({"data_at": fleet.now + timedelta(days=3)}, {"data_at": datetime(2026, 9, 1)}, {"suspect": 7}):
        assert problem_of(replace(old, **wrong), 1, fleet.now)


def test_a_table_that_was_read_as_empty_and_has_rows_is_not_believed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the locks had not held: the rows are away while the snapshot reads, and there afterwards."""
    fleet.on_day(0)
    fleet.execute(f"CREATE TABLE public.kept AS TABLE {STOCK}", f"DELETE FROM {STOCK}")
    run = ArchiveStream.run

    def run_and_reload(self: ArchiveStream, *args: Any, **options: Any) -> Any:
        stored = run(self, *args, **options)
        fleet.execute(f"INSERT INTO {STOCK} OVERRIDING SYSTEM VALUE SELECT * FROM public.kept")
        return stored

    monkeypatch.setattr(ArchiveStream, "run", run_and_reload)
    before = fleet.objects()
    with pytest.raises(TransientError, match=f"{STOCK} was read as empty") as caught:
        fleet.on_day(1)
    assert fleet.objects() == before
    assert "retry" in caught.value.hint
    monkeypatch.undo()
    assert fleet.on_day(2).suspect is None


def test_a_count_that_takes_too_long_is_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    check = plausibility.check
    monkeypatch.setattr(plausibility, "check", lambda *args, **more: check(*args, within_seconds=0.001, **more))
    record = fleet.on_day(0)
    assert "was not checked whether rows refer" in (record.remark or "")
    assert fleet.catalog.require(record.backup_id).remark == record.remark


def test_the_digest_names_it(fleet: Fleet) -> None:
    fleet.on_day(0)
    fleet.execute(f"DELETE FROM {STOCK}")
    record = fleet.on_day(1)
    facts = facts_of(record)
    assert facts["suspect"] == [
        {"clinic_id": 1, "clinic_name": record.clinic_name, "backup_id": record.backup_id, "reason": record.suspect}
    ]


def facts_of(record: BackupRecord) -> dict[str, Any]:
    now = datetime(2026, 9, 3, tzinfo=UTC)
    clinic = Clinic(record.clinic_id, record.clinic_name)
    return digest_facts(
        run_id="r", run_url="", clinics=[clinic], records={clinic.id: record}, urls={}, health=[], shrunk=[],
        undelivered=[], objective_hours=26, started_at=now - timedelta(hours=1), now=now,
    )  # fmt: skip
