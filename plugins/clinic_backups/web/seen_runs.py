"""The runs that a person may see. What became of a restore is taken from the catalog, and not from Airflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.approvals import Approval, Approvals
from clinic_backups.catalog.restores import Restores
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.run_result import completed_by
from clinic_backups.web.caller import Caller
from clinic_backups.web.run_views import RunView
from clinic_backups.web.runs import BACKUP, RESTORE, Runs

NOTHING_RECORDED = "The catalog has no restore of this run, although its tasks report one."


class SeenRuns:
    """Reads runs from Airflow, and the plans, answers and results of restores from the catalog."""

    def __init__(self, runs: Runs, approvals: Approvals, restores: Restores) -> None:
        self._runs, self._approvals, self._restores = runs, approvals, restores

    def run(self, caller: Caller, dag_id: str, run_id: str) -> RunView | None:
        """One run, if this person may see its clinic."""
        run = self._runs.get(dag_id, run_id)
        if run is None:
            return None
        visible = caller.viewer.superadmin if run.clinic_id is None else caller.viewer.may("see", run.clinic_id)
        return self._with_plans([run])[0] if visible else None

    def restores(self, caller: Caller, clinic_id: ClinicId, limit: int = 20) -> list[RunView]:
        """The newest restores of a clinic, including waiting ones."""
        caller.require("see", clinic_id)
        return self._with_plans(self._runs.of_clinic(RESTORE, clinic_id, limit))

    def queued(self, clinic_id: ClinicId) -> RunView | None:
        """A requested backup of this clinic that has not ended."""
        return next((run for run in self._runs.unfinished(BACKUP) if run.clinic_id == clinic_id), None)

    def next_run(self) -> datetime | None:
        """The time of the next scheduled backup of all clinics."""
        return self._runs.next_run(BACKUP)

    def _with_plans(self, runs: list[RunView]) -> list[RunView]:
        """Restores with their plans from the catalog.

        The results of tasks are not used, because anybody with rights in Airflow may change them.
        """
        known = self._approvals.of_runs([run.run_id for run in runs if run.dag_id == RESTORE])
        shown = []
        for run in runs:
            found = known.get(run.run_id) if run.dag_id == RESTORE else None
            if found is not None and found.withdrawn_at is None and found.clinic_id == run.clinic_id:
                plan = RestorePlan.from_json(found.plan) if found.plan else None
                run = replace(run, plan=plan, plan_digest=found.plan_digest, target=found.target)
                by, reason = found.answered_by or "", found.reason or ""
                run = replace(run, answer=found.answer or "", answered_by=by, reason=reason)
            shown.append(self._with_result(run, found) if run.dag_id == RESTORE else run)
        return shown

    def _with_result(self, run: RunView, approved: Approval | None) -> RunView:
        """A finished restore with its result from the record. The state of the run alone is not trusted."""
        if not run.is_over:
            return run
        if approved is not None and approved.plan is None and approved.clinic_id == run.clinic_id and approved.used_by:
            return run if run.state != "success" else replace(run, result={"rows": None, "undo": None})
        done = completed_by(self._restores, run.run_id, approved)
        if done is not None and done.clinic_id == run.clinic_id:
            result = {"restore_id": done.restore_id, "rows": done.plan["writes"], "undo": done.safety_backup_id}
            result["tables"] = list(done.tables)
            return replace(run, result=result)
        if run.state != "success" or run.answer == "rejected":
            return run
        return replace(run, state="failed", error=NOTHING_RECORDED, hint="Look at the run's tasks in Airflow.")
