"""Consolidation makes a full backup from an incremental one and its chain. It equals the source block by block."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import pyrage
import pytest

from clinic_backups import cli
from clinic_backups.archive.blocks import CUT_MASK, MIN_BLOCK_ROWS, Block, BlockList
from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION, WrongIdentity, generate_identity
from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.archive.reader import Manifest, TableContent
from clinic_backups.archive.writer import ArchiveWriter
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.pipeline import ByteChannel, Pipeline
from clinic_backups.base.table import Table
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore import chain_blocks as merging
from clinic_backups.restore.archives import Fetched, Source
from clinic_backups.restore.chain_blocks import Merge
from clinic_backups.restore.consolidation import Consolidated, Consolidation
from clinic_backups.stores import envelopes
from clinic_backups.stores.connect import store_from_client
from clinic_backups.stores.file import FileStore
from tests.child import answer_of
from tests.conftest import MakeStore
from tests.contract.buckets import LOCKED
from tests.fleet import START, flip, objects_of, reads_of
from tests.integration.test_incremental import ROWS, STOCK, Chain, alter, fill_with_noise, values
from tests.postgres_fixtures import DemoDatabase


class Desk(Chain):
    """A chain with somebody who consolidates it."""

    def consolidate(self, record: BackupRecord, **options: Any) -> Consolidated:
        archives = self.archives(**{name: options.pop(name) for name in ("on_bad_replica",) if name in options})
        parts = {
            "settings": self.settings, "catalog": self.catalog, "archives": archives, "store": self.stores.primary,
            "now": lambda: self.now,
        }  # fmt: skip
        return Consolidation(**(parts | options)).run(record.backup_id, requested_by="prueba")

    def chain_of(self, *counts: int) -> list[BackupRecord]:
        """A full backup, and an incremental after so many changed rows each."""
        records = [self.next()]
        for number, count in enumerate(counts):
            self.change(count, number)
            records.append(self.next())
        assert [record.kind for record in records] == ["full"] + ["incremental"] * len(counts)
        return records

    def blocks(self, record: BackupRecord) -> dict[str, list[list[Any]]]:
        """The blocks of each table as [digest, rows, bytes], in the manifest's order."""
        return {
            table["name"]: [block[:3] for block in table["blocks"]] for table in self.open(record).manifest["tables"]
        }

    def failed(self) -> list[BackupRecord]:
        return self.catalog.find(clinic_id=1, state="failed")

    def mails(self) -> int:
        ((count,),) = self.execute_rows("SELECT count(*) FROM clinic_backups.notification")
        return int(count)


@pytest.fixture
def desk(demo_database: DemoDatabase, tmp_path: Path) -> Desk:
    desk = Desk(demo_database, FileStore(tmp_path / "one"))
    desk.fill(ROWS)
    return desk


@pytest.fixture
def absent(desk: Desk) -> Callable[[ClinicBackupsError], None]:
    """Asserts, when it is called, that a consolidation left nothing but a failed record."""
    seen: dict[str, Any] = {}
    original = desk.consolidate

    def remembered(record: BackupRecord, **options: Any) -> Consolidated:
        seen.update(objects=set(objects_of(desk.stores.primary)), mails=desk.mails())
        return original(record, **options)

    desk.consolidate = remembered  # type: ignore[method-assign]

    def check(error: ClinicBackupsError) -> None:
        (record,) = desk.failed()
        assert (record.kind, record.notes[:17], record.error) == ("full", "consolidated from", error.message)
        assert error.hint
        assert set(objects_of(desk.stores.primary)) <= seen["objects"]
        assert desk.mails() == seen["mails"]
        with desk.catalog.lock(1):
            pass

    return check


