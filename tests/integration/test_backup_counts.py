"""The catalog's own counts of its backups and replicas stay right, whatever is done to the records and at the same time."""

# ruff: noqa: E501 - SQL reads best in long lines

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from clinic_backups.base import connections
from clinic_backups.catalog.backup_counts import BackupCounts
from clinic_backups.catalog.backup_list import History
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from tests.postgres_fixtures import DemoDatabase

MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
# What a record has to hold besides does not matter here.
ANYTHING_GOES = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'clinic_backups.backup'::regclass AND contype = 'c' LOOP
            EXECUTE format('ALTER TABLE clinic_backups.backup DROP CONSTRAINT %%I', name);
        END LOOP; END $$;
"""
INSERT = """
    INSERT INTO clinic_backups.backup (backup_id, clinic_id, clinic_name, kind, trigger, state, started_at, archive_key)
    SELECT n || '-x', n %% 5, 'x', (ARRAY['full', 'incremental'])[1 + n %% 2], (ARRAY['scheduled', 'manual'])[1 + n %% 7 / 6],
           (ARRAY['running', 'completed', 'failed', 'lost', 'deleting', 'deleted'])[1 + n %% 6],
           %(from)s + n * interval '1 hour', 'backups/x'
      FROM generate_series(%(first)s, %(last)s) AS n
"""
TRUTH = """
    SELECT (started_at AT TIME ZONE 'UTC')::date, NULL::text, trigger, kind, state, count(*)
      FROM clinic_backups.backup WHERE state <> 'running' GROUP BY 1, 3, 4, 5
     UNION ALL
    SELECT NULL, clinic_id, trigger, kind, state, count(*)
      FROM clinic_backups.backup WHERE state <> 'running' GROUP BY 2, 3, 4, 5
"""
COUNTED = """
    SELECT day, clinic_id, trigger, kind, state, sum(n)::bigint FROM clinic_backups.backup_count
     GROUP BY 1, 2, 3, 4, 5 HAVING sum(n) <> 0
"""
REPLICAS = """
    INSERT INTO clinic_backups.backup_replica (backup_id, store_url, state, stored_at)
    SELECT b.backup_id, w.url, CASE WHEN %(all)s THEN 'present'
               ELSE (ARRAY['present', 'present', 'lost', 'damaged'])[1 + (b.id + length(w.url)) %% 4] END, now()
      FROM clinic_backups.backup AS b CROSS JOIN unnest('{s3://a,s3://further}'::text[]) AS w (url)
     WHERE %(all)s OR b.id %% 9 > 1 OR w.url = 's3://a'
        ON CONFLICT DO NOTHING
"""
TRUTH_OF_REPLICAS = """
    SELECT (b.started_at AT TIME ZONE 'UTC')::date, r.store_url, count(*)
      FROM clinic_backups.backup AS b JOIN clinic_backups.backup_replica AS r USING (backup_id)
     WHERE b.state = 'completed' AND r.state = 'present' GROUP BY 1, 2
"""
COUNTED_REPLICAS = """
    SELECT day, store_url, sum(n)::bigint FROM clinic_backups.replica_count GROUP BY 1, 2 HAVING sum(n) <> 0
"""
LACKING = """
    SELECT b.clinic_id::bigint, b.backup_id, w.url
      FROM clinic_backups.backup AS b CROSS JOIN unnest('{s3://a,s3://further,s3://new}'::text[]) AS w (url)
     WHERE b.state = 'completed' AND NOT EXISTS (SELECT FROM clinic_backups.backup_replica AS r
           WHERE r.backup_id = b.backup_id AND r.store_url = w.url AND r.state = 'present')
