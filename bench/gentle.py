"""The application's own statements while a night's run of Airflow goes on beside them, on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.figures import Figure
from bench.people import USUAL, Work, compared, people
from bench.stack import EMPTY_DAG_ID, airflow
from bench.world import World
from include.demo.stack import DAG_ID

GROUP = "small statements beside a night of backups through Airflow"
CLINICS_PER_SCALE = 4
CLINIC = 2
EMPTY_TASKS = 64


def figures(world: World) -> list[Figure]:
    """The throughput and the times of statements: Airflow idle, with empty tasks, and with two nights of backups.

    Everything shares one machine, so Airflow's own work takes its part. The empty tasks show how much that is.
    """
    world.require_disk(0)
    clinics, patients = world.scale.clinics * CLINICS_PER_SCALE, world.scale.patients
    alone = 20 if world.scale.quick else 60
    with airflow(world, clinics=clinics, patients=patients, empty_tasks=EMPTY_TASKS) as stack, stack.api() as api:
        connection = stack.superuser().libpq_parameters()

        def beside(does: Callable[[], object]) -> Work:
            with people(connection, CLINIC) as work:
                does()
            return work

        usual = beside(lambda: time.sleep(alone))
        parts = [
            (USUAL, usual),
            ("beside empty tasks", beside(lambda: stack.run(api, EMPTY_DAG_ID))),
            ("beside the first night", beside(lambda: stack.run(api, DAG_ID))),
            ("beside the second night", beside(lambda: stack.run(api, DAG_ID))),
        ]
        usual.add(beside(lambda: time.sleep(alone)))
    for when, work in parts:
        world.say(f"{GROUP}: {when}, {work.each_second:,.1f} statements a second")
    return compared(GROUP, parts, {"clinics": clinics, "patients": patients}, with_throughput=True)
