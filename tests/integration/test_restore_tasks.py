"""The tasks of ``clinic_restore`` with a real catalog: who may approve, and which plan an answer is for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clinic_backups.app import Parts
from clinic_backups.base import connections
from clinic_backups.catalog.locks import lock_name
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.mailbox import mailbox
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.rig import Rig
from tests.statsd import receiving

RUN = "manual__1"
WAITS = "waits for an answer"


class Tasks:
    """The tasks of one run, asked for by somebody, with the catalog of a theatre."""

    def __init__(self, theatre: Theatre, patch: pytest.MonkeyPatch, *, approvers: tuple[str, ...], user: str) -> None:
        from airflow.providers.standard.operators.hitl import ApprovalOperator

        from clinic_backups.operators import restore_tasks

        self.theatre, self.module = theatre, restore_tasks
        self.conf: dict[str, Any] = {"clinic_id": 1, "approve": True}
        key = Path(theatre.store.url.removeprefix("file://")).parent / "identity"
        key.touch(mode=0o600)
        key.write_text(theatre.identity)
        settings = theatre.settings.model_copy(update={"approvers": approvers, "identity_file": key})
        known = {"clinic_db": theatre.clinic_db, "backup_catalog": theatre.catalog._connection}
        known["restore_db"] = connections.parse("restore_db", theatre.database.restorer_uri)
        known |= {name: connections.parse(name, uri) for name, uri in theatre.earlier.items()}
        self.parts = Parts(settings, known.get)
        theatre.initialise()
        self.run = SimpleNamespace(run_id=RUN, conf=self.conf, triggering_user_name=user)
        patch.setattr(restore_tasks, "AirflowParts", lambda: self.parts)
        patch.setattr(restore_tasks, "get_current_context", lambda: self.context("none"))
        patch.setattr(ApprovalOperator, "execute", lambda operator, context: (WAITS, operator.body))

    def context(self, instance: str) -> Any:
        return {"dag_run": self.run, "ti": SimpleNamespace(id=instance, xcom_push=lambda *arguments: None)}

    def propose(self) -> str:
        """What the task `plan` records; returns its page."""
        runner = self.theatre.runner()
        request = RestoreRequest(clinic_id=1, requested_by=self.run.triggering_user_name or "unknown", run_id=RUN)
        return runner.propose(request, runner.plan(request)).page

    def plan(self) -> Any:
        return self.module.plan.function()

    def approve(self, instance: str = "try-1") -> Any:
        return self._operator().execute(self.context(instance))

    def answer(
        self, user: dict[str, str] | None, option: str = "Approve", instance: str = "try-1", reason: str | None = None
    ) -> Any:
        return self.answer_with(user, [option], {} if reason is None else {"reason": reason}, instance)

    def answer_with(
        self, user: dict[str, str] | None, options: list[str], given: dict[str, Any], instance: str = "try-1"
    ) -> Any:
        event = {"chosen_options": options, "params_input": given, "responded_by_user": user}
        return self._operator().execute_complete(
            self.context(instance), event | {"responded_at": datetime(2026, 11, 24, tzinfo=UTC)}
        )

    def lapse(self, instance: str = "try-1") -> Any:
        """Airflow says that nobody answered in time."""
        event = {"error": "nobody", "error_type": "timeout"}
        return self._operator().execute_complete(self.context(instance), event)

    def told(self) -> list[dict[str, Any]]:
        """What the outbox has to tell of plans and answers."""
        query = (
            "SELECT key, kind, clinic_id::int, facts FROM clinic_backups.notification"
            " WHERE kind IN ('approval', 'answer')"
        )
        rows = self.theatre.execute_rows(f"{query} ORDER BY id")
        return [{"what": key.split(":")[2], "kind": kind, "to": clinic, **facts} for key, kind, clinic, facts in rows]

    def apply(self) -> Any:
        return self.module.apply.function()

    def report(self, applied: Any) -> Any:
        return self.module.report.function(applied)

    def _operator(self) -> Any:
        return self.module.PlanApproval(task_id="approve", response_timeout=timedelta(hours=1))


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.back_up()
    theatre.execute(DAMAGE)
    return theatre


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (["Approve"], {"raeson": "Ana Pérez"}), (["Reject"], {"raeson": "Ana Pérez"}),
        (["Approve"], {"reason": "Ana Pérez", "by": "jefa"}), (["Approve"], {"reason": ["Ana Pérez"]}),
        (["Approve", "Reject"], {}), (["Later"], {}), ([], {}),
    ],
)  # fmt: skip
def test_an_answer_that_airflow_will_refuse_is_not_recorded(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, options: list[str], given: dict[str, Any]
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = Tasks(theatre, monkeypatch, approvers=("jefa",), user="pedro")
    tasks.propose()
    tasks.approve()
    with pytest.raises(AirflowFailException, match=r"(?s)was not recorded.*Clear the task approve") as caught:
        tasks.answer_with({"id": "7", "name": "jefa"}, options, given)
    assert "Ana" not in str(caught.value)
    with pytest.raises(AirflowFailException, match=r"was not approved by anybody"):
        tasks.apply()
    tasks.approve("try-2")
    tasks.answer({"id": "7", "name": "jefa"}, instance="try-2")
    assert tasks.apply()["rows"] > 0


@pytest.mark.parametrize(
    ("approvers", "user", "counts"),
    [
        (("jefa",), "pedro", False), (("jefa",), "jefa", False), (("jefa", "otra"), "otra", False),
        (("jefa",), "", False), ((), "pedro", True), ((), "", True),
    ],
)  # fmt: skip
def test_who_triggers_a_run_approves_it_in_the_conf_only_where_no_approvers_are_set(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, approvers: tuple[str, ...], user: str, counts: bool
) -> None:
    tasks = Tasks(theatre, monkeypatch, approvers=approvers, user=user)
    page = tasks.propose()
    done = tasks.approve()
    found = theatre.approvals().of_run(RUN)
    assert found is not None
    if counts:
        assert done == {"approved_by": f"{user or 'unknown'} (in the conf)"}
        assert (found.answer, found.how) == ("approved", "conf")
    else:
        assert (done, found.answer) == ((WAITS, page), None)


def test_restores_are_counted_in_airflows_metrics(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(theatre, monkeypatch, approvers=(), user="pedro")
    tasks.propose()
    with receiving() as statsd:
        with pytest.raises(Exception, match="was not approved by anybody"):
            tasks.apply()
        assert statsd.wait(bool) == ["clinic_backups.restore.failed,kind=exact,outcome=permanent:1|c"]
        tasks.approve()
        since = len(statsd.lines)
        rows = tasks.apply()["rows"]
        tags = "kind=exact,outcome=completed"
        lines = statsd.wait(lambda lines: len(lines) == 3, since)
    assert lines[:2] == [f"clinic_backups.restore.completed,{tags}:1|c", f"clinic_backups.restore.rows,{tags}:{rows}|c"]
    assert lines[2].startswith(f"clinic_backups.restore.duration,{tags}:")


def test_a_conf_approves_once_however_often_the_run_is_cleared(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(theatre, monkeypatch, approvers=(), user="pedro")
    tasks.propose()
    tasks.approve()
    assert tasks.apply()["rows"] > 0
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    # All tasks, and `approve` alone.
    page = tasks.propose()
    assert tasks.approve("try-2") == (WAITS, page)
    assert tasks.approve("try-3") == (WAITS, page)
    with pytest.raises(Exception, match="was not approved by anybody"):
        tasks.apply()
    assert theatre.rows_now(1) == damaged


def test_only_an_approver_answers_and_only_for_what_was_shown(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = Tasks(theatre, monkeypatch, approvers=("jefa",), user="pedro")
    tasks.propose()
    tasks.approve()
    damaged = theatre.rows_now(1)
    for user in (None, {"id": "pedro", "name": "pedro"}, {"id": "", "name": ""}):
        with pytest.raises(AirflowFailException, match=r"does not say who|may not approve"):
            tasks.answer(user)
        with pytest.raises(AirflowFailException, match="was not approved by anybody"):
            tasks.apply()
    jefa = {"id": "jefa", "name": "jefa"}
    with pytest.raises(AirflowFailException, match="Nobody was asked"):
        tasks.answer(jefa, instance="try-0")
    # The plan is made anew while the page is open.
    theatre.execute(DAMAGE)
    tasks.propose()
    with pytest.raises(AirflowFailException, match="was replaced"):
        tasks.answer(jefa)
    assert theatre.restores.find(clinic_id=1) == []
    tasks.approve("try-2")
    assert tasks.answer(jefa, instance="try-2") == {"approved_by": "jefa"}
    theatre.execute(DAMAGE.replace("+ 5", "- 10"))
    with pytest.raises(AirflowFailException, match="has changed since the plan was made"):
        tasks.apply()
    theatre.execute(DAMAGE.replace("+ 5", "+ 10"))
    assert theatre.rows_now(1) != damaged


def test_a_run_without_any_plan_is_told_so(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` and `approve` were marked as success: no XCom, no record."""
    from airflow.sdk.exceptions import AirflowFailException

    tasks = Tasks(theatre, monkeypatch, approvers=(), user="pedro")
    with pytest.raises(AirflowFailException, match="no plan of run manual__1"):
        tasks.apply()
    with pytest.raises(AirflowFailException, match="no plan of run manual__1 that can be approved"):
        tasks.approve()


