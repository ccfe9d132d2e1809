"""What people see of a run: its state, its tasks, and what these have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select

from clinic_backups.base.backup_id import clinic_of
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.operators.airflow_connections import PROBLEM_KEY
from clinic_backups.operators.airflow_internals import DagRun, TaskInstance, XComModel
from clinic_backups.operators.restore_tasks import REFUSED_KEY
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import EXPORT
from clinic_backups.tenant.given_id import given_id

UNFINISHED = ("queued", "running")
LAST_TASKS = ("summary", "report", "all_well")
"""Tasks that fail because another task failed."""
RAN = ("running", "success", "failed", "up_for_retry", "restarting")
WAITING_STATES = ("awaiting_input", "deferred")
MOST_LOOKED_AT = 50
"""How many mapped tasks are searched for their errors."""


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
    def is_export(self) -> bool:
        """Whether a run of ``clinic_restore`` restores nothing, and writes a file for people."""
        return self.conf.get("mode") == EXPORT

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


def view(run: DagRun, **known: Any) -> RunView:
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


def full_views(session: Any, runs: Sequence[DagRun]) -> list[RunView]:
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
    return view(
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
