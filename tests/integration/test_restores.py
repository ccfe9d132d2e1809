"""The records of restores and their mails tell what happened, even if a process dies at any point."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.app import Parts
from clinic_backups.base import connections, setting_fields
from clinic_backups.base.errors import IntegrityError, PermanentError, TransientError
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.outbox import Outbox
from clinic_backups.catalog.restores import RestoreRecord, Restores, restore_id_of
from clinic_backups.notify.sending import Post
from clinic_backups.notify.templates import Templates
from clinic_backups.restore.plan import RestorePlan, TablePlan
from clinic_backups.restore.restore_outcomes import RestoreOutcomes, transaction_status
from clinic_backups.stores.file import FileStore
from tests.mailbox import mailbox
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
PATIENTS, VISITS = "public.usuarios_paciente", "public.citas_consulta"
MARK = "UPDATE public.comun_clinica SET nombre = 'Marcada' WHERE id = 1"
OPERATOR = "guardia@saas.example"


class Desk:
    """A catalog, a clock, and the clinics' database that restores write to."""

    def __init__(self, database: DemoDatabase, folder: Path) -> None:
        self.rig = Rig(database, FileStore(folder / "store"))
        self.restores = Restores(self.rig.catalog.database)
        self.outbox = Outbox(self.rig.catalog.database)
        self.mailbox = mailbox()
        self.now = NOW + timedelta(minutes=2)
        self.outcomes = RestoreOutcomes(self.restores, lambda: self.now)

    def begin(self, clinic_id: int = 1, started_at: datetime = NOW, **changes: Any) -> RestoreRecord:
        return self.restores.begin(replace(record_of(clinic_id, started_at), **changes))

    def status(self, transaction_id: str) -> str | None:
        return transaction_status(self.rig.clinic_db, transaction_id)

    def told(self) -> list[str]:
        """The keys of all notices, with the restore's id left out."""
        rows = self.rig.execute_rows("SELECT key FROM clinic_backups.notification ORDER BY id")
        return [key.split(":", 1)[1] for (key,) in rows]

    def deliver(self) -> Any:
        parts = Parts(
            self.rig.settings, {"clinic_db": self.rig.clinic_db, "backup_catalog": self.rig.catalog._connection}.get
        )
        active, every = parts.clinics()
        Clinics(self.rig.catalog.database).see(active=active, every=every)
        return Post(
            outbox=self.outbox,
            server=self.mailbox.connection,
            templates=Templates(
                setting_fields.PROJECT_EMAIL, self.rig.settings.zone, support_contact="ayuda@saas.example"
            ),
            admins=parts.admins,
            operators=[OPERATOR],
            operator_language="en",
            now=lambda: self.now,
        ).deliver()


def record_of(clinic_id: int, started_at: datetime) -> RestoreRecord:
    plan = RestorePlan(
        clinic_id=clinic_id,
        clinic_name=f"Clínica N.º {clinic_id}",
        backup_id=f"{clinic_id}-20261121T060000Z",
        snapshot_at=NOW - timedelta(days=3),
        mode="exact",
        tables=(TablePlan(PATIENTS, insert=1200, update=1, keys={"insert": ("7", "8")}), TablePlan(VISITS, 34, 4, 3)),
        refusals=(),
        digest="abc",
    )
    return RestoreRecord(
        restore_id=restore_id_of(clinic_id, started_at),
        clinic_id=clinic_id,
        clinic_name=plan.clinic_name,
        backup_id=plan.backup_id,
        mode=plan.mode,
        plan=json.loads(json.dumps(plan.to_json())),
        plan_digest=plan.digest,
        started_at=started_at,
        tables=(PATIENTS, VISITS),
        requested_by="pedro",
        approved_by="jefa",
        notes="Ticket 7",
        run_id="manual__1",
    )


@pytest.fixture
def desk(demo_database: DemoDatabase, tmp_path: Path) -> Desk:
    return Desk(demo_database, tmp_path)


def test_a_record_is_kept_as_it_was_written(desk: Desk) -> None:
    begun = desk.begin()
    assert begun.restore_id == "r-1-20261124T060000Z"
    assert desk.restores.get(begun.restore_id) == begun
    noted = desk.restores.note_transaction(begun.restore_id, "4711", NOW)
    done = desk.restores.finish(noted.completed(NOW + timedelta(seconds=2.5)))
    assert done == desk.restores.get(begun.restore_id)
    assert (done.state, done.transaction_id) == ("completed", "4711")
    shown = json.loads(json.dumps(done.to_json()))
    assert shown["plan"] == begun.plan
    assert [shown[name] for name in ("inserted", "updated", "deleted", "seconds")] == [1234, 5, 3, 2.5]
    assert (shown["tables"], shown["started_at"]) == ([PATIENTS, VISITS], "2026-11-24T06:00:00Z")
    assert desk.restores.get("r-1-never") is None


def test_one_clinic_has_one_restore_a_second(desk: Desk) -> None:
    desk.begin()
    with pytest.raises(TransientError, match="exists already"):
        desk.begin()


