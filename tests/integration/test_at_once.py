"""The query of all clinics at once gives the rows that each clinic's extract gives, whatever the extract says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import TemplateError

from clinic_backups.backup import row_findings
from clinic_backups.backup.row_findings import RowFindings
from clinic_backups.backup.row_report import RowReport
from clinic_backups.base import connections
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.findings import Report
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import Wanted
from clinic_backups.tenant import at_once, gate, structure
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.every_clinic import for_every_clinic
from clinic_backups.tenant.extract import SqlFolder, file_of
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
ROUNDS, FINDINGS = 150, 8
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


NAMED = "WITH n AS (SELECT c.* FROM public.customers AS c WHERE c.organization_id = {{ clinic_id }})\n"
ODD = {
    "a name twice": NAMED
    + "SELECT t.* FROM public.customers AS t JOIN n AS n ON n.id = t.id JOIN n AS m ON m.id = n.id",
    "a row": NAMED + "SELECT t.* FROM public.customers AS t JOIN n AS x ON x.id = t.id WHERE x IS NOT NULL",
    "all columns": NAMED + "SELECT x.* FROM n AS x",
    "a star": NAMED + "SELECT * FROM n",
    "a count": NAMED + "SELECT t.* FROM public.customers AS t JOIN n AS x ON x.id = t.id"
    " WHERE (SELECT count(*) FROM n AS y) > 1",
    "not one": NAMED + "SELECT t.* FROM public.customers AS t LEFT JOIN n AS x ON x.id = t.id WHERE x.id IS NULL",
    "in a sub-select": NAMED + "SELECT t.* FROM public.customers AS t WHERE t.id IN (SELECT id FROM n) OR t.id IS NULL",
    "in": NAMED + "SELECT t.* FROM public.users AS t WHERE (t.id) IN (SELECT billing_entity_id FROM n"
    " UNION SELECT id FROM n)",
    "a limit": NAMED + "SELECT t.* FROM public.customers AS t JOIN n AS x ON x.id = t.id ORDER BY t.id LIMIT 1",
    "a limit inside": NAMED.replace(")\n", " ORDER BY c.id LIMIT 1)\n")
    + "SELECT t.* FROM public.customers AS t JOIN n AS x ON x.id = t.id",
    "a sum": "WITH n AS (SELECT count(*) AS k FROM public.customers AS c WHERE c.organization_id = {{ clinic_id }})\n"
    "SELECT t.* FROM public.customers AS t JOIN n AS x ON x.k > 2 WHERE t.organization_id = {{ clinic_id }}",
    "a table's name": NAMED.replace("WITH n", "WITH customers")
    + "SELECT t.* FROM public.customers AS t JOIN customers AS x ON x.id = t.id JOIN public.plans AS p ON p.id = t.id"
    "\nUNION ALL\nSELECT customers.* FROM public.customers AS customers"
    " WHERE customers.organization_id = {{ clinic_id }}",
    "other columns": "SELECT c.* FROM (SELECT id, name AS a FROM public.customers"
    " WHERE organization_id = {{ clinic_id }}) AS c\nUNION ALL\n"
    "SELECT c.* FROM (SELECT id, external_id AS b FROM public.customers) AS c",
    "one of no clinic": "WITH n AS (SELECT id FROM public.customers)\nSELECT t.* FROM public.customers AS t JOIN n AS x"
    " ON x.id = t.id WHERE t.organization_id = {{ clinic_id }}",
    "an outer join": "SELECT t.* FROM public.plans AS p LEFT JOIN public.customers AS t"
    " ON t.organization_id = {{ clinic_id }}\n"
    "UNION ALL\nSELECT t.* FROM public.customers AS t WHERE t.organization_id = {{ clinic_id }}",
    "a set": "SELECT t.* FROM public.customers AS t WHERE t.organization_id = {{ clinic_id }}\nUNION\n"
    "SELECT t.* FROM public.customers AS t\nUNION ALL\nSELECT t.* FROM public.customers AS t",
    "a recursion over both": "SELECT t.* FROM (WITH RECURSIVE f AS (SELECT t.* FROM public.plans AS t"
    " WHERE t.organization_id = {{ clinic_id }} UNION ALL SELECT t.* FROM public.plans AS t"
    " JOIN f ON f.id = t.parent_plan_id WHERE t.amount < (SELECT max(amount) FROM public.plans) AND f.id <> t.id)"
    " SELECT * FROM f) AS t",
    "its columns named anew": NAMED + "SELECT t.* FROM public.customers AS t JOIN n AS x (key) ON x.key = t.id",
    "its columns named anew for USING": NAMED.replace("c.*", "c.id, c.organization_id")
    + "SELECT t.* FROM public.customers AS t JOIN n AS x (id, org) USING (id)",
    "all columns of a recursion": "SELECT t.* FROM (WITH RECURSIVE f AS (SELECT t.* FROM public.plans AS t"
    " WHERE t.organization_id = {{ clinic_id }} UNION ALL SELECT t.* FROM public.plans AS t"
    " JOIN f ON f.id = t.parent_plan_id AND f.id <> t.id WHERE strpos((f.*)::text, f.id::text) < 30)"
    " SELECT * FROM f) AS t",
    "a recursion of the clinic": "SELECT t.* FROM (WITH RECURSIVE f AS (SELECT t.* FROM public.plans AS t WHERE"
    " t.organization_id = {{ clinic_id }} UNION ALL SELECT t.* FROM public.plans AS t JOIN f ON f.parent_plan_id = t.id"
    " WHERE f.organization_id = {{ clinic_id }}) SELECT * FROM f) AS t",
}
"""Extracts that look like those whose meaning is known."""
LIFTED = {"a name twice", "not one", "in", "a limit", "a limit inside", "a sum", "a table's name", "one of no clinic",
          "other columns", "an outer join", "a recursion over both"}  # fmt: skip


@pytest.mark.parametrize("foreign", ["uuid_tenants"], indirect=True)
def test_extracts_that_look_alike(foreign: Foreign, snapshot: Snapshot) -> None:
    clinics, lifted = SqlFolder(foreign.folder).text("all_clinics.sql"), set[str]()
    for what, text in ODD.items():
        extract = for_every_clinic(text, name=what, type_="uuid")
        plain = rows(snapshot, rows_of(clinics, extract))
        for query in at_once.faster(snapshot, {what: extract}, clinics).values():
            assert rows(snapshot, query) == plain, what
            lifted.add(what)
    assert lifted == LIFTED


NAMES = """
CREATE SCHEMA "Odd S";
CREATE TABLE "Odd S"."Ten{ant}" (id int PRIMARY KEY, name text);
CREATE TABLE "Odd S"."se%lect" (id int PRIMARY KEY, t_id int REFERENCES "Odd S"."Ten{ant}", "union" int);
CREATE TABLE "Odd S"."With" (id int PRIMARY KEY, t_id int REFERENCES "Odd S"."Ten{ant}",
    "from" int REFERENCES "Odd S"."se%lect", "up""per" int REFERENCES "Odd S"."With") PARTITION BY HASH (id);
