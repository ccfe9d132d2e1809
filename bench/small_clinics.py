"""Many small clinics through Airflow's scheduler, against tasks that do nothing in the same Airflow."""

from __future__ import annotations

from datetime import datetime

from bench.figures import Figure, Run, Subject, measure
from bench.stack import EMPTY_DAG_ID, BenchStack, active, airflow
from bench.world import World
from include.demo.api import AirflowApi
from include.demo.stack import DAG_ID

GROUP = "small clinics through the scheduler"
EMPTY = "a mapped task that does nothing"


def figures(world: World) -> list[Figure]:
    """Seconds per clinic: from the start of the first mapped task to the end of the last, by the number of clinics."""
    world.require_disk(0)
    clinics, patients = world.scale.clinics, world.scale.patients
    with airflow(world, clinics=clinics, patients=patients) as stack, stack.api() as api:
        subjects = [
            Subject(
                EMPTY,
                lambda: seconds_per_task(api, stack, EMPTY_DAG_ID),
                note="seconds per task: wall time of all of them by their number",
            ),
            Subject(
                f"backup of a clinic with {patients} patients",
                lambda: seconds_per_task(api, stack, DAG_ID),
                (EMPTY,),
                note="seconds per clinic: wall time of all of them by their number",
            ),
        ]
        facts = {"clinics": active(clinics)}
        return measure(GROUP, subjects, 1, facts=facts, say=world.say)


def seconds_per_task(api: AirflowApi, stack: BenchStack, dag_id: str) -> Run:
    """One run of a DAG; the time of its mapped tasks by their number."""
    tasks = stack.run(api, dag_id)
    starts = [datetime.fromisoformat(task["start_date"]) for task in tasks]
    ends = [datetime.fromisoformat(task["end_date"]) for task in tasks]
    return Run((max(ends) - min(starts)).total_seconds() / len(tasks))