FORGED = {"restore_id": "r-1-x", "rows": 77, "undo": "1-x"}


def test_report_believes_the_catalog_and_no_xcom(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = Tasks(theatre, monkeypatch, approvers=(), user="pedro")
    tasks.conf["approve"] = False
    nothing = "not restored and nothing was changed"
    for applied in (None, FORGED):
        with pytest.raises(AirflowFailException, match=nothing):
            tasks.report(applied)
    tasks.propose()
    tasks.approve()
    tasks.answer({"id": "jefa", "name": "jefa"})
    with pytest.raises(AirflowFailException, match=nothing):
        tasks.report(FORGED)
    done = tasks.apply()
    tasks.report(done)
    # `apply` is cleared, and fails: its approval is used.
    with pytest.raises(AirflowFailException, match=f"by {done['restore_id']}.*apply failed after that"):
        tasks.report(None)
    # Planned anew and not answered: the restore of before is not this plan's.
    tasks.propose()
    with pytest.raises(AirflowFailException, match=nothing):
        tasks.report(FORGED)


@pytest.mark.parametrize("when", ["after", "before"])
def test_report_asks_what_became_of_a_restore_whose_process_died(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    tasks = Tasks(theatre, monkeypatch, approvers=(), user="pedro")
    tasks.propose()
    tasks.approve()
    damaged = theatre.rows_now(1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Restores, "finish", die)
        if when == "before":
            patch.setattr(Workspace, "commit", die)
        tasks.apply()
    assert (theatre.rows_now(1) == damaged) == (when == "before")
    known = tasks.parts.restore_db
    tasks.parts.restore_db = connections.parse("restore_db", "postgresql://u:x@127.0.0.1:1/clinica")
    with pytest.raises(AirflowFailException, match=r"(?s)cannot be told yet: .*Clear apply and report"):
        tasks.report(None)
    tasks.parts.restore_db = known
    if when == "after":
        tasks.report(None)
    else:
        with pytest.raises(AirflowFailException, match="process ended without a result"):
            tasks.report(FORGED)
    assert theatre.restores.find(run_id=RUN)[0].state == ("completed" if when == "after" else "failed")


@pytest.mark.parametrize(("now", "works"), [(("jefa",), False), (("jefa", "u-9"), True), ((), True)])
def test_who_is_no_approver_any_more_has_approved_nothing(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, now: tuple[str, ...], works: bool
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = Tasks(theatre, monkeypatch, approvers=("u-9",), user="pedro")
    tasks.propose()
    tasks.approve()
    tasks.answer({"id": "u-9", "name": "Ana"})
    tasks.parts = Parts(tasks.parts.settings.model_copy(update={"approvers": now}), tasks.parts._find)
    damaged = theatre.rows_now(1)
    if works:
        assert tasks.apply()["rows"] > 0
        return
    with pytest.raises(AirflowFailException, match=r"u-9 approved the plan .* but is no longer an approver"):
        tasks.apply()
    assert (theatre.rows_now(1), theatre.restores.find(clinic_id=1)) == (damaged, [])


ADMIN_OF_1, JEFA = "administrador.1.1", {"id": "jefa@x.example", "name": "jefa@x.example"}


def waiting(theatre: Theatre, patch: pytest.MonkeyPatch, *, user: str, **settings: Any) -> Tasks:
    """The tasks of a run whose plan waits for an answer, with mail."""
    tasks = Tasks(theatre, patch, approvers=("pedro", "jefa@x.example"), user=user)
    usable = tasks.parts.settings.model_copy(update={"operator_emails": ("guardia@saas.example",)} | settings)
    tasks.parts = Parts(usable, tasks.parts._find)
    patch.setattr(tasks.module, "airflow_url", lambda: "https://airflow.example")
    tasks.conf["approve"] = False
    tasks.propose()
    assert tasks.approve()[0] == WAITS
    return tasks


def test_who_may_approve_hears_of_a_plan_at_once(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    post = mailbox()
    known = {"smtp_default": post.connection}
    with post.running() as box:
        tasks = Tasks(theatre, monkeypatch, approvers=("pedro", "jefa@x.example"), user="guardia")
        find = tasks.parts._find
        settings = tasks.parts.settings.model_copy(update={"operator_emails": ("guardia@saas.example",)})
        tasks.parts = Parts(settings, lambda name: known.get(name) or find(name))
        monkeypatch.setattr(tasks.module, "airflow_url", lambda: "https://airflow.example")
        tasks.conf["approve"] = False
        tasks.propose()
        tasks.approve()
        # The task is tried again: nobody hears twice.
        tasks.approve("try-2")
    plans = sorted((to, mail["Importance"]) for to, mail in box.mails if str(mail["Subject"]).startswith("✋"))
    assert plans == [("guardia@saas.example", "high"), ("jefa@x.example", "high")]
    asked = theatre.approvals().of_run(RUN)
    assert asked is not None and asked.plan is not None
    (told,) = tasks.told()
    assert told["url"] == "https://airflow.example/backups/ui/runs/clinic_restore/manual__1"
    assert (told["clinic_id"], told["backup_id"], told["mode"]) == (1, asked.backup_id, "exact")
    assert (told["target"], told["requested_by"]) == (asked.target, "guardia")
    assert told["inserted"] + told["updated"] + told["deleted"] == asked.plan["writes"] > 0
    assert asked.waits_until - datetime.fromisoformat(told["waits_until"]) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("user", "to"), [(ADMIN_OF_1, 1), ("auditor.1", None), ("administrador.2.1", None), ("nobody", None), ("", None)]
)
def test_the_answer_and_its_reason_reach_whoever_asked(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, user: str, to: int | None
) -> None:
    tasks = waiting(theatre, monkeypatch, user=user)
    tasks.answer(JEFA, "Reject", reason="  no es\nesta clínica ")
    told = tasks.told()[-1]
    assert (told["what"], told["kind"], told["to"]) == ("answer", "answer", to)
    assert (told["outcome"], told["answered_by"], told["reason"]) == ("rejected", JEFA["name"], "no es esta clínica")
    # Delivered once more.
    tasks.answer(JEFA, "Reject", reason="no es esta clínica")
    assert [told["what"] for told in tasks.told()] == ["asked", "answer"]
    found = theatre.approvals().of_run(RUN)
    assert found is not None and (found.answer, found.reason) == ("rejected", "no es esta clínica")


def test_a_rejection_is_no_failure_and_nothing_is_applied(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = waiting(theatre, monkeypatch, user="guardia")
    assert tasks.answer(JEFA, "Reject", reason="x" * 9000) == {"rejected_by": JEFA["name"]}
    caplog.set_level("INFO")
    tasks.report(None)
    assert f"The plan was rejected by {JEFA['name']}: {'x' * 500}" in caplog.text
    with pytest.raises(AirflowFailException, match=f"was rejected by {JEFA['name']}: xxx"):
        tasks.apply()
    assert theatre.restores.find(clinic_id=1) == []
    # It is planned anew: now it waits again, and is no answered one.
    tasks.propose()
    with pytest.raises(AirflowFailException, match="not restored and nothing was changed"):
        tasks.report(None)


def test_a_plan_that_nobody_answers_is_reminded_of_once_and_its_end_is_told(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = waiting(theatre, monkeypatch, user=ADMIN_OF_1, approval_hours=8)
    mails, approvals = tasks.parts.approval_mails(""), tasks.parts.approvals

    def ends_in(minutes: int) -> None:
        theatre.execute(f"UPDATE clinic_backups.approval SET waits_until = now() + interval '{minutes} minutes'")

    for minutes, whats in ((121, ["asked"]), (119, ["asked", "reminder"]), (5, ["asked", "reminder"])):
        ends_in(minutes)
        mails.remind(approvals, 8)
        assert [told["what"] for told in tasks.told()] == whats
    ends_in(-1)
    # Airflow's word and the watch's: one mail.
    with pytest.raises(AirflowFailException, match=r"Nobody answered the plan of .* has lapsed: nothing was changed"):
        tasks.lapse()
    mails.remind(approvals, 8)
    told = tasks.told()
    assert [one["what"] for one in told] == ["asked", "reminder", "answer"]
    assert (told[-1]["outcome"], told[-1]["to"]) == ("lapsed", 1)
    assert all(one["reminder"] == (one["what"] == "reminder") for one in told[:2])


def test_whoever_asked_hears_of_a_lapsed_plan_although_airflow_says_nothing(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = waiting(theatre, monkeypatch, user="guardia")
    theatre.execute("UPDATE clinic_backups.approval SET waits_until = now() - interval '8 days'")
    mails = tasks.parts.approval_mails("")
    mails.remind(tasks.parts.approvals, 24)
    assert [told["what"] for told in tasks.told()] == ["asked"]
    theatre.execute("UPDATE clinic_backups.approval SET waits_until = now() - interval '6 days'")
    mails.remind(tasks.parts.approvals, 24)
    assert [(told["what"], told["to"]) for told in tasks.told()] == [("asked", None), ("answer", None)]


def test_a_run_from_a_database_of_an_earlier_time(
    theatre: Theatre, demo_template: DemoDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is approved is the backup that was read from there. It is not needed any more afterwards."""
    with copy_of(demo_template) as earlier:
        theatre.earlier = {"pitr_db": earlier.reader_uri}
        tasks = Tasks(theatre, monkeypatch, approvers=("jefa",), user="pedro")
        tasks.conf.clear()
        tasks.conf.update(clinic_id=1, from_connection="pitr_db", other_database=True)
        tasks.conf["as_of"] = "2026-11-24T02:30:00-04:00"
        planned = tasks.plan()
        there = Rig.rows_now(Theatre(earlier, FileStore(Path(theatre.store.url.removeprefix("file://")))), 1)
    _, page = tasks.approve()
    assert "2026-11-24T06:30:00Z" in page and "read from pitr" in page
    tasks.answer({"id": "7", "name": "jefa"})
    assert tasks.apply()["rows"] == planned["writes"] > 0
    assert theatre.rows_now(1) == there
    record = theatre.catalog.require(planned["backup_id"])
    assert (record.requested_by, record.data_time) == ("pedro", datetime(2026, 11, 24, 6, 30, tzinfo=UTC))


def test_a_restore_waits_for_the_backup_of_its_clinic(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """The approval is not used meanwhile, and no restore is recorded as failed."""
    from airflow.sdk.exceptions import AirflowException, AirflowRescheduleException

    tasks = Tasks(theatre, monkeypatch, approvers=("jefa",), user="ana")
    good = theatre.rows_now(1)
    tasks.propose()
    tasks.approve()
    tasks.answer({"id": "2", "name": "jefa"})
    with theatre.catalog.lock(1), pytest.raises(AirflowRescheduleException) as waits:
        tasks.apply()
    assert waits.value.reschedule_date > datetime.now(UTC)
    assert (theatre.restores.find(clinic_id=1), theatre.rows_now(1)) == ([], good)
    # The lock of somebody else may never end.
    with theatre.database.session.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock_name("clinic", 1),))
        with pytest.raises(AirflowException, match="is held by session") as failed:
            tasks.apply()
        assert not isinstance(failed.value, AirflowRescheduleException)
    assert tasks.apply()["rows"] > 0
    assert [record.state for record in theatre.restores.find(clinic_id=1)] == ["completed"]
