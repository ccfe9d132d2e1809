"""The Backups page's queries on a catalog of many clinics and many nights, the last of them not vacuumed yet."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.figures import Figure, Spread, percentile
from bench.world import World
from clinic_backups.base.connections import Connection
from clinic_backups.catalog.backup_counts import BackupCounts
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.board import SORTS, Board
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from include.demo.postgres import HOST

GROUP = "the Backups page"
DATABASE = "board"
CALLERS = 4
OBJECTIVES = {"objective_hours": 26, "prove_within_days": 7}
PER_PAGE = 50
Draw = random.Random


@dataclass(frozen=True)
class Size:
    """The size of the catalog, and how often each query runs."""

    clinics: int
    nights: int
    rounds: int


QUICK = Size(clinics=1_000, nights=30, rounds=40)
FULL = Size(clinics=10_000, nights=105, rounds=200)


@dataclass(frozen=True)
class Query:
    """One query; ``run`` draws its parameters."""

    name: str
    run: Callable[[Draw], object]
    share: float = 1.0
    """Of the rounds, for a slow one."""


def figures(world: World) -> list[Figure]:
    """Seconds of each query by one caller, the 95th percentile of four at once, and the CPU time of one query."""
    size = QUICK if world.scale.quick else FULL
    size = replace(size, nights=world.scale.nights or size.nights)
    connection = _load(world, size)
    database = CatalogDatabase(connection, pool_size=CALLERS)
    with database.transaction("counting") as db:
        records = db.exec_driver_sql("SELECT count(*) FROM clinic_backups.backup").scalar_one()
    facts = {"clinics": size.clinics, "backup_records": records, "callers": CALLERS}
    found, cpu_seconds = [], _cpu_clock(database)
    for query in _queries(database, size, records):
        found.append(_measured(query, size.rounds, facts, cpu_seconds))
        world.say(f"{GROUP}: {query.name}, p95 {found[-1].percentiles['p95'] * 1000:.1f} ms")
    return found


def _queries(database: CatalogDatabase, size: Size, records: int) -> Iterator[Query]:
    board, history = Board(database), History(database)
    now = datetime.now(UTC)
    last_board_page, last_page = size.clinics * 98 // 100 // PER_PAGE, records * 98 // 100 // PER_PAGE

    def page(**options: Any) -> object:
        return board.page(**({"visible": None, "now": now} | OBJECTIVES | options))

    def clinic(draw: Draw) -> int:
        return draw.randint(1, size.clinics)

    yield Query("board, first page", lambda draw: page())
    yield Query("board, any page", lambda draw: page(page=draw.randint(1, last_board_page)))
    yield Query("board, any sort", lambda draw: page(sort=draw.choice(SORTS), descending=draw.random() < 0.5, page=2))
    yield Query("board, part of a name", lambda draw: page(search=f"río {draw.randint(1, 99)}"))
    yield Query("board, late ones", lambda draw: page(standing="late", page=draw.randint(1, 2)))
    yield Query("board, those whose newest failed", lambda draw: page(failed_only=True))
    yield Query("board, largest", lambda draw: page(sort="size", descending=True, page=draw.randint(1, 9)))
    yield Query("board of one administrator", lambda draw: page(visible=[clinic(draw)]))
    yield Query("board of 40 clinics", lambda draw: page(visible=draw.sample(range(1, size.clinics), 40)))
    yield Query(
        "board when nobody was backed up for three days",
        lambda draw: page(now=now + timedelta(days=3)),
    )
    yield Query("board's counts", lambda draw: board.counts(visible=None, now=now, **OBJECTIVES))
    yield Query("one clinic's line", lambda draw: board.clinic(clinic(draw), now=now, **OBJECTIVES))
    yield Query(
        "history of a clinic", lambda draw: history.page(visible=None, clinic_id=clinic(draw), page=draw.randint(1, 2))
    )
    yield Query("all backups, first page", lambda draw: history.page(visible=None))
    yield Query("all backups, any page", lambda draw: history.page(visible=None, page=draw.randint(1, last_page)))
    yield Query(
        "all backups, page in the middle",
        lambda draw: history.page(visible=None, page=max(1, last_page // 2 + draw.randint(-99, 99))),
    )
    yield Query("all backups, last page", lambda draw: history.page(visible=None, page=last_page))
    yield Query(
        "all backups, fallido", lambda draw: history.page(visible=None, states=["fallido"], page=clinic(draw) % 9 + 1)
    )
    yield Query("all backups, completo", lambda draw: history.page(visible=None, types=["completo"]))
    yield Query("all backups, en_proceso", lambda draw: history.page(visible=None, states=["en_proceso"]))
    yield Query(
        "all backups, one week",
        lambda draw: history.page(
            visible=None,
            since=now - timedelta(days=(days := draw.randint(8, size.nights))),
            until=now - timedelta(days=days - 7),
        ),
    )
    yield Query(
        "all backups, part of a name", lambda draw: history.page(visible=None, search=f"rio {draw.randint(1, 99)}")
    )
    yield Query("one backup", lambda draw: history.by_number(draw.randint(1, records), None))
    yield Query("moments of a clinic", lambda draw: history.moments(clinic(draw)))
    yield Query("metrics of all clinics", lambda draw: list(board.metrics(visible=None, now=now)), share=0.1)
    # As with two stores that lack nothing: the one that there is, asked for twice.
    stores, replicas = ["s3://clinics/prefix"] * 2, Replicas(database)
    yield Query("metrics of the stores", lambda draw: replicas.backlog(stores), share=0.1)


def _cpu_clock(database: CatalogDatabase) -> Callable[[], float]:
    """CPU seconds of the server's processes and of this thread: they hardly depend on what else the machine does."""
    with database.transaction("asking for the process") as db:
        backend = db.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    server = _stat(backend)[1]
    tick = os.sysconf("SC_CLK_TCK")

    def clock() -> float:
        ended = sum(map(int, _stat(server)[13:15])) / tick
        return time.thread_time() + ended + sum(map(_running_seconds, children(server)))

    def children(parent: str) -> list[str]:
        return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()

    return clock