def test_any_chain_of_four_becomes_a_full_backup_of_the_same_rows_and_blocks(desk: Desk) -> None:
    kept: list[tuple[BackupRecord, dict[str, bytes], dict[str, list[bytes]]]] = []
    for number, (what, count) in enumerate([("insert", 700), ("update", 60), ("delete", 500), ("insert", 150)]):
        alter(desk, what, STOCK, count, number)
        kept.append((desk.next(), desk.rows_now(1), values(desk)))
    assert [record.kind for record, _, _ in kept] == ["full"] + ["incremental"] * 3
    desk.later(hours=3)
    for source, rows, rows_again in reversed(kept[1:]):
        mails = desk.mails()
        done = desk.consolidate(source)
        new = done.record
        assert done.verified
        assert desk.open(new).tables == rows
        assert desk.blocks(new) == desk.blocks(source)
        described = {**desk.open(source).manifest, "backup_id": new.backup_id, "archives": [new.backup_id]}
        described["tables"] = [
            table | {"blocks": [[*block[:3], 0] for block in table["blocks"]]} for table in described["tables"]
        ]
        assert desk.open(new).manifest == described
        assert new == replace(
            source,
            backup_id=new.backup_id,
            number=new.number,
            archive_key=new.archive_key,
            kind="full",
            parent_id=None,
            chain=(),
            trigger="manual",
            notes=f"consolidated from {source.backup_id}",
            kind_reason=f"consolidated from {source.backup_id}",
            started_at=source.started_at + timedelta(seconds=1),
            finished_at=desk.now,
            expires_at=desk.now + timedelta(days=30),
            size_bytes=new.size_bytes,
            sha256=new.sha256,
            md5=new.md5,
            raw_bytes=sum(map(len, rows.values())),
        )
        assert desk.again(new) == new
        assert envelopes.load(new.archive_key, desk.store, now=desk.catalog.clock()) == new.envelope()
        assert desk.mails() == mails
        desk.restored(new)
        assert values(desk) == rows_again


def test_on_every_store_it_is_written_from_one_reading_of_each_archive_after_the_check(
    demo_database: DemoDatabase, make_store: MakeStore
) -> None:
    store = make_store(f"consolidate-{uuid4().hex}")
    desk = Desk(demo_database, store)
    desk.fill(ROWS)
    records = desk.chain_of(30, 30, 30)
    rows = desk.rows_now(1)
    reads = reads_of(store)
    new = desk.consolidate(records[-1]).record
    archives = {key: reads.count(key) for key in reads if not key.endswith(".json")}
    assert archives == {record.archive_key: 2 for record in records} | {new.archive_key: 1}
    for record in records:
        store.delete(record.archive_key)
    desk.change(200, 9)
    desk.restored(new)
    assert desk.rows_now(1) == rows


