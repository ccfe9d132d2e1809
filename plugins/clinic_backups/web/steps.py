"""The tasks of a run as steps in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clinic_backups.web.run_views import RunView
from clinic_backups.web.runs import BACKUP, HOLD, RESTORE, VERIFY

ORDER: Mapping[str, tuple[str, ...]] = {
    BACKUP: ("active_clinics", "preflight", "back_up", "summary"),
    RESTORE: ("preflight", "plan", "approve", "apply", "report"),
    HOLD: ("hold_or_release",),
    VERIFY: ("verify",),
}
BEHIND = ("tell_assets",)
"""Tasks for other DAGs. A page shows them only if they failed."""
# Airflow's states in groups that matter to somebody who waits; the worst of several mapped tasks comes first.
TONES: Mapping[str, tuple[str, ...]] = {
    "failed": ("failed",),
    "blocked": ("upstream_failed",),
    "retry": ("up_for_retry",),
    "running": ("running", "restarting", "deferred"),
    "waiting": ("awaiting_input", "queued", "scheduled", "none", "up_for_reschedule"),
    "skipped": ("skipped", "removed"),
    "ok": ("success",),
}


@dataclass(frozen=True)
class Step:
    """One task, or all of a mapped one.

    :param state: a key of :data:`TONES`; or ``approval``: it waits for a person; or ``rejected``: that person rejected
        it; or ``lapsed``: nobody gave a valid answer in time.
    :param done: how many of ``tasks`` mapped ones have succeeded.
    """

    task_id: str
    state: str
    done: int
    tasks: int


def steps_of(run: RunView) -> list[Step]:
    """The steps of a run in order. Steps that Airflow has not created yet are waiting."""
    by_task: dict[str, list[str]] = {name: [] for name in ORDER.get(run.dag_id, ())}
    for task in run.tasks:
        if task.task_id in BEHIND and task.state != "failed":
            continue
        by_task.setdefault(task.task_id, []).append(_tone(task.state))
    return [_step(run, task_id, states) for task_id, states in by_task.items()]


def _step(run: RunView, task_id: str, states: list[str]) -> Step:
    counts = Counter(states)
    worst = next((tone for tone in TONES if counts[tone]), "waiting")
    if run.is_over and worst == "waiting":
        worst = "skipped"
    if task_id == "approve":
        worst = "approval" if run.waiting_for_approval else "lapsed" if worst == "failed" else worst
        worst = "rejected" if run.answer == "rejected" else worst
    return Step(task_id, worst, counts["ok"], len(states))


def _tone(state: str | None) -> str:
    return next((tone for tone, states in TONES.items() if (state or "none") in states), "waiting")
