"""After an erasure only counts and dates of a clinic's backups remain. Holds and locks delay it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyrage
import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of
from clinic_backups.base.errors import ClinicBackupsError, ObjectLocked, PermanentError, TransientError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.erasures import Erasure, Erasures
from clinic_backups.catalog.outbox import Notice, Outbox
from clinic_backups.catalog.restores import RestoreRecord, Restores
from clinic_backups.stores.base import ObjectInfo
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import store_from_client
from clinic_backups.stores.envelopes import FROM_NOTE, write_hold
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.contract.buckets import VERSIONED
from tests.fleet import START, Fleet, objects_of, put
from tests.postgres_fixtures import DemoDatabase


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))


def rows_about(fleet: Fleet, clinic_id: int) -> dict[str, int]:
    query, tables = (
        "SELECT count(*) FROM clinic_backups.{} WHERE clinic_id = '{}'",
        ("backup", "restore", "notification"),
    )
    return {table: int(fleet.execute_rows(query.format(table, clinic_id))[0][0]) for table in tables}


def test_on_every_store_all_is_gone_but_a_line_and_the_others_are_untouched(
    demo_database: DemoDatabase, make_store: MakeStore, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, make_store(f"erase-{uuid4().hex}"), FileStore(tmp_path / "two"))
    mine = [fleet.on_day(day) for day in (0, 10, 20)]
    other = fleet.on_day(20.1, 2)
    fleet.replicate()
    Outbox(fleet.catalog.database).queue(Notice("x", "success", {}, clinic_id=1), fleet.now)
    for store in fleet.stores:
        put(store, "backups/1/notas.txt")
        put(store, "backups/1/2026/09/backup_vieja_1_20260801_060000.tar.zst.age")
    kept = {key: content for key, content in objects_of(fleet.stores.primary).items()
            if not key.startswith("backups/1/")} | {"backups/1/notas.txt": b"de otro"}  # fmt: skip
    cleaned = fleet.erase(1, 21)
    assert (cleaned.problem, cleaned.deleted) == ("", 3)
    done = cleaned.erasure
    assert done is not None
    assert (done.backups, done.size_bytes, done.remaining) == (3, sum(made.size_bytes or 0 for made in mine), 0)
    assert (done.first_backup_at, done.last_backup_at) == (mine[0].started_at, mine[2].started_at)
    assert (done.requested_at, done.finished_at, done.reason) == (fleet.now, fleet.now, "baja 12")
    for store in fleet.stores:
        assert objects_of(store) == kept
    assert rows_about(fleet, 1) == {"backup": 0, "restore": 0, "notification": 0}
    assert fleet.state(other) == "completed"
    fleet.restored(other)


def test_a_hold_outlasts_the_erasure_and_its_end_finishes_it(fleet: Fleet) -> None:
    held, other = fleet.on_day(0), fleet.on_day(1)
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    cleaned = fleet.erase(1, 2)
    assert cleaned.erasure is not None
    assert (cleaned.erasure.backups, cleaned.erasure.remaining, cleaned.erasure.finished_at) == (1, 1, None)
    assert [fleet.state(made) for made in (held, other)] == ["completed", "deleted"]
    (cleaned,) = fleet.clean(400)
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at is None
    fleet.holds().release(held.backup_id, "juez")
    (cleaned,) = fleet.clean(401)
    assert cleaned.erasure is not None
    assert (cleaned.erasure.backups, cleaned.erasure.remaining) == (2, 0)
    assert cleaned.erasure.finished_at == fleet.now
    assert objects_of(fleet.stores.primary) == {}


def test_a_clinic_that_comes_back_keeps_its_new_backups(fleet: Fleet) -> None:
    held = fleet.on_day(0)
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    fleet.erase(1, 1)
    new = fleet.on_day(2)
    fleet.holds().release(held.backup_id, "juez")
    (cleaned,) = fleet.clean(3)
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at == fleet.now
    assert [record.backup_id for record in fleet.catalog.find(clinic_id=1)] == [new.backup_id]
    fleet.restored(fleet.again(new))


@pytest.mark.parametrize("crash", range(6))
def test_an_erasure_that_was_killed_is_finished_by_the_next_run(fleet: Fleet, crash: int) -> None:
    one, two = fleet.stores
    fleet.on_day(0)
    fleet.on_day(1)
    fleet.replicate()

    class Killed(FileStore):
        left = crash

        def purge(self, key: str) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            type(self).left -= 1
            super().purge(key)

    with pytest.raises(KeyboardInterrupt):
        fleet.erase(1, 2, stores=Stores.of(Killed(one.url.removeprefix("file://")), two))
    (cleaned,) = fleet.clean(3)
    assert cleaned.erasure is not None
    assert (cleaned.erasure.backups, cleaned.erasure.finished_at) == (2, fleet.now)
    assert [objects_of(store) for store in fleet.stores] == [{}, {}]


def test_what_a_store_keeps_locked_stays_and_the_rest_goes(fleet: Fleet) -> None:
    one, two = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate()

    class Locked(FileStore):
        def purge(self, key: str) -> None:
            raise ObjectLocked("locked", hint="Wait.")

    cleaned = fleet.erase(1, 1, stores=Stores.of(one, Locked(two.url.removeprefix("file://"))))
    assert (cleaned.problem, cleaned.deleted) == ("locked", 0)
    assert fleet.state(record) == "deleting"
    assert objects_of(one) == {}
    (cleaned,) = fleet.clean(2)
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at == fleet.now


def test_destroying_a_clinics_own_key_makes_what_cannot_be_deleted_unreadable(fleet: Fleet) -> None:
    own_identity, own = generate_identity()
    fleet.settings = Settings(recipients=fleet.settings.recipients, clinic_recipients={1: (own,)}, own_keys_only=True)
    mine, other = fleet.on_day(0), fleet.on_day(0.1, 2)
    assert (mine.recipients, other.recipients) == ((own,), fleet.settings.recipients)
    fleet.holds().hold(mine.backup_id, "pleito 12", "abogada")
    fleet.erase(1, 1)
    sealed = objects_of(fleet.stores.primary)[mine.archive_key]
    # With every key that is left it cannot be opened; with the one that was destroyed it could have been.
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(fleet.identity)])
    with pytest.raises(ClinicBackupsError, match="identit"):
        fleet.restored(mine)
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(own_identity)])
    fleet.restored(other)


def test_backups_that_the_catalog_does_not_know_are_not_purged_unseen(fleet: Fleet) -> None:
    """The catalog was lost and not rebuilt: one of them may be on hold."""
    record = fleet.on_day(0)
    fleet.holds().hold(record.backup_id, "pleito 12", "abogada")
    before = objects_of(fleet.stores.primary)
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    cleaned = fleet.erase(1, 1)
    assert "that the catalog does not know" in cleaned.problem
    assert "catalog rebuild" in cleaned.hint
    assert cleaned.erasure is not None
    assert cleaned.erasure.finished_at is None
    assert objects_of(fleet.stores.primary) == before
    fleet.rebuild()
    cleaned = fleet.erase(1, 2)
    assert [decision.reason for decision in cleaned.decisions] == ["on hold: pleito 12"]


@pytest.mark.usefixtures("buckets")
def test_versions_of_backups_that_nobody_remembers_go_too(demo_database: DemoDatabase, s3_client: Any) -> None:
    prefix = f"lives/{uuid4().hex}"
    fleet = Fleet(demo_database, store_from_client(f"s3://{VERSIONED}/{prefix}", s3_client))
    fleet.on_day(0)
    fleet.on_day(40)
    fleet.on_day(40.1, 2)
    fleet.clean(90)
    fleet.execute("DELETE FROM clinic_backups.backup WHERE state = 'deleted'")

    def versions(clinic_id: int) -> list[str]:
        found = s3_client.list_object_versions(Bucket=VERSIONED, Prefix=f"{prefix}/backups/{clinic_id}/")
        return [item["Key"] for kind in ("Versions", "DeleteMarkers") for item in found.get(kind, [])]

    assert len(versions(1)) > 4
    others = versions(2)
    cleaned = fleet.erase(1, 91)
    assert (cleaned.problem, versions(1), versions(2)) == ("", [], others)


def test_which_keys_other_clinics_need_is_asked_of_their_backups(fleet: Fleet) -> None:
    """After a rotation of keys the settings do not know the old one any more."""
    _, old = generate_identity()
    _, new = generate_identity()
    for clinic_id in (1, 2):
        fleet.on_day(0, clinic_id, recipients=(old,))
        fleet.on_day(1, clinic_id, recipients=(new,))
    assert fleet.catalog.recipients_of_others(1) == {old, new}
    fleet.clean(2)
    assert fleet.catalog.recipients_of_others(7) == {old, new}


def test_an_erasure_is_asked_for_once_and_ends_once(fleet: Fleet) -> None:
    erasures = Erasures(fleet.catalog.database)
    first = erasures.request(1, reason="baja", by="ops", at=START)
    second = erasures.request(1, reason="baja 2", by="ops", at=START + timedelta(days=1))
    assert (second.id, second.reason) == (first.id, "baja 2")
    assert erasures.settle(second, START).finished_at == START
    with pytest.raises(PermanentError, match="has already ended"):
        erasures.settle(second, START)
    assert erasures.open_of(1) is None
    assert [found.id for found in erasures.find()] == [first.id]


def tombstone(fleet: Fleet) -> Erasure:
    (found,) = Erasures(fleet.catalog.database).find()
    return found


def test_each_deletion_is_counted_once_whatever_kills_the_run(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a record that says deleted and the count there is nothing."""
    mine = [fleet.on_day(0), fleet.on_day(1)]
    real = Erasures.count

    def killed(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Erasures, "count", killed)
        with pytest.raises(KeyboardInterrupt):
            fleet.erase(1, 2)
    assert (tombstone(fleet).backups, fleet.state(mine[0])) == (0, "deleting")
    fleet.clean(3)
    assert (tombstone(fleet).backups, tombstone(fleet).size_bytes) == (2, sum(made.size_bytes or 0 for made in mine))


