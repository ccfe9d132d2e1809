"""A lost catalog is rebuilt from the envelopes, and every clinic is restored from the remaining store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.archive.encryption import ENCRYPTION, generate_identity
from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of
from clinic_backups.base import connections, strict_json
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import IntegrityError, PermanentError, TransientError
from clinic_backups.base.plain import iso
from clinic_backups.catalog.locks import Purpose
from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance import rebuild
from clinic_backups.restore.archives import Source
from clinic_backups.restore.find_backup import choose_backup
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from include.demo.restore import damage
from tests.conftest import MakeStore
from tests.fleet import START, Fleet, flip, lose_locks, objects_of, put, reads_of
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase, copy_of

CLINICS = (1, 2, 3)


@pytest.fixture
def fleet(demo_database: DemoDatabase, tmp_path: Path) -> Fleet:
    return Fleet(demo_database, FileStore(tmp_path / "store"))


Backups = Callable[..., tuple[Fleet, list[BackupRecord]]]
"""``(day, clinic), …``: a fleet that made these backups and lost its catalog, and their records."""


@pytest.fixture(scope="module")
def once_made(demo_template: DemoDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """Each of them is made once, and only to be copied."""
    with ExitStack() as databases:

        @cache
        def make(*days: tuple[float, int]) -> tuple[Fleet, list[BackupRecord]]:
            database = databases.enter_context(copy_of(demo_template))
            fleet = Fleet(database, FileStore(tmp_path_factory.mktemp("made") / "store"))
            records = [fleet.on_day(day, clinic_id) for day, clinic_id in days]
            lose_catalog(fleet)
            return fleet, records

        yield make


@pytest.fixture
def lost(once_made: Backups) -> Iterator[Backups]:
    with ExitStack() as copies:

        def copied(*days: tuple[float, int]) -> tuple[Fleet, list[BackupRecord]]:
            fleet, records = once_made(*days)
            return copies.enter_context(fleet.kept()), records

        yield copied


def lose_catalog(fleet: Fleet) -> None:
    fleet.execute("DROP SCHEMA clinic_backups CASCADE")
    with pytest.raises(PermanentError):
        fleet.catalog.require_newest()
    fleet.execute(f"CREATE SCHEMA clinic_backups AUTHORIZATION {fleet.database.roles.catalog}")
    fleet.catalog.migrate()
    assert fleet.catalog.find() == []


def changed(envelope: bytes, **changes: Any) -> bytes:
    """An envelope with other values, its archive's among them."""
    made_up = json.loads(envelope)
    for name, value in changes.items():
        (made_up["archive"] if name in ("key", "sha256", "md5", "size_bytes") else made_up)[name] = value
    return json.dumps(made_up).encode()


def replace_object(fleet: Fleet, key: str, content: bytes) -> None:
    fleet.stores.primary.delete(key)
    put(fleet.stores.primary, key, content)


def forge(fleet: Fleet, record: BackupRecord, **changes: Any) -> None:
    """Somebody writes other values into a backup's envelope."""
    key = envelope_key_of(record.archive_key)
    replace_object(fleet, key, changed(objects_of(fleet.stores.primary)[key], **changes))


def everything_works(fleet: Fleet, *, backups: int) -> None:
    """What reads the catalog for every clinic: a value that cannot be read back would stop all of them."""
    assert len(fleet.catalog.find()) == backups
    assert {cleaned.problem for cleaned in fleet.clean(1)} == {""}
    ((count, rows),) = fleet.execute_rows("SELECT count(*), sum(registros_totales) FROM clinic_backups.respaldo")
    assert (count, rows > 0) == (backups, True)


def changes(clinic_id: int, day: int) -> tuple[str, ...]:
    return (f"UPDATE public.inventario_inventario SET nombre = 'día {day}' WHERE clinica_id = {clinic_id}",)


