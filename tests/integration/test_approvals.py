"""An approval is valid for the plan that was shown, for one database and once, and records who gave it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import IntegrityError, PermanentError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.catalog.approvals import Approval, Approvals, NotApproved, Proposal, use
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.approving import approver_of, conf_problem
from clinic_backups.restore.copy_runner import CopyRunner
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.runner import RestoreRunner
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore import STOCK, queries
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import DemoDatabase, copy_of

RUN = "manual__1"


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


@pytest.fixture
def approvals(theatre: Theatre) -> Approvals:
    return theatre.approvals()


def proposal(run_id: str | None = RUN, digest: str = "a" * 64, clinic_id: int = 1) -> Proposal:
    backup_id = f"{clinic_id}-20261124T060000Z"
    return Proposal(clinic_id, backup_id, digest, "database x at h:5432", "pedro", {"a": 1}, {"b": 2}, "página", run_id)


def test_an_answer_is_for_what_was_shown_to_the_task_that_asked(approvals: Approvals) -> None:
    first = approvals.propose(proposal())
    assert approvals.ask(RUN, "try-1").id == first.id
    answered = approvals.answer("try-1", "approved", by="jefa", how="ui")
    assert (answered.answered_by, answered.how, answered.problem) == ("jefa", "ui", "")
    assert approvals.usable(first.id).page == "página"
    # The event is delivered once more: the same answer changes nothing, another one is refused.
    assert approvals.answer("try-1", "approved", by="jefa", how="ui").answered_at == answered.answered_at
    for wrong in (("rejected", "jefa", "ui"), ("approved", "otra", "ui"), ("approved", "jefa", "conf")):
        with pytest.raises(NotApproved, match="jefa has already answered"):
            approvals.answer("try-1", wrong[0], by=wrong[1], how=wrong[2])  # type: ignore[arg-type]


def test_a_plan_that_is_made_anew_takes_every_earlier_answer_with_it(approvals: Approvals) -> None:
    def refused(number: int) -> None:
        with pytest.raises(NotApproved, match="was replaced"):
            approvals.usable(number)

    asked = approvals.propose(proposal())
    approvals.ask(RUN, "try-1")
    # `plan` was cleared while `approve` waits: the page that is open shows the old plan.
    approvals.withdraw(RUN)
    with pytest.raises(NotApproved, match="was replaced"):
        approvals.answer("try-1", "approved", by="jefa", how="ui")
    with pytest.raises(NotApproved, match="no plan of run"):
        approvals.ask(RUN, "try-2")
    approved = approvals.propose(proposal(digest="b" * 64))
    approvals.ask(RUN, "try-2")
    approvals.answer("try-2", "approved", by="jefa", how="ui")
    again = approvals.propose(proposal(digest="c" * 64))
    refused(asked.id)
    refused(approved.id)
    with pytest.raises(NotApproved, match="was not approved by anybody"):
        approvals.usable(again.id)
    newest = approvals.of_run(RUN)
    assert newest is not None and newest.id == again.id
    # Another run's plan is none of this one's business.
    other = approvals.propose(proposal("manual__2"))
    assert approvals.of_runs([RUN, "manual__2", "manual__3"]).keys() == {RUN, "manual__2"}
    assert approvals.ask("manual__2", "try-3").id == other.id
    assert approvals.ask(RUN, "try-4").id == again.id


def test_a_question_that_is_asked_again_needs_an_answer_of_its_own(approvals: Approvals) -> None:
    """`approve` was cleared after it had been rejected, and after it had been approved."""
    approvals.propose(proposal())
    for number, answer in enumerate(("rejected", "approved")):
        approvals.ask(RUN, f"try-{number}")
        approvals.answer(f"try-{number}", answer, by="jefa", how="ui")  # type: ignore[arg-type]
    asked = approvals.ask(RUN, "try-9")
    assert asked.problem.endswith("was not approved by anybody.")
    with pytest.raises(NotApproved):
        approvals.answer("try-1", "rejected", by="jefa", how="ui")
    assert approvals.answer("try-9", "approved", by="otra", how="ui").approved_by == "otra"


def test_time_passes_over_questions_and_approvals(theatre: Theatre) -> None:
    late = theatre.approvals(hours=0)
    late.propose(proposal())
    late.ask(RUN, "try-1")
    with pytest.raises(NotApproved, match="waited too long for an answer"):
        late.answer("try-1", "approved", by="jefa", how="ui")
    theatre.approvals().ask(RUN, "try-1")
    answered = late.answer("try-1", "approved", by="jefa", how="ui")
    with pytest.raises(NotApproved, match=r"^The approval of the plan .* is too old"):
        late.usable(answered.id)
    with pytest.raises(NotApproved, match="is too old"), theatre.catalog.database.transaction("x") as db:
        use(db, answered, answered.plan_digest, "r-1")


def test_an_approval_is_used_once_and_for_its_own_plan_clinic_and_run(theatre: Theatre, approvals: Approvals) -> None:
    def approved(**wish: Any) -> Approval:
        return approvals.answer(approvals.propose(proposal(**wish)).id, "approved", by="jefa", how="command")

    one = approved()

    def using(found: Approval, digest: str = "a" * 64) -> None:
        with theatre.catalog.database.transaction("using") as db:
            use(db, found, digest, "r-1-x")

    for wrong in (replace(one, clinic_id=2), replace(one, backup_id="1-20261101T060000Z"), replace(one, id=99)):
        with pytest.raises(NotApproved, match="is not for this plan"):
            using(wrong)
    with pytest.raises(NotApproved, match="is not for this plan"):
        using(one, "b" * 64)
    with pytest.raises(NotApproved, match="not approved by anybody"):
        using(approvals.propose(proposal("manual__7")))
    using(one)
    with pytest.raises(NotApproved, match="r-1-x has used that approval"):
        using(one)
    # A transaction that does not commit has used nothing.
    two = approved(run_id="manual__8")
    with pytest.raises(TransientError), theatre.catalog.database.transaction("using") as db:
        use(db, two, "a" * 64, "r-2")
        raise TransientError("the catalog went away")
    using(two)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {} SET plan_digest = 'x'", "UPDATE {} SET page = 'x'", "UPDATE {} SET target = 'x'",
        "UPDATE {} SET plan = '{{}}'", "UPDATE {} SET answered_by = 'otra'", "UPDATE {} SET answer = 'rejected'",
        "UPDATE {} SET valid_until = 'infinity'", "UPDATE {} SET run_id = 'manual__2'", "DELETE FROM {}", "TRUNCATE {}",
        "UPDATE {} SET used_at = NULL, used_by = NULL", "UPDATE {} SET withdrawn_at = now()",
        "INSERT INTO {} (clinic_id, backup_id, plan_digest, target, requested_by, request, page, waits_until, used_at,"
        " used_by) VALUES (1, 'b', 'd', 't', 'r', '{{}}', 'p', now(), now(), 'r-1')",
        "INSERT INTO {} (clinic_id, backup_id, plan_digest, target, requested_by, request, page, waits_until, answer)"
        " VALUES (1, 'b', 'd', 't', 'r', '{{}}', 'p', now(), 'approved')",
    ],
)  # fmt: skip
def test_what_was_shown_answered_and_used_stays_in_the_catalog(theatre: Theatre, change: str) -> None:
    approvals = theatre.approvals()
    done = approvals.answer(approvals.propose(proposal()).id, "approved", by="jefa", how="command")
    with theatre.catalog.database.transaction("using") as db:
        use(db, done, "a" * 64, "r-1-x")
    with pytest.raises(psycopg2.Error):
        theatre.execute(change.format("clinic_backups.approval"))


@pytest.mark.parametrize(
    ("approvers", "triggered_by", "requested_by", "counts"),
    [
        ((), "pedro", "pedro", True), ((), "", "unknown", True),
        (("jefa",), "pedro", "pedro", False), (("jefa",), "jefa", "jefa", False), (("jefa",), "", "unknown", False),
        (("jefa",), "Jefa", "pedro", False), (("jefa", "otra"), "otra", "otra", False),
        (("jefa",), "jefa", "administrador.2", True), (("7",), "7", "pedro", False),
    ],
)  # fmt: skip
def test_a_conf_approves_only_for_one_of_the_approvers_who_did_not_ask(
    approvers: tuple[str, ...], triggered_by: str, requested_by: str, counts: bool
) -> None:
    who = {"triggered_by": triggered_by, "requested_by": requested_by}
    assert (conf_problem(approvers, **who, given=False, exports=False) == "") is counts
    assert conf_problem(approvers, **who, given=True, exports=False)
    assert conf_problem(approvers, **who, given=False, exports=True)


UUID = "6f9619ff-8b86-4d11-b42d-00c04fc964ff"


def test_an_answer_without_a_person_or_of_somebody_else_is_none() -> None:
    assert approver_of((), {"id": "7", "name": "jefa"}) == "jefa"
    assert approver_of(("7",), {"id": "7", "name": "jefa"}) == "7"
    assert approver_of((UUID,), {"id": UUID, "name": "jefa"}) == UUID
    for approvers, user in (
        ((), None), ((), {"id": "", "name": None}), (("jefa",), {"id": "3", "name": "otro"}),
        # A name that looks like an approver's id
        (("7",), {"id": "3", "name": "7"}), ((UUID,), {"id": "3", "name": UUID}),
    ):  # fmt: skip
        with pytest.raises(NotApproved):
            approver_of(approvers, user)


def _cleared(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    """`plan` is cleared alone: planned anew, and not approved."""
    theatre.approved(request, runner)
    theatre.execute(DAMAGE)
    return runner.propose(request, runner.plan(request))


def _rejected(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    proposed = runner.propose(request, runner.plan(request))
    return theatre.approvals().answer(proposed.id, "rejected", by="jefa", how="ui")


def _forged(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    """What a task says is not what the catalog has."""
    proposed = runner.propose(request, runner.plan(request))
    return replace(proposed, answer="approved", answered_by="jefa", how="ui", valid_until=proposed.waits_until)


def _replaced(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    approved = theatre.approved(request, runner)
    theatre.approvals().withdraw(RUN)
    return approved


def _other_plan(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    """An approval whose digest is another plan's."""
    plan = runner.plan(request)
    proposed = runner.propose(request, replace(plan, digest="f" * 64))
    return theatre.approvals().answer(proposed.id, "approved", by="jefa", how="ui")


