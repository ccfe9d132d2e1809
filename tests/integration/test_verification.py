"""Verification reads every replica of a backup and its chain.

Bad replicas are recorded and reported; found ones count again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError, TransientError
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.verification import Verification, Verifier
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import Fleet, flip, objects_of, put, reads_of
from tests.integration.test_incremental import Chain
from tests.postgres_fixtures import DemoDatabase

Seen = dict[tuple[str, str], str | None]


def verify(fleet: Fleet, record: BackupRecord, stores: Stores | None = None) -> Verification:
    check = StoreCheck(catalog=fleet.catalog, now=lambda: fleet.now)
    verifier = Verifier(catalog=fleet.catalog, stores=stores or fleet.stores, check=check, now=lambda: fleet.now)
    return verifier.run(record.backup_id)


def seen(done: Verification) -> Seen:
    return {(replica.backup_id, replica.store_url): replica.condition for replica in done.replicas}


def bad(done: Verification) -> list[tuple[str, str, bool]]:
    return [(replica.store_url, str(replica.condition), replica.is_news) for replica in done.bad]


def exchange(store: ObjectStore, key: str, content: bytes) -> None:
    store.delete(key)
    put(store, key, content)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))


@pytest.fixture
def chain(demo_database: DemoDatabase, tmp_path: Path) -> Chain:
    """Two incremental backups on a full one, in two stores."""
    return Chain(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))


def links(chain: Chain) -> list[BackupRecord]:
    made = [chain.next()]
    for number in range(2):
        chain.change(1, number)
        made.append(chain.next())
    chain.replicate()
    assert [record.kind for record in made] == ["full", "incremental", "incremental"]
    return made


def test_on_every_store_it_is_read_once_with_its_chain_and_nothing_else_is(
    demo_database: DemoDatabase, make_store: MakeStore, tmp_path: Path
) -> None:
    chain = Chain(demo_database, make_store("verification"), FileStore(tmp_path / "two"))
    full, middle, newest = links(chain)
    chain.on_day(40, 2)
    reads = {store.url: reads_of(store) for store in chain.stores}
    done = verify(chain, middle)
    done.require_intact()
    urls = chain.stores.urls
    assert seen(done) == {(record.backup_id, url): "intact" for record in (middle, full) for url in urls}
    assert [(replica.backup_id, replica.store_url) for replica in done.replicas] == [
        (record.backup_id, url) for record in (middle, full) for url in urls
    ]
    for keys in reads.values():
        assert sorted(key for key in keys if key.endswith(".age")) == sorted([full.archive_key, middle.archive_key])
        assert {key for key in keys if "backup" in key} <= {
            name for record in (full, middle) for name in (record.archive_key, envelope_key_of(record.archive_key))
        }
    assert (done.losses, done.problems, newest.state) == ([], [], "completed")


@pytest.mark.parametrize("damage", ["missing", "damaged", "shorter"])
def test_a_bad_replica_is_recorded_told_once_and_counts_again_when_it_is_back(fleet: Fleet, damage: str) -> None:
    record = fleet.on_day(0)
    fleet.replicate()
    one, two = fleet.stores
    whole = objects_of(two)[record.archive_key]
    two.delete(record.archive_key)
    if damage != "missing":
        put(two, record.archive_key, whole[:-1] if damage == "shorter" else whole[:-1] + bytes([whole[-1] ^ 1]))
    condition = "missing" if damage == "missing" else "damaged"
    done = verify(fleet, record)
    assert seen(done) == {(record.backup_id, one.url): "intact", (record.backup_id, two.url): condition}
    assert bad(done) == [(two.url, condition, True)]
    with pytest.raises(PermanentError, match=f"{record.backup_id} is {condition} in {two.url}") as raised:
        done.require_intact()
    assert "clinic-backups replicate" in raised.value.hint
    assert fleet.again(record).stores == (one.url,)
    assert fleet.state(record) == "completed"
    assert [(loss.store_url, loss.problem) for loss in done.losses] == [(two.url, condition)]
    query = "SELECT facts FROM clinic_backups.notification WHERE kind = 'loss' AND urgent"
    ((facts,),) = fleet.execute_rows(query)
    assert [(lost["backup_id"], lost["left"]) for lost in facts["lost"]] == [(record.backup_id, [one.url])]

    # It stays bad, and nobody is told again.
    again = verify(fleet, record)
    assert bad(again) == [(two.url, condition, False)]
    assert (again.losses, len(fleet.execute_rows(query))) == ([], 1)
    with pytest.raises(PermanentError):
        again.require_intact()

    if damage != "missing":
        two.delete(record.archive_key)
    put(two, record.archive_key, whole)
    back = verify(fleet, record)
    back.require_intact()
    assert [(replica.store_url, replica.is_news) for replica in back.replicas] == [(one.url, False), (two.url, True)]
    assert set(fleet.again(record).stores) == {one.url, two.url}


def test_a_damaged_parent_makes_what_is_built_on_it_bad(chain: Chain) -> None:
    full, middle, newest = links(chain)
    one, two = chain.stores
    whole = objects_of(one)
    flip(one, full.archive_key)
    done = verify(chain, newest)
    assert bad(done) == [(one.url, "damaged", True)]
    assert [chain.state(record) for record in (full, middle, newest)] == ["completed"] * 3
    with pytest.raises(PermanentError, match=f"{full.backup_id} is damaged in {one.url}"):
        done.require_intact()
    # Then the last good replica of it.
    two.delete(full.archive_key)
    done = verify(chain, newest)
    assert bad(done) == [(one.url, "damaged", False), (two.url, "missing", True)]
    assert [(loss.backup_id, loss.problem) for loss in done.losses] == [
        (full.backup_id, "missing"), (middle.backup_id, "incomplete"), (newest.backup_id, "incomplete"),
    ]  # fmt: skip
    assert [chain.state(record) for record in (full, middle, newest)] == ["lost"] * 3
    with pytest.raises(PermanentError) as raised:
        done.require_intact()
    assert f"No replica of {full.backup_id} is left" in raised.value.hint
    assert '{"clinic_id": 1}' in raised.value.hint
    # With it, all that is built on it is back.
    exchange(one, full.archive_key, whole[full.archive_key])
    assert bad(verify(chain, newest)) == [(two.url, "missing", False)]
    assert [chain.state(record) for record in (full, middle, newest)] == ["completed"] * 3


class Troubled(FileStore):
    """Does something else where an archive is opened."""

    def __init__(self, root: Path, meanwhile: Callable[[str], object]) -> None:
        super().__init__(root)
        self._meanwhile = meanwhile

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        if key.endswith(".age"):
            self._meanwhile(key)
        return super().open(key)


def raising(error: type[ClinicBackupsError]) -> Callable[[str], None]:
    def fail(key: str) -> None:
        raise error("the store refused", hint="Ask its owner.")

    return fail


@pytest.mark.parametrize("error", [TransientError, PermanentError])
def test_a_store_that_does_not_answer_is_an_error_and_nothing_is_recorded_of_it(
    chain: Chain, tmp_path: Path, error: type[ClinicBackupsError]
) -> None:
    full, _, newest = links(chain)
    one, two = chain.stores
    flip(two, full.archive_key)  # which cannot be seen
    done = verify(chain, newest, Stores.of(one, Troubled(tmp_path / "two", raising(error))))
    conditions = {
        url: {replica.condition for replica in done.replicas if replica.store_url == url} for url in chain.stores.urls
    }
    assert conditions == {one.url: {"intact"}, two.url: {None}}
    assert (done.bad, done.losses, chain.again(full).stores) == ([], [], (one.url, two.url))
    with pytest.raises(error, match=f"{newest.backup_id} was not fully verified: the store refused") as raised:
        done.require_intact()
    assert raised.value.hint == "Ask its owner."


def test_a_store_that_is_away_loses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    fleet.replicate()
    away = tmp_path / "two"
    away.rename(tmp_path / "kept")
    away.mkdir()
    done = verify(fleet, record)
    assert [replica.condition for replica in done.replicas] == ["intact", None]
    with pytest.raises(TransientError, match="holds none of the catalog's backups"):
        done.require_intact()
    assert fleet.again(record).stores == fleet.stores.urls


def test_a_store_that_is_none_of_the_settings_is_named(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.replicate()
    one, two = fleet.stores
    done = verify(fleet, record, Stores.of(one))
    assert seen(done) == {(record.backup_id, one.url): "intact", (record.backup_id, two.url): None}
    with pytest.raises(PermanentError, match=f"{two.url} holds backups, but is not a store of these settings"):
        done.require_intact()


def test_bad_replicas_are_told_before_what_could_not_be_looked_at(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    fleet.replicate()
    one, _ = fleet.stores
    one.delete(record.archive_key)
    done = verify(fleet, record, Stores.of(one, Troubled(tmp_path / "two", raising(TransientError))))
    with pytest.raises(PermanentError, match="is missing") as raised:
        done.require_intact()
    assert raised.value.__notes__ == ["And: the store refused\nHINT: Ask its owner."]
    assert "No replica" not in raised.value.hint


def test_while_the_clinic_is_backed_up_what_is_intact_is_so_and_what_is_bad_waits(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.replicate()
    with fleet.catalog.lock(1):
        verify(fleet, record).require_intact()
        flip(fleet.stores.primary, record.archive_key)
        done = verify(fleet, record)
        assert [replica.condition for replica in done.replicas] == [None, "intact"]
        with pytest.raises(TransientError, match="is already being backed up"):
            done.require_intact()
        assert fleet.again(record).stores == fleet.stores.urls
    assert bad(verify(fleet, record)) == [(fleet.stores.urls[0], "damaged", True)]


def test_what_retention_deletes_meanwhile_is_not_lost(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)

    def delete(key: str) -> None:
        fleet.catalog.mark_deleting(record)
        raise ObjectNotFound("gone")

    done = verify(fleet, record, Stores.of(Troubled(tmp_path / "one", delete)))
    assert ([replica.condition for replica in done.replicas], done.losses) == ([None], [])
    with pytest.raises(TransientError, match="was deleted or made again while it was read"):
        done.require_intact()


def test_an_envelope_that_is_gone_is_written_again(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    store = fleet.stores.primary
    before = objects_of(store)
    store.delete(envelope_key_of(record.archive_key))
    verify(fleet, record).require_intact()
    assert objects_of(store) == before


def test_an_envelope_of_another_archive_is_a_problem(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    store, name = fleet.stores.primary, envelope_key_of(record.archive_key)
    exchange(store, name, objects_of(store)[name].replace((record.sha256 or "").encode(), b"0" * 64))
    done = verify(fleet, record)
    assert [replica.condition for replica in done.replicas] == ["intact"]
    with pytest.raises(PermanentError, match="was not fully verified"):
        done.require_intact()


def test_what_is_no_backup_cannot_be_verified(fleet: Fleet) -> None:
    record = fleet.on_day(0)
    fleet.catalog.mark_deleting(record)
    with pytest.raises(PermanentError, match="is deleting: there is no archive to verify"):
        verify(fleet, record)
    with pytest.raises(PermanentError, match="There is no backup '9-x'"):
        verify(fleet, replace(record, backup_id="9-x"))


def test_a_parent_that_no_store_is_known_to_hold_is_named(chain: Chain) -> None:
    full, _, newest = links(chain)
    chain.execute(f"DELETE FROM clinic_backups.backup_replica WHERE backup_id = '{full.backup_id}'")
    done = verify(chain, newest)
    assert full.backup_id not in {replica.backup_id for replica in done.replicas}
    with pytest.raises(PermanentError, match=f"No store is known to hold {full.backup_id}"):
        done.require_intact()


def test_one_that_was_completed_on_a_lost_parent_is_lost_and_told(chain: Chain) -> None:
    """As versions before wrote it: what is built on a lost backup was not looked at when it was completed."""
    full, middle, newest = links(chain)
    for store in chain.stores:
        store.delete(full.archive_key)
        chain.replicas.lose(full, store.url, "missing", chain.now)
    chain.execute(
        f"UPDATE clinic_backups.backup SET state = 'completed' WHERE backup_id <> '{full.backup_id}'",
        "DELETE FROM clinic_backups.notification",
    )
    done = verify(chain, newest)
    lost = [(middle.backup_id, "incomplete"), (newest.backup_id, "incomplete")]
    assert [(loss.backup_id, loss.problem) for loss in done.losses] == lost
    assert chain.losses() == lost
    assert [chain.state(record) for record in (full, middle, newest)] == ["lost"] * 3
    assert verify(chain, newest).losses == []