# Whether every kind of store can be read again is asked by smaller tests. The drill takes ten seconds for each.
@pytest.mark.parametrize("provider", ["s3", "file"], indirect=True)
def test_drill_the_catalog_and_one_of_two_stores_are_lost_and_every_clinic_is_restored(
    demo_database: DemoDatabase, make_store: MakeStore, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "first"), make_store(f"drill-{uuid4().hex}"))
    first, second = fleet.stores
    fleet.kind = "auto"
    for day in (0, 40, 41):
        for clinic_id in CLINICS:
            fleet.execute(*changes(clinic_id, day))
            made = fleet.on_day(day, clinic_id, incremental_percent=10_000)
            assert made.kind == ("incremental" if day == 41 else "full")
    held = fleet.catalog.find(clinic_id=2)[-1]
    fleet.holds().hold(held.backup_id, "pleito 12", "abogada")
    put(second, "backups/1/notas.txt")
    assert fleet.replicate().problems == []
    before = {record.backup_id: record for record in fleet.catalog.find()}
    rows = {clinic_id: fleet.rows_now(clinic_id) for clinic_id in CLINICS}

    lose_catalog(fleet)
    for info in list(first.list()):
        first.delete(info.key)
    for clinic_id in CLINICS:
        fleet.execute(*damage(clinic_id))

    report = fleet.rebuild(second)
    assert (report.adopted, report.known, report.held, report.other_objects) == (len(before), 0, 1, 1)
    assert (report.conflicts, report.incomplete) == ([], [])
    rebuilt = {record.backup_id: record for record in fleet.catalog.find()}
    assert rebuilt.keys() == before.keys()
    for backup_id, record in rebuilt.items():
        # All but what only the catalog knew: the run and the attempt.
        assert record.envelope() == before[backup_id].envelope()
        assert (record.stores, record.hold_reason) == ((second.url,), before[backup_id].hold_reason)
    again = fleet.rebuild(second)
    assert (again.adopted, again.known, again.held) == (0, len(before), 0)
    assert {record.backup_id: record for record in fleet.catalog.find()} == rebuilt

    for clinic_id in CLINICS:
        newest = fleet.catalog.latest(clinic_id, fleet.now)
        assert newest is not None
        fleet.restored(newest, Stores.of(second))
        assert fleet.rows_now(clinic_id) == rows[clinic_id]

    # Retention works again, and respects the hold; the first store gets its replicas back; backups go on.
    cleaned = fleet.clean(75)
    assert [result.problem for result in cleaned] == ["", "", ""]
    left = {record.backup_id for record in fleet.catalog.find(state="completed")}
    newer = {record.backup_id for record in before.values() if record.started_at > START}
    assert left == {held.backup_id, *newer}
    assert fleet.replicate(patient=True).problems == []
    assert objects_of(first).keys() == objects_of(second).keys() - {"backups/1/notas.txt"}
    assert fleet.on_day(76).state == "completed"


