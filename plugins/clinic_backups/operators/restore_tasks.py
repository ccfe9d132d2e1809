"""The tasks of a restore: plan, approve, apply.

The catalog holds the approval, the approver, and whether it was used. Task instances and XComs cannot replace it: a
task that was cleared, marked or given another value reads the real approval from the catalog.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, get_current_context, task
from airflow.sdk.definitions.param import ParamsDict

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.listening import Listener
from clinic_backups.base.load_settings import in_words
from clinic_backups.catalog.approvals import AGAIN, Answer, Approval, NotApproved
from clinic_backups.catalog.restores import Restores
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.operators.airflow_connections import failing_clearly, log_delivery
from clinic_backups.operators.link import airflow_url
from clinic_backups.operators.log_fields import tell
from clinic_backups.operators.metrics import Metrics
from clinic_backups.operators.waiting import wait_for_others
from clinic_backups.restore.approving import REASON, approver_of, conf_problem, lapsed, reason_of
from clinic_backups.restore.clinic_restore import refused
from clinic_backups.restore.plan_text import as_lines, left_as_they_are, undo_conf
from clinic_backups.restore.request import RestoreRequest, parse
from clinic_backups.restore.run_result import NotRestored, Rejected, settle_run

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
REFUSED_KEY = "refused_plan"
"""The XCom with a plan that cannot be applied."""


@task(show_return_value_in_logs=False, multiple_outputs=False)
def plan() -> dict[str, Any]:
    """Make and record the plan for the approvers. Nothing is changed."""
    with failing_clearly(log):
        parts = AirflowParts()
        # From now on no earlier plan of this run can be approved, and no earlier approval can be used.
        parts.approvals.withdraw(_run_id(get_current_context()))
        request, _ = _request(parts)
        tell(clinic_id=request.clinic_id, stage="plan")
        if request.into_schema is not None:
            proposed = parts.copies_to_approve(listener=Listener(log.info)).propose(request)
            log.info("The plan is to restore %s into the new schema %s.", proposed.backup_id, request.into_schema)
            return {"backup_id": proposed.backup_id, "target": proposed.target}
        if request.export_format is not None:
            proposed = parts.exports_to_approve(listener=Listener(log.info)).propose(request)
            log.info("The plan is to export %s as %s.", proposed.backup_id, request.export_format)
            return {"backup_id": proposed.backup_id, "target": proposed.target}
        runner = parts.restores(listener=Listener(log.info))
        made = runner.plan(request)
        tell(backup_id=made.backup_id)
        for line in as_lines(made):
            log.info("%s", line)
        if made.refusals:
            # The page shows the obstacles of each table.
            get_current_context()["ti"].xcom_push(REFUSED_KEY, made.to_json())
            raise refused(made)
        proposed = runner.propose(request, made)
    return {"backup_id": proposed.backup_id, "target": proposed.target, "writes": made.writes}


class PlanApproval(ApprovalOperator):
    """Shows the run's plan from the catalog, waits for an answer, and records it.

    ``approve: true`` in the conf is an answer too, if :func:`conf_problem` allows it.
    """

    template_fields = ("subject",)

    def __init__(self, *, response_timeout: timedelta, **kwargs: Any) -> None:
        super().__init__(
            subject="{% if params.mode == 'export' %}Export the data of{% else %}Restore{% endif %} clinic"
            " {{ params.clinic_id }}?",
            body="",
            # A rejection is not a failure: the next tasks are skipped, and `report` says who rejected the plan and why.
            fail_on_reject=False,
            response_timeout=response_timeout,
            **kwargs,
        )
        # The fields of the answer. Airflow would show the DAG's parameters otherwise.
        self.params = ParamsDict({REASON: Param("", type=["null", "string"], title="Reason (may be empty)")})

    def execute(self, context: Context) -> Any:
        """Returns who approved, for people. Only the catalog's record counts."""
        with failing_clearly(self.log):
            parts = AirflowParts()
            asked = parts.approvals.ask(_run_id(context), _instance(context))
            if _request(parts)[1]:
                by = _triggered_by(context)
                problem = conf_problem(
                    parts.settings.approvers, triggered_by=by, requested_by=asked.requested_by,
                    given=parts.approvals.given_in_conf(_run_id(context)),
                    exports=bool(asked.request.get("export_format")),
                )  # fmt: skip
                if not problem:
                    done = parts.approvals.answer(asked.id, "approved", by=by or "unknown", how="conf")
                    self.log.info("Approved by %s.", done.approved_by)
                    return {"approved_by": done.approved_by}
                self.log.warning("approve: true in the conf is ignored: %s The run waits for an approval.", problem)
            mails = parts.approval_mails(airflow_url())
            mails.asked(asked)
            if not any(mails.may_be_told(parts.settings.operator_emails, parts.settings.approvers)):
                self.log.warning("Nobody gets a mail about this plan: set CLINIC_BACKUPS_OPERATOR_EMAILS.")
            log_delivery(self.log, parts.deliver)
        # The shown plan and the recorded answer belong to the same row of the catalog.
        self.body = asked.page
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Returns who answered. After a rejection nothing else runs. Without an answer in time the run fails."""
        with failing_clearly(self.log):
            parts = AirflowParts()
            asked = parts.approvals.of_run(_run_id(context))
            mails = parts.approval_mails(airflow_url())
            if event.get("error_type") == "timeout" and asked is not None:
                mails.lapsed(asked)
                log_delivery(self.log, parts.deliver)
                raise NotApproved(lapsed(asked), hint=AGAIN)
        if "error" in event:
            super().execute_complete(context=context, event=event)
        with failing_clearly(self.log):
            self._require_valid(event)
            by = approver_of(parts.settings.approvers, event.get("responded_by_user"))
            answer: Answer = "approved" if list(event["chosen_options"]) == [self.APPROVE] else "rejected"
            announce = mails.announcer(asked)
            reason = reason_of(event.get("params_input"))
            parts.approvals.answer(_instance(context), answer, by=by, how="ui", reason=reason, announce=announce)
            log_delivery(self.log, parts.deliver)
            self.log.info("%s by %s%s", answer.capitalize(), by, f": {reason}" if reason else ".")
        super().execute_complete(context=context, event=event)
        return {f"{answer}_by": by}

    def _require_valid(self, event: dict[str, Any]) -> None:
        """Check the answer before it is recorded. Airflow checks it too, but only afterwards.

        :raises NotApproved: it is not one of both options, or has another field than the reason.
        """
        try:
            self.validate_chosen_options(event["chosen_options"])
            self.validate_params_input(event["params_input"] or {})
            is_valid = len(event["chosen_options"]) == 1
        except ValueError:  # its message holds what somebody has written
            is_valid = False
        if not is_valid:
            raise NotApproved(
                f"The answer to the plan was not recorded: it has to be one of {' and '.join(self.options)}, with no"
                f" other field than {REASON}, which is a text.",
                hint="Nothing was changed. Clear the task approve to be asked again.",
            )


@task(retries=0, multiple_outputs=False)
def apply() -> dict[str, Any]:
    """Back up the present state and apply exactly the approved plan, or do nothing.

    While another process works on the clinic, such as the night's backup, the task waits and holds no slot.
    """
    with failing_clearly(log):
        parts = AirflowParts()
        run_id = _run_id(get_current_context())
        approved = parts.approvals.of_run(run_id)
        if approved is None:
            raise NotApproved(f"The catalog has no plan of run {run_id}.", hint=AGAIN)
        metrics, kind = Metrics.of(parts.settings), str(approved.request.get("mode") or "unknown")
        tell(clinic_id=approved.clinic_id, backup_id=approved.backup_id, stage="apply")
        if approved.plan is None:
            return _copied_or_exported(parts, approved)
        try:
            record = parts.restores(listener=Listener(log.info)).apply(approved)
            metrics.restored(record)
        except BaseException as error:
            # The approval was not used: the lock comes first.
            wait_for_others(log, [error], parts.settings, since=approved.answered_at)
            metrics.restore_failed(approved.clinic_id, kind, error)
            raise
        finally:
            log_delivery(log, parts.deliver)
    rows, saved = record.plan["writes"], record.safety_backup_id
    restored = in_words("Clinic %s is restored from backup %s: %s rows were written.")
    log.info(restored, record.clinic_id, record.backup_id, rows)
    for line in left_as_they_are(record):
        log.info("%s", line)
    if saved:
        log.info("To undo: start clinic_restore with %s", undo_conf(record, RestoreRequest.from_json(approved.request)))
    elif rows:
        log.warning(in_words("Clinic %s had no rows before, so there was nothing to back up."), record.clinic_id)
    return {"restore_id": record.restore_id, "rows": rows, "undo": saved}


@task(trigger_rule="all_done")
def report(applied: Any) -> None:
    """Report the result from the catalog. The run is red unless that is a restore or a rejection.

    :param applied: the result of `apply`. Without it the run is red. With it the catalog is read too.
    """
    with failing_clearly(log):
        parts, run_id = AirflowParts(), _run_id(get_current_context())
        approved = parts.approvals.of_run(run_id)
        if approved is not None and approved.plan is None:
            if approved.is_rejected:
                log.info("The plan was %s Nothing was changed.", approved.rejection)
                return
            if approved.used_by is None:
                raise NotRestored("Nothing was restored: see the first task that failed.", hint=AGAIN)
            what = approved.used_by
        else:
            running = bool(Restores(parts.catalog.database).find(run_id=run_id, state="running"))
            try:
                done = settle_run(parts.catalog, parts.approvals, lambda: parts.restore_db, run_id, parts.clock)
            except Rejected as rejected:
                log.info("%s Nothing was changed.", rejected.message)
                return
            what = f"{in_words(f'clinic {done.clinic_id}')} is restored from {done.backup_id} by {done.restore_id}"
            applied = applied or running
        if not applied:
            raise NotRestored(
                f"The catalog says: {what}. The task apply failed after that, or before it could report it.",
                hint="Look at the clinic and at the log of apply. The restore need not be repeated.",
            )
    log.info("Done: %s", what)


def _copied_or_exported(parts: AirflowParts, approved: Approval) -> dict[str, Any]:
    if RestoreRequest.from_json(approved.request).export_format is not None:
        export = parts.exports_to_approve(listener=Listener(log.info)).apply(approved)
        log.info("%s rows are in %s%s.", f"{export.rows:,}", f"{export.store_url}/", export.key)
        return {"export": export.id, "rows": export.rows}
    made = parts.copies_to_approve(listener=Listener(log.info)).apply(approved)
    for table in made.tables:
        log.info("%s: %s rows", table.name, f"{table.rows:,}")
    for line in made.said():
        log.info("%s", line)
    log.info("This copy holds patients' data. When nobody needs it any more: DROP SCHEMA %s CASCADE", made.schema)
    return {"schema": made.schema, "rows": made.rows}


def request_of(parts: AirflowParts) -> RestoreRequest:
    """What the run's conf asks for. :raises SettingsError: the conf is wrong."""
    return _request(parts)[0]


def _request(parts: AirflowParts) -> tuple[RestoreRequest, bool]:
    context = get_current_context()
    run = context["dag_run"]
    given = {key: value for key, value in (run.conf or {}).items() if value not in (None, "")}
    requested_by = _triggered_by(context) or "unknown"
    return parse(given, every=_every(parts), requested_by=requested_by, run_id=run.run_id, zone=parts.settings.zone)


def _every(parts: AirflowParts) -> list[Clinic]:
    """The existing clinics, for the error about a wrong conf. A lost database must not prevent its restore."""
    try:
        return [*parts.clinics()[1], parts.shared_clinic]
    except ClinicBackupsError:
        return []


def _run_id(context: Any) -> str:
    return str(context["dag_run"].run_id)


def _instance(context: Any) -> str:
    """The id of this try of the task. It changes when the task is cleared, and stays the same while it waits."""
    return str(context["ti"].id)


def _triggered_by(context: Any) -> str:
    """The authenticated user who started the run; empty if there is none."""
    return str(context["dag_run"].triggering_user_name or "")
