"""``init`` on schemas that it has never seen: what it writes gives each tenant exactly its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.base import connections
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import InitPlan, Wanted
from clinic_backups.tenant.extract import SqlFolder, render
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.postgres import EmbeddedPostgres
from tests.foreign import SCHEMAS, Foreign, foreign_database
from tests.postgres_fixtures import DemoDatabase


def plan(foreign: Foreign) -> InitPlan:
    with Snapshot(connections.parse("clinic_db", foreign.server.uri(foreign.database))) as snapshot:
        return init.plan(snapshot, foreign.folder, Wanted(foreign.tenant_table))


@pytest.fixture(scope="module", params=SCHEMAS)
def foreign(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    with foreign_database(request.param, postgres, tmp_path_factory.mktemp(request.param)) as found:
        init.apply(found.folder, plan(found))
        yield found


def test_each_table_has_the_class_that_it_was_made_with(foreign: Foreign) -> None:
    kinds = {"": "tenant", "+": "parent", "-": "unknown", "*": "parent or shared"}
    found = {choice.table: choice.table_class for choice in plan(foreign).choices}
    wrong = {
        table.name: (kinds[table.kind], found[f"public.{table.name}"])
        for table in foreign.spec.tables.values()
        if found[f"public.{table.name}"] not in kinds[table.kind]
        and not (table.kind == "-" and found[f"public.{table.name}"] == "shared")
    }
    assert wrong == {}


def test_each_extract_gives_exactly_the_rows_of_its_tenant(foreign: Foreign) -> None:
    wrong = {}
    with closing(foreign.connect()) as connection, connection.cursor() as cursor:
        for table in foreign.spec.tables.values():
            path = foreign.folder / "extract" / f"{table.name}.sql"
            if table.kind == "" and path.exists():
                for tenant in foreign.tenants:
                    key = f"'{tenant}'::uuid" if foreign.spec.key == "uuid" else str(tenant)
                    cursor.execute(path.read_text().replace("{{ clinic_id }}", key))
                    assert cursor.description is not None
                    at = [column.name for column in cursor.description].index("id")
                    got = sorted(str(row[at]) for row in cursor.fetchall())
                    if got != sorted(map(str, foreign.rows.of[table.name][tenant])):
                        wrong[table.name, tenant] = (len(got), len(foreign.rows.of[table.name][tenant]))
    assert wrong == {}


def test_for_the_demo_it_writes_what_people_wrote(demo_template: DemoDatabase, tmp_path: Path) -> None:
    uri = demo_template.postgres.uri(demo_template.name)
    with Snapshot(connections.parse("clinic_db", uri)) as snapshot:
        found = init.plan(snapshot, tmp_path / "sql", Wanted("public.comun_clinica"))
    init.apply(tmp_path / "sql", found)
    written, by_hand = SqlFolder(tmp_path / "sql").extracts(), SqlFolder(PROJECT_SQL).extracts()
    with Snapshot(connections.parse("clinic_db", uri)) as snapshot:
        for table, text in by_hand.items():
            for clinic in (1, 2, 3):
                rows = [
                    sorted(row for (row,) in snapshot.rows(f"SELECT r::text FROM ({query}) AS r", None, "comparing"))
                    for query in (render(text, clinic, name=table), render(written[table], clinic, name=table))
                ]
                assert rows[0] == rows[1], table
    others = written.keys() - by_hand.keys()
    assert others == {"public.citas_recordatorio", "public.django_admin_log"}  # which people left out, with reasons
