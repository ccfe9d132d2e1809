"""A made-up fleet for the pages. It replaces the catalog and Airflow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI

from clinic_backups.base.backup_facts import ChainArchive
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.audit import AuditEntry, AuditPage
from clinic_backups.catalog.backup_list import HistoryEntry, HistoryPage, Moment
from clinic_backups.catalog.board import BoardLine, BoardPage, Counts, TrendPoint
from clinic_backups.catalog.exports import ExportRecord
from clinic_backups.catalog.progress import BackupProgress, RunningBackup
from clinic_backups.catalog.proofs import ProofRecord
from clinic_backups.catalog.row_changes import NightChange, TableChange
from clinic_backups.restore.plan import Refusal, RestorePlan, TablePlan
from clinic_backups.web import access
from clinic_backups.web.actions import Started
from clinic_backups.web.application import make_app
from clinic_backups.web.banners import Banner
from clinic_backups.web.caller import Caller
from clinic_backups.web.downloads import Link
from clinic_backups.web.problems import Conflict
from clinic_backups.web.run_views import RunView, TaskView
from clinic_backups.web.viewer import Viewer

NOW = datetime(2026, 5, 20, 15, 4, 5, tzinfo=UTC)
OPERATOR = Viewer("guardia", "guardia@saas.example", superadmin=True)
ADMINISTRATOR = Viewer("ana", "ana@clinica.example", clinics={7: "administrador"})
READER = Viewer("leo", clinics={7: "lector"})
TABLES = {
    "public.usuarios_paciente": 18_231, "public.citas_consulta": 92_113, "public.sistema_pagos_factura": 40_872,
    "public.historial_clinico_tratamiento": 121_009, "public.inventario_inventario": 713,
}  # fmt: skip


def trend(days: int = 30, size_bytes: int = 12_000_000, growth: float = 0.01) -> tuple[TrendPoint, ...]:
    """A day's backup after the other, a little larger each time."""
    return tuple(
        TrendPoint((NOW - timedelta(days=days - day)).date(), int(size_bytes * (1 + growth * day)), 270_000 + 120 * day)
        for day in range(days)
    )


def record(number: int = 12, **changes: Any) -> BackupRecord:
    """A completed backup of clinic 7; the higher its number, the newer."""
    started = NOW - timedelta(days=12 - number, hours=9)
    known = BackupRecord(
        backup_id=f"7-{started:%Y%m%dT%H%M%SZ}",
        clinic_id=7,
        clinic_name="Clínica Sonrisas",
        kind="full" if number % 7 == 5 else "incremental",
        trigger="scheduled",
        state="completed",
        started_at=started,
        finished_at=started + timedelta(seconds=84),
        archive_key=f"backups/7/2026/05/backup_clinica_sonrisas_7_{started:%Y%m%d_%H%M%S}.tar.zst.age",
        requested_by="scheduled",
        run_id="scheduled__2026-05-20",
        size_bytes=12_345_678,
        raw_bytes=83_456_789,
        sha256="5f" * 32,
        md5="1e" * 16,
        rows=TABLES,
        fingerprint="9a" * 32,
        recipients=("age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq",),
        expires_at=started + timedelta(days=30),
        kind_reason="the chain is short",
        stores=("s3://respaldos/clinicas",),
    )
    return replace(known, **changes)


def progress() -> RunningBackup:
    """One that is at its second table."""
    noted = BackupProgress("public.citas_consulta", 2, 5, 61_000, 31_000_000, NOW - timedelta(seconds=2))
    return RunningBackup("7-20260520T150340Z", 13, NOW - timedelta(seconds=25), noted, 84_000_000)


def plan(**changes: Any) -> RestorePlan:
    """Some rows of two tables."""
    tables = (
        TablePlan("public.usuarios_paciente", 3, 12, 1, 18_215, {"delete": ("18240",)}, {"telefono": 11, "correo": 2}),
        TablePlan("public.citas_consulta", 240, 0, 18, 91_873, notes=("A trigger fires on insert.",)),
        TablePlan("public.inventario_inventario", unchanged=713),
    )
    known = RestorePlan(
        7, "Clínica Sonrisas", record(11).backup_id, record(11).started_at, "exact", tables, (), "ab" * 32
    )
    return replace(known, **changes)


def restore_run(state: str = "running", **changes: Any) -> RunView:
    """A restore that waits for its approval."""
    tasks = (
        TaskView("preflight", "success", -1),
        TaskView("plan", "success", -1),
        TaskView("approve", "awaiting_input", -1),
    )
    known = RunView(
        dag_id="clinic_restore",
        run_id="web__2026-05-20T15:00:00_ab12cd34",
        state=state,
        clinic_id=7,
        conf={"clinic_id": 7, "backup_id": record(11).backup_id, "mode": "exact", "notes": "se borró la agenda"},
        requested_by="ana",
        queued_at=NOW - timedelta(minutes=4),
        started_at=NOW - timedelta(minutes=4),
        ended_at=None,
        tasks=tasks,
        waiting_for_approval=state == "running",
        plan=plan(),
        plan_digest="ab" * 32,
        target="database clinica at db.example:5432",
    )
    return replace(known, **changes)


