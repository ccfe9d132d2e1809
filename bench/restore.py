"""Restores of one large clinic: all of it into a new schema against the server's bare COPY, and of a small damage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

from psycopg2 import sql

from bench import children
from bench.figures import BenchError, Figure, Run, Subject, measure
from bench.large_clinic import COPY, ByHand, back_up
from bench.world import LargeClinic, World
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.find_backup import source_of
from clinic_backups.tenant.tenant_db import Snapshot

GROUP = "restore of one large clinic"
COPY_FROM = "COPY FROM files, by the server"
SCHEMA = "clinic_look"
ALL_GROUP = "restore of a clinic of which no row is left"
ALL_ROWS = 150_000
COPY_INDEXED = "COPY FROM files into tables with indexes, by the server"
PLAN_ALL = "plan of all rows"
ROUNDS = 3
DAMAGED_ROWS = 1_000
SPREAD = """WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) % greatest(1, count(*) OVER () / {rows}) AS place
                      FROM {table}) AS numbered WHERE place = 0 LIMIT {rows})"""
DAMAGE = (
    "UPDATE public.citas_consulta SET motivo = 'otro' " + SPREAD.format(rows=700, table="public.citas_consulta"),
    "DELETE FROM public.sistema_pagos_pago "
    + SPREAD.format(
        rows=300,
        table="public.sistema_pagos_pago WHERE id NOT IN (SELECT pago_id FROM public.sistema_pagos_pagoenlinea)",
    ),
)
"""Spread evenly over two tables: the worst for a restore that compares blocks."""


def figures(world: World) -> list[Figure]:
    """Measure all of them on one clinic and one backup of it."""
    large = world.large_clinic(world.scale.rows)
    world.require_disk(large.rows)  # its CSV, and a second copy of it
    facts: dict[str, Any] = {}
    restored, hand = _backed_up(world, large, "restored", facts), ByHand(world, large)
    subjects = [
        Subject(COPY, hand.copy_to_null, note="all of the clinic's rows read; memory: psql's, not the server's"),
        Subject(COPY_FROM, Files(world, large).load, note="the same tables, types, primary keys and ANALYZE"),
        Subject(
            "restore into a new schema",
            restored.into,
            (COPY_FROM,),
            note="reads the archive twice if it is large, and the rows back to compare them with it",
        ),
        Subject(f"plan of {DAMAGED_ROWS:,} damaged rows", restored.plan, (COPY,)),
        Subject(
            f"restore of {DAMAGED_ROWS:,} damaged rows",
            lambda: restored.apply(facts),
            (COPY,),
            note="makes the plan again, writes what differs, reads the clinic again to prove it",
        ),
    ]
    rounds = 1 if world.scale.quick else min(ROUNDS, world.scale.rounds)
    found = measure(GROUP, subjects, rounds, facts=facts, say=world.say)
    return [replace(figure, facts=dict(facts)) for figure in found] + _all_rows(world)


def _backed_up(world: World, large: LargeClinic, folder: str, facts: dict[str, Any]) -> Restored:
    """Back the clinic up into a store of its own, for its restores."""
    url = (world.folder / folder).as_uri()
    back_up(world, large.connections, url, facts)
    facts.pop("stored_bytes")
    return Restored(world, large, url)


def _all_rows(world: World) -> list[Figure]:
    """Every row of the clinic is gone, and comes back."""
    large = world.large_clinic(min(world.scale.rows, ALL_ROWS))
    facts: dict[str, Any] = {}
    restored, files = _backed_up(world, large, "all", facts), Files(world, large)
    subjects = [
        Subject(COPY_INDEXED, files.load_indexed, note="into empty tables with the same indexes and constraints"),
        Subject(PLAN_ALL, restored.plan_all, (COPY_INDEXED,), note="rehearses the writing, and takes it back"),
        Subject(
            "restore of all rows", lambda: restored.apply(facts), (COPY_INDEXED,),
            note="compares, writes, and reads all rows again to prove it",
        ),
    ]  # fmt: skip
    found = measure(ALL_GROUP, subjects, min(ROUNDS, world.scale.rounds), facts=facts, say=world.say)
    return [replace(figure, facts=dict(facts)) for figure in found]


class Files:
    """The clinic's rows as files of the server, and their load in one transaction."""

    def __init__(self, world: World, large: LargeClinic) -> None:
        self._world, self._large = world, large
        self._folder = world.folder / f"csv_{large.rows}"
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o777)  # the server may be another user
        with Snapshot(large.superuser) as snapshot:
            self._tables = snapshot.tables(sorted(large.queries()))
        _execute(
            world,
            large,
            [
                sql.SQL("COPY ({}) TO {} (FORMAT csv)").format(sql.SQL(query), self._file(name))
                for name, query in large.queries().items()
            ],
        )

    def load(self) -> Run:
        """Make the tables, fill them, add primary keys; gone again afterwards."""
        statements: list[sql.Composable] = [sql.SQL("CREATE SCHEMA copy_from")]
        for name, table in self._tables.items():
            target = sql.Identifier("copy_from", name.partition(".")[2])
            columns = [
                sql.SQL("{} {}{}").format(
                    sql.Identifier(column.name), sql.SQL(column.type), sql.SQL(" NOT NULL" if column.not_null else "")
                )
                for column in table.stored_columns
            ]
            key = sql.SQL(", ").join(map(sql.Identifier, table.primary_key))
            statements += [
                sql.SQL("CREATE TABLE {} ({})").format(target, sql.SQL(", ").join(columns)),
                sql.SQL("COPY {} FROM {} (FORMAT csv)").format(target, self._file(name)),
                sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(target, key),
                sql.SQL("ANALYZE {}").format(target),
            ]
        began = time.perf_counter()
        _execute(self._world, self._large, statements)
        seconds = time.perf_counter() - began
        _execute(self._world, self._large, [sql.SQL("DROP SCHEMA copy_from CASCADE")])
        return Run(seconds)

    def load_indexed(self) -> Run:
        """Fill tables that have their indexes already; gone again afterwards."""
        targets = {name: sql.Identifier("copy_indexed", name.partition(".")[2]) for name in self._tables}
        made = [
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(target, sql.Identifier(*name.split(".", 1)))
            for name, target in targets.items()
        ]
        _execute(self._world, self._large, [sql.SQL("CREATE SCHEMA copy_indexed"), *made])
        columns = {
            name: sql.SQL(", ").join(sql.Identifier(column.name) for column in table.stored_columns)
            for name, table in self._tables.items()
        }
        copies = [
            sql.SQL("COPY {} ({}) FROM {} (FORMAT csv)").format(target, columns[name], self._file(name))
            for name, target in targets.items()
        ]
        began = time.perf_counter()
        _execute(self._world, self._large, copies)
        seconds = time.perf_counter() - began
        _execute(self._world, self._large, [sql.SQL("DROP SCHEMA copy_indexed CASCADE")])
        return Run(seconds)

    def _file(self, name: str) -> sql.Composable:
        return sql.Literal(str(self._folder / f"{name}.csv"))