"""
STORES = ["s3://a", "s3://further"]
CHANGES = {
    "nothing": "SELECT 1",
    "states": "UPDATE clinic_backups.backup SET state = 'completed' WHERE state IN ('running', 'failed')",
    "back to running": "UPDATE clinic_backups.backup SET state = 'running', attempt = attempt + 1 WHERE state = 'failed'",
    "moments": "UPDATE clinic_backups.backup SET started_at = started_at + interval '30 hours'",
    "kinds": "UPDATE clinic_backups.backup SET kind = 'full', trigger = 'manual'",
    "other columns": "UPDATE clinic_backups.backup SET clinic_name = 'y'",
    "fewer": "DELETE FROM clinic_backups.backup WHERE clinic_id = '2' OR state = 'deleted'",
    "none": "DELETE FROM clinic_backups.backup",
    "truncated": "TRUNCATE clinic_backups.backup CASCADE",
    "replicas lost": "UPDATE clinic_backups.backup_replica SET state = 'lost' WHERE stored_at IS NOT NULL AND backup_id < '5'",
    "replicas found": "UPDATE clinic_backups.backup_replica SET state = 'present'",
    "replicas elsewhere": "UPDATE clinic_backups.backup_replica SET store_url = 's3://elsewhere' WHERE store_url = 's3://a'",
    "replicas fewer": "DELETE FROM clinic_backups.backup_replica WHERE backup_id < '7'",
    "replicas truncated": "TRUNCATE clinic_backups.backup_replica",
    "one backup without its replica": "DELETE FROM clinic_backups.backup_replica WHERE (backup_id, store_url) = ('109-x', 's3://a')",
    "lost and found": "UPDATE clinic_backups.backup SET state = CASE state WHEN 'lost' THEN 'completed' WHEN 'completed' THEN 'lost' ELSE state END",
}


@pytest.fixture
def catalog(demo_database: DemoDatabase) -> Iterator[Catalog]:
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(ANYTHING_GOES + INSERT, {"from": MIDNIGHT, "first": 1, "last": 200})
        cursor.execute(REPLICAS, {"all": False})
    yield Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))


def rows(database: DemoDatabase, query: str) -> list[tuple[object, ...]]:
    with closing(database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(query)
        return sorted(cursor.fetchall(), key=str)


@pytest.mark.parametrize("what", CHANGES)
def test_they_are_those_of_the_records(catalog: Catalog, demo_database: DemoDatabase, what: str) -> None:
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(CHANGES[what])
    counts = BackupCounts(catalog.database)
    assert rows(demo_database, COUNTED) == rows(demo_database, TRUTH)
    assert rows(demo_database, COUNTED_REPLICAS) == rows(demo_database, TRUTH_OF_REPLICAS)
    for make_small in (counts.compact, counts.recount):
        make_small()
        assert rows(demo_database, "SELECT * FROM clinic_backups.backup_count") == rows(demo_database, TRUTH)
        assert rows(demo_database, "SELECT * FROM clinic_backups.replica_count") == rows(
            demo_database, TRUTH_OF_REPLICAS
        )


@pytest.mark.parametrize("what", CHANGES)
def test_what_stores_lack_is_as_the_records_say(catalog: Catalog, demo_database: DemoDatabase, what: str) -> None:
    replicas = Replicas(catalog.database)
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DELETE FROM clinic_backups.backup_replica")
        cursor.execute(REPLICAS, {"all": True})
    assert replicas.backlog(STORES) == replicas.waiting(STORES) == []
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(CHANGES[what])
    for stores in (STORES, STORES[:1], [*STORES, "s3://new"]):
        truth = [row for row in rows(demo_database, LACKING) if row[2] in stores]
        assert sorted(replicas.waiting(stores), key=str) == truth
        assert {each.store_url: each.missing for each in replicas.backlog(stores)} == Counter(row[2] for row in truth)
        of_clinic = [row for row in truth if row[0] == 3]
        assert sorted(replicas.waiting(stores, clinic_id=3), key=str) == of_clinic


@pytest.mark.parametrize("how", ["compact", "recount"])
def test_what_others_write_meanwhile_is_counted_too(catalog: Catalog, demo_database: DemoDatabase, how: str) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:
        cursor.execute(INSERT, {"from": MIDNIGHT, "first": 201, "last": 260})
        cursor.execute(REPLICAS, {"all": False})
        cursor.execute("DELETE FROM clinic_backups.backup WHERE clinic_id = '3'")
        getattr(BackupCounts(catalog.database), how)()  # waits for nobody
        db.commit()
    assert rows(demo_database, COUNTED) == rows(demo_database, TRUTH)
    assert rows(demo_database, COUNTED_REPLICAS) == rows(demo_database, TRUTH_OF_REPLICAS)


def test_a_count_that_went_wrong_is_mended(catalog: Catalog, demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DELETE FROM clinic_backups.backup_count WHERE day > '2026-11-25' OR clinic_id = '1'")
        cursor.execute("DELETE FROM clinic_backups.replica_count WHERE day > '2026-11-25'")
    assert rows(demo_database, COUNTED) != rows(demo_database, TRUTH)
    assert rows(demo_database, COUNTED_REPLICAS) != rows(demo_database, TRUTH_OF_REPLICAS)
    BackupCounts(catalog.database).recount()
    assert rows(demo_database, COUNTED) == rows(demo_database, TRUTH)
    assert rows(demo_database, COUNTED_REPLICAS) == rows(demo_database, TRUTH_OF_REPLICAS)


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("hours", [0, 1, 23, 24, 25, 60])
@pytest.mark.parametrize("begins", [None, timedelta(0), timedelta(hours=13), timedelta(days=2)])
def test_every_page_of_every_period(
    catalog: Catalog, demo_database: DemoDatabase, begins: timedelta | None, hours: int, oldest_first: bool
) -> None:
    since = None if begins is None else MIDNIGHT + begins
    until = (since or MIDNIGHT) + timedelta(hours=hours)
    condition = f"state NOT IN ('deleting', 'deleted') AND started_at < '{until.isoformat()}'"
    if since is not None:
        condition += f" AND started_at >= '{since.isoformat()}'"
    expected = [number for number, _ in sorted(
        rows(demo_database, f"SELECT id, started_at FROM clinic_backups.backup WHERE {condition}"),
        key=lambda row: (row[1], row[0]), reverse=not oldest_first,
    )]  # fmt: skip
    history, found, page = History(catalog.database), list[object](), 1
    while True:
        got = history.page(visible=None, since=since, until=until, oldest_first=oldest_first, page=page, per_page=7)
        assert got.total == len(expected)
        found += [entry.number for entry in got.entries]
        if page >= got.pages:
            break
        page += 1
    assert found == expected
    assert history.page(visible=None, since=since, until=until, page=page + 1, per_page=7).entries == ()
