"""How long ``check --rows`` compares the rows of all tenants, against one read of all tables by the server itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from psycopg2 import sql

from bench.figures import Figure, Run, Subject, measure
from bench.world import World
from clinic_backups.backup.row_findings import RowFindings
from clinic_backups.backup.row_report import RowReport
from clinic_backups.base import connections
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, qualified
from clinic_backups.base.findings import Report
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import Wanted
from clinic_backups.tenant import gate, people, structure
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.every_clinic import number_type
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot
from tests.foreign import PAIRS
from tests.schemas import Rows, Spec

GROUP = "check --rows"
SCHEMA = "uuid_tenants"
COPIED, COUNTED = "COPY of all tables to /dev/null", "the keys of all tables counted"
CHECKED = "the rows of all tenants compared"
WITHIN_SECONDS = 600


def figures(world: World) -> list[Figure]:
    """Seconds of the comparison; the ratios are to two ways of reading all tables once, in the same round."""
    quick = world.scale.quick
    clinics, tenants = (200, 1_000) if quick else (1_000, 10_000)
    found = _measured(world, f"{GROUP}: the demo, {clinics} clinics", _demo(world, clinics), SqlFolder(PROJECT_SQL))
    folder, owner = _foreign(world, tenants)
    return [*found, *_measured(world, f"{GROUP}: 102 tables with several ways, {tenants:,} tenants", owner, folder)]


def _demo(world: World, clinics: int) -> Connection:
    world.require_disk(clinics * world.scale.patients * 22)
    return world.small_clinics(clinics, world.scale.patients, name="rows").superuser


def _foreign(world: World, tenants: int) -> tuple[SqlFolder, Connection]:
    world.say(f"Loading {tenants:,} tenants of {SCHEMA}")
    spec, folder = Spec.read(SCHEMA, key="uuid"), world.folder / "rows_sql"
    world.require_disk(tenants * 300)
    with closing(world.postgres.connect()) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(SCHEMA)))
    with closing(world.postgres.connect(SCHEMA)) as db, db, db.cursor() as cursor:
        cursor.execute(spec.ddl())
        rows = Rows(spec, cursor)
        rows.make(1, 3)
        rows.multiply(tenants)
    owner = connections.parse("clinic_db", world.postgres.uri(SCHEMA))
    _write_extracts(folder, owner, spec)
    return SqlFolder(folder), owner


def _write_extracts(folder: Path, owner: Connection, spec: Spec) -> None:
    folder.mkdir()
    (folder / "polymorphic.txt").write_text(PAIRS[SCHEMA])
    with Snapshot(owner) as snapshot:
        init.apply(folder, init.plan(snapshot, folder, Wanted(f"public.{spec.tenant}")))


def _measured(world: World, group: str, owner: Connection, folder: SqlFolder) -> list[Figure]:
    with closing(connect(owner)) as db, db.cursor() as cursor:
        db.autocommit = True
        cursor.execute("VACUUM ANALYZE")
    with Snapshot(owner) as snapshot:
        tables = snapshot.tables(sorted(folder.queries()))
    copies = [sql.SQL("COPY {} TO '/dev/null' (FORMAT csv)").format(qualified(name)) for name in tables]
    counts = [
        sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(sql.SQL("count({})").format(sql.Identifier(column)) for column in keys),
            qualified(table.name),
        )
        for table in tables.values()
        if (keys := dict.fromkeys([*table.primary_key, *(c for key in table.foreign_keys for c in key.columns)]))
    ]
    subjects = [
        Subject(COPIED, _run(owner, copies)),
        Subject(COUNTED, _run(owner, counts)),
        Subject(CHECKED, lambda: _checked(owner, folder), (COPIED, COUNTED)),
    ]
    rows = sum(row.rows or 0 for row in _report(owner, folder).tables.values())
    return measure(group, subjects, world.scale.rounds, facts={"tables": len(tables), "rows": rows}, say=world.say)


def _run(owner: Connection, statements: list[sql.Composed]) -> Callable[[], Run]:
    def run() -> Run:
        with closing(connect(owner)) as db, db.cursor() as cursor:
            began = time.perf_counter()
            for statement in statements:
                cursor.execute(statement)
            return Run(time.perf_counter() - began)

    return run


def _checked(owner: Connection, folder: SqlFolder) -> Run:
    began = time.perf_counter()
    _report(owner, folder)
    return Run(time.perf_counter() - began)


def _report(owner: Connection, folder: SqlFolder) -> RowReport:
    """What the preflight does with the rows, without its other checks."""
    found = RowReport(WITHIN_SECONDS)
    with Snapshot(owner) as snapshot:
        clinics = people.read_clinics(snapshot, folder, "all_clinics.sql").clinics
        queries = folder.queries()
        coverage = Coverage(
            structure.read(snapshot, gate.names_of(folder), folder.clinic_table), folder, queries
        )  # fmt: skip
        findings = RowFindings(
            snapshot, coverage, folder, Report(), folder.text("all_clinics.sql"),
            type_=number_type([clinic.id for clinic in clinics], folder.clinic_key),
            within_seconds=WITHIN_SECONDS, rows=found,
        )  # fmt: skip
        findings.check(list(snapshot.tables(sorted(queries)).values()), queries)
    return found
