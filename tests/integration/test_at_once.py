"""The query of all clinics at once gives the rows that each clinic's extract gives, whatever the extract says."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from jinja2 import TemplateError

from clinic_backups.base import connections
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import Wanted
from clinic_backups.tenant import at_once
from clinic_backups.tenant.every_clinic import for_every_clinic
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.row_sql import rows_of
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.postgres import EmbeddedPostgres
from tests.foreign import SCHEMAS, Foreign, foreign_database

WRONG = {
    "uuid_tenants": (
        "UPDATE notes SET organization_id = NULL WHERE ctid IN (SELECT ctid FROM notes LIMIT 9)",
        "UPDATE notes SET reply_to_id = (SELECT max(id::text)::uuid FROM notes) WHERE organization_id IS NULL",
        "UPDATE fees SET invoice_id = (SELECT min(id::text)::uuid FROM invoices) WHERE charge_id IS NULL",
    ),
    "django_auth": ("UPDATE crm_note SET customer_id = (SELECT max(id) FROM crm_customer) WHERE id % 2 = 0",),
    "rails_loose": (
        "UPDATE comments SET member_id = 1, commentable_id = 2 WHERE id % 3 = 0",
        "UPDATE attachments SET attachable_type = 'Comment' WHERE id % 2 = 0",
    ),
}
"""Rows of two tenants, and of none."""
ROUNDS = 150
LINES = (
    " WHERE true", "UNION", "UNION ALL", "EXCEPT", "INTERSECT ALL", " LIMIT 2", " ORDER BY 1", " OFFSET 1",
    "   AND false",
    "   AND NOT EXISTS (SELECT)", "SELECT 1", "DISTINCT", "SELECT DISTINCT", "GROUP BY 1",
    "   OR {{ clinic_id }} IS NULL",
    "-- {{ clinic_id }}", "FOR SHARE", "   LEFT",
)  # fmt: skip


@pytest.fixture(scope="module", params=SCHEMAS)
def foreign(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    with foreign_database(request.param, postgres, tmp_path_factory.mktemp(request.param)) as found:
        with Snapshot(connections.parse("clinic_db", postgres.uri(found.database))) as snapshot:
            init.apply(found.folder, init.plan(snapshot, found.folder, Wanted(found.tenant_table)))
        found.execute("SET session_replication_role = replica", *WRONG[request.param])
        yield found


@pytest.fixture
def snapshot(foreign: Foreign) -> Iterator[Snapshot]:
    with Snapshot(connections.parse("clinic_db", foreign.server.uri(foreign.database))) as opened:
        yield opened


def queries(folder: SqlFolder) -> dict[str, str]:
    return {
        name: for_every_clinic(text, name=name, type_="uuid" if folder.clinic_key.type == "uuid" else "int8")
        for name, text in folder.queries().items()
    }


def rows(snapshot: Snapshot, query: str) -> list[str] | None:
    """All rows, in order. ``None`` if it does not end: a changed recursion may run for ever."""
    found = snapshot.rows_within(0.5, f"SELECT q::text FROM (\n{query}\n) AS q ORDER BY 1", "comparing")
    return None if found is None else [row for (row,) in found]


def test_every_extract_that_init_writes(foreign: Foreign, snapshot: Snapshot) -> None:
    folder = SqlFolder(foreign.folder)
    extracts, clinics = queries(folder), folder.text("all_clinics.sql")
    faster = at_once.faster(snapshot, extracts, clinics)
    assert faster.keys() == {name for name, text in extracts.items() if "UNION ALL" in text or "WITH" in text}
    for name, query in faster.items():
        assert rows(snapshot, query) == rows(snapshot, rows_of(clinics, extracts[name])), name


def changed(text: str, rng: random.Random) -> str:
    """A text with a few of its lines or words lost, doubled, exchanged or replaced."""
    for _ in range(rng.randint(1, 3)):
        is_line = rng.random() < 0.7
        parts = text.split("\n") if is_line else text.split(" ")
        one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        way = rng.randrange(5)
        if way == 0:
            del parts[one]
        elif way == 1:
            parts.insert(other, parts[one])
        elif way == 2:
            parts[one], parts[other] = parts[other], parts[one]
        elif way == 3:
            parts[one] = parts[other]
        else:
            parts.insert(one, rng.choice(LINES))
        text = ("\n" if is_line else " ").join(parts)
    return text


def test_extracts_that_were_changed_at_random(foreign: Foreign, snapshot: Snapshot) -> None:
    folder, rng = SqlFolder(foreign.folder), random.Random(7)
    clinics, compared = folder.text("all_clinics.sql"), 0
    texts = [text for text in folder.queries().values() if "UNION ALL" in text or "WITH" in text]
    for _ in range(ROUNDS):
        text = changed(rng.choice(texts), rng)
        try:
            extract = for_every_clinic(text, name="x", type_="uuid" if foreign.spec.key == "uuid" else "int8")
            found = at_once.faster(snapshot, {"x": extract}, clinics)
            if not found:
                continue
            both = rows(snapshot, found["x"]), rows(snapshot, rows_of(clinics, extract))
        except (ClinicBackupsError, TemplateError):
            continue
        if None not in both:
            assert both[0] == both[1], text
            compared += 1
    assert compared > ROUNDS // 20