@pytest.mark.usefixtures("buckets")
def test_what_a_clinic_that_came_back_loses_to_the_policy_is_no_part_of_its_erasure(
    demo_database: DemoDatabase, s3_client: Any
) -> None:
    """Neither counted, nor purged of its versions; and what failed and is whole in the store stays."""
    prefix = f"lives/{uuid4().hex}"
    fleet = Fleet(demo_database, store_from_client(f"s3://{VERSIONED}/{prefix}", s3_client))
    held = fleet.on_day(0)
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    fleet.erase(1, 1)
    later, failed = fleet.on_day(2), fleet.on_day(90)
    fleet.on_day(91)
    fleet.execute(f"UPDATE clinic_backups.backup SET state = 'failed' WHERE backup_id = '{failed.backup_id}'")
    fleet.clean(95)
    assert fleet.state(later) == "deleted"
    assert (tombstone(fleet).backups, tombstone(fleet).last_backup_at) == (0, None)
    versions = s3_client.list_object_versions(Bucket=VERSIONED, Prefix=f"{prefix}/{later.archive_key}")
    assert len(versions["Versions"]) == 1
    assert {failed.archive_key, envelope_key_of(failed.archive_key)} <= set(objects_of(fleet.stores.primary))


def test_the_weekly_run_goes_on_with_a_clinic_of_which_no_record_is_left(fleet: Fleet) -> None:
    one, two = fleet.stores
    fleet.on_day(0)
    fleet.on_day(0, 2)
    fleet.replicate()
    put(two, "backups/1/2026/09/backup_vieja_1_20260801_060000.tar.zst.age")
    down = Stores.of(one, Down(two.url.removeprefix("file://")))
    cleaned = fleet.erase(1, 1, stores=down)
    assert (cleaned.problem, tombstone(fleet).finished_at) == ("out of reach", None)
    assert not any(key.startswith("backups/1/") for key in objects_of(one))
    fleet.execute("DELETE FROM clinic_backups.backup WHERE clinic_id = '1'")
    assert [cleaned.clinic_id for cleaned in fleet.clean(8, stores=down)] == [1, 2]
    for key in [key for key in objects_of(two) if key.startswith("backups/1/") and key.endswith(".json")]:
        two.delete(key)  # what no record knows and is whole would have to be looked at
    assert [(cleaned.clinic_id, cleaned.problem) for cleaned in fleet.clean(15)] == [(1, ""), (2, "")]
    assert tombstone(fleet).finished_at == fleet.now
    assert not any(key.startswith("backups/1/") for key in objects_of(two))


