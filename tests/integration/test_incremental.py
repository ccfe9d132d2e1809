"""Incremental backups: they see every change, store only what is new, and restore as a full one would."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4
from zlib import crc32

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clinic_backups.archive import writer as archive
from clinic_backups.archive.blocks import CUT_MASK, MAX_ARCHIVES, MIN_BLOCK_ROWS, OWN_ARCHIVE
from clinic_backups.archive.encryption import generate_identity
from clinic_backups.archive.object_keys import envelope_key_of
from clinic_backups.archive.reader import MAX_MANIFEST_BYTES
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, TransientError
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.restore import archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.request import Wish
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.conftest import MakeStore
from tests.fleet import START, Fleet, flip, objects_of, put, reads_of
from tests.postgres_fixtures import DemoDatabase, copy_of
from tests.rig import once
from tests.servers import CHECKOUT

ROWS = 3000
STOCK = "public.inventario_inventario"


class Chain(Fleet):
    """A fleet whose backups choose their kind, each a day after the one before."""

    def __init__(self, database: DemoDatabase, *stores: ObjectStore) -> None:
        super().__init__(database, *stores)
        self.kind = "auto"
        self.day = 0
        self.meanwhile: Callable[[], object] = lambda: None
        """Done while the next backup reads its rows."""

    def next(self, clinic_id: int = 1, **changes: Any) -> BackupRecord:
        self.day += 1
        self.now = START + timedelta(days=self.day)
        backup = self.backup(
            # In so small a clinic a few changed rows are most of its blocks.
            settings=self.settings.model_copy(update={"incremental_percent": 10_000} | changes),
            now=lambda: self.now,
            on_progress=once(lambda progress: progress.rows > 100, lambda: self.meanwhile()),
        )
        return backup.run(self.request(clinic_id))

    def losses(self) -> list[tuple[str, str]]:
        """What the operator is told."""
        ((facts,),) = self.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'loss'")
        return [(loss["backup_id"], loss["problem"]) for loss in facts["lost"]]

    def change(self, count: int, seed: int = 0) -> None:
        """Change some of the clinic's stock."""
        ids = random.Random(seed).sample(self.stock(), count)
        self.execute(
            f"UPDATE public.inventario_inventario SET cantidad = cantidad + 1 WHERE id IN ({', '.join(map(str, ids))})"
        )

    def stock(self) -> list[int]:
        return [row[0] for row in self.execute_rows(
            "SELECT id FROM public.inventario_inventario WHERE clinica_id = 1 ORDER BY id"
        )]  # fmt: skip


@pytest.fixture
def chain(demo_database: DemoDatabase, tmp_path: Path) -> Chain:
    chain = Chain(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    chain.fill(ROWS)
    return chain


def test_nothing_changed_stores_a_manifest_and_one_changed_row_one_block(chain: Chain) -> None:
    full, same = chain.next(), chain.next()
    assert (full.kind, full.kind_reason) == ("full", "the clinic has no backup yet")
    assert (same.kind, same.parent_id) == ("incremental", full.backup_id)
    assert same.kind_reason == f"built on {full.backup_id}, 1.0 days after the full one"
    assert (same.fingerprint, same.rows) == (full.fingerprint, full.rows)
    opened = chain.open(same)
    assert opened.tables == {}
    assert opened.manifest["archives"] == [same.backup_id, full.backup_id]
    chain.execute(f"UPDATE public.inventario_inventario SET cantidad = 7 WHERE id = {chain.stock()[ROWS // 2]}")
    one = chain.next()
    assert one.fingerprint != full.fingerprint
    ((table, stored),) = chain.open(one).tables.items()
    assert table == "public.inventario_inventario"
    assert 96 <= stored.count(b"\n") < 700
    assert [archive.backup_id for archive in one.chain] == [same.backup_id, full.backup_id]
    assert same.size_bytes is not None and full.size_bytes is not None and one.size_bytes is not None
    assert same.size_bytes < one.size_bytes < full.size_bytes / 5


PATIENTS = "public.usuarios_paciente"
TREATMENTS = "public.historial_clinico_tratamiento"
"""The clinic's over two joins."""
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "delete", "none", "shuffle", "column"]),
        st.sampled_from([STOCK, PATIENTS, TREATMENTS]),
        st.integers(1, 400),
    ),
    min_size=5,
    max_size=8,
)


