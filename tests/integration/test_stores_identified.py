"""If a store is not there, no command writes, deletes, counts or reports missing objects in what answers instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.object_keys import hold_key_of
from clinic_backups.base import connections
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.marker import MARKER_KEY, new_marker, write_marker
from include.demo.database import create_roles
from tests.integration.test_cli import Done, Run, run  # noqa: F401
from tests.postgres_fixtures import DemoDatabase

AGED = """
    UPDATE clinic_backups.backup SET started_at = started_at - interval '90 days',
           finished_at = finished_at - interval '90 days', expires_at = now() - interval '1 day'
"""
GONE = 6
"""A clinic of the demo that is not active."""


class House:
    """The command with a store, a further one and a key, and what an operator may do to the folders."""

    def __init__(self, run: Run, folder: Path, database: DemoDatabase) -> None:  # noqa: F811
        self._run, self.folder, self.database = run, folder, database
        self.store, self.further = folder / "store", folder / "replica"
        identity, public = generate_identity()
        self.key = folder / "identity"
        self.key.touch(mode=0o600)
        self.key.write_text(identity)
        self.variables: dict[str, str | None] = {
            "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"backup_replica": self.further.as_uri()}),
            "CLINIC_BACKUPS_RECIPIENTS": public,
            "CLINIC_BACKUPS_IDENTITY_FILE": str(self.key),
            "AIRFLOW_CONN_RESTORE_DB": database.restorer_uri,
        }

    def __call__(self, *words: str, **changes: str | None) -> Done:
        return self._run(*words, **(self.variables | changes))

    @property
    def catalog(self) -> Catalog:
        return Catalog(connections.parse("backup_catalog", self.database.catalog_uri))

    def replicas(self) -> dict[str, tuple[str, ...]]:
        return {record.backup_id: record.stores for record in self.catalog.find()}

    def states(self) -> set[str]:
        return {record.state for record in self.catalog.find()}

    def unmount(self, store: Path, left: str) -> Callable[[], None]:
        """What lies under the store's URL from now on; what is given out mounts it again."""
        away = store.with_name(f"{store.name}-away")
        store.rename(away)
        if left == "an empty mount point":
            store.mkdir()
        elif left == "another store":
            store.mkdir()
            write_marker(new_marker(datetime.now(UTC)), FileStore(store))
        elif left == "a copy without the marker":
            shutil.copytree(away, store)
            (store / MARKER_KEY).unlink()

        def mount() -> None:
            shutil.rmtree(store, ignore_errors=True)
            away.rename(store)

        return mount


LEFT = ["nothing", "an empty mount point", "another store", "a copy without the marker"]


