"""Peak memory of one backup, and how it grows with the clinic: the backup's process alone, and a task of Airflow."""

from __future__ import annotations

from datetime import datetime

from bench.children import peak_rss_bytes
from bench.figures import Figure, Run, Subject, measure
from bench.large_clinic import back_up
from bench.stack import BenchStack, airflow
from bench.world import World, patients_of
from clinic_backups.base import connections
from include.demo.stack import DAG_ID

GROUP = "memory"


def figures(world: World) -> list[Figure]:
    """A clinic of a tenth of the rows, and one of all of them; the peaks are to be compared."""
    found: list[Figure] = []
    for rows in (world.scale.rows // 10, world.scale.rows):
        world.require_disk(rows)
        with airflow(world, clinics=1, patients=patients_of(rows)) as stack:
            subjects = [
                Subject(f"{rows:,} rows, a process of its own", lambda stack=stack: _process(world, stack)),  # type: ignore[misc]
                Subject(
                    f"{rows:,} rows, a task of Airflow",
                    lambda stack=stack: _task(stack),  # type: ignore[misc]
                    note="the largest of the processes that the run's tasks had",
                ),
            ]
            found += measure(GROUP, subjects, 1, say=world.say)
    return found


def _process(world: World, stack: BenchStack) -> Run:
    endpoints = stack.state.endpoints
    assert endpoints is not None
    uris = {"clinic_db": endpoints.clinic_uri, "backup_catalog": endpoints.catalog_uri}
    found = {name: connections.parse(name, uri) for name, uri in uris.items()}
    return back_up(world, found, world.store.as_uri())


def _task(stack: BenchStack) -> Run:
    (scheduler,) = (process for process in stack.state.processes if process.name == "scheduler")
    before, peaks = set(scheduler.members()), [0]

    def watch() -> None:
        peaks.extend(peak_rss_bytes(pid) for pid in scheduler.members() if pid not in before)
        peaks[:] = [max(peaks)]

    with stack.api() as api:
        (task,) = stack.run(api, DAG_ID, watch)
    took = datetime.fromisoformat(task["end_date"]) - datetime.fromisoformat(task["start_date"])
    return Run(took.total_seconds(), peaks[0])