def test_records_are_found_by_clinic_run_and_state(desk: Desk) -> None:
    first = desk.begin(1)
    second = desk.begin(2, run_id="manual__2")
    third = desk.begin(1, NOW + timedelta(hours=1), run_id=None)
    failed = desk.outcomes.fail(first, PermanentError("It broke."))
    assert desk.restores.find() == [third, second, failed]
    assert desk.restores.find(clinic_id=1) == [third, failed]
    assert desk.restores.find(clinic_id=1, state="running") == [third]
    assert desk.restores.find(run_id="manual__2") == [second]
    assert desk.restores.find(limit=1) == [third]


def test_a_closed_record_stays_as_it_is_and_forbids_the_commit(desk: Desk) -> None:
    begun = desk.begin()
    closed = desk.outcomes.close_dead(begun, desk.status)
    for attempt in (
        lambda: desk.outcomes.complete(begun),
        lambda: desk.restores.note_transaction(begun.restore_id, "4711", NOW),
    ):
        with pytest.raises(PermanentError, match="no running restore r-1-"):
            attempt()
    assert desk.restores.get(begun.restore_id) == closed
    assert desk.told() == ["failed:clinic", "failed:operator"]


def test_who_takes_a_restore_for_dead_that_is_about_to_commit_is_refused(desk: Desk) -> None:
    seen = desk.begin()
    noted = desk.restores.note_transaction(seen.restore_id, "4711", NOW)
    with pytest.raises(PermanentError, match="somebody else has changed it"):
        desk.outcomes.close_dead(seen, desk.status)
    with pytest.raises(PermanentError):
        desk.restores.note_transaction(seen.restore_id, "4712", NOW)
    assert desk.restores.get(seen.restore_id) == noted
    assert desk.told() == []


def test_the_mail_is_written_with_the_outcome_or_not_at_all(desk: Desk) -> None:
    def die(db: Any, record: Any) -> None:
        raise PermanentError("died")

    begun = desk.begin()
    with pytest.raises(PermanentError, match="died"):
        desk.restores.finish(begun.completed(desk.now), die)
    assert desk.restores.get(begun.restore_id) == begun


def test_a_foreign_errors_text_is_not_kept(desk: Desk) -> None:
    failed = desk.outcomes.fail(desk.begin(), ValueError("Juan Pérez"))
    assert failed.error == "Unexpected error: ValueError."
    assert "traceback" in (failed.hint or "")
    ended = desk.outcomes.fail(desk.begin(2), KeyboardInterrupt("Juan Pérez"))
    assert (ended.error, ended.hint) == ("Interrupted: KeyboardInterrupt", None)


