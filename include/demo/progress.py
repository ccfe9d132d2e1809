"""Shows a run while it goes on: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from include.demo.api import AirflowApi
from include.demo.layout import DemoError

POLL_SECONDS = 1.0
STALL_LIMIT_SECONDS = 600
RUN_LIMIT_SECONDS = 4 * 3600
STYLES = {"success": "green", "failed": "red", "upstream_failed": "red", "running": "cyan", "up_for_retry": "yellow"}
ORDER = ("running", "failed", "up_for_retry", "restarting", "queued", "scheduled", "waiting")


@dataclass(frozen=True)
class Task:
    """One task instance as it is shown."""

    name: str
    state: str


def follow(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    *,
    source_task: str,
    console: Console,
    say: Callable[[str], None],
    require_alive: Callable[[], None],
) -> str:
    """Show the run until it ends; returns its final state.

    :param source_task: the task whose list the others are mapped over; its items' ``name`` names them.
    :param say: prints a line with the time, where there is no terminal.
    :param require_alive: raises when a server has ended.
    :raises DemoError: nothing has changed for ten minutes, or the run takes longer than four hours.
    """
    started = changed = time.monotonic()
    seen: dict[str, str] = {}
    names: list[str] = []
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            require_alive()
            state = api.run_state(dag_id, run_id)
            names = names or _names(api.returned(dag_id, run_id, source_task))
            tasks = [_task(instance, names) for instance in api.task_instances(dag_id, run_id)]
            now = {task.name: task.state for task in tasks}
            if now != seen:
                changed = time.monotonic()
            if console.is_terminal:
                live.update(_table(tasks, time.monotonic() - started, rows=max(5, console.height - 8)))
            else:
                for name, task_state in now.items():
                    if seen.get(name) != task_state and task_state not in ("waiting", "scheduled", "queued"):
                        say(f"{name}: {task_state}")
            seen = now
            if state in ("success", "failed"):
                return state
            if time.monotonic() - changed > STALL_LIMIT_SECONDS or time.monotonic() - started > RUN_LIMIT_SECONDS:
                raise DemoError(f"Run {run_id} does not get on; its tasks: {dict(Counter(now.values()))}.")
            time.sleep(POLL_SECONDS)


def _names(items: Any) -> list[str]:
    if not isinstance(items, list):
        return []
    return [str(item.get("name") or item.get("clinic_name")) if isinstance(item, dict) else str(item) for item in items]


def _task(instance: dict[str, Any], names: list[str]) -> Task:
    index, task_id = instance["map_index"], instance["task_id"]
    # Not rendered_map_index: Airflow renders it when the task has ended, and until then it is the bare number.
    clinic = f": {names[index] if index < len(names) else index}" if index >= 0 else ""
    return Task(f"{task_id}{clinic}", instance["state"] or "waiting")


def _table(tasks: list[Task], seconds: float, rows: int) -> Table:
    """The tasks that matter now, as many as fit."""
    counts = Counter(task.state for task in tasks)
    table = Table(title=f"Backing up, {seconds:.0f} s", caption=", ".join(f"{n} {s}" for s, n in counts.items()))
    table.add_column("task")
    table.add_column("state")
    rank = {state: place for place, state in enumerate(ORDER)}
    if len(tasks) > rows:
        tasks = sorted(tasks, key=lambda task: rank.get(task.state, len(ORDER)))[:rows]
    for task in tasks:
        table.add_row(task.name, f"[{STYLES.get(task.state, 'dim')}]{task.state}[/]")
    return table