def restored_run() -> RunView:
    """One that has ended well."""
    names = ("preflight", "plan", "approve", "apply", "report")
    return restore_run(
        "success",
        run_id="web__2026-05-18T11:00:00_00000001",
        ended_at=NOW - timedelta(minutes=1),
        tasks=tuple(TaskView(name, "success", -1) for name in names),
        result={
            "restore_id": "r-7-20260518T110000Z",
            "rows": 274,
            "undo": record(8).backup_id,
            "tables": ["public.citas_consulta"],
        },
    )


def rejected_run() -> RunView:
    """One whose plan somebody rejected."""
    states = (
        ("preflight", "success"),
        ("plan", "success"),
        ("approve", "success"),
        ("apply", "skipped"),
        ("report", "success"),
    )
    return restore_run(
        "success",
        run_id="web__2026-05-16T11:00:00_00000003",
        ended_at=NOW - timedelta(minutes=2),
        tasks=tuple(TaskView(name, state, -1) for name, state in states),
        answer="rejected",
        answered_by="jefa",
        reason="es la clínica equivocada",
    )


def failed_run() -> RunView:
    """One whose plan was refused."""
    return restore_run(
        "failed",
        run_id="web__2026-05-17T11:00:00_00000002",
        ended_at=NOW - timedelta(minutes=2),
        tasks=(
            TaskView("preflight", "success", -1),
            TaskView("plan", "failed", -1),
            TaskView("approve", "upstream_failed", -1),
        ),
        plan=plan(refusals=(Refusal("public.citas_consulta", "A column is gone.", "Set ignore_dropped."),)),
        error="The archive is damaged: block 3 of public.citas_consulta.",
        hint="Choose another backup.",
    )


def backup_run() -> RunView:
    """A backup under way."""
    tasks = (("active_clinics", "success"), ("preflight", "success"), ("back_up", "running"), ("summary", None))
    return replace(
        restore_run(),
        dag_id="clinic_backup",
        run_id="web__2026-05-20T15:03:40_ffff0000",
        conf={"clinic_id": 7, "kind": "auto"},
        tasks=tuple(TaskView(name, state, 0 if name == "back_up" else -1) for name, state in tasks),
        waiting_for_approval=False,
        plan=None,
    )


def fleet() -> list[BoardLine]:
    """Clinics in every standing."""
    good: dict[str, Any] = {
        "last_good_at": NOW - timedelta(hours=9), "last_good_number": 12, "last_good_id": record().backup_id,
        "kind": "incremental", "size_bytes": 12_345_678, "rows": 272_938, "trend": trend(),
    }  # fmt: skip
    late = good | {"last_good_at": NOW - timedelta(hours=53), "trend": trend(28, 40_000_000, -0.02)}
    return [
        BoardLine(119, "Dental Nueva", True, "never"),
        BoardLine(31, "Dental Ñandú", True, "late", **late, last_failure="The store s3://respaldos is full.",
                  last_failure_hint="Make room."),
        BoardLine(7, "Clínica Sonrisas", True, "ok", **good, running=progress(), restored_at=NOW - timedelta(days=16),
                  proven_at=NOW - timedelta(days=3), proof_seconds=8.4, proof_number=41),
        BoardLine(8, "Ortodoncia del Valle, sucursal Cochabamba norte", True, "ok", **good | {"kind": "full"},
                  suspect="public.inventario_inventario has no rows, but had 40 in 8-1", suspect_id="8-2"),
        BoardLine(9, "Sonríe", True, "ok", **good | {"trend": trend(1)}, restored_at=NOW - timedelta(days=2)),
    ]  # fmt: skip