def _stat(pid: object) -> list[str]:
    """The fields of proc_pid_stat(5) after the program's name: the state first, then the parent."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _running_seconds(pid: str) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0  # it has just ended, and is counted there


def _measured(query: Query, rounds: int, facts: dict[str, Any], cpu_seconds: Callable[[], float]) -> Figure:
    rounds = max(4, int(rounds * query.share))
    draw = Draw(7)
    for _ in range(3):
        query.run(draw)
    before = cpu_seconds()
    alone = _timed(query, draw, rounds)
    worked = (cpu_seconds() - before) / rounds
    with ThreadPoolExecutor(CALLERS) as callers:
        several = callers.map(lambda seed: _timed(query, Draw(seed), rounds // CALLERS), range(CALLERS))
        together = [seconds for times in several for seconds in times]
    percentiles = {
        "p50": percentile(alone, 50),
        "p95": percentile(alone, 95),
        "p95, all callers": percentile(together, 95),
        "CPU": worked,
    }
    return Figure(GROUP, query.name, rounds, Spread.of(alone), {}, None, facts=facts, percentiles=percentiles)


def _timed(query: Query, draw: Draw, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        query.run(draw)
        times.append(time.perf_counter() - began)
    return times


def _load(world: World, size: Size) -> Connection:
    """A catalog as it is in the morning: the newest night's records went through their states, and no vacuum came."""
    world.say(f"Making a catalog of {size.clinics:,} clinics and {size.nights} nights")
    server = world.postgres
    with closing(server.connect()) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection = Connection(
        "backup_catalog", "postgres", host=HOST, port=server.port, schema=DATABASE, login=server.user,
        password=server.password,
    )  # fmt: skip
    Catalog(connection).migrate()
    with closing(server.connect(DATABASE)) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(Path(__file__).with_name("board.sql").read_text(), {"clinics": size.clinics})
        # Counted once and not row by row, which takes a third of the time and gives what each night's run leaves.
        cursor.execute("SET session_replication_role = replica")
        for night in range(size.nights - 1, 0, -1):
            cursor.execute("SELECT pg_temp.night(%s)", (night,))
        cursor.execute("SELECT pg_temp.replicas()")
        cursor.execute("SELECT pg_temp.proofs(%s)", (size.nights,))
        cursor.execute("SET session_replication_role = origin")
        BackupCounts(CatalogDatabase(connection)).recount()
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT pg_temp.night(0)")
        cursor.execute("SELECT pg_temp.replicas()")
        cursor.execute("SELECT pg_temp.morning()")
    return connection
