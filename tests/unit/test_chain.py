"""Full or incremental: each reason, in the order of its weight."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.archive.blocks import OWN_ARCHIVE, Block, BlockList
from clinic_backups.archive.chain import ChainChoice, chain_of, choose
from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.archive.writer import block_list, fingerprint, schema_digest
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Column, Table

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


def backup(name: str, days: float, size: int, parent: str | None = None, **changes: Any) -> BackupRecord:
    at = NOW - timedelta(days=days)
    made = BackupRecord(
        backup_id=name, clinic_id=7, clinic_name="Siete", kind="incremental" if parent else "full",
        trigger="scheduled", state="completed", started_at=at, archive_key=f"{name}.age",
        parent_id=parent, finished_at=at, size_bytes=size, recipients=("age1a",), schema_digest="s",
    )  # fmt: skip
    return replace(made, **changes)


CHAIN = [backup("f", 3, 1000), backup("i1", 2, 100, "f"), backup("i2", 1, 100, "i1")]


def chosen(backups: list[BackupRecord], wanted: str = "auto", **changes: Any) -> ChainChoice:
    options: dict[str, Any] = {"recipients": ("age1a",), "schema_digest": "s"}
    names = ("full_every_days", "chain_length", "incremental_percent", "lock_days")
    fields = {name: changes.pop(name) for name in names if name in changes}
    return choose(wanted, backups, Settings(**fields), NOW, **options | changes)  # type: ignore[arg-type]


def test_it_is_built_on_the_newest_backup_down_to_the_full_one() -> None:
    choice = chosen(CHAIN[::-1])
    assert [parent.backup_id for parent in choice.chain] == ["i2", "i1", "f"]
    assert choice.parent_id == "i2"
    assert choice.reason == "built on i2, 3.0 days after the full one"


@pytest.mark.parametrize("wanted", ["auto", "incremental"])
@pytest.mark.parametrize(
    ("backups", "changes", "reason"),
    [
        ([], {}, "the clinic has no backup yet"),
        ([replace(CHAIN[0], state="lost")], {}, "the clinic has no backup yet"),
        ([CHAIN[0], CHAIN[2]], {}, "the chain of i2 is incomplete"),
        ([replace(CHAIN[0], state="lost"), *CHAIN[1:]], {}, "the chain of i2 is incomplete"),
        (CHAIN, {"schema_digest": "t"}, "the tables differ from those of i2"),
        ([replace(one, schema_digest=None) for one in CHAIN], {}, "the catalog was rebuilt"),
        (CHAIN, {"recipients": ("age1a", "age1b")}, "the public keys have changed"),
        ([replace(CHAIN[0], recipients=("age1b",)), *CHAIN[1:]], {}, "the public keys have changed"),
        (CHAIN, {"chain_length": 3}, "the chain has reached its length of 3"),
        (CHAIN, {"not_before": CHAIN[0].started_at}, "the clinic's earlier backups are being erased"),
        ([*CHAIN, backup("x", -1, 9, "i2")], {}, "x is dated in the future: the clock was or is wrong"),
    ],
)
def test_what_forbids_an_incremental_one(
    wanted: str, backups: list[BackupRecord], changes: dict[str, Any], reason: str
) -> None:
    assert chosen(backups, wanted, **changes) == ChainChoice(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"full_every_days": 3}, "the last full one is 3.0 days old"),
        ({"incremental_percent": 20}, "the incrementals stored 20 % of the full one"),
    ],
)
def test_what_makes_a_full_one_better_is_not_for_somebody_who_asks(changes: dict[str, Any], reason: str) -> None:
    assert chosen(CHAIN, **changes) == ChainChoice(reason)
    assert chosen(CHAIN, "incremental", **changes).parent_id == "i2"
    assert chosen(CHAIN, "full").reason == "a full one was asked for"


def locked(days: float | None, record: BackupRecord) -> BackupRecord:
    return replace(record, locked_until=None if days is None else NOW + timedelta(days=days))


@pytest.mark.parametrize("wanted", ["auto", "incremental"])
@pytest.mark.parametrize(
    ("days", "found"),
    [((40, 40, 40), "i2"), ((30, 30, 30), "i2"), ((29.9, 40, 40), "f"), ((40, 29.9, 40), "i1"),
     ((None, 40, 40), "f"), ((40, 40, None), "i2")],
)  # fmt: skip
def test_nothing_that_is_to_be_locked_is_built_on_what_is_locked_for_less(
    wanted: str, days: tuple[float | None, ...], found: str
) -> None:
    chain = [locked(each, record) for each, record in zip(days, CHAIN, strict=True)]
    choice = chosen(chain, wanted, lock_days=30)
    good = all(each is not None and each >= 30 for each in days)
    assert choice.parent_id == ("i2" if good else None)
    assert good or choice.reason == f"{found} is locked for less than 30 days more"
    assert chosen(chain, wanted).parent_id == "i2"


def test_a_lock_lasts_as_long_as_that_of_anything_that_may_be_built_on_it() -> None:
    settings = Settings(lock_days=30, full_every_days=7)
    assert settings.lock_end(NOW) == NOW + timedelta(days=37)
    full = backup("f", 6.9, 1000, locked_until=settings.lock_end(NOW - timedelta(days=6.9)))
    assert chosen([full], lock_days=30).parent_id == "f"
    assert Settings(full_every_days=7).lock_end(NOW) is None


def test_a_circle_is_no_chain() -> None:
    circle = {"a": backup("a", 1, 1, "b"), "b": backup("b", 2, 1, "a")}
    assert chain_of(circle["a"], circle) is None


DIGESTS = st.binary(min_size=32, max_size=32)
# Some that begin alike: only the whole digest counts.
ALIKE = st.builds(lambda head, tail: head + bytes(27 - len(tail)) + tail, st.just(b"alike"), st.binary(max_size=2))


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.lists(DIGESTS | ALIKE, max_size=30)), min_size=1, max_size=4)
)
def test_known_blocks_find_what_was_listed_and_nothing_else(archives: list[dict[str, list[bytes]]]) -> None:
    known = KnownBlocks([str(number) for number in range(len(archives))])
    expected: dict[tuple[str, bytes], set[int]] = {}
    for number, tables in enumerate(archives, start=1):
        lists = {}
        for table, digests in tables.items():
            lists[table] = BlockList()
            for digest in digests:
                lists[table].append(Block(digest, 1, 1))
                expected.setdefault((table, digest), set()).add(number)
        known.add(block_list(str(number - 1), lists), fingerprint(lists))
    for (table, digest), numbers in expected.items():
        assert known.find(table, digest) in numbers
        assert known.find(table, digest[:-1] + bytes([digest[-1] ^ 1])) in expected.get(
            (table, digest[:-1] + bytes([digest[-1] ^ 1])), {OWN_ARCHIVE}
        )
        assert known.find("z", digest) == OWN_ARCHIVE


def blocks_of(*numbers: int) -> BlockList:
    blocks = BlockList()
    for number in numbers:
        blocks.append(Block(bytes([number]) * 32, 1, 1))
    return blocks


LISTED = {"a": blocks_of(1, 2), "b": blocks_of(), "c": blocks_of(3)}


def in_parts(backup_id: str, lists: dict[str, BlockList]) -> list[bytes]:
    """The line, then the digests of each table."""
    line, digests = b"".join(block_list(backup_id, lists)).split(b"\n", 1)
    parts = [line + b"\n"]
    for name in sorted(lists):
        length = 32 * len(lists[name])
        parts.append(digests[:length])
        digests = digests[length:]
    assert not digests
    return [part for part in parts if part]


HEAD, *REST = in_parts("x", LISTED)


@pytest.mark.parametrize(
    "pieces",
    [
        [], [b""], [b"x\n"], [b"[]"], [b"{}"], [HEAD], [HEAD, *REST[:-1]], [HEAD, *REST, b"1"], [HEAD, *REST, *REST],
        [HEAD, REST[0][:-1], REST[1]], [HEAD, REST[0][::-1], REST[1]], [HEAD.replace(b'"b"', b'"d"'), *REST],
        [HEAD.replace(b'"x"', b'"y"'), *REST], [HEAD.replace(b"2", b"-2"), *REST], list(block_list("y", LISTED)),
        [HEAD, *in_parts("x", {"a": blocks_of(4, 5), "c": blocks_of(6)})[1:]],
    ],
)  # fmt: skip
def test_a_list_that_is_none_or_another_backups_is_not_believed(pieces: list[bytes]) -> None:
    with pytest.raises(UnusableBlocks):
        KnownBlocks(["x"]).add(pieces)
    known = KnownBlocks(["x"])
    # However it is cut.
    known.add([HEAD, *(bytes([byte]) for byte in b"".join(REST))], fingerprint(LISTED))
    assert known.find("c", bytes([3]) * 32) == 1


def test_a_full_ones_list_is_compared_with_its_record() -> None:
    with pytest.raises(UnusableBlocks):
        KnownBlocks(["x"]).add(block_list("x", LISTED), fingerprint({"a": blocks_of(1)}))


def test_what_the_catalog_keeps_of_an_incremental_is_what_it_stored() -> None:
    blocks = BlockList()
    for number in range(6):
        blocks.append(Block(bytes([number]) * 32, 1, 1), archive=number % 2)
    known = KnownBlocks(["x"])
    known.add(block_list("x", {"a": blocks}))
    assert [known.find("a", bytes([number]) * 32) for number in range(6)] == [1, 0, 1, 0, 1, 0]
    assert len(known) == 3


TABLE = Table(
    "public.a",
    (Column("id", "bigint", True, None, "always", None), Column("b", "text", False, "'x'", "", None)),
    ("id",),
    (),
)
OTHER = replace(TABLE, name="public.b")


def column(**changes: Any) -> Table:
    return replace(TABLE, columns=(TABLE.columns[0], replace(TABLE.columns[1], **changes)))


@pytest.mark.parametrize(
    "table",
    [
        replace(TABLE, name="public.c"), replace(TABLE, primary_key=()), replace(TABLE, primary_key=("id", "b")),
        replace(TABLE, columns=TABLE.columns[:1]), replace(TABLE, columns=TABLE.columns[::-1]), column(name="c"),
        column(type="varchar(3)"), column(not_null=True), column(default="'y'"), column(generated="'x'"),
        column(identity="by default"),
    ],
)  # fmt: skip
def test_another_table_has_another_digest(table: Table) -> None:
    assert schema_digest([TABLE, OTHER]) == schema_digest([OTHER, TABLE])
    assert schema_digest([table, OTHER]) != schema_digest([TABLE, OTHER]) != schema_digest([TABLE])
