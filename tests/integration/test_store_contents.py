"""``clinic-backups bucket``: what a store holds, from the store alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.base.clock import machine_now
from clinic_backups.maintenance.store_contents import read_contents
from clinic_backups.stores.file import FileStore
from tests.fleet import Fleet, objects_of, put
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


def test_each_backup_is_told_with_what_is_wrong_without_catalog_and_key(fleet: Fleet) -> None:
    good, short, silent, foreign = (fleet.on_day(day, number) for day, number in ((0, 1), (0, 2), (0, 3), (1, 1)))
    assert (good.clinic_id, foreign.clinic_id) == (1, 1)
    fleet.execute("DROP SCHEMA clinic_backups CASCADE")
    cut = objects_of(fleet.store)[short.archive_key][:-1]
    for key, content in ((short.archive_key, cut), (envelope_key_of(foreign.archive_key), b"{}")):
        fleet.store.delete(key)
        put(fleet.store, key, content)
    fleet.store.delete(envelope_key_of(silent.archive_key))
    put(fleet.store, "backups/README", b"of somebody else")
    found = read_contents(fleet.store, machine_now())
    assert {each.archive_key: each.state for each in found.backups} == {
        good.archive_key: "complete", short.archive_key: "damaged", silent.archive_key: "unfinished",
        foreign.archive_key: "damaged",
    }  # fmt: skip
    assert found.other_objects == 1
    (first,) = [each for each in found.backups if each.state == "complete"]
    assert first.to_json()["rows"] == good.rows_total
    assert [each.clinic_id for each in read_contents(fleet.store, machine_now(), clinic_id=2).backups] == [2]


def test_an_incremental_backup_without_its_full_one_is_not_complete(fleet: Fleet) -> None:
    fleet.kind = "auto"
    full, later = fleet.on_day(0, 1), fleet.on_day(1, 1)
    assert (full.kind, later.kind) == ("full", "incremental")
    fleet.store.delete(full.archive_key)
    states = {
        each.archive_key: (each.state, each.problem) for each in read_contents(fleet.store, machine_now()).backups
    }
    assert states[full.archive_key][0] == "damaged"
    assert states[later.archive_key] == ("chain broken", f"The archive {full.archive_key} is missing.")


def test_the_command_needs_only_the_store(fleet: Fleet, run: Run) -> None:  # noqa: F811
    record = fleet.on_day(0, 1)
    alone = {
        "AIRFLOW_CONN_CLINIC_DB": None, "AIRFLOW_CONN_BACKUP_CATALOG": None, "CLINIC_BACKUPS_RECIPIENTS": None,
        "CLINIC_BACKUPS_STORE_URL": fleet.store.url,
    }  # fmt: skip
    (found,) = run("bucket", "--json", **alone).json()
    assert [each["backup_id"] for each in found["backups"]] == [record.backup_id]
    shown = run("bucket", "--clinic", "1", **alone)
    assert (shown.code, record.archive_key in shown.out, "catalog rebuild" in shown.err) == (0, True, True)