# Without shrinking: each example takes some seconds.
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(st.data())
def test_every_backup_of_any_history_is_restored_as_it_was(
    demo_template: DemoDatabase, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    with copy_of(demo_template) as database:
        chain = Chain(database, FileStore(tmp_path_factory.mktemp("history")))
        chain.fill(ROWS)
        kept: list[tuple[BackupRecord, dict[str, bytes]]] = []
        for number, (what, table, count) in enumerate(data.draw(CHANGES)):
            alter(chain, what, table, count, number)
            kept.append((chain.next(chain_length=5), values(chain)))
        others = chain.rows_now(2)
        assert {record.kind for record, _ in kept} == {"full", "incremental"}
        for record, rows in random.Random(0).sample(kept, len(kept)):
            chain.restored(record)
            assert values(chain) == rows
        assert chain.rows_now(2) == others


def values(chain: Chain) -> dict[str, list[bytes]]:
    """The clinic's rows; columns that were added later are empty then."""
    return {table: [line.rstrip(b",") for line in text.split(b"\n")] for table, text in chain.rows_now(1).items()}


MINE = {
    STOCK: "clinica_id = 1",
    PATIENTS: "clinica_id = 1",
    TREATMENTS: "historial_id IN (SELECT h.id FROM public.historial_clinico_historialclinico AS h"
    " JOIN public.usuarios_paciente AS p ON p.id = h.paciente_id WHERE p.clinica_id = 1)",
}
TEXT = {STOCK: "nombre", PATIENTS: "notas", TREATMENTS: "descripcion"}
REFERRED_TO = {
    STOCK: "false",
    PATIENTS: "cedula NOT LIKE 'F%'",
    TREATMENTS: f"id IN (SELECT anterior_id FROM {TREATMENTS})",
}
COPIED = {
    STOCK: ("codigo", "nombre, cantidad, precio_unitario, clinica_id"),
    PATIENTS: (
        "cedula",
        "nombres, apellidos, fecha_nacimiento, sexo, telefono, direccion, alergias, notas, creado_en, clinica_id",
    ),
    TREATMENTS: ("descripcion", "piezas, materiales, costo, terminado, fecha, detalle, historial_id"),
}


def alter(chain: Chain, what: str, table: str, count: int, seed: int) -> None:
    some = f"SELECT id FROM {table} WHERE {MINE[table]} ORDER BY md5(id::text || '{seed}') LIMIT {count}"
    if what == "insert":
        key, others = COPIED[table]
        chain.execute(
            f"INSERT INTO {table} ({key}, {others}) SELECT 'F{seed}-' || id, {others} FROM {table} WHERE id IN ({some})"
        )
    elif what == "update":
        chain.execute(f"UPDATE {table} SET {TEXT[table]} = {TEXT[table]} || '{seed}' WHERE id IN ({some})")
    elif what == "delete":
        chain.execute(f"DELETE FROM {table} WHERE id IN ({some}) AND ({REFERRED_TO[table]}) IS NOT TRUE")
    elif what == "shuffle":
        # The same values again, in other places of the heap.
        chain.execute(f"UPDATE {table} SET {TEXT[table]} = {TEXT[table]} WHERE {MINE[table]}")
    elif what == "column":
        chain.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS nota{seed} text")


def test_it_equals_a_full_one_of_the_same_moment(chain: Chain) -> None:
    chain.next()
    for number in range(3):
        chain.change(40, number)
        incremental = chain.next()
    chain.kind = "full"
    full = chain.next()
    assert (incremental.kind, full.kind) == ("incremental", "full")
    assert (incremental.fingerprint, incremental.rows, incremental.raw_bytes) == (
        full.fingerprint, full.rows, full.raw_bytes,
    )  # fmt: skip


def test_on_every_store_a_chain_is_restored_and_each_archive_is_read_once(
    demo_database: DemoDatabase, make_store: MakeStore
) -> None:
    store = make_store(f"chain-{uuid4().hex}")
    chain = Chain(demo_database, store)
    chain.fill(ROWS)
    records = []
    for number in range(4):
        records.append(chain.next())
        chain.change(30, number)
    # No block is as it was.
    chain.change(ROWS, 9)
    source, wish = source_of(records[-1]), Wish()
    reads = reads_of(store)
    plan = chain.restore().plan(source, wish)
    assert sorted(reads) == sorted(record.archive_key for record in records)
    reads.clear()
    chain.restore().apply(source, wish, approved=plan.digest)
    assert sorted(reads) == sorted(record.archive_key for record in records)
    assert chain.rows_now(1) == rows_at(chain, records[-1])


def test_an_archive_is_read_only_where_something_of_it_is_missing(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = chain.next()
    chain.change(1, 1)
    first = chain.next()
    chain.change(1, 2)
    second = chain.next()
    reads = reads_of(chain.stores.primary)
    chain.restored(second)
    assert reads == [second.archive_key] * 2
    # The row that the first incremental is about.
    chain.change(1, 1)
    reads.clear()
    chain.restored(second)
    assert reads == [second.archive_key, first.archive_key] * 2
    # Too much of its own to keep until its manifest is read: once more, and of the full one all.
    monkeypatch.setattr(archives, "KEPT_BYTES", 1_000)
    chain.change(ROWS, 3)
    reads.clear()
    chain.restored(second)
    assert sorted(reads) == sorted([second.archive_key] * 4 + [full.archive_key, first.archive_key] * 2)


def fill_with_noise(fleet: Fleet, rows: int, clinic_id: int) -> None:
    noise = ", ".join(f"encode(sha512((n || '-{number}')::bytea), 'hex')" for number in range(3))
    fleet.execute(
        f"INSERT INTO {STOCK} (codigo, nombre, cantidad, precio_unitario, etiquetas, clinica_id)"
        f" SELECT 'N' || n, 'ruido', 1, 1, ARRAY[{noise}], {clinic_id} FROM generate_series(1, {rows}) AS n"
    )


def rows_at(chain: Chain, record: BackupRecord) -> dict[str, bytes]:
    """The rows by the fingerprint's own proof: another backup of the restored state has the same."""
    again = chain.next()
    assert again.fingerprint == record.fingerprint
    return chain.rows_now(1)


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_parent_that_is_not_as_recorded_gives_a_full_one_and_an_alarm(chain: Chain, damage: str) -> None:
    store = chain.stores.primary
    full, child = chain.next(), chain.next()
    content = objects_of(store)[full.archive_key]
    store.delete(full.archive_key)
    if damage == "shorter":
        put(store, full.archive_key, content[:-1])
    new = chain.next()
    assert new.kind == "full"
    assert new.kind_reason == (
        f"the archive of {full.backup_id} in its chain is missing in the store or differs from its record"
    )
    problem = "missing" if damage == "gone" else "damaged"
    assert chain.losses() == [
        (full.backup_id, problem), (child.backup_id, "incomplete"),
    ]  # fmt: skip
    assert [chain.state(record) for record in (full, child, new)] == ["lost", "lost", "completed"]
    chain.restored(new)


@pytest.mark.parametrize("kind", ["auto", "incremental"])
@pytest.mark.parametrize("away", ["empty", "gone"])
def test_a_store_that_is_not_mounted_loses_nothing_and_gets_nothing(chain: Chain, away: str, kind: WantedKind) -> None:
    full, child = chain.next(), chain.next()
    root = Path(unquote(urlsplit(chain.store.url).path))
    root.rename(root.with_name("away"))
    if away == "empty":
        root.mkdir()
    chain.kind = kind
    for changes in ({}, {"full_every_days": 1}):
        with pytest.raises(ClinicBackupsError, match="none of the catalog" if away == "empty" else "is not there"):
            chain.next(**changes)
    assert [chain.state(record) for record in (full, child)] == ["completed", "completed"]
    assert chain.execute_rows("SELECT 1 FROM clinic_backups.notification WHERE kind = 'loss'") == []
    assert away == "gone" or chain.objects() == []
    # Who asks for it gets a full one: the store may have been emptied for good.
    chain.kind = "full"
    chain.store.make_place()
    assert chain.next().state == "completed"


def test_in_a_new_store_the_first_one_is_full_and_nothing_is_lost(chain: Chain, tmp_path: Path) -> None:
    full, child = chain.next(), chain.next()
    chain.store = FileStore(tmp_path / "new")
    chain.store.make_place()
    chain.stores = Stores.of(chain.store, *chain.stores)
    new = chain.next()
    assert (new.kind, new.kind_reason) == (
        "full", f"the archive of {child.backup_id} in its chain is not in this store",
    )  # fmt: skip
    assert [chain.state(record) for record in (full, child, new)] == ["completed"] * 3
    assert chain.execute_rows("SELECT 1 FROM clinic_backups.notification WHERE kind = 'loss'") == []
    assert chain.next().parent_id == new.backup_id
    # Once the replicas are made, what is built on the old ones counts there too.
    assert chain.replicate().problems == []


def test_a_parents_envelope_that_is_gone_is_written_again(chain: Chain) -> None:
    full, child = chain.next(), chain.next()
    before = objects_of(chain.store)
    for record in (full, child):
        chain.store.delete(envelope_key_of(record.archive_key))
    assert chain.next().parent_id == child.backup_id
    assert {key: objects_of(chain.store)[key] for key in before} == before
    chain.execute("TRUNCATE clinic_backups.backup CASCADE")
    assert chain.rebuild().adopted == 3


def test_where_the_store_may_not_be_listed_each_backup_of_the_chain_is_asked_for(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, child = chain.next(), chain.next()

    def refuse(prefix: str = "") -> Iterator[ObjectInfo]:
        raise PermanentError("The service refused a request: AccessDenied.", hint="Allow it.")

    monkeypatch.setattr(chain.store, "list", refuse)
    chain.store.delete(envelope_key_of(full.archive_key))
    assert chain.next().parent_id == child.backup_id
    assert chain.store.stat(envelope_key_of(full.archive_key))


def test_what_a_listing_lacks_is_asked_for_before_it_counts_as_lost(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some services show an object in their listings only after a while."""
    full, child = chain.next(), chain.next()
    monkeypatch.setattr(chain.store, "list", lambda prefix="": iter(()))
    assert chain.next().parent_id == child.backup_id
    assert [chain.state(record) for record in (full, child)] == ["completed", "completed"]


def test_the_lists_of_a_chains_blocks_are_read_in_portions(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for seed in range(3):
        chain.change(300, seed)
        ids.append(chain.next().backup_id)
    ids.insert(1, "1-20200101T000000Z")  # without a list
    whole = list(chain.catalog.blocks(*ids))
    assert [backup_id for backup_id, _ in whole] == [ids[0], *ids[2:]]
    monkeypatch.setattr("clinic_backups.catalog.record_statements.PORTION_BYTES", 1)
    assert list(chain.catalog.blocks(*ids)) == whole
    # A list may have several pieces.
    chain.execute(
        "INSERT INTO clinic_backups.backup_blocks SELECT backup_id, part + n, digests || decode('0' || n, 'hex')"
        f" FROM clinic_backups.backup_blocks, generate_series(1, 3) AS n WHERE backup_id = '{ids[2]}'"
    )
    pieces = list(chain.catalog.blocks(*ids))
    assert [backup_id for backup_id, _ in pieces] == [ids[0], *[ids[2]] * 4, ids[3]]
    assert [piece[len(pieces[1][1]) :] for _, piece in pieces[2:5]] == [b"\1", b"\2", b"\3"]


def test_on_every_store_a_parent_that_was_changed_is_not_built_on(
    demo_database: DemoDatabase, make_store: MakeStore, provider: str
) -> None:
    """Of the same size: where the store has no MD5 of it, it is recognized by its ETag, or read."""
    store = make_store(f"changed-{uuid4().hex}", part_size_bytes=5 * 1024 * 1024)
    chain = Chain(demo_database, store)
    fill_with_noise(chain, 35_000, 1)
    full = chain.next()
    assert (full.size_bytes or 0) > 5 * 1024 * 1024
    reads = reads_of(store)
    middle = chain.next()
    assert reads == ([full.archive_key] if provider == "file" else [])
    # A rebuilt catalog does not know the ETags: once each is read, and noted.
    chain.execute("UPDATE clinic_backups.backup_replica SET etag = NULL")
    reads.clear()
    last = chain.next()
    assert last.parent_id == middle.backup_id
    expected = {"file": [middle, full], "s3": [full], "gcs": [], "azure": [middle, full]}[provider]
    assert reads == [record.archive_key for record in expected]
    reads.clear()
    assert chain.next().parent_id == last.backup_id
    assert reads == ([record.archive_key for record in (last, middle, full)] if provider == "file" else [])
    flip(store, full.archive_key)
    new = chain.next()
    assert (new.kind, chain.losses()[0]) == ("full", (full.backup_id, "damaged"))
    assert [chain.state(record) for record in (full, middle, last, new)] == ["lost", "lost", "lost", "completed"]


def test_what_is_built_on_a_lost_backup_is_lost_with_it_and_found_with_it(chain: Chain) -> None:
    store = chain.stores.primary
    (before,) = [chain.next()]
    full = chain.next(full_every_days=1)
    children = [chain.next() for _ in range(3)]
    assert [child.kind for child in children] == ["incremental"] * 3
    content = objects_of(store)
    flip(store, children[0].archive_key)
    (item,) = chain.check(read=True).discrepancies
    assert (item.kind, set(item.needed_by)) == ("damaged", {child.backup_id for child in children[1:]})
    inventory = chain.check(read=True, record=True)
    assert [(loss.backup_id, loss.problem) for loss in inventory.losses] == [
        (children[0].backup_id, "damaged"), (children[1].backup_id, "incomplete"),
        (children[2].backup_id, "incomplete"),
    ]  # fmt: skip
    assert [chain.state(record) for record in (before, full, *children)] == ["completed"] * 2 + ["lost"] * 3
    latest = chain.catalog.latest(1)
    assert latest is not None
    assert latest.backup_id == full.backup_id
    store.delete(children[0].archive_key)
    put(store, children[0].archive_key, content[children[0].archive_key])
    chain.replicas.mark(children[0].backup_id, store.url, "intact", chain.now)
    assert [chain.state(child) for child in children] == ["completed"] * 3


def test_a_restore_takes_each_archive_of_the_chain_from_the_first_store_that_has_it(chain: Chain) -> None:
    one, two = chain.stores
    records = [chain.next()]
    for number in range(2):
        chain.change(50, number)
        records.append(chain.next())
    assert chain.replicate().problems == []
    one.delete(records[0].archive_key)
    flip(two, records[1].archive_key)
    flip(one, records[2].archive_key)
    rows = chain.rows_now(1)
    chain.change(200, 9)
    chain.restored(records[2])
    assert chain.rows_now(1) == rows
    flip(one, records[1].archive_key)
    chain.change(ROWS, 8)
    changed = chain.rows_now(1)
    with pytest.raises(IntegrityError, match="The archive"):
        chain.restored(records[2])
    assert chain.rows_now(1) == changed != rows


def test_what_came_from_a_replica_before_its_damage_is_kept_and_the_next_store_gives_the_rest(
    chain: Chain,
) -> None:
    """Rows that do not compress, so that the damage lies far behind the first blocks."""
    one, _ = chain.stores
    fill_with_noise(chain, 60_000, 1)
    full = chain.next()
    chain.change(1)
    child = chain.next()
    assert child.kind == "incremental"
    assert full.size_bytes is not None and full.size_bytes > 10_000_000
    assert chain.replicate().problems == []
    damaged = bytearray(objects_of(one)[full.archive_key])
    damaged[-100] ^= 1
    one.delete(full.archive_key)
    put(one, full.archive_key, bytes(damaged))
    rows = chain.rows_now(1)
    chain.execute("UPDATE public.inventario_inventario SET cantidad = 5 WHERE clinica_id = 1")
    bad: list[str] = []
    restore = chain.restore(on_bad_replica=lambda source, url, error: bad.append(url))
    source = source_of(child)
    plan = restore.plan(source, Wish())
    restore.apply(source, Wish(), approved=plan.digest)
    assert bad == [one.url] * 2
    assert chain.rows_now(1) == rows


def test_an_archive_is_read_until_the_last_wanted_block_has_come(chain: Chain) -> None:
    """So damage far behind the wanted rows is no hindrance, even if there is no other replica."""
    one = chain.stores.primary
    fill_with_noise(chain, 60_000, 1)
    full = chain.next()
    chain.execute("UPDATE public.usuarios_paciente SET telefono = '1' WHERE clinica_id = 1")
    child = chain.next()
    assert child.kind == "incremental"
    damaged = bytearray(objects_of(one)[full.archive_key])
    damaged[-100] ^= 1
    one.delete(full.archive_key)
    put(one, full.archive_key, bytes(damaged))
    rows = chain.rows_now(1)
    chain.execute(f"UPDATE {STOCK} SET cantidad = 5 WHERE id = (SELECT min(id) FROM {STOCK} WHERE clinica_id = 1)")
    bad: list[str] = []
    restore = chain.restore(on_bad_replica=lambda source, url, error: bad.append(url))
    source = source_of(child)
    restore.apply(source, Wish(), approved=restore.plan(source, Wish()).digest)
    assert (bad, chain.rows_now(1)) == ([], rows)


def test_an_error_of_the_database_while_loading_is_no_stores_fault(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = chain.next()
    chain.change(30)
    child = chain.next()
    assert chain.replicate().problems == []
    chain.change(ROWS, 9)
    bad: list[str] = []
    reads = reads_of(chain.stores.primary)
    real = Workspace.copy_in

    def copy_in(self: Workspace, target: Any, columns: Any, source: Any, doing: str) -> int:
        if doing.endswith("of the backup"):
            raise TransientError("The server went away.", hint="Look at it.")
        return real(self, target, columns, source, doing)

    monkeypatch.setattr(Workspace, "copy_in", copy_in)
    with pytest.raises(TransientError, match="The server went away"):
        chain.restore(on_bad_replica=lambda source, url, error: bad.append(url)).plan(source_of(child), Wish())
    assert (bad, set(reads) <= {child.archive_key, full.archive_key}) == ([], True)


def test_a_parent_that_was_exchanged_for_another_archive_is_not_believed(chain: Chain) -> None:
    """Somebody who may write to store and catalog: the blocks' own digests are what counts."""
    store = chain.stores.primary
    full = chain.next()
    chain.change(50)
    child = chain.next()
    other = chain.next(2)
    chain.execute(
        "UPDATE clinic_backups.backup SET chain = jsonb_build_array(jsonb_build_object('backup_id',"
        f" '{full.backup_id}', 'key', '{other.archive_key}', 'size_bytes', {other.size_bytes}, 'sha256',"
        f" '{other.sha256}', 'md5', '{other.md5}')) WHERE backup_id = '{child.backup_id}'"
    )
    rows = chain.rows_now(1)
    chain.change(500, 3)
    changed = chain.rows_now(1)
    with pytest.raises(
        IntegrityError, match=f"holds backup {other.backup_id} of clinic 2, not backup {full.backup_id}"
    ):
        chain.restored(chain.again(child))
    assert chain.rows_now(1) == changed != rows
    assert store.stat(full.archive_key)


@pytest.mark.parametrize("wrong", ["another full one", "another incremental"])
def test_another_backups_block_list_is_not_believed(chain: Chain, wrong: str) -> None:
    """What would be counted on is not in the archive: the backup could not be restored."""
    records = [chain.next()]
    for kind in ("incremental", "full", "incremental"):
        chain.change(100, len(records))
        chain.kind = kind  # type: ignore[assignment]
        records.append(chain.next())
    full, other, last_full, last = records
    mine, theirs = (last_full, full) if wrong == "another full one" else (last, other)
    chain.execute(
        f"DELETE FROM clinic_backups.backup_blocks WHERE backup_id = '{mine.backup_id}'",
        f"UPDATE clinic_backups.backup_blocks SET backup_id = '{mine.backup_id}'"
        f" WHERE backup_id = '{theirs.backup_id}'",
    )
    if wrong == "another full one":
        # Of a full one its record knows more than the list says of itself.
        chain.execute(
            "UPDATE clinic_backups.backup_blocks SET digests = convert_to(replace(convert_from(substring(digests from 1"
            rf" for position('\x0a'::bytea in digests)), 'UTF8'), '{theirs.backup_id}', '{mine.backup_id}'), 'UTF8')"
            r" || substring(digests from position('\x0a'::bytea in digests) + 1)"
            f" WHERE part = 0 AND backup_id = '{mine.backup_id}'"
        )
    chain.kind = "incremental"
    new = chain.next()
    assert (new.kind, new.kind_reason) == ("full", f"the catalog has no list of the blocks of {mine.backup_id}")


@pytest.mark.parametrize("lost", ["blocks", "catalog", "half the blocks"])
def test_without_the_parents_block_list_the_next_one_is_full(chain: Chain, lost: str) -> None:
    full = chain.next()
    chain.next()
    if lost == "blocks":
        chain.execute(f"DELETE FROM clinic_backups.backup_blocks WHERE backup_id = '{full.backup_id}'")
    elif lost == "half the blocks":
        chain.execute(
            "UPDATE clinic_backups.backup_blocks SET digests = substring(digests from 1 for octet_length(digests) - 32)"
            f" WHERE backup_id = '{full.backup_id}'"
        )
    else:
        chain.execute("TRUNCATE clinic_backups.backup CASCADE")
        assert chain.rebuild().adopted == 2
        assert [record.kind for record in chain.catalog.find()] == ["incremental", "full"]
        chain.restored(chain.catalog.find()[0])
    new = chain.next()
    assert new.kind == "full"
    assert new.kind_reason == (
        "the catalog was rebuilt" if lost == "catalog" else f"the catalog has no list of the blocks of {full.backup_id}"
    )
    assert chain.next().kind == "incremental"


def test_a_rebuilt_catalog_does_not_take_a_child_without_its_parent(chain: Chain) -> None:
    store = chain.stores.primary
    full, child = chain.next(), chain.next()
    for key in (full.archive_key, envelope_key_of(full.archive_key)):
        store.delete(key)
    chain.execute("TRUNCATE clinic_backups.backup CASCADE")
    report = chain.rebuild()
    assert report.conflicts == [(child.archive_key, f"its parent, backup {full.backup_id}, is not there")]
    assert chain.catalog.find() == []


def test_other_keys_or_tables_give_a_full_one(chain: Chain) -> None:
    chain.next()
    _, more = generate_identity()
    new = chain.next(clinic_recipients={1: (more,)})
    assert (new.kind, new.kind_reason) == ("full", "the public keys have changed")
    chain.execute("ALTER TABLE public.inventario_inventario ADD COLUMN nota text")
    chain.next()
    assert chain.next().kind == "incremental"
    chain.execute("ALTER TABLE public.inventario_inventario ADD COLUMN nota2 text")
    last = chain.next()
    assert last.kind == "full"
    assert (last.kind_reason or "").startswith("the tables differ from those of 1-")


def test_retention_keeps_what_a_kept_incremental_needs(chain: Chain) -> None:
    records = [chain.next() for _ in range(4)]
    (cleaned,) = chain.clean(60)
    assert cleaned.deleted == 0
    assert [decision.reason for decision in cleaned.decisions] == [
        "the clinic's last good backup", *(f"needed by {record.backup_id}" for record in records[:0:-1]),
    ]  # fmt: skip
    chain.day = 70
    new = chain.next()
    assert new.kind == "full"
    chain.clean(71)
    assert [record.backup_id for record in chain.catalog.find(state="completed")] == [new.backup_id]
    assert set(objects_of(chain.stores.primary)) == {new.archive_key, envelope_key_of(new.archive_key)}
    assert chain.execute_rows("SELECT DISTINCT backup_id FROM clinic_backups.backup_blocks") == [(new.backup_id,)]


def test_while_earlier_backups_are_being_erased_nothing_is_built_on_them(chain: Chain) -> None:
    chain.next()
    Erasures(chain.catalog.database).request(1, reason="baja 12", by="ops", at=chain.now)
    new = chain.next()
    assert (new.kind, new.kind_reason) == ("full", "the clinic's earlier backups are being erased")
    assert chain.next().parent_id == new.backup_id


def test_retention_tells_once_of_a_chain_whose_full_one_is_gone(chain: Chain) -> None:
    old, full = chain.next(), chain.next(full_every_days=1)
    children = [chain.next() for _ in range(2)]
    chain.stores.primary.delete(full.archive_key)
    (cleaned,) = chain.clean(60)
    lost = [(full.backup_id, "missing"), *((child.backup_id, "incomplete") for child in children)]
    assert [(loss.backup_id, loss.problem) for loss in cleaned.losses] == lost
    assert sorted(chain.losses()) == sorted(lost)
    assert (cleaned.deleted, chain.state(old)) == (3, "completed")


def die_after_the_envelope(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup is whole in the store, and the catalog does not learn of it."""
    with monkeypatch.context() as patch:
        patch.setattr("clinic_backups.backup.backup_outcomes.Outcomes.complete", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            chain.next()


def test_an_attempt_that_died_after_its_envelope_is_completed_and_not_built_on(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.next()
    die_after_the_envelope(chain, monkeypatch)
    new = chain.next()
    dead, *_ = [record for record in chain.catalog.find() if record.backup_id != new.backup_id]
    assert (dead.state, dead.kind) == ("completed", "incremental")
    chain.restored(dead)
    assert (new.kind, new.kind_reason) == ("full", f"the catalog has no list of the blocks of {dead.backup_id}")


def lose_everywhere(chain: Chain, record: BackupRecord) -> None:
    """As replication, a restore or a check records it, none of which waits for a backup."""
    chain.stores.primary.delete(record.archive_key)
    chain.replicas.lose(record, chain.stores.primary.url, "missing", chain.now)


def test_what_it_is_built_on_is_lost_meanwhile(chain: Chain) -> None:
    """The record is lost with it at once, the operator is told, the clinic is not."""
    full = chain.next()
    good = chain.next(full_every_days=1)
    chain.meanwhile = lambda: lose_everywhere(chain, good)
    with pytest.raises(TransientError, match="of its chain was lost meanwhile") as raised:
        chain.next()
    assert raised.value.hint == "Back up again. The new backup is built on the remaining ones."
    child = chain.catalog.find()[0]
    assert (child.kind, child.parent_id, child.state) == ("incremental", good.backup_id, "lost")
    assert chain.losses() == [(child.backup_id, "incomplete")]
    assert (
        chain.execute_rows(f"SELECT kind FROM clinic_backups.notification WHERE backup_id = '{child.backup_id}'") == []
    )
    latest = chain.catalog.latest(1)
    assert latest is not None
    assert latest.backup_id == full.backup_id
    chain.meanwhile = lambda: None
    again = chain.next()
    assert again.parent_id == full.backup_id
    # With its parent it is back.
    chain.replicas.mark(good.backup_id, chain.store.url, "intact", chain.now)
    assert chain.state(child) == "completed"


def test_a_store_with_the_parent_is_forgotten_meanwhile(chain: Chain) -> None:
    chain.next()
    chain.meanwhile = lambda: chain.replicas.forget_store(chain.store.url)
    with pytest.raises(TransientError, match="of its chain was lost meanwhile"):
        chain.next()
    assert chain.catalog.find(state="completed") == []


def test_a_loss_and_a_completion_at_the_same_moment_wait_for_each_other(chain: Chain) -> None:
    """Whichever comes first: the child does not stay completed on a lost parent."""
    full = chain.next()
    child = chain.next()
    chain.execute(
        f"UPDATE clinic_backups.backup SET state = 'running', finished_at = NULL WHERE backup_id = '{child.backup_id}'",
        f"DELETE FROM clinic_backups.backup_replica WHERE backup_id = '{child.backup_id}'",
    )
    finished: list[BackupRecord] = []
    thread = threading.Thread(target=lambda: finished.append(chain.catalog.finish(child)))

    def lose_before(db: Any, losses: Any) -> None:
        thread.start()
        thread.join(1)
        assert thread.is_alive()

    chain.replicas.lose(full, chain.store.url, "missing", chain.now, lose_before)
    thread.join(30)
    assert [record.state for record in finished] == ["lost"]
    assert [chain.state(record) for record in (full, child)] == ["lost", "lost"]


def test_an_attempt_that_died_is_completed_after_its_parent_was_lost(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = chain.next()
    die_after_the_envelope(chain, monkeypatch)
    lose_everywhere(chain, full)
    new = chain.next()
    assert (new.kind, new.kind_reason) == ("full", "the clinic has no backup yet")
    assert [record.state for record in chain.catalog.find()] == ["completed", "lost", "lost"]
    dead = chain.catalog.find()[1]
    assert chain.losses() == [(dead.backup_id, "incomplete")]


def test_an_attempt_that_died_and_whose_archive_is_gone_has_failed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An envelope alone is no backup."""
    full = chain.next()
    die_after_the_envelope(chain, monkeypatch)
    dead = chain.catalog.find()[0]
    chain.store.delete(dead.archive_key)
    assert chain.next().parent_id == full.backup_id
    assert chain.state(dead) == "failed"
    assert not any(key.startswith(dead.archive_key.partition(".")[0]) for key in chain.objects())


def test_a_parent_that_names_itself_right_and_lacks_blocks_is_not_believed(chain: Chain) -> None:
    """Somebody who may write to store and catalog made an archive of the same name from other rows."""
    full = chain.next()
    child = chain.next()
    rows = chain.rows_now(1)
    chain.execute("TRUNCATE clinic_backups.backup CASCADE")
    for key in (full.archive_key, envelope_key_of(full.archive_key)):
        chain.store.delete(key)
    chain.change(ROWS, 5)
    chain.day, chain.kind = 0, "full"
    forged = chain.next()
    assert forged.backup_id == full.backup_id
    changed = chain.rows_now(1)
    with pytest.raises(IntegrityError, match=f"The archives lack rows that the backup lists, of the tables {STOCK}"):
        chain.restored(replace(child, chain=(forged.archive,)))
    assert chain.rows_now(1) == changed != rows


@pytest.fixture
def repeating(chain: Chain, tmp_path: Path) -> Chain:
    """A table without a key in which the same block stands several times."""
    reader, restorer = (urlsplit(uri).username for uri in (chain.database.reader_uri, chain.database.restorer_uri))
    chain.settings = chain.settings.model_copy(
        update={"sql_dir": shutil.copytree(CHECKOUT / "include" / "sql", tmp_path / "sql")}
    )
    chain.execute(
        "CREATE TABLE public.sin_clave (clinica_id bigint REFERENCES public.comun_clinica (id), texto text)",
        f'GRANT ALL ON public.sin_clave TO "{reader}", "{restorer}"',
    )
    query = "SELECT * FROM public.sin_clave WHERE clinica_id = {{ clinic_id }}"
    (chain.settings.sql_dir / "extract" / "sin_clave.sql").write_text(query)
    return chain


def test_a_block_that_is_listed_several_times_is_loaded_so_often(repeating: Chain) -> None:
    chain = repeating
    # A row behind which a block ends as soon as it may.
    word = next(f"w{n}" for n in range(10_000) if not crc32(f"1,w{n}\n".encode()) & CUT_MASK)
    for times in (1, 10):
        chain.execute(
            f"INSERT INTO public.sin_clave SELECT 1, '{word}' FROM generate_series(1, {times * MIN_BLOCK_ROWS})"
        )
        record = chain.next()
    assert (record.kind, record.rows["public.sin_clave"]) == ("incremental", 11 * MIN_BLOCK_ROWS)
    assert chain.open(record).tables == {}
    rows = chain.rows_now(1)
    chain.execute("DELETE FROM public.sin_clave")
    chain.restored(record)
    assert chain.rows_now(1) == rows


def test_blocks_that_a_reader_would_not_take_the_list_of_are_stored_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = len(f', ["{"f" * 64}", {2**32 - 1}, {2**32 - 1}, {MAX_ARCHIVES}]')
    assert archive.MAX_FOREIGN_BLOCKS * longest < MAX_MANIFEST_BYTES - 4 * 1024 * 1024
    full = chain.next()
    monkeypatch.setattr(archive, "MAX_FOREIGN_BLOCKS", 8)
    child = chain.next()
    assert (child.parent_id, child.fingerprint) == (full.backup_id, full.fingerprint)
    tables = chain.open(child).manifest["tables"]
    assert sum(block[3] != OWN_ARCHIVE for table in tables for block in table["blocks"]) == 8
    rows = chain.rows_now(1)
    chain.change(ROWS, 4)
    chain.restored(child)
    assert chain.rows_now(1) == rows