def test_an_archive_is_taken_from_the_store_that_has_a_good_replica(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    one, two = FileStore(tmp_path / "one"), FileStore(tmp_path / "two")
    desk = Desk(demo_database, one, two)
    desk.fill(ROWS)
    records = desk.chain_of(30, 30)
    rows = desk.rows_now(1)
    assert desk.replicate().problems == []
    one.delete(records[0].archive_key)
    flip(two, records[1].archive_key)
    bad: list[tuple[str, str]] = []
    new = desk.consolidate(
        records[-1], on_bad_replica=lambda source, url, error: bad.append((source.backup_id, url))
    ).record
    assert bad == [(records[0].backup_id, one.url)]
    assert new.stores == (one.url,)
    assert desk.open(new).tables == rows


def test_retention_lets_the_old_chain_go_and_the_new_one_stays(desk: Desk) -> None:
    """The clinic makes no more backups: what is left after the term is the last good one, and what that needs."""
    records = desk.chain_of(30, 30, 30)
    desk.clean(40)
    assert [desk.state(record) for record in records] == ["completed"] * 4
    new = desk.consolidate(records[-1]).record
    desk.clean(41)
    assert [desk.state(record) for record in records] == ["deleted"] * 4
    assert set(objects_of(desk.stores.primary)) == {new.archive_key, envelope_key_of(new.archive_key)}
    desk.change(100, 5)
    desk.restored(new)


def test_the_next_incremental_is_built_on_the_newest_by_the_age_of_its_rows(desk: Desk) -> None:
    records = desk.chain_of(30, 30)
    # Of one in the middle: a second younger than it, and a day older than the newest, which goes on to be built on.
    older = desk.consolidate(records[1]).record
    desk.change(20, 7)
    third = desk.next()
    assert (third.kind, third.parent_id) == ("incremental", records[2].backup_id)
    # Of the newest: a second younger than it, and so the newest.
    newest = desk.consolidate(third).record
    desk.change(20, 8)
    fourth = desk.next()
    assert (fourth.kind, fourth.parent_id) == ("incremental", newest.backup_id)
    assert fourth.kind_reason == f"built on {newest.backup_id}, 1.0 days after the full one"
    assert [archive.backup_id for archive in fourth.chain] == [newest.backup_id]
    assert newest.size_bytes is not None and fourth.size_bytes is not None
    assert fourth.size_bytes < newest.size_bytes / 2
    rows = desk.rows_now(1)
    for gone in (*records, third, older):
        desk.stores.primary.delete(gone.archive_key)
    desk.change(300, 9)
    desk.restored(fourth)
    assert desk.rows_now(1) == rows


def test_a_second_one_of_the_same_source_takes_the_next_second(desk: Desk) -> None:
    source = desk.chain_of(30)[-1]
    made = [desk.consolidate(source).record for _ in range(2)]
    assert [record.started_at - source.started_at for record in made] == [timedelta(seconds=1), timedelta(seconds=2)]
    assert made[0].fingerprint == made[1].fingerprint == source.fingerprint


def test_it_is_encrypted_to_the_keys_of_today_and_read_back_where_the_identity_opens_them(desk: Desk) -> None:
    source = desk.chain_of(30)[-1]
    rows, (secret, public) = desk.rows_now(1), generate_identity()
    both = desk.settings.model_copy(update={"clinic_recipients": {1: (public,)}})
    done = desk.consolidate(source, settings=both)
    assert (done.verified, done.record.recipients) == (True, both.recipients_of(1))
    other = both.model_copy(update={"own_keys_only": True})
    done = desk.consolidate(source, settings=other)
    assert (done.verified, done.record.recipients) == (False, (public,))
    desk.identity = secret
    assert desk.open(done.record).tables == rows


@pytest.mark.usefixtures("buckets")
def test_it_is_locked_as_a_backup_is(demo_database: DemoDatabase, s3_client: Any) -> None:
    store = store_from_client(f"s3://{LOCKED}/consolidate/{os.urandom(6).hex()}", s3_client, lock_mode="governance")
    desk = Desk(demo_database, store)
    source = desk.chain_of(30)[-1]
    settings = desk.settings.model_copy(update={"lock_days": 400})
    new = desk.consolidate(source, settings=settings).record
    assert new.locked_until == desk.now + timedelta(days=400 + 7)
    for key in (new.archive_key, envelope_key_of(new.archive_key)):
        assert store.stat(key).locked_until == new.locked_until


class TestRefused:
    """Before anything is recorded."""

    def test_what_is_no_completed_incremental(self, desk: Desk) -> None:
        full, child = desk.chain_of(30)
        with pytest.raises(PermanentError, match="is a full one already"):
            desk.consolidate(full)
        with pytest.raises(PermanentError, match="no backup '1-x'"):
            desk.consolidate(replace(full, backup_id="1-x"))
        desk.replicas.mark(full.backup_id, desk.store.url, "missing", desk.now)
        with pytest.raises(PermanentError, match="is lost, not completed") as caught:
            desk.consolidate(child)
        assert "catalog verify --record" in caught.value.hint
        assert len(desk.catalog.find()) == 2

    def test_a_clinic_at_which_somebody_works_or_that_is_being_erased(self, desk: Desk) -> None:
        source = desk.chain_of(30)[-1]
        with Catalog(desk.catalog._connection).lock(1), pytest.raises(AlreadyRunning):
            desk.consolidate(source)
        Erasures(desk.catalog.database).request(1, reason="baja 12", by="ops", at=desk.now)
        with pytest.raises(PermanentError, match="is being erased"):
            desk.consolidate(source)
        assert len(desk.catalog.find()) == 2


class TestAbsent:
    """A failure leaves a failed record, tells no administrator, and stores nothing."""

    def test_a_wrong_identity(self, desk: Desk, absent: Callable[[ClinicBackupsError], None]) -> None:
        source = desk.chain_of(30)[-1]
        desk.identity, _ = generate_identity()
        with pytest.raises(WrongIdentity) as caught:
            desk.consolidate(source)
        absent(caught.value)

    def test_a_damaged_or_missing_parent(self, desk: Desk, absent: Callable[[ClinicBackupsError], None]) -> None:
        records = desk.chain_of(30, 30)
        flip(desk.store, records[0].archive_key)
        with pytest.raises(IntegrityError, match="differs from what was stored") as caught:
            desk.consolidate(records[-1])
        absent(caught.value)

    @pytest.mark.parametrize("damage", ["flipped", "gone", "exchanged"])
    def test_a_parent_that_changes_after_it_was_checked(
        self, desk: Desk, absent: Callable[[ClinicBackupsError], None], damage: str
    ) -> None:
        records = desk.chain_of(30, 30)
        content = objects_of(desk.store)

        def spoil(step: str) -> None:
            if not step.startswith("writing"):
                return
            if damage == "flipped":
                flip(desk.store, records[0].archive_key)
                return
            desk.store.delete(records[0].archive_key)
            if damage == "exchanged":
                path = FileStore(Path(desk.store.url.removeprefix("file://"))).root / records[0].archive_key
                path.write_bytes(content[records[1].archive_key])

        with pytest.raises(PermanentError) as caught:
            desk.consolidate(records[-1], listener=Listener(spoil))
        absent(caught.value)

    def test_a_store_that_fails_on_the_way(
        self, desk: Desk, absent: Callable[[ClinicBackupsError], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = desk.chain_of(30)[-1]

        def full(self: FileStore, part: Path, reader: Any) -> None:
            part.write_bytes(reader.read_part(1000))
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(PermanentError, match="No space left") as caught:
            patch.setattr(FileStore, "_write", full)
            desk.consolidate(source)
        absent(caught.value)
        assert desk.consolidate(source).record.started_at == source.started_at + timedelta(seconds=2)

    @pytest.mark.parametrize("fault", ["other rows", "lost lock", "envelope"])
    def test_what_comes_to_light_between_archive_and_envelope(
        self, desk: Desk, absent: Callable[[ClinicBackupsError], None], monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        source = desk.chain_of(30)[-1]

        def cut(step: str) -> None:
            if step.endswith("back") and fault == "lost lock":
                desk.execute(
                    "SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks AS l WHERE l.locktype = 'advisory'"
                    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )

        def fail(*args: object, **options: object) -> None:
            raise TransientError("Der Speicher schweigt.", hint="Warten.")

        with monkeypatch.context() as patch, pytest.raises(ClinicBackupsError) as caught:
            if fault == "other rows":
                patch.setattr("clinic_backups.backup.stream.fingerprint", lambda blocks: "another")
            if fault == "envelope":
                patch.setattr(envelopes, "write", fail)
            desk.consolidate(source, listener=Listener(cut))
        absent(caught.value)

    def test_a_killed_process(self, desk: Desk) -> None:
        source = desk.chain_of(30)[-1]
        before = set(objects_of(desk.store))

        def die(self: FileStore, part: Path, reader: Any) -> None:
            part.write_bytes(reader.read_part(1000))
            os.kill(os.getpid(), signal.SIGKILL)

        if (pid := os.fork()) == 0:
            try:
                FileStore._write = die  # type: ignore[method-assign]
                desk.catalog = Catalog(desk.catalog._connection)
                desk.consolidate(source)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        assert set(objects_of(desk.store)) == before
        (dead,) = desk.catalog.find(state="running")
        assert dead.started_at == source.started_at + timedelta(seconds=1)
        new = desk.consolidate(source).record
        assert new.started_at == source.started_at + timedelta(seconds=2)
        assert "ended without a result" in (desk.again(dead).error or "")
        assert set(objects_of(desk.store)) == before | {new.archive_key, envelope_key_of(new.archive_key)}

    def test_a_catalog_that_is_gone_at_the_end_learns_of_it_with_the_next_backup(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = desk.chain_of(30)[-1]
        down = TransientError("The catalog is down.", hint="Wait.")

        def fail(*args: object, **options: object) -> None:
            raise down

        with monkeypatch.context() as patch, pytest.raises(TransientError) as caught:
            patch.setattr(Catalog, "finish", fail)
            desk.consolidate(source)
        assert "is stored" in caught.value.__notes__[0]
        (left,) = desk.catalog.find(state="running")
        new = desk.next()
        assert desk.state(left) == "completed"
        assert (new.kind, new.kind_reason) == ("full", f"the catalog has no list of the blocks of {left.backup_id}")


@pytest.mark.parametrize("room", [16 * 1024 * 1024, 0])
def test_blocks_that_are_listed_more_often_than_stored_wait_in_memory_while_they_are_few(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A table without a primary key whose rows are the same a thousand times."""
    desk.execute(
        f"ALTER TABLE {STOCK} DROP CONSTRAINT inventario_inventario_pkey CASCADE,"
        " DROP CONSTRAINT inventario_inventario_clinica_id_codigo_276b0d45_uniq"
    )
    desk.execute(
        f"INSERT INTO {STOCK} (id, codigo, nombre, cantidad, precio_unitario, clinica_id)"
        " SELECT -7, 'R' || n, 'igual', 1, 1.5, 1 FROM generate_series(1, 300) AS n"
    )
    same = next(
        line.decode().split(",")[1]
        for line in desk.rows_now(1)[STOCK].splitlines(keepends=True)
        if line.startswith(b"-7,") and not crc32(line) & CUT_MASK
    )
    desk.execute(f"DELETE FROM {STOCK} WHERE id = -7 AND codigo <> '{same}'")
    copies = (
        f"INSERT INTO {STOCK} SELECT i.* FROM {STOCK} AS i, generate_series(1, %d) WHERE id = -7 AND codigo = '{same}'"
    )
    # Rows are in order of their text: these are among the first, and so in blocks of nothing else.
    desk.execute(copies % (3 * MIN_BLOCK_ROWS))
    full = desk.next()
    desk.execute(copies % 4)
    child = desk.next()
    assert (full.kind, child.kind) == ("full", "incremental")
    digests = [block[0] for block in desk.blocks(child)[STOCK]]
    stored = [block[0] for block in desk.blocks(full)[STOCK]]
    often = max(digests, key=digests.count)
    assert digests.count(often) > stored.count(often) >= 1
    monkeypatch.setattr(merging, "KEPT_BYTES", room)
    if not room:
        with pytest.raises(PermanentError, match="more often") as caught:
            desk.consolidate(child)
        assert caught.value.hint.endswith("clinic-backups backup --clinic 1 --kind full")
        assert len(objects_of(desk.store)) == 4
        return
    new = desk.consolidate(child).record
    assert desk.open(new).tables == desk.rows_now(1)
    assert desk.blocks(new) == desk.blocks(child)


class TestOrder:
    """An archive whose blocks lie in another order than the manifest lists them: none that this version writes."""

    TABLE = "public.t"

    def merged(self, folder: Path, order: list[int]) -> list[bytes]:
        """The data of those blocks of one archive, each a segment of its own, in the order that is wanted."""
        secret, public = generate_identity()
        packed, sealed, store = ByteChannel(), ByteChannel(), FileStore(folder)
        writer = ArchiveWriter(packed, CODEC, START)
        described = {name: Table(name, (), (), ()) for name in ("public.gone", self.TABLE, "public.u")}
        for name, table in described.items():
            writer.begin(table)
            for number in range(10):
                data = f"{name} {number}\n".encode()
                writer._take([(data, Block(hashlib.sha256(data).digest(), 1, len(data)))], 0)
            writer.end()
        there = writer.finish(Clinic(1, "Clínica"), "1-parent")
        packed.close()
        ENCRYPTION.run(packed, sealed, [public])
        sealed.close()
        stored = store.put("parent", sealed)
        parent = Source("1-parent", 1, ArchiveInfo("parent", stored.size_bytes, stored.sha256, stored.md5))
        wanted, blocks = BlockList(), list(there[self.TABLE])
        for number in order:
            wanted.append(blocks[number], 1)
        contents = {
            self.TABLE: TableContent(described[self.TABLE], wanted.rows, wanted.size_bytes, wanted),
            "public.u": TableContent(described["public.u"], 0, 0, BlockList()),
        }
        manifest = Manifest("1-child", Clinic(1, "Clínica"), START, "", contents, ("1-child", "1-parent"))
        backup = Fetched(manifest, {1: parent}, store, None)
        merge = Merge(backup, {1: store}, [pyrage.x25519.Identity.from_str(secret)], lambda done, total: None)
        (archive,) = merge.archives.values()
        pipeline, found = Pipeline(), list[bytes]()
        pipeline.add("read", archive.read, target=archive.segments)

        def take() -> None:
            try:
                found.extend(data for data, _ in merge._blocks(contents[self.TABLE]))
            finally:
                merge.stop()

        pipeline.run(take, on_failure=merge.stop)
        return found

    @pytest.mark.parametrize("order", [
        [0, 1, 2, 9], [5], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [3, 3, 3], [4, 1, 4, 9, 0, 4, 9], [2, 9, 2, 9],
    ])  # fmt: skip
    def test_what_comes_early_waits(self, tmp_path: Path, order: list[int]) -> None:
        assert self.merged(tmp_path, order) == [f"{self.TABLE} {number}\n".encode() for number in order]

    @pytest.mark.parametrize("order", [[1, 0], [3, 3], [0, 9, 5]])
    def test_without_room_it_fails(self, tmp_path: Path, order: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(merging, "KEPT_BYTES", 10)
        with pytest.raises(PermanentError, match=f"blocks of {self.TABLE} come more often than 1-parent"):
            self.merged(tmp_path, order)


class TestMemory:
    PROGRAM = """
import json, re, sys
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, "plugins")
import pyrage
from clinic_backups.base import connections
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore.consolidation import Consolidation
from clinic_backups.restore.archives import Archives
from clinic_backups.base.settings import Settings
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore

def peak(): return int(re.search("VmHWM:\\\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024

given = json.load(sys.stdin)
settings = Settings(recipients=given["recipients"], store_url=given["store"])
catalog = Catalog(connections.parse("backup_catalog", given["catalog"]))
stores = Stores.of(FileStore(given["store"].removeprefix("file://")))
archives = Archives(stores, [pyrage.x25519.Identity.from_str(given["identity"])])
consolidation = Consolidation(settings=settings, catalog=catalog, archives=archives, store=stores.primary)
peaks = [peak()]
for backup_id in given["backup_ids"]:
    consolidation.run(backup_id, requested_by="prueba")
    peaks.append(peak())
print(json.dumps(peaks))
"""

    def test_does_not_grow_with_the_clinic(self, desk: Desk) -> None:
        """15,000 rows and then 150,000, of 450 bytes that do not compress well; a third of them in the incremental."""
        ids = []
        for clinic_id, rows in ((1, 15_000), (2, 150_000)):
            fill_with_noise(desk, rows, clinic_id)
            desk.next(clinic_id)
            desk.execute(
                f"UPDATE {STOCK} SET cantidad = 2 WHERE clinica_id = {clinic_id} AND codigo LIKE 'N%'"
                f" AND ltrim(codigo, 'N')::int BETWEEN {rows // 3} AND {rows * 2 // 3}"
            )
            ids.append(desk.next(clinic_id))
        assert [record.kind for record in ids] == ["incremental"] * 2
        assert ids[1].raw_bytes is not None and ids[1].raw_bytes > 60_000_000
        job = {
            "recipients": desk.settings.recipients,
            "store": desk.store.url,
            "catalog": desk.database.catalog_uri,
            "identity": desk.identity,
            "backup_ids": [record.backup_id for record in ids],
        }
        before, small, large = answer_of(self.PROGRAM, job)
        print(f"{before} MiB before, {small} after 15,000 rows, {large} after 150,000")
        assert large - small < 40
        assert large - before < 100


def test_the_command_needs_the_catalog_the_store_and_the_key(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no connection to the clinics' database."""
    full, source = desk.chain_of(30)
    desk.initialise()
    file = tmp_path / "identity.txt"
    file.touch(0o600)
    file.write_text(desk.identity)
    monkeypatch.setenv("AIRFLOW_CONN_BACKUP_CATALOG", desk.database.catalog_uri)
    monkeypatch.setenv("CLINIC_BACKUPS_STORE_URL", desk.store.url)
    monkeypatch.setenv("CLINIC_BACKUPS_RECIPIENTS", desk.settings.recipients[0])
    monkeypatch.setattr("clinic_backups.cli.stopping.install", lambda: None)

    def run(*words: str) -> tuple[int, str, str]:
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["clinic-backups", "consolidate", *words, "--identity", str(file)])
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        return code, *capsys.readouterr()

    code, out, _ = run(source.backup_id, "--json")
    new = desk.catalog.latest(1)
    assert new is not None
    assert (code, json.loads(out)) == (0, json.loads(json.dumps(new.to_json())))
    assert new.requested_by.endswith("(command line)")
    assert desk.open(new).tables == desk.rows_now(1)
    code, out, err = run(source.backup_id)
    assert (code, f"{source.rows_total:,} rows" in out) == (0, True)
    assert f"Retention can now delete {source.backup_id} and its chain" in out
    assert "… writing 1-" in err
    code, out, err = run(full.backup_id)
    assert (code, out) == (1, "")
    assert "HINT: There is nothing to do" in err
    monkeypatch.setenv("CLINIC_BACKUPS_RECIPIENTS", generate_identity()[1])
    code, _, err = run(source.backup_id)
    assert (code, "It was not read back" in err) == (0, True)
