"""What ``diff`` of two backups asks of the store: their own archives once, and of others only what differs lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pyrage
import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.row_changes import RowChanges
from clinic_backups.differences.compare import compare
from clinic_backups.differences.sides import BackupSide
from clinic_backups.restore import archives
from clinic_backups.stores.base import ObjectStore
from tests.integration.test_incremental import ROWS, STOCK, Chain
from tests.integration.test_incremental import chain as chain

Listed = Callable[[BackupRecord], Mapping[str, Set[bytes]]]


def bytes_asked_of(store: ObjectStore) -> Counter[str]:
    """From now on, how many bytes are read of each object."""
    found, opening = Counter[str](), store.open

    @contextmanager
    def noted(key: str) -> Iterator[Any]:
        with opening(key) as stream:

            def read(size: int = -1) -> bytes:
                data = stream.read(size)
                found[key] += len(data)
                return data

            yield SimpleNamespace(read=read)

    store.open = noted  # type: ignore[method-assign]
    return found


class Compared:
    def __init__(self, chain: Chain) -> None:
        self.chain, self.asked = chain, bytes_asked_of(chain.stores.primary)
        self.listed: Listed = RowChanges(chain.catalog.database).listed

    def reads(self, first: BackupRecord, second: BackupRecord, *, changed: int) -> dict[str, float]:
        """How many times the archive of each backup was read. ``changed``: how many rows must differ."""
        self.asked.clear()
        reader = archives.Archives(self.chain.stores, [pyrage.x25519.Identity.from_str(self.chain.identity)])
        (found,) = [each for each in compare(*BackupSide.both(reader, first, second, self.listed)) if each.rows]
        assert (found.table, found.added, found.removed, found.changed) == (STOCK, 0, 0, changed)
        backups = [first.archive, second.archive, *first.chain, *second.chain]
        sizes = {each.key: (each.backup_id, each.size_bytes) for each in backups}
        return {sizes[key][0]: size / sizes[key][1] for key, size in self.asked.items() if size}


@pytest.fixture
def compared(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Compared:
    """Of its backups, all rows together are too many to be kept in memory, and those that differ are not."""
    monkeypatch.setattr(archives, "KEPT_BYTES", 100_000)
    return Compared(chain)


def change(chain: Chain, *places: int) -> None:
    stock = chain.stock()
    ids = ", ".join(str(stock[place]) for place in places)
    chain.execute(f"UPDATE public.inventario_inventario SET cantidad = cantidad + 1 WHERE id IN ({ids})")


def test_two_full_backups_are_read_once(compared: Compared) -> None:
    one = compared.chain.next(full_every_days=1)
    change(compared.chain, 5, ROWS // 2)
    other = compared.chain.next(full_every_days=1)
    assert (one.chain, other.chain) == ((), ())
    once = {one.backup_id: 1, other.backup_id: 1}
    assert compared.reads(one, other, changed=2) == once
    assert compared.reads(other, one, changed=2) == once


@pytest.mark.parametrize("claimed", ["nothing", "everything"])
def test_the_catalog_only_says_what_need_not_be_kept(compared: Compared, claimed: str) -> None:
    """Of a rebuilt catalog there is no list. A wrong one costs time, and changes nothing of the answer."""
    one = compared.chain.next(full_every_days=1)
    change(compared.chain, 5, ROWS // 2)
    other = compared.chain.next(full_every_days=1)
    of = compared.listed
    lists = {
        name: of(one).get(name, set()) | of(other).get(name, set()) if claimed == "everything" else set[bytes]()
        for name in one.rows
    }
    compared.listed = lambda record: lists
    reads = compared.reads(one, other, changed=2)
    assert reads.pop(one.backup_id) == 1
    assert 1 < reads.pop(other.backup_id) <= 2
    assert not reads


def test_a_full_backup_and_one_that_is_built_on_it_are_read_once(compared: Compared) -> None:
    full = compared.chain.next()
    change(compared.chain, 5, ROWS // 2)
    later = compared.chain.next()
    assert [each.backup_id for each in later.chain] == [full.backup_id]
    once = {full.backup_id: 1, later.backup_id: 1}
    assert compared.reads(full, later, changed=2) == once
    assert compared.reads(later, full, changed=2) == once


def test_of_two_backups_of_a_chain_the_full_one_is_read_only_if_blocks_of_it_differ(compared: Compared) -> None:
    full = compared.chain.next()
    change(compared.chain, 5)
    one = compared.chain.next()
    change(compared.chain, 5)
    other = compared.chain.next()
    change(compared.chain, ROWS // 2)
    last = compared.chain.next()
    for pair in ((one, other), (other, one)):
        assert compared.reads(*pair, changed=1) == {one.backup_id: 1, other.backup_id: 1}
    for pair in ((other, last), (last, other)):
        reads = compared.reads(*pair, changed=1)
        assert reads.pop(full.backup_id) <= 1
        assert reads == {other.backup_id: 1, last.backup_id: 1}