CREATE TABLE "Odd S".w0 PARTITION OF "Odd S"."With" FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE "Odd S".w1 PARTITION OF "Odd S"."With" FOR VALUES WITH (modulus 2, remainder 1);
CREATE TABLE "Odd S".leaf (id int PRIMARY KEY, w int REFERENCES "Odd S"."With", s int REFERENCES "Odd S"."se%lect");
CREATE TABLE "Odd S".kid (PRIMARY KEY (id), FOREIGN KEY (w) REFERENCES "Odd S"."With") INHERITS ("Odd S".leaf);
INSERT INTO "Odd S"."Ten{ant}" SELECT n, 't' FROM generate_series(1, 5) AS n;
INSERT INTO "Odd S"."se%lect" SELECT n, 1 + n % 5, n FROM generate_series(1, 50) AS n;
INSERT INTO "Odd S"."With" SELECT n, CASE n % 3 WHEN 0 THEN 1 + n % 5 END, CASE n % 3 WHEN 1 THEN n END,
    CASE n % 3 WHEN 2 THEN n - 1 END FROM generate_series(1, 50) AS n;
INSERT INTO "Odd S".leaf SELECT n, CASE n % 2 WHEN 0 THEN n END, CASE n % 4 WHEN 1 THEN n END
  FROM generate_series(1, 50) AS n;