def test_a_second_store_adds_what_the_first_did_not_have_and_the_newest_stays_the_newest(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    old, new = fleet.on_day(0), fleet.on_day(1)
    fleet.replicate()
    for key in (old.archive_key, envelope_key_of(old.archive_key)):
        one.delete(key)
    lose_catalog(fleet)
    assert fleet.rebuild(one).adopted == 1
    report = fleet.rebuild(two)
    assert (report.adopted, report.known) == (1, 1)
    latest = fleet.catalog.latest(1, fleet.now)
    assert latest is not None
    assert (latest.backup_id, latest.stores) == (new.backup_id, (one.url, two.url))
    assert [record.backup_id for record in fleet.catalog.find()] == [new.backup_id, old.backup_id]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"clinic_id": 2}, "names another"),
        ({"clinic_id": True}, "names another"),
        ({"backup_id": "2-20260901T060000Z"}, "backup id"),
        ({"backup_id": 7}, "backup id"),
        ({"backup_id": "1-20260901T060000Z'; DROP TABLE x"}, "backup id"),
        ({"kind": "whole"}, "unknown kind"),
        ({"rows": ["x"]}, "wrong type"),
        ({"rows": {"a": -1}}, "wrong type"),
        ({"rows": {"a\0": 1}}, "half a character"),
        ({"raw_bytes": 2**70}, "wrong type"),
        ({"clinic_name": "\ud800"}, "half a character"),
        ({"clinic_name": None}, "wrong type"),
        ({"notes": "a\0b"}, "half a character"),
        ({"recipients": [1]}, "wrong type"),
        ({"started_at": "2026-09-01T06:00:00"}, "without a zone"),
        ({"started_at": "yesterday"}, "is not an envelope"),
        ({"started_at": 7}, "is not an envelope"),
        ({"format": 2}, "has format 2"),
        ({"format": "1"}, "is not an envelope"),
        ({"parent_id": "1-20250101T000000Z"}, "full backup is built on another"),
        ({"parent_id": 7}, "full backup is built on another"),
        ({"parent_id": {"a": 1}}, "full backup is built on another"),
        ({"parent_id": "1-20250101T000000Z\0"}, "half a character"),
        ({"chain": ["FULL"]}, "full backup is built on another"),
        ({"kind": "incremental"}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "FULL"}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "OTHER"}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": 7, "chain": ["FULL"]}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": {}, "chain": ["FULL"]}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "\0", "chain": ["FULL"]}, "half a character"),
        ({"kind": "incremental", "parent_id": "OTHER", "chain": ["OTHER"]}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["OTHER"]}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL"] * 251}, "parent or a chain that is not valid"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL", "OTHER"]}, "not an archive of the clinic"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL", "ENVELOPE"]}, "not an archive of the clinic"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL", "NO KEY"]}, "not an archive of the clinic"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL", "NO HASH"]}, "not an archive of the clinic"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": ["FULL", "NO SIZE"]}, "not an archive of the clinic"),
        ({"kind": "incremental", "parent_id": "FULL", "chain": "x"}, "is not an envelope"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "an end of its term"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "an end of its term"),
        ({"locked_until": "9999-12-31T23:59:59-12:00"}, "an end of its term"),
        ({"locked_until": "0001-01-01T00:00:00+14:00"}, "an end of its term"),
        ({"finished_at": "9999-12-31T00:00:00Z"}, "a start or an end"),
        ({"finished_at": "2026-08-01T00:00:00Z"}, "a start or an end"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "a start or an end"),
        ({"started_at": "1999-12-31T23:59:59Z"}, "a start or an end"),
        ({"rows": {"a": 2**63 - 1, "b": 2**63 - 1}}, "too many tables or rows"),
        ({"rows": {f"t{number}": 0 for number in range(10_001)}}, "too many tables or rows"),
        ({"rows": {"a\x1b[2J": 1}}, "names of tables"),
        ({"rows": {"a" * 301: 1}}, "names of tables"),
        ({"recipients": ["age1"] * 101}, "public keys"),
        ({"recipients": ["a" * 4_001]}, "public keys"),
        ({"recipients": ["\x1b[2J"]}, "public keys"),
        ({"fingerprint": "x"}, "checksum"),
        ({"md5": "0" * 31}, "checksum"),
        ({"format": 1.0}, "not whole"),
        ({"archive": "x"}, "is not an envelope"),
        ({"archive": {"key": "backups/1/x", "size_bytes": 1, "sha256": "", "md5": ""}}, "another archive"),
        ({"sha256": "x"}, "checksum"),
        ({"sha256": None}, "checksum"),
        ({"size_bytes": 1}, "says otherwise"),
        ({"safety_of": "2-20260901T060000Z"}, "not a backup of the clinic"),
        ({"safety_of": {"a": 1}}, "not a backup of the clinic"),
    ],
    ids=lambda value: str(value)[:100],
)
def test_an_envelope_that_somebody_made_up_is_reported_and_stops_no_other(
    lost: Backups, changes: dict[str, Any], problem: str
) -> None:
    fleet, (bad, good, other) = lost((1, 1), (0, 1), (2, 2))
    built_on = {
        "FULL": asdict(good.archive),
        "OTHER": asdict(other.archive),
        "ENVELOPE": asdict(good.archive) | {"key": envelope_key_of(good.archive_key)},
        "NO KEY": asdict(good.archive) | {"key": {}},
        "NO HASH": asdict(good.archive) | {"md5": None},
        "NO SIZE": asdict(good.archive) | {"size_bytes": "7"},
    }
    if isinstance(changes.get("chain"), list):
        changes = changes | {"chain": [built_on[name] for name in changes["chain"]]}
    if changes.get("parent_id") in ("FULL", "OTHER"):
        changes = changes | {"parent_id": built_on[changes["parent_id"]]["backup_id"]}
    forge(fleet, bad, **changes)
    report = fleet.rebuild()
    ((conflict, why),) = report.conflicts
    assert conflict == bad.archive_key
    assert problem in why
    assert [record.backup_id for record in fleet.catalog.find()] == [other.backup_id, good.backup_id]
    everything_works(fleet, backups=2)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"\xff\xfe",
        b"{}" + b" " * 2_000_000,
        b"[" * 500_000,
        b'{"a":' * 150_000,
    ],
    ids=lambda garbage: str(garbage[:20]),
)
def test_an_envelope_that_is_none_is_reported(lost: Backups, garbage: bytes) -> None:
    fleet, (bad, good) = lost((0, 1), (1, 1))
    replace_object(fleet, envelope_key_of(bad.archive_key), garbage)
    report = fleet.rebuild()
    assert [key for key, _ in report.conflicts] == [bad.archive_key]
    assert [record.backup_id for record in fleet.catalog.find()] == [good.backup_id]
    everything_works(fleet, backups=1)


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (b"[]", None),
        (b"null", None),
        (b"{}", None),
        (b"[" * 500_000, None),
        (b'{"reason": 7, "by": "x"}', None),
        (b'{"reason": " ", "by": "x"}', None),
        (b'{"reason": "\\u0000", "by": "x"}', None),
        (b'{"reason": "pleito", "by": ["x"]}', None),
        (b'{"reason": "' + b"x" * 501 + b'", "by": "x"}', None),
        (b'{"reason": "pleito\\u0000", "by": "x\\ud800"}', None),
        (b'{"reason": "pleito", "reason": "otro", "by": "x"}', None),
        (b'{"reason": "pleito \\u001b[2J12\\n", "by": "x\\u202e"}', "pleito [2J12"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_note_of_a_hold_that_cannot_be_read_holds_and_is_reported(
    lost: Backups, note: bytes, reason: str | None
) -> None:
    fleet, (held, good) = lost((0, 1), (1, 1))
    put(fleet.stores.primary, hold_key_of(held.archive_key), note)
    report = fleet.rebuild()
    problem = "its note of a hold cannot be read; it is kept on hold"
    assert report.conflicts == ([] if reason else [(held.archive_key, problem)])
    assert (report.adopted, report.held) == (2, 1)
    assert fleet.again(held).hold_reason == (reason or "unreadable hold note")
    assert fleet.again(good).hold_reason is None
    everything_works(fleet, backups=2)
    assert (fleet.rebuild().conflicts, fleet.rebuild().held) == ([], 0)


def plant(
    fleet: Fleet, record: BackupRecord, began: str, *, number: int = 0, content: bytes = b"evil", into: Any = None,
    **changes: Any,
) -> str:  # fmt: skip
    """Somebody adds an archive, and an envelope that is made after a record's; returns the archive's key."""
    store = into or fleet.stores.primary
    key = f"backups/1/{began[:4]}/{began[4:6]}/backup_a_1_{began}_{chr(97 + number) * 26}.tar.zst.age"
    digests = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    envelope = changed(json.dumps(record.envelope().to_json()).encode(),
                       key=key, size_bytes=len(content), **digests, **changes)  # fmt: skip
    put(store, key, content)
    put(store, envelope_key_of(key), envelope)
    return key


SEALED = ENCRYPTION.HEADER + b"-> X25519 of somebody"


@pytest.mark.parametrize(
    ("began", "changes", "problem"),
    [
        ("20000101_000000", {}, "its key has another time"),
        ("20991231_235959", {}, "its key has another time"),
        ("20260231_000000", {}, "its key has another time"),
        ("20260901_060000", {"started_at": "2026-08-01T00:00:00Z"}, "a start before the time in its id"),
        ("20260901_060000", {"backup_id": "1-20260931T060000Z"}, "no usable backup id"),
    ],
)
def test_id_start_and_key_of_a_backup_agree(lost: Backups, began: str, changes: dict[str, Any], problem: str) -> None:
    fleet, (record, good) = lost((0, 1), (1, 1))
    key = plant(fleet, record, began, **changes)
    report = fleet.rebuild()
    ((conflict, why),) = report.conflicts
    assert (conflict, problem in why) == (key, True)
    assert {each.archive_key for each in fleet.catalog.find()} == {record.archive_key, good.archive_key}


def test_a_retry_long_after_its_first_attempt_and_older_keys_are_known_again(fleet: Fleet) -> None:
    first = fleet.on_day(0)

    def fail(progress: object) -> None:
        raise TransientError("out of reach")

    with pytest.raises(TransientError):
        fleet.run(1, run_id="r", on_progress=fail, now=lambda: START + timedelta(days=1))
    fleet.later(days=40)
    retried = fleet.run(1, run_id="r", now=lambda: fleet.now)
    assert (retried.attempt, retried.backup_id) == (2, "1-20260902T060000Z")
    old = plant(fleet, first, "20260901_060000")
    for store_key in (first.archive_key, envelope_key_of(first.archive_key)):
        fleet.store.delete(store_key)
    older = old.removesuffix(f"_{'a' * 26}.tar.zst.age") + ".tar.zst.age"
    put(fleet.store, older, b"evil")
    put(fleet.store, envelope_key_of(older), changed(objects_of(fleet.store)[envelope_key_of(old)], key=older))
    for store_key in (old, envelope_key_of(old)):
        fleet.store.delete(store_key)
    lose_catalog(fleet)
    assert fleet.rebuild().conflicts == []
    assert {each.archive_key for each in fleet.catalog.find()} == {retried.archive_key, older}


@pytest.mark.parametrize(("when", "others"), [("first", 1), ("last", 2)])
@pytest.mark.parametrize(
    ("content", "changes", "told"),
    [
        (b"evil", {}, True),
        (SEALED, {"sha256": "0" * 64}, True),
        (SEALED, {}, False),
    ],
    ids=["garbage", "another digest", "sealed"],
)
def test_of_several_with_one_id_none_is_taken_over_for_its_time(
    lost: Backups, when: str, content: bytes, changes: dict[str, Any], told: bool, others: int
) -> None:
    fleet, (real, good) = lost((0, 1), (1, 1))
    began = "20260901_050000" if when == "first" else "20260901_063000"
    finished_at = iso(START + timedelta(hours=1))
    forged = [
        plant(fleet, real, began, number=number, content=content + bytes(number), finished_at=finished_at)
        for number in range(others)
    ]
    for key in forged:
        replace_object(fleet, envelope_key_of(key), changed(objects_of(fleet.store)[envelope_key_of(key)], **changes))
    report = fleet.rebuild()
    known = {each.archive_key for each in fleet.catalog.find()}
    if told:
        assert {key for key, _ in report.conflicts} == {*forged}
        assert known == {real.archive_key, good.archive_key}
        assert all(f"{real.archive_key} was read and is right" in why for _, why in report.conflicts)
    else:
        assert {key for key, _ in report.conflicts} == {real.archive_key, *forged}
        assert known == {good.archive_key}
        assert all("--archive KEY --plan" in why and real.backup_id in why for _, why in report.conflicts)
        # As it says: the wrong ones are moved away.
        for key in forged:
            fleet.store.delete(key)
        assert fleet.rebuild().conflicts == []
        assert {each.archive_key for each in fleet.catalog.find()} == {real.archive_key, good.archive_key}


def test_the_real_one_may_lie_in_another_store_and_the_key_tells_them_apart(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    real = fleet.on_day(0)
    fleet.replicate()
    for key in (real.archive_key, envelope_key_of(real.archive_key)):
        one.delete(key)
    forged = plant(fleet, real, "20260901_060000", content=SEALED)
    lose_catalog(fleet)
    for store, other, key in ((one, two, forged), (two, one, real.archive_key)):
        report = rebuild.rebuild(store, fleet.catalog, fleet.now, others=[other])
        assert [conflict for conflict, _ in report.conflicts] == [key]
        assert f"{other.url}/" in report.conflicts[0][1]
    assert fleet.catalog.find() == []

    def opens(store: Any, envelope: Any) -> object:
        return fleet.archives().read_in(store, Source(envelope.backup_id, 1, envelope.archive))

    for store, other, adopted in ((one, two, 0), (two, one, 1)):
        report = rebuild.rebuild(store, fleet.catalog, fleet.now, others=[other], opens=opens)
        assert (report.adopted, [key for key, _ in report.conflicts]) == (adopted, [] if adopted else [forged])
    # Whose key is another one knows nothing of either.
    fleet.execute("TRUNCATE clinic_backups.backup CASCADE")
    fleet.identity = generate_identity()[0]
    report = rebuild.rebuild(two, fleet.catalog, fleet.now, others=[one], opens=opens)
    assert (report.adopted, [key for key, _ in report.conflicts]) == (0, [real.archive_key])


def test_texts_are_made_harmless_and_not_refused_since_a_backup_itself_may_write_them(fleet: Fleet) -> None:
    odd, good, fine = fleet.on_day(0), fleet.on_day(1), fleet.on_day(2)
    forge(
        fleet, odd, clinic_name="Clínica \x1b[2J\u202eNorte\n" + "x" * 600, notes="una\x1b]0;x\x07\nlínea",
        requested_by="\x9bana",
    )  # fmt: skip
    # Spaces and joiners belong to a name: it comes back as it was.
    forge(fleet, fine, clinic_name="Clínica  del Sur \U0001f469\u200d\u2695", notes="x" * 2_000)
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert (report.adopted, report.conflicts) == (3, [])
    again = fleet.again(odd)
    assert (again.clinic_name[:21], len(again.clinic_name)) == ("Clínica [2JNorte xxxx", 500)
    assert (again.notes, again.requested_by) == ("una ]0;x línea", "ana")
    again = fleet.again(fine)
    assert (again.clinic_name, again.notes) == ("Clínica  del Sur \U0001f469\u200d\u2695", "x" * 2_000)
    assert fleet.again(good).clinic_name == good.clinic_name
    everything_works(fleet, backups=3)


def test_a_safety_backup_is_known_again(fleet: Fleet) -> None:
    first, safety, old = fleet.on_day(0), fleet.on_day(1), fleet.on_day(2)
    forge(fleet, safety, safety_of=first.backup_id)
    # As it was written before envelopes had the field.
    key = envelope_key_of(old.archive_key)
    plain = json.loads(objects_of(fleet.stores.primary)[key])
    del plain["safety_of"]
    plain["notes"] = f"before the restore of {first.backup_id}"
    replace_object(fleet, key, json.dumps(plain).encode())
    lose_catalog(fleet)
    assert fleet.rebuild().conflicts == []
    assert [fleet.again(record).safety_of for record in (first, safety, old)] == [None, *[first.backup_id] * 2]
    assert (
        choose_backup(fleet.catalog, RestoreRequest(clinic_id=first.clinic_id), fleet.now).backup_id == first.backup_id
    )


def test_what_the_catalog_itself_refuses_of_one_backup_stops_no_other(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, worse, good = fleet.on_day(0), fleet.on_day(1), fleet.on_day(2)
    # What the checks do not know of yet.
    monkeypatch.setattr(envelopes, "problem_of", lambda *arguments: "")
    monkeypatch.setattr(rebuild, "harmless", lambda envelope: envelope)
    monkeypatch.setattr(strict_json, "is_text", lambda text: True)
    forge(fleet, bad, notes="a\0b")
    forge(fleet, worse, rows={"a\0": 1})
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert [key for key, _ in report.conflicts] == [bad.archive_key, worse.archive_key]
    assert [record.backup_id for record in fleet.catalog.find()] == [good.backup_id]


def test_more_envelopes_than_a_batch_holds_and_children_that_are_older_by_name(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "BATCH", 2)
    # A failed attempt's retry keeps the attempt's name, and is built on what was stored meanwhile.
    grandchild, child, *others, full = [fleet.on_day(day) for day in range(6)]
    for number, (record, chain) in enumerate(((child, [full]), (grandchild, [child, full]))):
        started_at = START + timedelta(days=6 + number)
        forge(
            fleet, record, kind="incremental", parent_id=chain[0].backup_id,
            chain=[asdict(each.archive) for each in chain],
            started_at=started_at.isoformat(), finished_at=started_at.isoformat(),
        )  # fmt: skip
    fleet.later(days=5)
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert (report.adopted, report.conflicts) == (6, [])
    assert [record.backup_id for record in fleet.catalog.find()] == [
        each.backup_id for each in (grandchild, child, full, *reversed(others))
    ]
    assert {record.state for record in fleet.catalog.find()} == {"completed"}
    everything_works(fleet, backups=6)


def test_what_the_catalog_says_otherwise_is_a_conflict_and_nothing_is_changed(fleet: Fleet) -> None:
    names = ("other", "running", "failed elsewhere", "deleting", "good")
    records = {name: fleet.on_day(day) for day, name in enumerate(names)}
    for name, change in {
        "other": "sha256 = repeat('0', 64)",
        "running": "state = 'running', finished_at = NULL",
        "failed elsewhere": "state = 'failed', archive_key = archive_key || 'x'",
        "deleting": "state = 'deleting'",
    }.items():
        fleet.execute(f"UPDATE clinic_backups.backup SET {change} WHERE backup_id = '{records[name].backup_id}'")
    before = fleet.catalog.find()
    report = fleet.rebuild()
    assert dict(report.conflicts) == {
        records["other"].archive_key: "it differs from the catalog in its sha256",
        records["running"].archive_key: "the catalog says that it is running",
        records["failed elsewhere"].archive_key: "it differs from the catalog in its key",
        records["deleting"].archive_key: "the catalog says that it is deleting",
    }
    assert (report.adopted, report.known) == (0, 1)
    assert fleet.catalog.find() == before


@pytest.mark.parametrize("state", ["failed", "deleted"])
def test_what_failed_or_was_deleted_by_the_catalog_and_is_there_is_taken_over(fleet: Fleet, state: str) -> None:
    store = fleet.stores.primary
    record, other = fleet.on_day(0), fleet.on_day(1)
    if state == "failed":
        fleet.execute(f"""
            UPDATE clinic_backups.backup
               SET state = 'failed', error = 'x', hint = 'y', sha256 = NULL, md5 = NULL, size_bytes = NULL,
                   noted = '{json.dumps(record.envelope().to_json())}'
             WHERE backup_id = '{record.backup_id}'""")
        fleet.execute("DELETE FROM clinic_backups.backup_replica")
        fleet.replicas.mark(other.backup_id, store.url, "intact", fleet.now)
    else:
        # Deleted, and the store's own way back brings it back.
        objects = objects_of(store)
        fleet.clean(45)
        assert fleet.state(record) == "deleted"
        for key in objects.keys() - objects_of(store).keys():
            put(store, key, objects[key])
    report = fleet.rebuild()
    assert (report.adopted, report.known, report.conflicts) == (1, 1, [])
    again = fleet.again(record)
    assert (again.state, again.stores, again.error, again.deleted_at) == ("completed", (store.url,), None, None)
    assert again.envelope() == record.envelope()
    assert (fleet.rebuild().known, fleet.rebuild().adopted) == (2, 0)
    fleet.restored(again)


def test_what_comes_back_of_a_clinic_that_was_erased_is_told_and_not_taken_over(fleet: Fleet) -> None:
    store = fleet.stores.primary
    full, child, other = fleet.on_day(0), fleet.on_day(1), fleet.on_day(1, 2)
    forge(fleet, child, kind="incremental", parent_id=full.backup_id, chain=[asdict(full.archive)])
    erased = {key: content for key, content in objects_of(store).items() if key.startswith("backups/1/")}
    cleaned = fleet.erase(1, 2)
    assert cleaned.erasure is not None and cleaned.erasure.finished_at is not None
    for key, content in erased.items():
        put(store, key, content)
    # The clinic came back.
    later = fleet.on_day(3)
    fleet.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id = '{later.backup_id}'")
    report = fleet.rebuild()
    assert [key for key, _ in report.conflicts] == [full.archive_key, child.archive_key]
    for _, why in report.conflicts:
        assert "before 2026-09-03T06:00:00Z" in why and "run `clinic-backups erase-clinic 1 --reason TEXT`" in why, why
    assert [record.backup_id for record in fleet.catalog.find()] == [later.backup_id, other.backup_id]

    # As the remedy says: asked for again, it goes on when they are taken over.
    assert "catalog rebuild" in fleet.erase(1, 4).hint
    assert (fleet.rebuild().adopted, fleet.rebuild().conflicts) == (2, [])
    (cleaned,) = fleet.clean(5, clinic_id=1)
    assert (cleaned.problem, cleaned.erasure and cleaned.erasure.finished_at) == ("", fleet.now)
    assert {key for key in objects_of(store) if key.startswith("backups/1/")} == set()


def test_a_note_that_outlived_its_hold_does_not_hold_a_backup_that_is_back(fleet: Fleet) -> None:
    store = fleet.stores.primary
    record, _ = fleet.on_day(0), fleet.on_day(1)
    fleet.holds().hold(record.backup_id, "pleito", "abogada")
    objects = objects_of(store)
    fleet.holds().release(record.backup_id, "juez")
    fleet.clean(45)
    assert fleet.state(record) == "deleted"
    for key in objects.keys() - objects_of(store).keys():
        put(store, key, objects[key])
    assert fleet.rebuild().held == 0
    assert (fleet.state(record), fleet.again(record).hold_reason) == ("completed", None)
    assert [item.action for item in fleet.check(record=True).discrepancies] == ["removed"]


def test_a_child_of_a_lost_backup_is_lost_until_its_parent_is_found(fleet: Fleet) -> None:
    store = fleet.stores.primary
    full, child, _ = fleet.on_day(0), fleet.on_day(1), fleet.on_day(1.1, 2)
    forge(fleet, child, kind="incremental", parent_id=full.backup_id, chain=[asdict(full.archive)])
    fleet.execute(f"DELETE FROM clinic_backups.backup WHERE backup_id = '{child.backup_id}'")
    kept = {key: content for key, content in objects_of(store).items() if key.startswith(full.archive_key[:-12])}
    for key in kept:
        store.delete(key)
    fleet.check(record=True)
    assert fleet.rebuild().adopted == 1
    assert (fleet.state(full), fleet.state(child)) == ("lost", "lost")
    for key, content in kept.items():
        put(store, key, content)
    assert (fleet.rebuild().known, fleet.rebuild().conflicts) == (3, [])
    assert (fleet.state(full), fleet.state(child)) == ("completed", "completed")


def test_a_damaged_replica_is_not_good_again_until_it_was_read_and_is(fleet: Fleet) -> None:
    store = fleet.stores.primary
    old, new = fleet.on_day(0), fleet.on_day(40)
    whole = objects_of(store)[new.archive_key]
    flip(store, new.archive_key)
    fleet.check(read=True, record=True)
    report = fleet.rebuild()
    assert report.conflicts == [(new.archive_key, "it counts as damaged here, and was read: it is damaged")]
    assert (report.adopted, report.known, fleet.state(new)) == (0, 1, "lost")
    # Retention does not take it for the last good one.
    fleet.clean(45)
    assert [fleet.state(record) for record in (old, new)] == ["completed", "lost"]
    # Also where only the record says so, and not the store's own line.
    fleet.execute("DELETE FROM clinic_backups.backup_replica WHERE state = 'damaged'")
    assert [why for _, why in fleet.rebuild().conflicts] == ["it counts as missing here, and was read: it is damaged"]

    replace_object(fleet, new.archive_key, whole)
    report = fleet.rebuild()
    assert (report.known, report.conflicts, fleet.state(new)) == (2, [], "completed")
    reads = reads_of(store)
    assert fleet.rebuild().known == 2
    assert new.archive_key not in reads


def test_of_two_replicas_only_the_one_that_counts_as_bad_is_read(demo_database: DemoDatabase, tmp_path: Path) -> None:
    fleet = Fleet(demo_database, FileStore(tmp_path / "one"), FileStore(tmp_path / "two"))
    one, two = fleet.stores
    record = fleet.on_day(0)
    fleet.replicate()
    flip(one, record.archive_key)
    fleet.check(read=True, record=True)
    reads = reads_of(two)
    assert [len(fleet.rebuild(store).conflicts) for store in (one, two)] == [1, 0]
    assert (fleet.again(record).stores, record.archive_key in reads) == ((two.url,), False)


@pytest.mark.parametrize("moment", ["after envelopes", "after an archive"])
def test_when_the_lock_is_lost_nothing_more_is_taken_over(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    record = fleet.on_day(0)
    if moment == "after an archive":
        fleet.replicas.mark(record.backup_id, fleet.stores.primary.url, "missing", fleet.now)
        monkeypatch.setattr(rebuild.stored, "read_through", lambda *arguments: lose_locks(fleet) or "intact")
    else:
        lose_catalog(fleet)
        load = envelopes.load
        monkeypatch.setattr(envelopes, "load", lambda *given, **named: lose_locks(fleet) or load(*given, **named))
    before = fleet.catalog.find()
    with pytest.raises(TransientError, match="lock in the catalog was lost"):
        fleet.rebuild()
    assert fleet.catalog.find() == before


@pytest.mark.parametrize("purpose", ["clinic", "replicas"])
def test_a_clinic_that_is_worked_at_is_reported_and_stops_no_other(fleet: Fleet, purpose: Purpose) -> None:
    for clinic_id in CLINICS:
        fleet.on_day(0, clinic_id)
    lose_catalog(fleet)
    with fleet.catalog.lock(2, purpose):
        report = fleet.rebuild()
    assert (report.adopted, report.busy, report.conflicts) == (2, [2], [])
    assert [record.clinic_id for record in fleet.catalog.find(clinic_id=2)] == []
    assert fleet.rebuild().busy == []
    assert len(fleet.catalog.find(clinic_id=2)) == 1


def test_what_was_deleted_since_the_listing_is_not_taken_over(fleet: Fleet, tmp_path: Path) -> None:
    gone, good = fleet.on_day(0), fleet.on_day(20)

    class Slow(FileStore):
        """Retention runs between a listing and what is done about it."""

        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix))
            if prefix == "backups/":
                fleet.clean(60)
            yield from found

    report = fleet.rebuild(Slow(tmp_path / "store"))
    assert fleet.state(gone) == "deleted"
    assert (report.adopted, report.known, report.conflicts, report.incomplete) == (0, 1, [], [])
    assert [record.backup_id for record in fleet.catalog.find(state="completed")] == [good.backup_id]


def test_archives_without_envelope_are_no_backups(fleet: Fleet) -> None:
    whole, half = fleet.on_day(0), fleet.on_day(1)
    fleet.stores.primary.delete(envelope_key_of(half.archive_key))
    lose_catalog(fleet)
    report = fleet.rebuild()
    assert report.incomplete == [half.archive_key]
    assert [record.backup_id for record in fleet.catalog.find()] == [whole.backup_id]


def test_an_envelope_asks_for_a_lock_only_while_that_lasts(fleet: Fleet, tmp_path: Path) -> None:
    record = fleet.on_day(0)
    locked = replace(record.envelope(), locked_until=fleet.now + timedelta(days=1))
    # A folder cannot lock: it refuses whatever asks for it.
    store = FileStore(tmp_path / "elsewhere")
    store.make_place()
    for do in (envelopes.write, envelopes.ensure):
        with pytest.raises(PermanentError, match="cannot be locked"):
            do(locked, store, now=fleet.now)
        do(locked, store, now=fleet.now + timedelta(days=1))
        assert envelopes.load(record.archive_key, store, now=fleet.now) == locked
        store.delete(envelope_key_of(record.archive_key))


def test_an_envelope_of_another_backup_is_never_replaced(fleet: Fleet) -> None:
    store = fleet.stores.primary
    record = fleet.on_day(0)
    ours, key = record.envelope(), envelope_key_of(record.archive_key)

    def there(content: bytes) -> bytes:
        replace_object(fleet, key, content)
        envelopes.ensure(ours, store, now=fleet.now)
        return objects_of(store)[key]

    whole = objects_of(store)[key]
    assert there(whole) == whole
    for replaced in (b"", b"{}", b"[" * 500_000, changed(whole, notes="otra"), changed(whole, backup_id="1-x")):
        assert there(replaced) == whole
    another = "0" * 64
    for kept in (
        changed(whole, sha256=another),
        changed(whole, sha256=another, key="backups/1/x"),
        changed(whole, size_bytes=1),
        changed(whole, format=2),
    ):
        with pytest.raises(IntegrityError) as caught:
            there(kept)
        assert ("Two different backups" if b'"format": 1' in kept else "has format 2") in caught.value.message
        assert caught.value.hint
        assert objects_of(store)[key] == kept


def test_the_command_tells_everything_before_it_fails(
    run: Run,  # noqa: F811
    tmp_path: Path,
    demo_database: DemoDatabase,
) -> None:
    store, two = FileStore(tmp_path / "store"), FileStore(tmp_path / "two")
    two.make_place()
    run("catalog", "migrate")
    run("store", "init")
    assert run("backup", "--clinic", "1", "--clinic", "2", "--clinic", "3").code == 0
    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    first, second, three = sorted(catalog.find(), key=lambda record: record.clinic_id)

    def lose() -> None:
        with demo_database.connect() as db, db.cursor() as cursor:
            cursor.execute("TRUNCATE clinic_backups.backup CASCADE")

    lose()
    done = run("catalog", "rebuild")
    assert (done.code, "3 backups were added" in done.out, "not signed" in done.out) == (0, True, True)
    assert "not signed" not in run("catalog", "rebuild").out

    # A clinic is being worked at; a store is down, and the one after it is not left out.
    lose()
    for key in (three.archive_key, envelope_key_of(three.archive_key)):
        put(two, key, objects_of(store)[key])
        store.delete(key)
    stores = {
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"down": "s3://nowhere/x", "two": two.url}),
        "AIRFLOW_CONN_DOWN": json.dumps({
            "conn_type": "aws", "login": "x", "password": "x", "extra": {"endpoint_url": "http://127.0.0.1:9"},
        }),
    }  # fmt: skip
    with catalog.lock(2):
        busy = run("catalog", "rebuild")
        assert (busy.code, "1 clinics were skipped" in busy.err) == (75, True)
        assert "another process works on them: clinics 2" in busy.out
        assert [report["busy"] for report in run("catalog", "rebuild", "--json").json()] == [[2]]
        checked = run("catalog", "verify", "--record", "--read")
        assert (checked.code, "1 things could not be checked" in checked.err) == (75, True)
    down = run("catalog", "rebuild", **stores)
    assert (down.code, "s3://nowhere/x" in down.err) == (75, True)
    assert {record.backup_id for record in catalog.find()} == {three.backup_id, second.backup_id, first.backup_id}
    assert two.url in down.out

    # Something does not fit: that is worse.
    lose()
    key = envelope_key_of(first.archive_key)
    forged = changed(objects_of(store)[key], finished_at="9999-12-31T00:00:00Z")
    store.delete(key)
    put(store, key, forged)
    bad = run("catalog", "rebuild", **stores)
    assert (bad.code, "1 objects do not fit" in bad.err, "s3://nowhere/x" in bad.err) == (1, True, True)
    assert (first.archive_key in bad.out, "a start or an end that is not valid" in bad.out) == (True, True)
    assert {record.backup_id for record in catalog.find()} == {three.backup_id, second.backup_id}