@pytest.mark.parametrize(
    ("end", "state", "says"),
    [
        ("nothing", "failed", "The clinic's rows are as they were before."),
        ("rollback", "failed", "The clinic's rows are as they were before."),
        ("commit", "completed", None),
        ("forgotten", "failed", "no longer knows whether it was committed"),
        ("future", "failed", "no longer knows whether it was committed"),
    ],
)
def test_the_record_of_a_dead_restore_tells_what_happened(desk: Desk, end: str, state: str, says: str | None) -> None:
    record = desk.begin(safety_backup_id="1-x")
    status: Callable[[str], str | None] = desk.status
    with closing(desk.rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(MARK)
        cursor.execute("SELECT pg_current_xact_id()::text")
        (transaction_id,) = cursor.fetchone() or ("",)
        if end != "nothing":
            noted = str(int(transaction_id) + 1_000_000) if end == "future" else transaction_id
            record = desk.restores.note_transaction(record.restore_id, noted, NOW + timedelta(seconds=3))
        if end == "commit":
            db.commit()
        else:
            db.rollback()
    if end == "forgotten":
        status = {transaction_id: None}.__getitem__
    desk.now += timedelta(hours=5)
    closed = desk.outcomes.close_dead(record, status)
    assert closed == desk.restores.get(record.restore_id)
    assert (closed.state, closed.safety_backup_id) == (state, "1-x")
    # A completed one ended when it committed, not when somebody found it.
    assert closed.seconds == (3 if state == "completed" else 5 * 3600 + 120)
    assert says in (closed.error or "") if says else closed.error is None
    outcome = "unknown" if end in ("forgotten", "future") else state
    assert desk.told() == [f"{outcome}:clinic", f"{outcome}:operator"]
    marked = desk.rig.execute_rows("SELECT count(*) FROM public.comun_clinica WHERE nombre = 'Marcada'")
    assert marked == [(1 if end == "commit" else 0,)]


def test_as_long_as_the_transaction_is_open_nobody_says_how_it_ended(desk: Desk) -> None:
    record = desk.begin()
    with closing(desk.rig.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        (transaction_id,) = cursor.fetchone() or ("",)
        record = desk.restores.note_transaction(record.restore_id, transaction_id, NOW)
        with pytest.raises(TransientError, match="is still open in the clinics' database"):
            desk.outcomes.close_dead(record, desk.status)
        assert desk.restores.get(record.restore_id) == record
        db.commit()
    assert desk.outcomes.close_dead(record, desk.status).state == "completed"


@pytest.mark.parametrize("commits", [False, True])
def test_a_restore_killed_around_its_commit_is_recorded_as_it_ended(desk: Desk, commits: bool) -> None:
    begun = desk.begin()
    pid = os.fork()
    if pid == 0:
        restores = Restores(CatalogDatabase(desk.rig.catalog._connection))
        db = desk.rig.database.connect()
        cursor = db.cursor()
        cursor.execute(MARK)
        cursor.execute("SELECT pg_current_xact_id()::text")
        (transaction_id,) = cursor.fetchone() or ("",)
        restores.note_transaction(begun.restore_id, transaction_id, NOW)
        if commits:
            db.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    dead = desk.restores.get(begun.restore_id)
    assert dead is not None and dead.transaction_id is not None
    closed = _patiently(lambda: desk.outcomes.close_dead(dead, desk.status))
    assert closed.state == ("completed" if commits else "failed")
    marked = desk.rig.execute_rows("SELECT count(*) FROM public.comun_clinica WHERE nombre = 'Marcada'")
    assert marked == [(1 if commits else 0,)]


def _patiently(close: Callable[[], RestoreRecord]) -> RestoreRecord:
    deadline = time.monotonic() + 20
    while True:
        try:
            return close()
        except TransientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_commit_without_an_answer_is_settled_by_asking(desk: Desk) -> None:
    lost = TransientError("The database failed while committing the restore.", hint="A retry usually helps.")
    with closing(desk.rig.database.connect()) as db, db.cursor() as cursor:
        for clinic_id, end, state in ((1, db.rollback, "failed"), (2, db.commit, "completed")):
            cursor.execute("SELECT pg_current_xact_id()::text")
            (transaction_id,) = cursor.fetchone() or ("",)
            begun = desk.begin(clinic_id)
            noted = desk.restores.note_transaction(begun.restore_id, transaction_id, NOW)
            end()
            settled = desk.outcomes.settle(noted, lost, desk.status)
            assert settled.state == state
            # What the database says, and not only that its answer was lost.
            assert settled.error is None if state == "completed" else "was not committed" in (settled.error or "")


def test_a_database_that_cannot_be_asked_leaves_the_record_as_it_is(desk: Desk) -> None:
    begun = desk.begin()
    noted = desk.restores.note_transaction(begun.restore_id, "4711", NOW)
    nothing = connections.parse("clinic_db", "postgres://u:p@127.0.0.1:1/x")
    with pytest.raises(TransientError, match="'clinic_db'"):
        desk.outcomes.close_dead(noted, lambda transaction_id: transaction_status(nothing, transaction_id))
    with pytest.raises(PermanentError, match="what became of transaction x"):
        desk.status("x")
    assert desk.restores.get(begun.restore_id) == noted


@pytest.fixture
def told(desk: Desk) -> Iterator[tuple[Desk, Callable[[], dict[str, Any]]]]:
    with desk.mailbox.running() as box:

        def deliver() -> dict[str, Any]:
            """Who got which mail; each address one."""
            desk.deliver()
            assert len(box.mails) == len(dict(box.mails))
            return dict(box.mails)

        yield desk, deliver


def test_administrators_and_operator_are_told_each_in_their_language(told: Any) -> None:
    desk, deliver = told
    desk.outcomes.complete(desk.begin(1, safety_backup_id="1-20261124T060000Z"))
    mails = deliver()
    assert set(mails) == {"administrador1@clinica1.example.com", OPERATOR}
    clinic, operator = mails["administrador1@clinica1.example.com"], mails[OPERATOR]
    assert str(clinic["Subject"]) == "✅ Restauración completada - Clínica N.º 1"
    assert str(operator["Subject"]) == "✅ Restore completed: Clínica N.º 1 (1)"
    text = clinic.get_body(("plain",)).get_content()
    assert all(piece in text for piece in ("1.234", "pedro", "jefa", "1-20261124T060000Z", "ayuda@saas.example"))
    text = operator.get_body(("plain",)).get_content()
    assert "1,234 inserted, 5 updated, 3 deleted" in text
    assert (clinic["Importance"], operator["Importance"]) == (None, "high")


def test_only_the_operator_learns_the_technical_cause(told: Any) -> None:
    desk, deliver = told
    desk.outcomes.fail(desk.begin(4), IntegrityError("public.t would differ.", hint="Look at its triggers."))
    mails = deliver()
    clinic, operator = mails["administrador1@clinica4.example.com"], mails[OPERATOR]
    assert str(clinic["Subject"]) == "❌ Restore not carried out - Clínica N.º 4"
    for kind in ("plain", "html"):
        seen, reported = (mail.get_body((kind,)).get_content() for mail in (clinic, operator))
        assert "public.t" not in seen and "triggers" not in seen
        assert "public.t would differ." in reported and "Look at its triggers." in reported
    facts = desk.rig.execute_rows("SELECT facts FROM clinic_backups.notification WHERE clinic_id IS NOT NULL")
    assert "error" not in facts[0][0]