class Restored:
    """Restores of the clinic's newest backup, each in a process of its own."""

    def __init__(self, world: World, large: LargeClinic, store_url: str) -> None:
        self._world, self._large = world, large
        (record,) = Catalog(large.catalog).find(clinic_id=large.clinic.id, state="completed", limit=1)
        source = source_of(record)
        self.archives = 1 + len(source.chain)
        self._job = {
            "store_url": store_url,
            "restore_db": asdict(large.superuser),
            "identity": str(world.identity),
            "clinic_id": source.clinic_id,
            "backup_id": source.backup_id,
            "archive": asdict(source.archive),
            "chain": [asdict(archive) for archive in source.chain],
        }
        self._rows = record.rows_total
        self._digest = ""

    def into(self) -> Run:
        """All of it into a new schema, which is dropped afterwards."""
        run, _ = self._measure(action="into", schema=SCHEMA)
        self._execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        return run

    def plan(self) -> Run:
        """Damage the clinic, and plan what brings it back."""
        self._execute(*DAMAGE)
        run, answer = self._measure(action="plan")
        self._digest = answer["digest"]
        if answer["writes"] != DAMAGED_ROWS:
            raise BenchError(f"The plan would write {answer['writes']} rows, damaged are {DAMAGED_ROWS}.")
        return run

    def plan_all(self) -> Run:
        """Take all rows of the clinic away, and plan what brings them back."""
        tables = sql.SQL(", ").join(sql.Identifier(*name.split(".", 1)) for name in self._large.queries())
        _execute(self._world, self._large, [sql.SQL("TRUNCATE {} CASCADE").format(tables)])
        return self.plan_what_is_gone()

    def plan_what_is_gone(self) -> Run:
        """Plan the restore of a clinic of which nothing is left."""
        run, answer = self._measure(action="plan")
        self._digest = answer["digest"]
        if answer["writes"] != self._rows:
            raise BenchError(f"The plan would write {answer['writes']} rows, gone are {self._rows}.")
        return run

    def apply(self, facts: dict[str, Any]) -> Run:
        """Do what was planned. Adds the rows that were written to ``facts``."""
        run, answer = self._measure(action="apply", approved=self._digest)
        facts["rows_written"] = answer["writes"]
        return run

    def _measure(self, **job: Any) -> tuple[Run, dict[str, Any]]:
        return children.python("bench._restore", self._job | job)

    def _execute(self, *statements: str) -> None:
        _execute(self._world, self._large, [sql.SQL(statement) for statement in statements])


def _execute(world: World, large: LargeClinic, statements: Sequence[sql.Composable]) -> None:
    with closing(world.postgres.connect(large.superuser.schema)) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
