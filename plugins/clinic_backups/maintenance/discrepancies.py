"""Where a store's listing and the catalog's records of one clinic do not agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from clinic_backups.archive.object_keys import hold_key_of, parse_key
from clinic_backups.base.errors import IntegrityError, ObjectNotFound
from clinic_backups.base.model import BackupRecord, Condition
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore, UnfinishedUpload

OLD_ENOUGH = timedelta(days=1)
"""Younger debris may belong to something that goes on."""

Kind = Literal[
    "missing", "damaged", "lost", "no store", "no envelope", "hold note", "found", "unknown backup", "erased backup",
    "debris", "unfinished upload",
]  # fmt: skip
KINDS: Mapping[Kind, str] = {
    "missing": "the catalog counts on it, and it is gone",
    "damaged": "the catalog counts on it, and it is another one",
    "lost": "no store has a good copy, as was recorded before: if its archive is found, put it back where it was",
    "no store": "the catalog knows of no store that has it: `clinic-backups catalog rebuild` looks whether one does",
    "no envelope": "the archive is there, its envelope missing or another one",
    "hold note": "the note beside the archive does not say of its hold what the catalog says",
    "found": "the catalog does not count on it, and it is there and right",
    "unknown backup": "a backup that the catalog does not count on: `clinic-backups catalog rebuild` takes it over, or"
    " says why not",
    "erased backup": "its clinic was erased, and it is there again: erase the clinic once more",
    "debris": "a part of a backup that never came to be, or was deleted",
    "unfinished upload": "an upload that was begun and never ended",
}

BAD: frozenset[Kind] = frozenset({"missing", "damaged", "lost", "no store"})
"""It cannot be restored from where the catalog says, or the catalog does not say from where."""
WRONG: frozenset[Kind] = BAD | {"erased backup"}
"""Somebody has to do something about it."""


@dataclass(frozen=True)
class Discrepancy:
    """Store and catalog do not agree about one object; ``action`` is what was done about it."""

    store_url: str
    kind: Kind
    key: str
    clinic_id: int | None = None
    backup_id: str | None = None
    size_bytes: int | None = None
    action: Literal["", "recorded", "written again", "removed"] = ""
    needed_by: tuple[str, ...] = ()
    """Of a backup that is missing or damaged: those that are built on it, and cannot be restored without."""

    @classmethod
    def of(cls, store_url: str, record: BackupRecord, kind: Kind, size_bytes: int | None = None) -> Discrepancy:
        """One about a backup that the catalog knows."""
        key = hold_key_of(record.archive_key) if kind == "hold note" else record.archive_key
        return cls(store_url, kind, key, record.clinic_id, record.backup_id, size_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(
    store_url: str,
    clinic_id: int,
    records: Iterable[BackupRecord],
    places: Mapping[str, Condition | None],
    objects: Iterable[ObjectInfo],
    uploads: Iterable[UnfinishedUpload],
    now: datetime,
    erased_at: datetime | None = None,
) -> list[Discrepancy]:
    """Where one clinic's records and one store's objects do not agree.

    :param places: what the catalog says of each backup in this store, by id; nothing where it should not be there. A
        backup that should not be in any store is not in it.
    :param objects: those of the clinic whose keys are ours.
    :param erased_at: what was begun until then was erased with its clinic.
    """
    by_key = {record.archive_key: record for record in records}
    there = stored.by_archive(objects)
    found: list[Discrepancy] = []
    for key, record in by_key.items():
        if record.state in ("completed", "lost"):
            found += _about_record(store_url, record, places, there.get(key, {}))
    for key, parts_there in there.items():
        known = by_key.get(key)
        if known is not None and known.state not in ("failed", "deleted"):
            continue
        if stored.is_whole(parts_there):
            # Whatever the catalog knows of it: what is a backup is never debris.
            kind: Kind = "erased backup" if known is None and _is_of_before(key, erased_at) else "unknown backup"
            found.append(Discrepancy(store_url, kind, key, clinic_id, size_bytes=parts_there["archive"].size_bytes))
        elif all(info.last_modified < now - OLD_ENOUGH for info in parts_there.values()):
            found += [
                Discrepancy(store_url, "debris", info.key, clinic_id, size_bytes=info.size_bytes)
                for info in parts_there.values()
            ]
    found += [
        Discrepancy(store_url, "unfinished upload", key, clinic_id)
        for key in dict.fromkeys(upload.key for upload in uploads if upload.started_at < now - OLD_ENOUGH)
    ]
    return found


def _is_of_before(archive_key: str, moment: datetime | None) -> bool:
    parts = parse_key(archive_key)
    began_at = parts.began_at if parts else None
    return moment is not None and began_at is not None and began_at <= moment


def _about_record(
    store_url: str, record: BackupRecord, places: Mapping[str, Condition | None], there: Mapping[str, ObjectInfo]
) -> Iterator[Discrepancy]:
    archive, envelope = there.get("archive"), there.get("envelope")
    right = archive is not None and archive.size_bytes == record.size_bytes
    size = archive.size_bytes if archive is not None else None
    if places.get(record.backup_id) == "intact":
        if not right:
            yield Discrepancy.of(store_url, record, "missing" if archive is None else "damaged", size)
            return
        # Without asking for it: none is so large, and none is empty.
        if envelope is None or not 0 < envelope.size_bytes <= envelopes.MAX_BYTES:
            yield Discrepancy.of(store_url, record, "no envelope", size)
        if ("hold" in there) != (record.hold_reason is not None):
            yield Discrepancy.of(store_url, record, "hold note")
    elif right and envelope is not None:
        yield Discrepancy.of(store_url, record, "found", size)
        if "hold" in there and record.hold_reason is None:
            yield Discrepancy.of(store_url, record, "hold note")
    elif record.backup_id not in places:
        yield Discrepancy.of(store_url, record, "no store")
    if record.state == "lost" and not record.stores and places.get(record.backup_id) is not None:
        yield Discrepancy.of(store_url, record, "lost", record.size_bytes)


def with_dependents(item: Discrepancy, records: Iterable[BackupRecord]) -> Discrepancy:
    """One about a backup that is not there, with those that are built on it."""
    if item.kind not in BAD:
        return item
    built_on_it = [
        record.backup_id
        for record in records
        if record.state in ("completed", "lost") and item.backup_id in [archive.backup_id for archive in record.chain]
    ]
    return replace(item, needed_by=tuple(built_on_it))


def wrong_beside(record: BackupRecord, store: ObjectStore, now: datetime) -> Iterator[Kind]:
    """Whether envelope and note of a hold say what the catalog says. A lock may last longer than the envelope knew."""
    try:
        envelope = envelopes.load(record.archive_key, store, now=now)
    except (IntegrityError, ObjectNotFound):
        yield "no envelope"
    else:
        if not replace(envelope, locked_until=record.locked_until).says_the_same(record.envelope()):
            yield "no envelope"
    if record.hold_reason is not None:
        try:
            same = envelopes.load_hold(record.archive_key, store) == (record.hold_reason, record.held_by)
        except IntegrityError:
            same = False
        if not same:
            yield "hold note"
