"""The page shows the catalog's plan, and an answer is for the plan that was shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.listening import nobody
from clinic_backups.catalog.audit import Audit
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores.file import FileStore
from clinic_backups.web.actions import Actions
from clinic_backups.web.caller import Caller
from clinic_backups.web.problems import Conflict
from clinic_backups.web.recorder import Recorder
from clinic_backups.web.run_views import RunView
from clinic_backups.web.runs import RESTORE
from clinic_backups.web.seen_runs import SeenRuns
from clinic_backups.web.viewer import Viewer
from tests.fake_web import plan, restore_run
from tests.integration.test_restore_runner import DAMAGE, Theatre
from tests.postgres_fixtures import DemoDatabase

OPERATOR = Caller(Viewer("jefa", superadmin=True), "203.0.113.9", None)


class Airflow:
    """Runs whose XCom says whatever somebody has written into it."""

    def __init__(self, run: RunView) -> None:
        self.run, self.answered = run, list[tuple[str, bool, str]]()
        self.meanwhile: Callable[[], object] = nobody

    def get(self, dag_id: str, run_id: str) -> RunView:
        return self.run

    def of_clinic(self, dag_id: str, clinic_id: int, limit: int) -> list[RunView]:
        return [self.run]

    def answer(
        self, run_id: str, *, approve: bool, user: Any, now: Any, reason: str, require_shown: Callable[[], object]
    ) -> None:
        self.meanwhile()  # an answer waits for some seconds
        require_shown()
        self.answered.append((run_id, approve, reason))


def test_what_is_shown_is_what_is_answered(demo_database: DemoDatabase, tmp_path: Path) -> None:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.back_up()
    theatre.execute(DAMAGE)
    forged = restore_run(clinic_id=1, plan=plan(), plan_digest="", target="")
    airflow = Airflow(forged)
    seen_runs = SeenRuns(airflow, theatre.approvals(), Restores(theatre.catalog.database))  # type: ignore[arg-type]
    actions = Actions(
        database=theatre.catalog.database,
        recorder=Recorder(Audit(theatre.catalog.database), per_hour=60, now=theatre.tick),
        runs=airflow,  # type: ignore[arg-type]
        seen=seen_runs, exists=lambda clinic_id: True, now=theatre.tick,
    )  # fmt: skip

    def seen_of(seen_runs: SeenRuns) -> RunView:
        run = seen_runs.run(OPERATOR, RESTORE, forged.run_id)
        assert run is not None
        return run

    def seen() -> RunView:
        run = seen_of(seen_runs)
        assert seen_runs.restores(OPERATOR, 1) == [run]
        return run

    def refused(digest: str) -> None:
        with pytest.raises(Conflict, match="not the plan that you were shown"):
            actions.answer(OPERATOR, forged.run_id, approve=True, plan_digest=digest)
        assert airflow.answered == []

    # Nothing was planned: what the task says is shown, and cannot be approved.
    refused(seen().plan_digest)
    refused(plan().digest)
    runner = theatre.runner()
    request = RestoreRequest(clinic_id=1, run_id=forged.run_id)
    first = runner.propose(request, runner.plan(request))
    shown = seen()
    assert (shown.plan_digest, shown.target) == (first.plan_digest, first.target)
    assert shown.plan is not None and shown.plan.digest == first.plan_digest != plan().digest
    # It is made anew while the page is open.
    theatre.approvals().withdraw(forged.run_id)
    refused(shown.plan_digest)
    theatre.execute(DAMAGE)
    second = runner.propose(request, runner.plan(request))
    refused(shown.plan_digest)
    # It is withdrawn and made anew while the answer waits.
    airflow.meanwhile = lambda: theatre.approvals().withdraw(forged.run_id)
    refused(second.plan_digest)
    airflow.meanwhile = nobody
    second = runner.propose(request, runner.plan(request))
    airflow.run = replace(forged, clinic_id=2)
    refused(second.plan_digest)
    airflow.run = forged
    actions.answer(OPERATOR, forged.run_id, approve=True, plan_digest=seen().plan_digest)
    actions.answer(OPERATOR, forged.run_id, approve=False, plan_digest="", reason=" no es \n ella ")
    # What undoes it is what the restore's record names.
    airflow.run = replace(forged, state="success", result=None)
    # And that it was done is not believed.
    found = seen_of(seen_runs)
    assert (found.state, found.result) == ("failed", None)
    assert "has no restore" in found.error
    approved = theatre.approvals().answer(second.id, "approved", by="jefa", how="ui")
    record = runner.apply(approved)
    found = seen_of(seen_runs)
    assert found.state == "success"
    done = {"restore_id": record.restore_id, "rows": record.plan["writes"], "undo": record.safety_backup_id,
            "tables": []}  # fmt: skip
    assert found.result == done
    # The run is cleared and its new plan rejected: what was done before is not what the run says now.
    third = runner.propose(request, runner.plan(request))
    theatre.approvals().answer(third.id, "rejected", by="jefa", how="ui", reason="no es ella")
    found = seen_of(seen_runs)
    assert (found.state, found.result) == ("success", None)
    assert (found.answer, found.answered_by, found.reason) == ("rejected", "jefa", "no es ella")
    assert airflow.answered == [(forged.run_id, True, ""), (forged.run_id, False, "no es ella")]
