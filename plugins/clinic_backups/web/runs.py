"""Runs of our DAGs in Airflow's own database. Only this module opens it, and only in the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowException
from fastapi import HTTPException
from sqlalchemy import Select, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from clinic_backups.backup.choose_clinics import for_all_clinics
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.setting_types import BY_HAND
from clinic_backups.base.settings import Settings
from clinic_backups.operators import pool
from clinic_backups.operators.airflow_internals import (
    DagModel,
    DagRun,
    DagRunTriggeredByType,
    DagRunType,
    HITLDetail,
    Pool,
    TaskInstance,
    UpdateHITLDetailPayload,
    create_session,
    trigger_dag,
    update_hitl_detail,
)
from clinic_backups.operators.due_schedules import is_partial
from clinic_backups.restore.approving import REASON
from clinic_backups.web.metrics import EndedRun
from clinic_backups.web.problems import Conflict, Denied, NotVisible, Unavailable
from clinic_backups.web.run_views import UNFINISHED, WAITING_STATES, RunView, full_views, view

BACKUP, RESTORE, HOLD, VERIFY = "clinic_backup", "clinic_restore", "clinic_backup_hold", "clinic_backup_verify"
DAG_IDS = (BACKUP, RESTORE, HOLD, VERIFY)
WATCHED = ("clinic_backup_watch", "clinic_backup_retention", "clinic_restore_drill")
"""The DAGs whose silence nobody else would notice."""
MOST_ENDED = 300
"""How many ended runs are searched for one for all clinics: runs of single clinics come between these."""
YOUNGEST_APPROVAL = timedelta(seconds=5)
"""In Airflow 3.3.2 an answer in the first second comes before the scheduler has recorded that the task waits."""


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
            return [view(run) for run in found]

    def of_clinic(self, dag_id: str, clinic_id: ClinicId, limit: int) -> list[RunView]:
        """The newest runs whose conf names that clinic, with their tasks."""
        named = DagRun.conf["clinic_id"].as_string() == str(clinic_id)
        with _session() as session:
            return full_views(session, list(session.scalars(_runs(dag_id).where(named).limit(limit))))

    def get(self, dag_id: str, run_id: str) -> RunView | None:
        """One run with its tasks, or ``None``."""
        if dag_id not in DAG_IDS or not run_id:
            return None
        with _session() as session:
            found = full_views(session, list(session.scalars(_runs(dag_id).where(DagRun.run_id == run_id))))
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
            views = full_views(session, [newest] if newest is not None else [])
        known = dag is not None and not dag.is_stale
        return Schedule(known, known and dag.is_paused, slots, views[0] if views else None)

    def newest_ended(self, dag_ids: Sequence[str]) -> list[EndedRun]:
        """The newest ended run of each DAG that has one."""
        ended = [_runs(dag_id).where(DagRun.state.not_in(UNFINISHED), DagRun.end_date.is_not(None)).limit(1)
                 for dag_id in dag_ids]  # fmt: skip
        with _session() as session:
            found = [run for query in ended for run in session.scalars(query)]
            return [EndedRun(run.dag_id, run.end_date, run.state == "failed", _seconds(run)) for run in found]

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


def _seconds(run: Any) -> float:
    """How long an ended run took. One that failed before a task could start has no start."""
    began: datetime = run.start_date or run.end_date
    return float((run.end_date - began).total_seconds())


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