INSERT INTO "Odd S".kid SELECT n + 100, n, NULL FROM generate_series(1, 50) AS n;
"""


@pytest.mark.parametrize("foreign", ["django_auth"], indirect=True)
def test_names_partitions_and_inheritance(foreign: Foreign, tmp_path: Path) -> None:
    foreign.execute(NAMES)
    try:
        with Snapshot(connections.parse("clinic_db", foreign.server.uri(foreign.database))) as snapshot:
            init.apply(tmp_path, init.plan(snapshot, tmp_path, Wanted("Odd S.Ten{ant}")))
            folder = SqlFolder(tmp_path)
            extracts, clinics = queries(folder), folder.text("all_clinics.sql")
            faster = at_once.faster(snapshot, extracts, clinics)
            assert faster.keys() == {"Odd S.With", "Odd S.leaf", "Odd S.kid"}
            for name, query in faster.items():
                found = rows(snapshot, query)
                assert found and found == rows(snapshot, rows_of(clinics, extracts[name])), name
    finally:
        foreign.execute('DROP SCHEMA "Odd S" CASCADE')


def wrong(text: str, rng: random.Random) -> str:
    """An extract of the same shape: with a way too few or twice, a condition less, or another one."""
    branches = text.split("UNION ALL\n")
    way, inner = rng.randrange(5), range(1, len(branches) - 1)  # the first and the last one have what is around them
    if way == 0 and inner:
        del branches[rng.choice(inner)]
    elif way == 1 and inner:
        branches.insert(1, branches[rng.choice(inner)])
    elif way == 2:
        branches[-1] = re.sub(r"\n *AND .*", "", branches[-1], count=1)
    elif way == 3:
        return text.replace("IS NULL", "IS NOT NULL", 1)
    else:
        return text.replace("= {{ clinic_id }}", "> {{ clinic_id }}", 1)  # rows of others, and of several
    return "UNION ALL\n".join(branches)


def test_wrong_extracts_have_the_same_findings_as_before(
    foreign: Foreign, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two tenants, of none, twice in one backup, of another tenant: whatever the extract one by one shows."""
    rng, found_any = random.Random(11), set[str]()
    names = [name for name, text in SqlFolder(foreign.folder).extracts().items() if "UNION ALL" in text]
    for _ in range(FINDINGS):
        folder, name = SqlFolder(foreign.folder), rng.choice(names)
        file = f"extract/{file_of(name)}"
        folder._texts[file] = wrong(folder.text(file), rng)
        if not at_once.faster(snapshot, {name: queries(folder)[name]}, folder.text("all_clinics.sql")):
            continue  # PostgreSQL refuses it
        both = [findings(snapshot, folder, name)]
        with monkeypatch.context() as patch:
            patch.setattr(row_findings.at_once, "faster", lambda *given: {})
            both.append(findings(snapshot, folder, name))
        assert both[0] == both[1], folder.text(file)
        found_any |= {each.partition(" ")[0] for each in both[0]}
    assert "error" in found_any


def findings(snapshot: Snapshot, folder: SqlFolder, name: str) -> list[str]:
    """All that is said of one table's rows, of the rows that it refers to, and the counts of both."""
    structure_, texts = structure.read(snapshot, gate.names_of(folder), folder.clinic_table), folder.queries()
    coverage = Coverage(structure_, folder, texts)
    wanted = sorted({name, *(link.parent for link in coverage.links() if link.table == name)})
    report, counted = Report(), RowReport(2)
    of_rows = RowFindings(
        snapshot, coverage, folder, report, folder.text("all_clinics.sql"),
        type_="uuid" if folder.clinic_key.type == "uuid" else "int8", within_seconds=2, rows=counted,
    )  # fmt: skip
    of_rows.check(list(snapshot.tables(wanted).values()), texts)
    said = [f"{each.level} {each.message}" for each in report.findings]
    return said + [repr(counted.tables[table]) for table in wanted]
