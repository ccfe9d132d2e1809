"""The tasks of a restore: plan, approve, save the present state, apply."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.operators.connections import failing_clearly, log_delivery
from clinic_backups.operators.parts import AirflowParts
from clinic_backups.restore.model import RestorePlan, RestoreRequest
from clinic_backups.restore.request import parse
from clinic_backups.restore.runner import choose_backup, source_of
from clinic_backups.restore.service import refused
from clinic_backups.restore.text import as_lines, as_markdown, copy_as_markdown

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
REFUSED_KEY = "refused_plan"
"""The XCom with a plan that cannot be applied."""


@task(show_return_value_in_logs=False)
def plan() -> dict[str, Any]:
    """What the restore would do, and a page about it for whoever approves. Nothing is changed."""
    with failing_clearly(log):
        parts = AirflowParts()
        request, approved = _request(parts)
        if request.into_schema is not None:
            chosen = choose_backup(parts.catalog, request)
            log.info("A copy of %s is to be made in schema %s.", chosen.backup_id, request.into_schema)
            page = copy_as_markdown(chosen, request.into_schema, requested_by=request.requested_by, notes=request.notes)
            return {"plan": None, "backup_id": chosen.backup_id, "page": page, "approved": approved}
        made = parts.restores(on_step=log.info).plan(request)
        for line in as_lines(made):
            log.info("%s", line)
        if made.refusals:
            # The page shows what stands in the way, of which table.
            get_current_context()["ti"].xcom_push(REFUSED_KEY, made.to_json())
            raise refused(made)
    page = as_markdown(made, requested_by=request.requested_by, notes=request.notes)
    return {"plan": made.to_json(), "backup_id": made.backup_id, "page": page, "approved": approved}


class PlanApproval(ApprovalOperator):
    """Waits for somebody to approve the plan, unless the conf says ``approve: true``.

    :param planned: what the task ``plan`` returned. (templated)
    """

    template_fields = ("subject", "body", "planned")

    def __init__(self, *, planned: Any, response_timeout: timedelta, **kwargs: Any) -> None:
        super().__init__(
            subject="Restore clinic {{ params.clinic_id }}?",
            body="{{ ti.xcom_pull(task_ids='plan')['page'] }}",
            fail_on_reject=True,
            response_timeout=response_timeout,
            **kwargs,
        )
        self.planned = planned

    def execute(self, context: Context) -> Any:
        """Returns who approved."""
        if self.planned["approved"]:
            self.log.info("Approved in the conf by whoever started the run.")
            return {"approved_by": f"{_requested_by(context)} (in the conf)"}
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Returns who approved. A rejection or no answer in time fails the run: nothing was changed."""
        super().execute_complete(context=context, event=event)
        user = event.get("responded_by_user") or {}
        return {"approved_by": str(user.get("name") or user.get("id") or "unknown")}


@task
def safety_backup(planned: dict[str, Any]) -> str | None:
    """Back up the clinic as it is now: restoring this backup undoes the restore."""
    context = get_current_context()
    if planned["plan"] is None:
        log.info("A copy overwrites nothing: there is nothing to save.")
        return None
    made = RestorePlan.from_json(planned["plan"])
    with failing_clearly(log):
        parts = AirflowParts()
        record = parts.safety_backup(made, requested_by=_requested_by(context), run_id=context["dag_run"].run_id)
    if record is None:
        log.warning("Clinic %s has no row now: there is nothing to save.", made.clinic_id)
        return None
    log.info("The state before is saved as %s.", record.backup_id)
    return record.backup_id


@task(retries=0)
def apply(planned: dict[str, Any], approval: dict[str, Any], safety_backup_id: str | None) -> dict[str, Any]:
    """Restore exactly what was approved, or nothing."""
    with failing_clearly(log):
        parts = AirflowParts()
        request, _ = _request(parts)
        # The backup is the one that was approved, whatever has become the newest since.
        request = replace(request, backup_id=planned["backup_id"], as_of=None)
        if request.into_schema is not None:
            return _copy(parts, request, request.into_schema)
        made = RestorePlan.from_json(planned["plan"])
        try:
            record = parts.restores(on_step=log.info).apply(
                request, made,
                approved_by=approval["approved_by"], safety_backup_id=safety_backup_id,
            )  # fmt: skip
        finally:
            log_delivery(log, parts.deliver)
    log.info("Clinic %s is as in backup %s: %s rows were written.", made.clinic_id, made.backup_id, made.writes)
    if safety_backup_id:
        log.info(
            'To undo: start clinic_restore with {"clinic_id": %s, "backup_id": "%s"}', made.clinic_id, safety_backup_id
        )
    return {"restore_id": record.restore_id, "rows": made.writes, "undo": safety_backup_id}


@task(trigger_rule="all_done")
def report(applied: dict[str, Any] | None) -> None:
    """Make the run red when the clinic was not restored, and say so."""
    if not applied:
        raise AirflowFailException(
            "The clinic was not restored and nothing was changed: see the first task that failed."
        )
    log.info("Restored: %s", applied)


def _copy(parts: AirflowParts, request: RestoreRequest, schema: str) -> dict[str, Any]:
    chosen = choose_backup(parts.catalog, request)
    made = parts.copier(on_step=log.info).run(source_of(chosen), schema, request.tables)
    for table in made.tables:
        log.info("%s: %s rows%s", table.name, f"{table.rows:,}", "".join(f"; {note}" for note in table.notes))
    log.info("This copy holds patients' data. When nobody needs it any more: DROP SCHEMA %s CASCADE", schema)
    return {"schema": schema, "rows": made.rows}


def _request(parts: AirflowParts) -> tuple[RestoreRequest, bool]:
    context = get_current_context()
    run = context["dag_run"]
    _, every = parts.clinics()
    given = {key: value for key, value in (run.conf or {}).items() if value not in (None, "")}
    return parse(given, every=every, requested_by=_requested_by(context), run_id=run.run_id)


def _requested_by(context: Any) -> str:
    return str(context["dag_run"].triggering_user_name or "unknown")