@dataclass
class Fake:
    """Stands for services, board, history, audit and actions at once; what was asked of it is in ``asked``."""

    lines: list[BoardLine] = field(default_factory=fleet)
    entries: list[HistoryEntry] = field(default_factory=lambda: entries())
    runs: list[RunView] = field(
        default_factory=lambda: [restore_run(), restored_run(), failed_run(), rejected_run(), backup_run()]
    )
    log: list[AuditEntry] = field(default_factory=lambda: audit_entries())
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    settings: Settings = field(default_factory=lambda: Settings(time_zone="America/La_Paz"))
    waits: RunView | None = None

    def objectives(self) -> dict[str, Any]:
        return {"now": self.now(), "objective_hours": 26, "prove_within_days": 7}

    def now(self) -> datetime:
        return NOW

    @property
    def board(self) -> Fake:
        return self

    history = audit = actions = downloads = seen_runs = proofs = row_changes = exports = board

    def between(self, first: BackupRecord, second: BackupRecord) -> list[TableChange]:
        """What changed from one backup to another one."""
        return [
            TableChange("public.usuarios_paciente", 1_234, 1_230, 128), TableChange("public.<b>x</b>", None, 7, 7),
            TableChange("public.gone", 12, None, None), TableChange("public.same", 3, 3, 0),
        ]  # fmt: skip

    def nightly(self, clinic_id: ClinicId, now: datetime) -> list[NightChange]:
        """How much changed each day."""
        return [NightChange(now.date() - timedelta(days=day), 128 * day) for day in (9, 5, 2)]

    def last_good(self, unit: ClinicId) -> ProofRecord:
        """The newest proof of a unit."""
        return ProofRecord(
            number=3, clinic_id=unit, clinic_name="Clínica", backup_id="7-1", outcome="proven", data_time=NOW,
            finished_at=NOW, seconds=4.2, place="embedded", certificate="{}", signature=b"x", public_key="-----",
        )  # fmt: skip

    def banners(self) -> list[Banner]:
        runs = (("clinic_restore", restore_run().run_id),)
        failed = (("clinic_backup", backup_run().run_id),)
        return [
            Banner("unknown"), Banner("paused"), Banner("no_pool"), Banner("no_slots"),
            Banner("failed", error="[store] The store does not answer.", hint="Mount it.", runs=failed),
            Banner("unseen", 12, ("31 Dental Ñandú", "32 <b>Sonríe</b>")),
            Banner("database", error="It is down.", hint="Start it."), Banner("waiting", 1, runs=runs),
        ]  # fmt: skip

    # Board
    def counts(self, **_: Any) -> Counts:
        standings = [line.standing for line in self.lines]
        return Counts(
            len(self.lines), *(standings.count(standing) for standing in ("ok", "unproven", "late", "never")),
            sum(line.running is not None for line in self.lines),
            sum(line.last_failure is not None for line in self.lines),
        )  # fmt: skip

    def clinic(self, clinic_id: int, **_: Any) -> BoardLine | None:
        return next((line for line in self.lines if line.clinic_id == clinic_id), None)

    # One page of whichever list is meant
    def page(self, **asked: Any) -> Any:
        page = asked.get("page", 1)
        if "objective_hours" in asked:
            self.asked.append(("board", asked))
            wanted = [
                line for line in self.lines if asked.get("standing") in (None, line.standing)
                and (asked["visible"] is None or line.clinic_id in asked["visible"])
            ]  # fmt: skip
            return BoardPage(tuple(wanted), len(wanted), page, 3)
        if "clinic_id" in asked and "per_page" in asked and asked["per_page"] != 10:
            first, pages = (page - 1) * asked["per_page"], -(-len(self.entries) // asked["per_page"])
            shown = tuple(self.entries[first : first + asked["per_page"]])
            return HistoryPage(shown, len(self.entries), page, pages)
        return AuditPage(tuple(self.log), len(self.log), page, 2)

    # History
    def by_number(self, number: int, visible: Any) -> HistoryEntry | None:
        return next((entry for entry in self.entries if entry.number == number), None)

    def by_id(self, backup_id: str, visible: Any) -> HistoryEntry | None:
        return next((entry for entry in self.entries if entry.record.backup_id == backup_id), None)

    def of_run(self, clinic_id: int, run_id: str, visible: Any) -> HistoryEntry | None:
        return self.entries[0] if run_id == backup_run().run_id else None

    def moments(self, clinic_id: int) -> list[Moment]:
        return [
            Moment(entry.number, entry.record.backup_id, entry.record.started_at, entry.record.kind,
                   entry.record.hold_reason is not None, entry.record.safety_of, entry.record.read_from,
                   entry.record.data_time)
            for entry in self.entries if entry.record.state == "completed"
        ]  # fmt: skip

    # Actions
    def next_run(self) -> datetime:
        return NOW + timedelta(hours=15)

    def queued(self, clinic_id: int) -> RunView | None:
        return self.waits

    def restores(self, caller: Caller, clinic_id: int, limit: int = 20) -> list[RunView]:
        return [run for run in self.runs if run.dag_id == "clinic_restore"]

    def run(self, caller: Caller, dag_id: str, run_id: str) -> RunView | None:
        return next((run for run in self.runs if run.run_id == run_id), None)

    def _start(self, dag_id: str, *asked: Any) -> Started:
        self.asked.append((dag_id, *asked))
        return Started(dag_id, self.runs[0].run_id if dag_id == "clinic_restore" else backup_run().run_id, 7)

    def back_up(self, caller: Caller, clinic_id: int, **asked: Any) -> Started:
        if clinic_id == 8:
            raise Conflict("Clinic 8 is being backed up now.", hint="Wait until it is done.")
        return self._start("clinic_backup", clinic_id, asked)

    def restore(self, caller: Caller, backup: HistoryEntry, **asked: Any) -> Started:
        return self._start("clinic_restore", backup.number, asked)

    def of_clinic(self, clinic_id: ClinicId) -> list[ExportRecord]:
        """The files that people asked for."""
        gone = replace(export_record(), id=2, deleted_at=NOW - timedelta(days=1))
        by_command = replace(export_record(), id=1, store_url=None, key=None, expires_at=None, size_bytes=None)
        return [export_record(), gone, by_command]

    def get(self, number: int) -> ExportRecord | None:
        return replace(export_record(), id=number) if number == 3 else None

    def export(self, caller: Caller, what: HistoryEntry | ExportRecord, *formats: str, **asked: Any) -> Any:
        """As an action it starts a run; as a download it gives the content."""
        if isinstance(what, ExportRecord):
            caller.require("export", what.clinic_id)
            self.asked.append(("fetch_export", what.id))
            return None, iter((b"sealed",))
        return self._start("clinic_restore", what.number, *formats, asked)

    def hold(self, caller: Caller, backup: HistoryEntry, reason: str) -> Started:
        return self._start("clinic_backup_hold", backup.number, reason)

    def release(self, caller: Caller, backup: HistoryEntry) -> Started:
        return self._start("clinic_backup_hold", backup.number)

    def verify(self, caller: Caller, backup: HistoryEntry) -> Started:
        return self._start("clinic_backup_verify", backup.number)

    def answer(self, caller: Caller, run_id: str, *, approve: bool, plan_digest: str, reason: str = "") -> None:
        self.asked.append(("answer", run_id, approve, plan_digest, reason))

    def link(self, caller: Caller, backup: HistoryEntry) -> Link:
        return Link(None, NOW + timedelta(hours=1), "x.tar.zst.age")


def export_record() -> ExportRecord:
    """A file that can be downloaded."""
    return ExportRecord(
        id=3, clinic_id=7, backup_id=record(11).backup_id, format="xlsx", protection="password", requested_by="ana",
        run_id="web__1", approved_by="guardia", begun_at=NOW - timedelta(days=1), made_at=NOW - timedelta(days=1),
        rows=272_938, store_url="s3://respaldos/clinicas", key="exports/7/20260519_x.xlsx.zip",
        file_name="clinica_sonrisas_7_20260519.xlsx.zip", size_bytes=6, sha256="5f" * 32,
        expires_at=NOW + timedelta(days=6), deleted_at=None,
    )  # fmt: skip


def entries() -> list[HistoryEntry]:
    """The history of clinic 7: one runs, one failed, one is lost, one on hold, the others are well."""
    replicas = (("s3://respaldos/clinicas", "intact"), ("gs://copias/clinicas", "missing"))
    unfinished: dict[str, Any] = {"finished_at": None, "size_bytes": None, "rows": {}, "state": "running"}
    running = record(13, started_at=NOW - timedelta(seconds=25), trigger="manual", requested_by="ana", **unfinished)
    chain = (
        ChainArchive("k", 1, "5f", "1e", record(11).backup_id),
        ChainArchive("k", 1, "5f", "1e", record(5).backup_id),
    )
    failed = record(
        10, kind="full", state="failed", size_bytes=None, rows={}, attempt=3,
        error="The store s3://respaldos does not answer.", hint="Try again in a minute.",
    )  # fmt: skip
    return [
        HistoryEntry(13, running, (), progress()),
        HistoryEntry(12, record(12, parent_id=chain[0].backup_id, chain=chain), replicas),
        HistoryEntry(11, record(11, hold_reason="expediente 12/2026", held_by="guardia"), replicas[:1]),
        HistoryEntry(10, failed),
        HistoryEntry(9, record(9, state="lost"), (("s3://respaldos/clinicas", "damaged"),)),
        *(
            HistoryEntry(number, record(number, trigger="manual", notes="antes"), replicas[:1])
            for number in range(8, -40, -1)
            if number
        ),
    ]


def audit_entries() -> list[AuditEntry]:
    """What people did."""
    actions = ("approve", "restore", "download", "hold failed", "back_up", "something new")
    return [
        AuditEntry(
            NOW - timedelta(minutes=7 * place), "ana", "administrador", action, 7, record(11).backup_id,
            None, "203.0.113.9", "exact", place + 1,
        )
        for place, action in enumerate(actions)
    ]  # fmt: skip


def app_for(fake: Fake, viewer: Viewer) -> FastAPI:
    """The application with that fleet, for somebody who is logged in."""
    app = make_app(fake)  # type: ignore[arg-type]
    app.dependency_overrides[access.caller] = lambda: Caller(viewer, "203.0.113.9", None)
    return app