class Down(FileStore):
    """Nothing can be asked of it."""

    def stat(self, key: str) -> ObjectInfo:
        raise TransientError("out of reach")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise TransientError("out of reach")

    def purge(self, key: str) -> None:
        raise TransientError("out of reach")


@pytest.mark.usefixtures("buckets")
def test_unfinished_uploads_of_the_clinic_go_and_nobody_elses(demo_database: DemoDatabase, s3_client: Any) -> None:
    prefix = f"lives/{uuid4().hex}"
    fleet = Fleet(demo_database, store_from_client(f"s3://{VERSIONED}/{prefix}", s3_client))
    fleet.on_day(0)
    keys = [
        "backups/1/2026/09/backup_uno_1_20260901_060000.tar.zst.age",
        "backups/1/fotos/pelicula.mp4",
        "backups/1/clinics/backups/1/2026/09/backup_uno_1_20260901_060000.tar.zst.age",
        "backups/12/2026/09/backup_doce_12_20260901_060000.tar.zst.age",
    ]
    for key in keys:
        s3_client.create_multipart_upload(Bucket=VERSIONED, Key=f"{prefix}/{key}")
    assert fleet.erase(1, 1).problem == ""
    uploads = s3_client.list_multipart_uploads(Bucket=VERSIONED, Prefix=prefix)["Uploads"]
    assert {upload["Key"].removeprefix(f"{prefix}/") for upload in uploads} == set(keys[1:])


