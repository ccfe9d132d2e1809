"""Erasure requests lie in the stores beside the backups: written, compared, taken over, and not believed to anybody."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.encryption import load_identities, public_keys
from clinic_backups.base.forgotten import ForgottenRecord, ForgottenSecret
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.maintenance.forgotten_in_stores import ForgottenInStores
from clinic_backups.restore.requests_in_stores import requests_in
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.forgotten_requests import content_of, recipients_id, request_key, seal, sealed_key
from include.demo.database import create_roles
from tests.fleet import Fleet
from tests.integration.test_cli import run as run
from tests.integration.test_diff import life as life
from tests.integration.test_find import backed_up
from tests.integration.test_restore import PATIENTS
from tests.postgres_fixtures import DemoDatabase

__all__ = ["life", "run"]


def forget(life: Any, key: int = 43, **more: str) -> None:
    life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:{key}", "--reason", "Art. 17 de Ana Zzyzx", **more)


def objects(place: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(place)): file.read_bytes()
        for file in sorted((place / "forgotten").rglob("*"))
        if file.is_file()
    }


def requests(place: Path) -> list[str]:
    return [key for key in objects(place) if key.startswith("forgotten/clinics/")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_request_lies_in_the_store_without_key_and_name(life: Any, store: Path) -> None:
    backed_up(life)
    assert objects(store) == {}
    forget(life, 424242)
    there = objects(store)
    (request,) = requests(store)
    assert len(there) == 2
    found = json.loads(there[request])
    assert (found["clinic_id"], found["table"], found["class"]) == (1, PATIENTS, "person")
    assert not any(word in data for data in there.values() for word in (b"424242", b"Zzyzx", b"Art."))
    life("catalog", "verify")
    told = life("bucket", "--json").json()[0]
    assert [each["table"] for each in told["requests"]] == [PATIENTS]
    assert told["bad_requests"] == []
    assert PATIENTS in life("bucket").out
    forget(life, 7)
    assert there.items() <= objects(store).items(), "objects are written once"


def test_what_is_missing_is_said_and_written_again(life: Any, store: Path) -> None:
    backed_up(life)
    forget(life)
    before = objects(store)
    for key in before:
        (store / key).unlink()
        assert "no request" in life("catalog", "verify").out
        doctor = life("doctor", "--json", code=1).json()
        assert "The store lacks 1 object" in " ".join(each["said"] for each in doctor["sights"])
        assert "written again" in life("catalog", "verify", "--record").out
        assert objects(store) == before
    assert "; 0 other objects were left alone; no discrepancies" in life("catalog", "verify").out


def test_new_public_keys_get_the_secret_too_and_looking_writes_nothing(
    life: Any, store: Path, tmp_path: Path, demo_database: DemoDatabase
) -> None:
    backed_up(life)
    forget(life)
    before = objects(store)
    new = tmp_path / "new.txt"
    changed = {"CLINIC_BACKUPS_RECIPIENTS": life("keygen", str(new)).out.strip()}

    def sealed() -> int:
        with closing(demo_database.connect()) as db, db.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM clinic_backups.forgotten_sealed")
            return int(cursor.fetchall()[0][0])

    assert "no request" in life("catalog", "verify", **changed).out
    said = life("doctor", "--json", code=1, **changed).json()["sights"]
    assert "The store lacks 1 objects of the catalog's erasure requests." in [each["said"] for each in said]
    assert (sealed(), objects(store)) == (1, before)
    life("catalog", "verify", "--record", **changed)
    assert sealed() == 2
    assert before.items() < objects(store).items()
    assert len(requests_in(Stores.of(FileStore(store)), load_identities(new)).records) == 1
    life("catalog", "verify", **changed)


def test_a_damaged_one_is_written_again(life: Any, store: Path) -> None:
    backed_up(life)
    forget(life)
    before = objects(store)
    for key, data in before.items():
        (store / key).write_bytes(data[:-2])
        life("catalog", "verify", "--record")
        assert objects(store) == before, key


@pytest.mark.parametrize("change", ["table", "copied", "made up", "no JSON"])
def test_a_planted_one_is_false_and_counts_for_nothing(life: Any, store: Path, change: str) -> None:
    """Somebody who may write to the store has the public key, and every object of it."""
    backed_up(life)
    forget(life)
    (key,) = requests(store)
    document = json.loads(objects(store)[key])
    if change == "table":
        document |= {"table": "public.citas_consulta"}
    elif change == "copied":
        document |= {"clinic_id": 2}
    else:
        document |= {"key_hashes": ["00" * 32], "mark": "11" * 32}
    mark = bytes.fromhex(document["mark"])
    record = ForgottenRecord(
        0, document["clinic_id"], document["table"],
        datetime.fromisoformat(document["forgotten_at"]), document["forgotten_by"], "",
        tuple(map(bytes.fromhex, document["key_hashes"])), document["class"], document["key_id"],
    )  # fmt: skip
    planted = store / request_key(record, mark)
    planted.parent.mkdir(parents=True, exist_ok=True)
    content = b"[]" if change == "no JSON" else content_of(record, mark)
    planted.write_bytes(content)
    if change == "table":
        assert planted == store / key, "it replaced the genuine one"
    verified = life("catalog", "verify", code=1)
    assert "false request" in verified.out or "damaged request" in verified.out
    rebuilt = life("catalog", "rebuild", code=1)
    assert "erasure request" in rebuilt.out
    assert len(life("forget", "--list", "--json").json()) == 1
    if change == "table":
        life("catalog", "verify", "--record", code=1)
        assert json.loads(objects(store)[key])["table"] == PATIENTS
        life("catalog", "verify")


def lost_catalog(database: DemoDatabase) -> None:
    with closing(database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("DROP SCHEMA clinic_backups CASCADE")
    create_roles(database.postgres, database.name)


def test_a_rebuilt_catalog_takes_the_requests_over(life: Any, store: Path, demo_database: DemoDatabase) -> None:
    backup_id = backed_up(life)
    forget(life)
    before, listed = objects(store), life("forget", "--list", "--json").json()
    check = life("forget", "--list").out.split("The check of this list is ")[1].split(".")[0]
    lost_catalog(demo_database)
    life("catalog", "migrate")
    without_key = life("catalog", "rebuild", CLINIC_BACKUPS_IDENTITY_FILE="", code=1)
    assert "an erasure request that cannot be checked without the secret key" in without_key.out
    assert life("forget", "--list", "--json").json() == []
    said = "The store has 1 erasure requests of this clinic that the catalog does not have, so their rows come back."
    words = ("--backup", backup_id, "--format", "csv", "--output", str(store.parent / "out"))
    assert said in " ".join(life("restore", "--clinic", "1", "--backup", backup_id, "--plan").err.split())
    assert said in life("export", *words).out
    verified = life("catalog", "verify", code=1)
    assert "strange request" in verified.out
    assert "1 erasure requests in a store have a key that the catalog does not have." in verified.err
    assert "1 erasure requests were added" in life("catalog", "rebuild").out
    assert said not in " ".join(life("restore", "--clinic", "1", "--backup", backup_id, "--plan").err.split())
    assert "erasure requests were added" not in life("catalog", "rebuild").out
    (found,) = life("forget", "--list", "--json").json()
    same = ("clinic_id", "table", "forgotten_at", "forgotten_by", "class")
    assert {name: found[name] for name in same} == {name: listed[0][name] for name in same}
    assert "may hold a name" in found["reason"]
    assert check in life("forget", "--list").out
    life("catalog", "verify", "--record")
    assert objects(store).items() >= before.items()
    forget(life, 999_999)
    assert len(requests(store)) == 2, "new requests have the new catalog's key"
    life("catalog", "verify")


def test_a_catalog_that_came_back_older_takes_its_own_requests_over_without_the_key(
    life: Any, store: Path, demo_database: DemoDatabase
) -> None:
    backed_up(life)
    forget(life)
    (before,) = life("forget", "--list", "--json").json()
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("ALTER TABLE clinic_backups.forgotten DISABLE TRIGGER ALL")
        cursor.execute("DELETE FROM clinic_backups.forgotten")
        cursor.execute("ALTER TABLE clinic_backups.forgotten ENABLE ALWAYS TRIGGER forgotten_is_kept")
    verified = life("catalog", "verify", code=1)
    assert "unknown request" in verified.out
    assert "1 erasure requests in a store are not in the catalog, so restores bring their rows back." in verified.err
    said = life("doctor", "--json", code=1).json()["sights"]
    assert "The store has 1 erasure requests that the catalog did not make." in [each["said"] for each in said]
    life("catalog", "rebuild", CLINIC_BACKUPS_IDENTITY_FILE="")
    (after,) = life("forget", "--list", "--json").json()
    assert (after["forgotten_at"], after["table"]) == (before["forgotten_at"], before["table"])
    life("catalog", "verify")


def test_neither_retention_nor_a_sweep_nor_the_end_of_a_clinic_removes_them(fleet: Fleet, tmp_path: Path) -> None:
    fleet.on_day(0)
    forgotten = Forgotten(fleet.catalog.database)
    forgotten.add(1, {PATIENTS: ["43"]}, by="ana", reason="x")
    assert ForgottenInStores(forgotten, fleet.settings.recipients).write(fleet.stores) == []
    before = objects(tmp_path / "first")
    assert len(before) == 2
    assert objects(tmp_path / "second") == before
    fleet.on_day(400)
    assert fleet.clean(401)
    assert fleet.check(record=True, sweep=True).problems != []  # this check has no public keys
    assert objects(tmp_path / "first") == objects(tmp_path / "second") == before


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "first"), FileStore(tmp_path / "second"))


def test_a_request_with_a_key_of_somebody_else_is_taken_over_only_if_a_person_says_so(
    life: Any, store: Path, tmp_path: Path
) -> None:
    """Whoever may write to the store has the public key, and can make a secret and requests that agree with it."""
    backed_up(life)
    forget(life)
    public = public_keys(tmp_path / "identity.txt")
    secret = ForgottenSecret(b"e" * 32)
    record = ForgottenRecord(
        0, 1, PATIENTS, datetime(2026, 1, 1, tzinfo=UTC), "eva", "", (b"h" * 32,), "person", secret.key_id
    )
    planted = request_key(record, secret.mark(record))
    (store / planted).write_bytes(content_of(record, secret.mark(record)))
    (store / sealed_key(secret.key_id, recipients_id(public))).write_bytes(seal(secret.value, public))
    assert "strange request" in life("catalog", "verify", "--record", code=1).out
    refused = life("catalog", "rebuild", code=1)
    assert "run this again with --requests" in " ".join(refused.out.split())
    assert len(life("forget", "--list", "--json").json()) == 1
    bare = requests_in(Stores.of(FileStore(store)), load_identities(tmp_path / "identity.txt"))
    assert len(bare.records) == 2
    assert "They were made with 2 keys" in " ".join(bare.said)
    assert life("catalog", "rebuild", "--requests").out.count("1 erasure requests were added") == 1
    assert {each["forgotten_by"] for each in life("forget", "--list", "--json").json()} >= {"eva"}


def test_a_store_that_is_down_is_said_and_filled_later(life: Any, store: Path, tmp_path: Path) -> None:
    further = {"CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"second": (tmp_path / "second").as_uri()})}
    life("store", "init", **further)
    backed_up(life)
    (tmp_path / "second").rename(tmp_path / "away")
    done = life("forget", "--clinic", "1", "--rows", f"{PATIENTS}:43", "--reason", "x", **further)
    assert "it is not in file://" in done.err
    assert len(objects(store)) == 2
    (tmp_path / "away").rename(tmp_path / "second")
    life("replicate", **further)
    assert objects(tmp_path / "second") == objects(store)


def test_the_list_says_where_a_row_may_still_lie(life: Any, demo_database: DemoDatabase) -> None:
    first, second = backed_up(life), backed_up(life)
    forget(life)
    backed_up(life)
    (entry,) = life("forget", "--list", "--json").json()
    places = {place["backup_id"]: place for place in entry["may_lie_in"]}
    assert places.keys() == {first, second}
    expires = {each["backup_id"]: each["expires_at"] for each in life("list", "--clinic", "1", "--json").json()}
    assert places[second]["until"] >= expires[second]
    assert all(len(place["stores"]) == 1 for place in places.values())
    life("hold", first, "--reason", "court")
    (entry,) = life("forget", "--list", "--json").json()
    assert {place["on_hold"] for place in entry["may_lie_in"] if place["backup_id"] == first} == {True}
    assert "a hold ends" in life("forget", "--list").out


def test_a_secret_has_one_id_and_a_mark_covers_everything() -> None:
    secret = ForgottenSecret(b"s" * 32)
    record = ForgottenRecord(
        1, 7, "public.a", datetime(2026, 1, 1, tzinfo=UTC), "ana", "why", (b"h" * 32,), "other", "k"
    )
    marks = {
        secret.mark(record), ForgottenSecret(b"t" * 32).mark(record),
        *(secret.mark(replace(record, **{name: value})) for name, value in {
            "clinic_id": 8, "table": "public.b", "at": datetime(2026, 1, 2, tzinfo=UTC), "by": "eva",
            "hashes": (b"i" * 32,), "reason_class": "person", "key_id": "l",
        }.items()),
    }  # fmt: skip
    assert len(marks) == 9
    assert secret.mark(replace(record, number=2, reason="other words")) == secret.mark(record)