def _unknown(theatre: Theatre, runner: RestoreRunner, request: RestoreRequest) -> Approval:
    return replace(theatre.approved(request, runner), id=4711)


@pytest.mark.parametrize("arrange", [_cleared, _rejected, _forged, _replaced, _other_plan, _unknown])
def test_nothing_is_saved_or_written_without_an_approval_of_this_very_plan(
    theatre: Theatre, arrange: Callable[[Theatre, RestoreRunner, RestoreRequest], Approval]
) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    runner = theatre.runner()
    approved = arrange(theatre, runner, RestoreRequest(clinic_id=1, run_id=RUN))
    damaged, backups = theatre.rows_now(1), theatre.catalog.find()
    with pytest.raises(PermanentError) as caught:
        runner.apply(approved)
    assert "Nothing was changed" in caught.value.hint
    assert theatre.rows_now(1) == damaged
    assert theatre.catalog.find() == backups


def test_an_approval_that_is_taken_back_meanwhile_stops_the_restore_at_each_point(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    request = RestoreRequest(clinic_id=1, run_id=RUN)
    for begins in ("reading the clinic as it is", "writing", "reading the clinic again"):
        runner = theatre.runner()
        approved = theatre.approved(request, runner)

        def meanwhile(step: str, begins: str = begins) -> None:
            if step.startswith(begins):
                theatre.approvals().withdraw(RUN)

        runner._restore.listener = Listener(meanwhile)
        with pytest.raises(NotApproved, match="was replaced"):
            runner.apply(approved)
        assert theatre.rows_now(1) == damaged
        assert theatre.restores.find(clinic_id=1)[0].state == "failed"


def test_an_approval_ends_with_its_restore_also_where_nothing_was_to_be_written(theatre: Theatre) -> None:
    theatre.back_up()
    runner = theatre.runner()
    unchanged = theatre.approved(RestoreRequest(clinic_id=1), runner)
    first = runner.apply(unchanged)
    assert (first.safety_backup_id, first.transaction_id) == (None, None)
    theatre.execute(DAMAGE)
    approved = theatre.approved(RestoreRequest(clinic_id=1), runner)
    record = runner.apply(approved)
    found = theatre.approvals().get(approved.id)
    assert found is not None and found.used_by == record.restore_id
    theatre.execute(DAMAGE)
    for used in (unchanged, approved):
        with pytest.raises(NotApproved, match="has used that approval"):
            runner.apply(used)


def test_an_attempt_that_died_after_its_commit_is_recognized_and_any_other_is_not(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    theatre.back_up()
    good = theatre.rows_now(1)
    theatre.execute(DAMAGE)
    runner = theatre.runner()
    approved = theatre.approved(RestoreRequest(clinic_id=1, run_id=RUN), runner)

    class Killed(BaseException):
        pass

    def die(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Restores, "finish", die)
        runner.apply(approved)
    assert theatre.rows_now(1) == good
    done = runner.apply(approved)
    assert (done.state, done.approved_by) == ("completed", "jefa")
    theatre.execute(DAMAGE)
    with pytest.raises(NotApproved, match=f"{done.restore_id} has used"):
        runner.apply(approved)


def test_the_safety_backup_is_of_what_the_plan_saw_and_is_chosen_by_its_id_only(theatre: Theatre) -> None:
    first = theatre.back_up()
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    runner = theatre.runner()

    def late(step: str) -> None:
        # Somebody works on while the present state is saved: the safety backup is of the plan's moment.
        if step.startswith("saving"):
            theatre.execute(
                f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, clinica_id)"
                " VALUES ('TARDE', 'tarde', 1, 1, 1)"
            )

    runner._restore.listener = Listener(late)
    record = runner.apply(theatre.approved(RestoreRequest(clinic_id=1), runner))
    (safety,) = [record for record in theatre.catalog.find() if record.safety_of is not None]
    assert (safety.backup_id, safety.safety_of) == (record.safety_backup_id, first.backup_id)
    assert safety.rows[STOCK] == len(damaged[STOCK].splitlines())
    with theatre.store.open(safety.archive_key.removesuffix(".tar.zst.age") + ".json") as envelope:
        assert f'"safety_of": "{first.backup_id}"' in envelope.read().decode()
    for request in (RestoreRequest(clinic_id=1), RestoreRequest(clinic_id=1, as_of=safety.started_at)):
        assert runner.choose(request).backup_id == first.backup_id
    assert runner.choose(RestoreRequest(clinic_id=1, backup_id=safety.backup_id)) == safety
    theatre.execute(f"UPDATE clinic_backups.backup SET state = 'failed' WHERE backup_id = '{first.backup_id}'")
    with pytest.raises(PermanentError, match="no completed backup except safety backups"):
        runner.choose(RestoreRequest(clinic_id=1))


def test_rows_of_a_clinic_whose_own_row_is_gone_are_saved_and_of_one_without_rows_nothing(theatre: Theatre) -> None:
    theatre.kind = "full"
    theatre.back_up(6)
    whole = theatre.rows_now(6)
    gone = [
        f"DELETE FROM {name} WHERE ROW({name}.*)::text IN (SELECT ROW(r.*)::text FROM ({query}) AS r)"
        for name, query in queries(theatre, 6).items()
    ]
    theatre.execute("SET session_replication_role = replica", *[s for s in gone if "comun_clinica WHERE ROW" in s])
    orphans = theatre.rows_now(6)
    assert "public.comun_clinica" not in orphans and STOCK in orphans
    record = theatre.go(RestoreRequest(clinic_id=6))
    assert theatre.rows_now(6) == whole
    saved = theatre.catalog.require(record.safety_backup_id or "")
    assert (saved.rows["public.comun_clinica"], saved.rows[STOCK]) == (0, len(orphans[STOCK].splitlines()))
    theatre.execute(
        "SET session_replication_role = replica", *gone,
        "DELETE FROM public.citas_recordatorio WHERE consulta_id NOT IN (SELECT id FROM public.citas_consulta)",
        "DELETE FROM public.django_admin_log WHERE user_id NOT IN (SELECT id FROM public.usuarios_usuario)",
    )  # fmt: skip
    assert theatre.rows_now(6) == {}
    assert theatre.go(RestoreRequest(clinic_id=6)).safety_backup_id is None
    assert theatre.rows_now(6) == whole


def test_a_safety_backup_that_cannot_be_made_or_is_another_state_stops_the_restore(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    runner = theatre.runner()
    approved = theatre.approved(RestoreRequest(clinic_id=1), runner)
    real = runner._safety._backup.run

    def less(*arguments: Any, **options: Any) -> BackupRecord:
        saved = real(*arguments, **options)
        return replace(saved, rows=saved.rows | {STOCK: saved.rows[STOCK] - 1})

    def full(*arguments: Any, **options: Any) -> BackupRecord:
        raise TransientError("The store is full.")

    for fault, said in ((full, "store is full"), (less, "is not what the plan saw")):
        with monkeypatch.context() as patch:
            patch.setattr(runner._safety._backup, "run", fault)
            with pytest.raises((TransientError, IntegrityError), match=said):
                runner.apply(approved)
        assert theatre.rows_now(1) == damaged
    # Neither has used the approval.
    assert runner.apply(approved).state == "completed"


def test_a_safety_backup_of_before_is_known_by_its_notes() -> None:
    plain = {
        "backup_id": "7-20261124T060000Z", "clinic_id": 7, "clinic_name": "Siete", "kind": "full", "trigger": "manual",
        "parent_id": None, "started_at": "2026-11-24T06:00:00Z", "finished_at": "2026-11-24T06:00:01Z",
        "expires_at": "2026-12-24T06:00:01Z", "rows": {}, "raw_bytes": 0, "recipients": [], "fingerprint": "f",
        "archive": {"key": "k", "size_bytes": 0, "sha256": "s", "md5": "m"}, "requested_by": "yo",
    }  # fmt: skip
    said = "before the restore of 7-20261101T060000Z"
    assert Envelope.from_json(plain | {"notes": said}).safety_of == "7-20261101T060000Z"
    for notes in ("", "before the restore of everything", f"not {said}"):
        assert Envelope.from_json(plain | {"notes": notes}).safety_of is None
    # What is written today says it itself: notes are anybody's.
    assert Envelope.from_json(plain | {"notes": said, "safety_of": None}).safety_of is None


def test_a_copy_needs_an_approval_for_its_schema_and_its_database(
    theatre: Theatre, demo_template: DemoDatabase
) -> None:
    theatre.back_up()

    def copies(database: DemoDatabase) -> CopyRunner:
        restore = theatre.restore()
        restore.database = connections.parse("restore_target", database.restorer_uri)
        return CopyRunner(copier=IntoRestore(restore), catalog=theatre.catalog, approvals=theatre.approvals())

    def approved(runner: CopyRunner, schema: str) -> Approval:
        proposed = runner.propose(RestoreRequest(clinic_id=1, into_schema=schema, run_id=f"manual__{schema}"))
        assert f"database {theatre.database.name} at" in proposed.page.replace("\\", "")
        return theatre.approvals().answer(proposed.id, "approved", by="jefa", how="ui")

    def schemas(database: DemoDatabase) -> int:
        with closing(database.connect()) as db, db.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mirar%'")
            return int(cursor.fetchone()[0])  # type: ignore[index]

    with copy_of(demo_template) as other:
        for database in (theatre.database, other):
            with closing(database.connect()) as db, db, db.cursor() as cursor:
                cursor.execute(f"GRANT CREATE ON DATABASE {database.name} TO {database.roles.restorer}")
        here, elsewhere = copies(theatre.database), copies(other)
        with pytest.raises(NotApproved, match="would be made in database"):
            elsewhere.apply(approved(here, "mirar_1"))
        doubtful = approved(here, "mirar_6")
        assert "suspect" not in doubtful.page
        theatre.execute("UPDATE clinic_backups.backup SET suspect = 'a table (it_had) rows'")
        with pytest.raises(NotApproved, match=r"does not say this of backup .* nobody has accepted it: a table"):
            here.apply(doubtful)
        told = approved(here, "mirar_7")
        assert "nobody has accepted it" in told.page
        here.apply(told)
        theatre.execute("DROP SCHEMA mirar_7 CASCADE", "UPDATE clinic_backups.backup SET suspect = NULL")
        unanswered = here.propose(RestoreRequest(clinic_id=1, into_schema="mirar_2", run_id=RUN))
        withdrawn = approved(here, "mirar_3")
        theatre.approvals().withdraw("manual__mirar_3")
        for refused in (unanswered, withdrawn):
            with pytest.raises(NotApproved):
                here.apply(refused)
        with pytest.raises(NotApproved, match="is not for a restore"):
            theatre.runner().apply(approved(here, "mirar_4"))
        assert schemas(other) == schemas(theatre.database) == 0
        good = approved(here, "mirar_5")
        assert here.apply(good).rows > 0
        theatre.execute("DROP SCHEMA mirar_5 CASCADE")
        with pytest.raises(NotApproved, match="the copy into schema mirar_5 has used"):
            here.apply(good)
        assert schemas(theatre.database) == 0