def lose_catalog(database: DemoDatabase) -> None:
    with closing(database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DROP SCHEMA clinic_backups CASCADE")
    create_roles(database.postgres, database.name)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def house(run: Run, tmp_path: Path, demo_database: DemoDatabase) -> House:  # noqa: F811
    """Both stores are initialised and hold a backup of the clinics 1 and 6."""
    found = House(run, tmp_path, demo_database)
    assert found("store", "init").code == 0
    assert found("backup", "--clinic", "1", "--clinic", str(GONE)).code == 0
    assert {len(stores) for stores in found.replicas().values()} == {2}
    return found


@pytest.fixture(params=LEFT)
def left(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def away(done: Done, *texts: str) -> None:
    """It failed for now, and said which store, why and what to do."""
    said = " ".join((done.err + done.out).split())
    assert done.code == 75, said
    for text in ("is not the store that the catalog knows", "Mount it, or correct the URL", *texts):
        assert text in said


def test_a_store_is_made_once_by_a_command_that_may_be_repeated(run: Run, tmp_path: Path) -> None:  # noqa: F811
    url = (tmp_path / "store").as_uri()
    first = run("store", "init", "--json").json()
    assert [(each["store_url"], each["outcome"]) for each in first] == [(url, "made")]
    marker = json.loads((tmp_path / "store" / MARKER_KEY).read_text())
    assert (marker["format"], marker["store_id"], marker["made_at"]) == (1, first[0]["store_id"], first[0]["made_at"])
    again = run("store", "init", "--json").json()
    assert again == [first[0] | {"outcome": "known"}]
    for name in (url, f"{url}/", "backup_store"):
        assert run("store", "init", "--store", name, "--json").json() == again
    assert first[0]["store_id"] in run("store", "list").out
    assert run("store", "list", "--json").json()[0]["recorded_by"].endswith("(command line)")
    assert run("store", "init", "--store", "nothing").code == 2
    assert f"is store {first[0]['store_id']}" in " ".join(run("check", "--no-count").out.split())


def test_without_it_nothing_begins(run: Run, tmp_path: Path) -> None:  # noqa: F811
    for there in (False, True):
        if there:
            (tmp_path / "store").mkdir()
        for words in (["backup", "--clinic", "1"], ["check", "--no-count"], ["catalog", "verify"]):
            done = run(*words)
            assert done.code != 0
            assert "is not initialised" in " ".join((done.out + done.err).split())
            assert "clinic-backups store init" in " ".join((done.out + done.err).split())
        assert (tmp_path / "store").exists() == there
    assert run("list", "--json").json() == []


def test_what_a_store_was_before_is_adopted_and_another_one_refused(house: House, tmp_path: Path) -> None:
    """From before there were markers; from another installation; a copy of the primary; emptied."""
    with house.catalog.database.transaction("forgetting") as db:
        db.exec_driver_sql("DELETE FROM clinic_backups.store_identity")
    marker = house.store / MARKER_KEY
    content = marker.read_text()
    (house.further / MARKER_KEY).unlink()
    done = house("store", "init", "--json")
    assert (done.code, [each["outcome"] for each in done.json()]) == (1, ["adopted"])  # the further one
    assert "another installation" in done.err
    assert "catalog rebuild" in done.err
    taken = house("store", "init", "--store", "backup_store", "--take-over", "--json").json()
    assert (taken[0]["outcome"], marker.read_text()) == ("taken over", content)
    # The marker is gone, or is the further store's: as after `rsync --delete` in the wrong direction.
    marker.unlink()
    lost = house("store", "init")
    assert (lost.code, "found no clinic-backups-store.json there" in lost.err) == (1, True)
    shutil.copy(house.further / MARKER_KEY, marker)
    for word in ([], ["--take-over"]):
        same = house("store", "init", *word)
        assert (same.code, "the same place under two URLs, or a copy" in " ".join(same.err.split())) == (1, True)
    away(house("backup", "--clinic", "1"))
    # A new folder in place of one that held backups.
    shutil.rmtree(house.store)
    assert house("store", "init").code == 1
    assert not house.store.exists()
    anew = house("store", "init", "--take-over", "--json").json()
    assert {each["outcome"] for each in anew} == {"taken over", "known"}
    assert house("catalog", "verify").code == 1


def test_an_empty_place_of_a_store_with_backups_is_not_adopted(house: House) -> None:
    with house.catalog.database.transaction("forgetting") as db:
        db.exec_driver_sql("DELETE FROM clinic_backups.store_identity")
    mount = house.unmount(house.store, "an empty mount point")
    done = house("store", "init")
    assert (done.code, "is empty, but the catalog lists 2 backups there" in done.err) == (1, True)
    assert files(house.store) == []
    mount()
    # Another installation's, from before there were markers.
    shutil.rmtree(house.further / "backups" / "1")
    for path in list((house.further / "backups").rglob("*.*")):
        path.rename(path.with_name(path.name.replace("_2", "_3", 1)))
    (house.further / MARKER_KEY).unlink()
    done = house("store", "init", "--store", "backup_replica")
    assert (done.code, "that the catalog does not know" in done.err) == (1, True)


def test_the_same_folder_under_two_urls_is_no_further_store(house: House, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(house.store)
    further = json.dumps({"backup_replica": (tmp_path / "link").as_uri()})
    done = house("store", "init", CLINIC_BACKUPS_REPLICA_STORES=further)
    assert (done.code, "under two URLs" in " ".join(done.err.split())) == (1, True)
    done = house("replicate", CLINIC_BACKUPS_REPLICA_STORES=further)
    assert done.code != 0
    assert {len(stores) for stores in house.replicas().values()} == {2}


def test_an_init_that_died_is_finished_by_the_next(run: Run, tmp_path: Path) -> None:  # noqa: F811
    first = run("store", "init", "--json").json()[0]
    catalog = tmp_path / "store" / MARKER_KEY
    catalog.unlink()
    house = run("store", "list", "--json").json()
    assert house[0]["store_id"] == first["store_id"]
    assert run("store", "init").code == 1  # it was there, and is gone


def test_backups_are_not_stored_in_what_is_left(house: House, left: str) -> None:
    mount = house.unmount(house.store, left)
    before = files(house.store)
    away(house("backup", "--clinic", "1"), house.store.as_uri())
    assert files(house.store) == before
    assert house.store.exists() == (left != "nothing")
    checked = house("check", "--no-count")
    assert checked.code != 0
    assert "is not the store that the catalog knows" in " ".join(checked.out.split())
    mount()
    assert house("backup", "--clinic", "1").code == 0


def test_what_is_left_of_a_further_store_holds_no_replicas(house: House, left: str) -> None:
    mount = house.unmount(house.further, left)
    before = files(house.further)
    assert house("backup", "--clinic", "1").code == 0
    done = house("replicate")
    assert done.code == 75
    assert files(house.further) == before
    assert sorted(len(stores) for stores in house.replicas().values()) == [1, 2, 2]
    mount()
    assert house("replicate").code == 0
    assert {len(stores) for stores in house.replicas().values()} == {2}


def test_an_erasure_is_done_when_the_stores_themselves_say_so(house: House, left: str) -> None:
    mount = house.unmount(house.further, left)
    done = house("erase-clinic", str(GONE), "--reason", "baja", "--yes", "--json")
    away(done, house.further.as_uri())
    erasure = done.json()
    assert (erasure["finished_at"], erasure["remaining"]) == (None, 1)
    assert [item["store_url"] for item in erasure["evidence"]] == [house.store.as_uri()]
    mount()
    assert any(f"/{GONE}/" in name for name in files(house.further))
    done = house("erase-clinic", str(GONE), "--reason", "baja", "--yes", "--json")
    assert done.code == 0
    erasure = done.json()
    assert (erasure["remaining"], erasure["backups"], erasure["finished_at"] is None) == (0, 1, False)
    ids = {each["store_url"]: each["store_id"] for each in house("store", "list", "--json").json()}
    evidence = {item["store_url"]: item for item in erasure["evidence"]}
    assert evidence.keys() == {house.store.as_uri(), house.further.as_uri()}
    for url, item in evidence.items():
        assert (item["store_id"], item["deleted"], item["left"]) == (ids[url], 2, 0)
        assert item["listed_at"].endswith("Z")
    assert not any(f"/{GONE}/" in name for folder in (house.store, house.further) for name in files(folder))
    assert "2 objects deleted, 0 left" in " ".join(house("erasures").out.split())


def test_an_erasure_waits_for_stores_that_only_the_catalog_knows(house: House) -> None:
    """A further store that was taken out of the settings: nobody looks there, and so nothing can be said of it."""
    alone: dict[str, str | None] = {"CLINIC_BACKUPS_REPLICA_STORES": None}
    with house.catalog.database.transaction("forgetting") as db:
        db.exec_driver_sql(f"DELETE FROM clinic_backups.backup_replica WHERE store_url = '{house.further.as_uri()}'")
    done = house("erase-clinic", str(GONE), "--reason", "baja", "--yes", "--json", **alone)
    assert (done.code, done.json()["finished_at"]) == (75, None)
    assert "forget-store" in done.err
    assert house("catalog", "forget-store", house.further.as_uri(), "--yes", **alone).code == 0
    done = house("erase-clinic", str(GONE), "--reason", "baja", "--yes", "--json", **alone)
    assert (done.code, done.json()["remaining"]) == (0, 0)


@pytest.mark.parametrize("which", ["store", "further"])
def test_retention_believes_no_absence(house: House, left: str, which: str) -> None:
    for _ in range(2):
        assert house("backup", "--clinic", "1", "--kind", "full").code == 0
    with house.catalog.database.transaction("ageing") as db:
        db.exec_driver_sql(AGED)
    known, states = house.replicas(), house.states()
    mount = house.unmount(getattr(house, which), left)
    done = house("retention", "--clinic", "1")
    assert done.code == 75
    assert (house.replicas(), house.states()) in ((known, states), (known, {"completed", "deleting"}))
    mount()
    assert house("retention", "--clinic", "1").code == 0
    (last,) = house.catalog.find(clinic_id=1, state="completed")
    deleted = house.catalog.find(clinic_id=1, state="deleted")
    assert len(deleted) == 2
    ids = {each["store_url"]: each["store_id"] for each in house("store", "list", "--json").json()}
    for record in deleted:
        assert {item["store_url"]: item["store_id"] for item in record.deletion} == ids
        assert not (house.store / record.archive_key).exists()
        assert not (house.further / record.archive_key).exists()
    assert (house.store / last.archive_key).exists()
    assert "Deleted from" in house("show", deleted[0].backup_id).out


@pytest.mark.parametrize("which", ["store", "further"])
def test_checks_record_nothing_as_lost(house: House, left: str, which: str) -> None:
    known = house.replicas()
    mount = house.unmount(getattr(house, which), left)
    for words in (["catalog", "verify", "--record"], ["catalog", "verify", "--record", "--read", "--sweep"],
                  ["verify", next(iter(known))], ["catalog", "rebuild"]):  # fmt: skip
        done = house(*words)
        assert done.code == 75, (words, done.err)
        assert (house.replicas(), house.states()) == (known, {"completed"})
    held = house("hold", next(iter(known)), "--reason", "pleito")
    assert held.code == 75
    mount()
    assert house("catalog", "verify", "--record").code == 0


def test_a_restore_takes_the_store_that_is_there(house: House, left: str) -> None:
    mount = house.unmount(house.store, left)
    done = house("restore", "--clinic", "1", "--plan", "--json")
    assert (done.code, done.json()["writes"]) == (0, 0)
    mount()
    mount = house.unmount(house.further, left)
    assert house("restore", "--clinic", "1", "--plan", "--json").code == 0
    mount()
    assert {len(stores) for stores in house.replicas().values()} == {2}


def test_without_a_catalog_a_store_is_read_and_named(house: House, demo_database: DemoDatabase) -> None:
    store_id = house("store", "list", "--json").json()[0]["store_id"]
    by_url = {each["store_url"]: each["store_id"] for each in house("store", "list", "--json").json()}
    key = house.catalog.find(clinic_id=1)[0].archive_key
    nowhere: dict[str, Any] = {"AIRFLOW_CONN_BACKUP_CATALOG": "postgres://nobody:x@127.0.0.1:1/none"}
    done = house("restore", "--clinic", "1", "--archive", key, "--plan", "--json", **nowhere)
    assert done.code == 0
    assert f"which is store {by_url[house.store.as_uri()]}" in " ".join(done.err.split())
    (house.store / MARKER_KEY).rename(house.folder / "marker")
    done = house("restore", "--clinic", "1", "--archive", key, "--plan", "--json", **nowhere)
    assert (done.code, "which has no marker" in " ".join(done.err.split())) == (0, True)
    (house.folder / "marker").rename(house.store / MARKER_KEY)
    # The catalog is lost: a rebuild takes the stores' markers over.
    lose_catalog(demo_database)
    assert house("catalog", "migrate").code == 0
    reports = house("catalog", "rebuild", "--json").json()
    assert {each["store_url"]: each["store_id"] for each in reports} == by_url
    assert store_id in by_url.values()
    assert house("backup", "--clinic", "1").code == 0


def test_a_rebuild_of_an_empty_place_is_no_success(house: House, demo_database: DemoDatabase) -> None:
    lose_catalog(demo_database)
    assert house("catalog", "migrate").code == 0
    mounts = [house.unmount(store, "an empty mount point") for store in (house.store, house.further)]
    done = house("catalog", "rebuild")
    said = " ".join((done.out + done.err).split())
    assert (done.code, "the store is mounted" in said, "Nothing was rebuilt from it" in said) == (1, True, True)
    assert "run `clinic-backups store init` before" not in said
    for mount in mounts:
        mount()
    # One folder too deep, two, and one too high.
    right, above = house.store.as_uri(), house.folder.as_uri()
    for wrong, likely in ((f"{right}/backups", right), (f"{right}/backups/1", right), (above, right)):
        done = house("catalog", "rebuild", "--store", wrong)
        said = " ".join(done.err.split())
        assert (done.code, "Nothing was rebuilt from it" in said) == (1, True)
        assert f"may be {likely}. " in said or f"may be {house.further.as_uri()}. " in said
    assert house("catalog", "rebuild").code == 0
    # A rebuilt catalog cannot tell a new store from one that is not mounted.
    house.unmount(house.further, "an empty mount point")
    with house.catalog.database.transaction("forgetting") as db:
        for table in ("store_identity", "backup_replica"):
            db.exec_driver_sql(f"DELETE FROM clinic_backups.{table} WHERE store_url = '{house.further.as_uri()}'")
    done = house("store", "init")
    assert (done.code, "this catalog was rebuilt" in " ".join(done.err.split())) == (1, True)
    assert files(house.further) == []
    done = house("store", "init", "--new")
    assert (done.code, "was empty: no marker and no backup" in " ".join(done.err.split())) == (0, True)


def test_the_first_init_says_that_the_place_was_empty(run: Run) -> None:  # noqa: F811
    done = run("store", "init")
    assert (done.code, "was empty" in done.err, "not mounted" in done.err) == (0, True, True)
    assert "was empty" not in run("store", "init").err


@pytest.mark.parametrize("inside", ["sub", "backups/1", "..", "link"])
def test_a_store_inside_another_one_is_no_further_store(house: House, inside: str) -> None:
    place = house.store / inside
    if inside == "link":
        (house.store / "sub").mkdir()
        place = house.folder / "link"
        place.symlink_to(house.store / "sub")
    url = house.folder.as_uri() if inside == ".." else place.as_uri()
    further = json.dumps({"backup_replica": url})
    # A further store's fault stops no backup: `check` warns of it.
    for words, code in ((["store", "init"], 2), (["check", "--no-count"], 0)):
        done = house(*words, CLINIC_BACKUPS_REPLICA_STORES=further)
        assert (done.code, "lie one inside the other" in " ".join((done.out + done.err).split())) == (code, True)


def test_an_erased_clinic_that_is_back_is_named_with_the_command(house: House) -> None:
    away = house.folder / "old copy"
    shutil.copytree(house.store, away)
    assert house("erase-clinic", str(GONE), "--reason", "baja", "--yes").code == 0
    shutil.copytree(away / "backups" / str(GONE), house.store / "backups" / str(GONE), dirs_exist_ok=True)
    done = house("catalog", "verify")
    said = " ".join((done.out + done.err).split())
    assert done.code == 1
    assert f"Backups of erased clinics are there again: clinics {GONE}." in said
    assert f"clinic-backups erase-clinic {GONE}" in said
    erase = ["erase-clinic", str(GONE), "--reason", "baja", "--yes"]
    assert [house(*words).code for words in (erase, ["catalog", "rebuild"], erase)][1:] == [0, 0]
    assert not any(f"/{GONE}/" in name for name in files(house.store))


def test_a_lost_backup_keeps_the_check_red(house: House) -> None:
    record = house.catalog.find(clinic_id=GONE)[0]
    for folder in (house.store, house.further):
        (folder / record.archive_key).unlink()
    for words in (["--record"], [], ["--read"], []):
        assert house("catalog", "verify", *words).code == 1
    done = house("catalog", "verify", "--json")
    assert [item["backup_id"] for each in done.json() for item in each["lost"]] == [record.backup_id] * 2
    done = house("restore", "--clinic", str(GONE), "--plan")
    assert f"{record.backup_id} is lost" in " ".join(done.err.split())


def test_a_planted_note_is_said_to_be_taken_over(house: House) -> None:
    record = house.catalog.find(clinic_id=GONE)[0]
    (house.store / hold_key_of(record.archive_key)).write_text('{"reason": "nadie", "by": "x", "at": null}')
    said = " ".join(house("catalog", "verify", "--record").out.split())
    assert f"{record.backup_id} is on hold now, by a note in {house.store.as_uri()}" in said
