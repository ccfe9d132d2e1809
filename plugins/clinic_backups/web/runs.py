"""Runs of our DAGs in Airflow's own database. Only this module queries it, and only in the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowException
from fastapi import HTTPException
from sqlalchemy import Select, and_, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from clinic_backups.backup.choose_clinics import for_all_clinics
from clinic_backups.base.backup_id import clinic_of
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.setting_types import BY_HAND
from clinic_backups.base.settings import Settings
from clinic_backups.operators import pool
from clinic_backups.operators.airflow_connections import PROBLEM_KEY
from clinic_backups.operators.airflow_internals import (
    DagModel,
    DagRun,
    DagRunTriggeredByType,
    DagRunType,
    HITLDetail,
    Pool,
    TaskInstance,
    UpdateHITLDetailPayload,
    XComModel,
    create_session,
    trigger_dag,
    update_hitl_detail,
)
from clinic_backups.operators.due_schedules import is_partial
from clinic_backups.operators.restore_tasks import REFUSED_KEY
from clinic_backups.restore.approving import REASON
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.tenant.given_id import given_id
from clinic_backups.web.problems import Conflict, Denied, NotVisible, Unavailable

BACKUP, RESTORE, HOLD, VERIFY = "clinic_backup", "clinic_restore", "clinic_backup_hold", "clinic_backup_verify"
DAG_IDS = (BACKUP, RESTORE, HOLD, VERIFY)
UNFINISHED = ("queued", "running")
LAST_TASKS = ("summary", "report", "all_well")
"""Tasks that fail because another task failed."""
RAN = ("running", "success", "failed", "up_for_retry", "restarting")
WAITING_STATES = ("awaiting_input", "deferred")
MOST_LOOKED_AT = 50
MOST_ENDED = 300
"""Runs of single clinics, which may have schedules of their own, come between those of all clinics."""
"""How many ended runs are searched for one for all clinics, and how many mapped tasks for their errors."""
YOUNGEST_APPROVAL = timedelta(seconds=5)
"""In Airflow 3.3.2 an answer in the first second comes before the scheduler has recorded that the task waits."""


@dataclass(frozen=True)
class TaskView:
    """One task of a run; ``state`` as Airflow spells it, ``None`` before it is scheduled."""

    task_id: str
    state: str | None
    map_index: int


@dataclass(frozen=True)
class RunView:
    """One run of one of our DAGs.

    :param clinic_id: the clinic in its conf, or of the backup in its conf; ``None``: several.
    :param plan: a restore's plan from the catalog, or a refused one; none before it is made.
    :param plan_digest: digest of a restore's plan, or of a restore into a new schema.
    :param target: the database that a restore writes to.
    :param answer: the answer to a restore's plan, with ``answered_by`` and ``reason``.
    :param result: a finished restore's result from its record.
    :param error: the error of the first failed task, with its ``hint``.
    """

    dag_id: str
    run_id: str
    state: str
    clinic_id: ClinicId | None
    conf: Mapping[str, Any]
    requested_by: str
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    tasks: tuple[TaskView, ...] = ()
    waiting_for_approval: bool = False
    plan: RestorePlan | None = None
    plan_digest: str = ""
    target: str = ""
    answer: str = ""
    answered_by: str = ""
    reason: str = ""
    result: Mapping[str, Any] | None = None
    error: str = ""
    hint: str = ""

    @property
    def is_over(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def failed_task(self) -> TaskView | None:
        """The first failed task, in the order of the steps."""
        failed = [task for task in self.tasks if task.state == "failed"]
        return min(failed, key=lambda task: (task.task_id in LAST_TASKS, task.map_index), default=None)

    def has_begun(self, task_id: str) -> bool:
        """Whether the task ran, or one of its mapped ones."""
        return any(task.task_id == task_id and task.state in RAN for task in self.tasks)


@dataclass(frozen=True)
class Schedule:
    """The state of a scheduled DAG.

    :param slots: slots of its tasks' pool; ``None``: there is no such pool; negative: no limit.
    :param last: its newest ended run for all clinics.
    """

    known: bool
    paused: bool
    slots: int | None
    last: RunView | None


class Runs:
    """Starts and reads runs. The caller has checked the person's rights."""

    def start(self, dag_id: str, conf: Mapping[str, Any], *, by: str, run_id: str) -> None:
        """Start a run.

        :raises Conflict: the DAG is paused, so the run would wait for ever.
        :raises Unavailable: Airflow does not know the DAG, or does not answer.
        """
        with _session() as session:
            dag = DagModel.get_current(dag_id, session=session)
            if dag is None or dag.is_stale:
                raise Unavailable(
                    f"Airflow does not know the DAG {dag_id}.",
                    hint="Check that the DAG processor is running, and that there is no import error.",
                )
            if dag.is_paused:
                raise Conflict(f"The DAG {dag_id} is paused.", hint="The operator unpauses it in Airflow's list.")
        try:
            trigger_dag(
                dag_id,
                run_id=run_id,
                conf=dict(conf),
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.REST_API,
                triggering_user_name=by,
            )
        except (DBAPIError, PoolTimeout) as error:
            raise _down() from error
        except (AirflowException, ValueError) as error:
            raise Unavailable(
                f"Airflow did not start {dag_id}: {type(error).__name__}.", hint="Look at the DAG in Airflow's web UI."
            ) from error

    def unfinished(self, dag_id: str) -> list[RunView]:
        """All waiting or running runs of a DAG, without their tasks."""
        with _session() as session:
            found = session.scalars(_runs(dag_id).where(DagRun.state.in_(UNFINISHED)))
            return [_view(run) for run in found]

    def of_clinic(self, dag_id: str, clinic_id: ClinicId, limit: int) -> list[RunView]:
        """The newest runs whose conf names that clinic, with their tasks."""
        named = DagRun.conf["clinic_id"].as_string() == str(clinic_id)
        with _session() as session:
            return _full_views(session, list(session.scalars(_runs(dag_id).where(named).limit(limit))))

    def get(self, dag_id: str, run_id: str) -> RunView | None:
        """One run with its tasks, or ``None``."""
        if dag_id not in DAG_IDS or not run_id:
            return None
        with _session() as session:
            found = _full_views(session, list(session.scalars(_runs(dag_id).where(DagRun.run_id == run_id))))
            return found[0] if found else None

    def next_run(self, dag_id: str) -> datetime | None:
        """The time of the DAG's next scheduled run; none while it is paused."""
        with _session() as session:
            dag = session.get(DagModel, dag_id)
            return None if dag is None or dag.is_paused else dag.next_dagrun_create_after

    def schedule(self, dag_id: str, settings: Settings) -> Schedule:
        """Whether the DAG can run, and how its newest run for all clinics ended."""
        with _session() as session:
            dag = session.get(DagModel, dag_id)
            slots = session.scalar(select(Pool.slots).where(Pool.pool == pool.NAME))
            ended = session.scalars(_runs(dag_id).where(DagRun.state.not_in(UNFINISHED)).limit(MOST_ENDED))
            newest = next((run for run in ended if _is_for_all(run, settings)), None)
            views = _full_views(session, [newest] if newest is not None else [])
        known = dag is not None and not dag.is_stale
        return Schedule(known, known and dag.is_paused, slots, views[0] if views else None)

    def answer(
        self, run_id: str, *, approve: bool, user: Any, now: datetime, require_shown: Callable[[], object],
        reason: str = "",
    ) -> None:  # fmt: skip
        """Approve or reject a restore's plan, as Airflow's own page does; waits for up to five seconds.

        :param require_shown: raises an error if the run's plan is not the one that the person was shown. It is called
            when nobody can clear the task any more, because a new plan may have been made during the wait.
        :raises Conflict: the run does not wait for an answer, or was already answered.
        :raises Denied: the person is not in ``CLINIC_BACKUPS_APPROVERS``.
        """
        question = (
            select(HITLDetail.created_at, TaskInstance.id)
            .join(TaskInstance, HITLDetail.ti_id == TaskInstance.id)
            .where(TaskInstance.dag_id == RESTORE, TaskInstance.run_id == run_id)
            .where(TaskInstance.state.in_(WAITING_STATES), HITLDetail.responded_at.is_(None))
        )
        with _session() as session:
            asked = session.execute(question).one_or_none()
        if asked is None:
            raise Conflict("This restore does not wait for an approval.", hint="Look at its state.")
        time.sleep(max(0.0, (asked.created_at + YOUNGEST_APPROVAL - now).total_seconds()))
        with _session() as session:
            # Whoever clears the task needs this lock.
            still = session.execute(question.with_for_update(of=TaskInstance)).one_or_none()
            if still != asked:
                raise Conflict("This restore does not wait for an approval.", hint="Look at its state.")
            require_shown()
            try:
                update_hitl_detail(
                    RESTORE,
                    run_id,
                    "approve",
                    UpdateHITLDetailPayload(
                        chosen_options=["Approve" if approve else "Reject"],
                        params_input={REASON: reason} if reason else {},
                    ),
                    user,
                    session,
                )
            except HTTPException as error:
                raise _of_airflow(error) from None