@pytest.mark.parametrize("content", [b"{}", b'{"format": 9}', b"x"])
def test_what_has_an_envelope_that_is_none_cannot_be_taken_over_and_goes(fleet: Fleet, content: bytes) -> None:
    one, two = fleet.stores
    record = fleet.on_day(0)
    one.delete(envelope_key_of(record.archive_key))
    put(one, envelope_key_of(record.archive_key), content)
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    assert [key for key, _ in fleet.rebuild().conflicts] == [record.archive_key]
    # Unless somebody has put it on hold, wherever that is noted.
    write_hold(replace(record, hold_reason="pleito", held_by="abogada"), two)
    cleaned = fleet.erase(1, 1)
    assert "that the catalog does not know" in cleaned.problem
    assert record.archive_key in objects_of(one)
    two.delete(hold_key_of(record.archive_key))
    cleaned = fleet.erase(1, 2)
    assert (cleaned.problem, objects_of(one)) == ("", {})


def test_what_the_catalog_forgets_ends_with_the_moment_of_the_erasure(fleet: Fleet) -> None:
    """Restores, mails and the clinic's own line; asked again, the moment is a later one."""
    held = fleet.on_day(0)
    restores, outbox = Restores(fleet.catalog.database), Outbox(fleet.catalog.database)
    for day in (0.5, 3, 5):
        at = START + timedelta(days=day)
        outbox.queue(Notice(f"mail {day}", "success", {}, clinic_id=1), at)
        begun = restores.begin(
            RestoreRecord(
                restore_id=f"r-{day}", clinic_id=1, clinic_name="Uno", backup_id="b", mode="exact", plan={},
                plan_digest="d", started_at=at,
            )
        )  # fmt: skip
        restores.finish(begun.failed(PermanentError("x"), at), lambda db, record: None)
    fleet.on_day(2)
    fleet.execute("INSERT INTO clinic_backups.clinic (clinic_id, name, language, active) VALUES (1, 'Uno', 'es', false)"
                  " ON CONFLICT (clinic_id) DO UPDATE SET active = false")  # fmt: skip
    fleet.holds().hold(held.backup_id, "pleito", "abogada")
    fleet.erase(1, 1)
    fleet.holds().release(held.backup_id, "juez")
    fleet.erase(1, 4)
    assert tombstone(fleet).requested_at == START + timedelta(days=4)
    assert rows_about(fleet, 1) == {"backup": 0, "restore": 1, "notification": 1}
    assert fleet.execute_rows("SELECT clinic_id FROM clinic_backups.clinic WHERE clinic_id = '1'") == []


