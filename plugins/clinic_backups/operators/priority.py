"""Which backups begin first when the pool has fewer slots than there are tasks."""

from __future__ import annotations

from typing import Any

from airflow.task.priority_strategy import PriorityWeightStrategy

SCHEDULED, BY_HAND = 1, 1_000


class ByHandFirst(PriorityWeightStrategy):
    """A backup that somebody waits for gets the next free slot, before those of scheduled runs."""

    def get_weight(self, ti: Any) -> int:
        """The weight of a task; Airflow begins the highest first."""
        return SCHEDULED if str(ti.run_id).startswith("scheduled__") else BY_HAND


BY_HAND_FIRST = f"{ByHandFirst.__module__}.{ByHandFirst.__name__}"
"""What a mapped task is given. Airflow 3.3 stores an object there as the text of its address in memory."""