def _of_airflow(error: HTTPException) -> Exception:
    if error.status_code == 403:
        return Denied("You may not approve restores.", hint="CLINIC_BACKUPS_APPROVERS lists the approvers.")
    if error.status_code == 404:
        return NotVisible("The approval")
    return Conflict("Somebody has already answered.", hint="Look at the restore's state.")


@contextmanager
def _session() -> Iterator[Any]:
    """A session of Airflow's database, committed at the end."""
    try:
        with create_session() as session:
            yield session
    except (DBAPIError, PoolTimeout) as error:
        raise _down() from error


def _down() -> Unavailable:
    return Unavailable("Airflow's database does not answer.", hint="Try again in a minute.", retry_after_seconds=10)


def _runs(dag_id: str) -> Select[Any]:
    return select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id.desc())


def _is_for_all(run: DagRun, settings: Settings) -> bool:
    """A run of some clinics says nothing of the others: neither that all is well, nor that it is not."""
    is_part = settings.schedule != BY_HAND and is_partial(settings, run)
    return for_all_clinics(run.conf) and not is_part


def _view(run: DagRun, **known: Any) -> RunView:
    conf = dict(run.conf or {})
    return RunView(
        dag_id=run.dag_id,
        run_id=run.run_id,
        state=str(run.state),
        clinic_id=_clinic_of(conf),
        conf=conf,
        requested_by=run.triggering_user_name or "",
        queued_at=run.queued_at,
        started_at=run.start_date,
        ended_at=run.end_date,
        **known,
    )