@pytest.mark.parametrize("note", ["a hold", "unreadable", "of no archive", "taken over"])
def test_notes_of_holds_that_the_catalog_did_not_make_are_shown_and_keep_nothing_where_that_is_said(
    fleet: Fleet, note: str
) -> None:
    one, two = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate()
    if note == "unreadable":
        put(two, hold_key_of(record.archive_key))
    else:
        write_hold(replace(record, hold_reason="nadie", held_by="quien sea"), two)
    if note == "of no archive":
        fleet.on_day(20)
        for store in fleet.stores:
            store.delete(envelope_key_of(record.archive_key))
            put(store, envelope_key_of(record.archive_key), b"{}")
        fleet.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id = '{record.backup_id}'")
    else:
        ((found, url, hold),) = fleet.cleaner().unknown_holds(1)
        assert (found.backup_id, url) == (record.backup_id, two.url)
        assert "that the catalog did not write" in hold.said
    if note == "taken over":
        fleet.on_day(40)
        fleet.clean(60)
        held = fleet.catalog.require(record.backup_id)
        assert (held.hold_reason, held.held_by) == ("nadie", f"quien sea{FROM_NOTE}")
    cleaned = fleet.erase(1, 61)
    assert record.archive_key in objects_of(two)
    if note == "a hold":
        ((decision),) = [decision for decision in cleaned.decisions if decision.keep]
        assert "nadie (by quien sea" in decision.reason
        # It is asked about, and not taken over.
        assert fleet.catalog.require(record.backup_id).hold_reason is None
    Erasures(fleet.catalog.database).request(1, reason="x", by="ops", at=fleet.now, ignore_unknown_holds=True)
    # The weekly run does it: the word is kept with the erasure.
    (cleaned,) = fleet.clean(68, clinic_id=1)
    assert (cleaned.problem, objects_of(one), objects_of(two)) == ("", {}, {})
    assert cleaned.erasure is not None and cleaned.erasure.finished_at is not None


@pytest.mark.parametrize("envelope", ["none", "of another archive"])
@pytest.mark.parametrize("note", [b"garbage", b"[]", b"\xff", b'{"reason": "nadie", "by": "x"}'])
def test_a_note_beside_what_nobody_can_take_over_names_the_word_that_ends_it(
    fleet: Fleet, note: bytes, envelope: str
) -> None:
    one, two = fleet.stores
    record = fleet.on_day(0)
    key = record.archive_key.replace("_1_2026", "_b_1_2026")
    put(one, key)
    # A copy of a real envelope under another name is of another archive.
    put(
        one, envelope_key_of(key), b"{}" if envelope == "none" else objects_of(one)[envelope_key_of(record.archive_key)]
    )
    put(two, hold_key_of(key), note)
    cleaned = fleet.erase(1, 1)
    assert "a hold note, but no valid envelope" in cleaned.problem
    assert "--ignore-unknown-holds" in cleaned.hint
    assert key in objects_of(one)
    Erasures(fleet.catalog.database).request(1, reason="x", by="ops", at=fleet.now, ignore_unknown_holds=True)
    (cleaned,) = fleet.clean(2, clinic_id=1)
    assert (cleaned.problem, objects_of(one), objects_of(two)) == ("", {}, {})


def test_a_hold_that_the_catalog_made_counts_whatever_is_said_of_others(fleet: Fleet) -> None:
    held = fleet.on_day(0)
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    Erasures(fleet.catalog.database).request(1, reason="x", by="ops", at=fleet.now, ignore_unknown_holds=True)
    (cleaned,) = fleet.clean(1, clinic_id=1)
    assert [decision.reason for decision in cleaned.decisions] == ["on hold: pleito 12"]
    assert held.archive_key in objects_of(fleet.stores.primary)