def _full_views(session: Any, runs: Sequence[DagRun]) -> list[RunView]:
    """Runs of one DAG with their tasks and the tasks' results, in two queries."""
    if not runs:
        return []
    dag_id, run_ids = runs[0].dag_id, [run.run_id for run in runs]
    tasks: dict[str, list[TaskView]] = {run_id: [] for run_id in run_ids}
    for run_id, task_id, state, map_index in session.execute(
        select(TaskInstance.run_id, TaskInstance.task_id, TaskInstance.state, TaskInstance.map_index)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id.in_(run_ids))
        .order_by(TaskInstance.task_id, TaskInstance.map_index)
    ):
        tasks[run_id].append(TaskView(task_id, str(state) if state else None, map_index))
    said: dict[str, dict[tuple[str, str], Any]] = {run_id: {} for run_id in run_ids}
    for entry in session.scalars(
        select(XComModel)
        .where(XComModel.dag_id == dag_id, XComModel.run_id.in_(run_ids), XComModel.map_index < MOST_LOOKED_AT)
        .where(
            or_(
                and_(XComModel.key == "return_value", XComModel.task_id == "plan"),
                XComModel.key.in_((PROBLEM_KEY, REFUSED_KEY)),
            )
        )
        .order_by(XComModel.timestamp)
    ):
        said[entry.run_id].setdefault((entry.task_id, entry.key), XComModel.deserialize_value(entry))
    return [_full_view(run, tasks[run.run_id], said[run.run_id]) for run in runs]


def _full_view(run: DagRun, tasks: Sequence[TaskView], said: Mapping[tuple[str, str], Any]) -> RunView:
    failed, running = str(run.state) == "failed", str(run.state) == "running"
    problem: Mapping[str, Any] = (
        next((value for (_, key), value in said.items() if key == PROBLEM_KEY), {}) if failed else {}
    )
    made = (said.get(("plan", "return_value")) or {}).get("plan") or said.get(("plan", REFUSED_KEY))
    return _view(
        run,
        tasks=tuple(tasks),
        waiting_for_approval=running
        and any(task.task_id == "approve" and task.state in WAITING_STATES for task in tasks),
        plan=RestorePlan.from_json(made) if made else None,
        error=str(problem.get("error", "")),
        hint=str(problem.get("hint", "")),
    )


def _clinic_of(conf: Mapping[str, Any]) -> ClinicId | None:
    """The clinic of a run. A backup's id begins with its clinic's id."""
    named, backup_id = conf.get("clinic_id"), conf.get("backup_id")
    if named is None and isinstance(backup_id, str):
        return clinic_of(backup_id)
    try:
        return given_id(named)
    except ValueError:
        return None
