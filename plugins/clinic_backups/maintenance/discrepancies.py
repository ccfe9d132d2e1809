"""The differences between a store's listing and the catalog's records of one clinic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from clinic_backups.archive.object_keys import hold_key_of, parse_key
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import IntegrityError, ObjectNotFound
from clinic_backups.base.replica import Condition
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore, UnfinishedUpload

OLD_ENOUGH = timedelta(days=1)
"""Younger debris may belong to a running upload."""

Kind = Literal[
    "missing", "damaged", "lost", "no store", "no envelope", "hold note", "found", "unknown backup", "erased backup",
    "debris", "unfinished upload", "no request", "damaged request", "unknown request", "strange request",
    "false request",
]  # fmt: skip
KINDS: Mapping[Kind, str] = {
    "missing": "the archive is in the catalog but not in the store",
    "damaged": "the archive in the store differs from the catalog's record",
    "lost": "recorded earlier: no store has a good replica. If the archive is found, put it back where it was",
    "no store": "the catalog knows no store that has it. `clinic-backups catalog rebuild` searches the stores",
    "no envelope": "the archive is there, but its envelope is missing or differs",
    "hold note": "the hold note beside the archive does not agree with the catalog",
    "found": "the catalog has this replica as lost, but it is there and right",
    "unknown backup": "a backup that the catalog does not know. `clinic-backups catalog rebuild` takes it over, or"
    " says why not",
    "erased backup": "its clinic was erased, but the backup is there again. Erase the clinic once more",
    "debris": "a part of a backup that was never completed, or was deleted",
    "unfinished upload": "an upload that was begun but never ended",
    "no request": "an erasure request of the catalog, or its key, is not there. A recovery would bring its row back",
    "damaged request": "an erasure request of the catalog cannot be read there. A recovery would bring its row back",
    "unknown request": "an erasure request that the catalog does not know, so restores bring its row back."
    " `clinic-backups catalog rebuild` takes it over",
    "strange request": "an erasure request whose key the catalog does not have: of a catalog before it, or put there by"
    " somebody. Its row comes back. If you know it, `clinic-backups catalog rebuild --requests` takes it over",
    "false request": "an erasure request that this catalog did not make so: somebody put it there, or changed it."
    " Find out who may write to the store, then delete it",
}

BAD: frozenset[Kind] = frozenset({"missing", "damaged", "lost", "no store"})
"""The backup cannot be restored from the catalog's store, or the catalog names no store."""
WRONG: frozenset[Kind] = BAD | {"erased backup", "unknown request", "strange request", "false request"}
"""Kinds that need somebody's attention."""


@dataclass(frozen=True)
class Discrepancy:
    """One difference between store and catalog; ``action`` says what was done about it."""

    store_url: str
    kind: Kind
    key: str
    clinic_id: ClinicId | None = None
    backup_id: str | None = None
    size_bytes: int | None = None
    action: Literal["", "recorded", "written again", "removed"] = ""
    needed_by: tuple[str, ...] = ()
    """For a missing or damaged backup: the backups that are built on it and cannot be restored without it."""

    @classmethod
    def of(cls, store_url: str, record: BackupRecord, kind: Kind, size_bytes: int | None = None) -> Discrepancy:
        """Make one about a backup in the catalog."""
        key = hold_key_of(record.archive_key) if kind == "hold note" else record.archive_key
        return cls(store_url, kind, key, record.clinic_id, record.backup_id, size_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(
    store_url: str,
    clinic_id: ClinicId,
    records: Iterable[BackupRecord],
    replicas: Mapping[str, Condition | None],
    objects: Iterable[ObjectInfo],
    uploads: Iterable[UnfinishedUpload],
    now: datetime,
    erased_at: datetime | None = None,
) -> list[Discrepancy]:
    """The differences between one clinic's records and one store's objects.

    :param replicas: the state of each backup's replica in this store, by backup id; none if it should not be there.
        Backups that should be in no store are left out.
    :param objects: the clinic's objects whose keys have this package's form.
    :param erased_at: backups that were begun until then were erased with the clinic.
    """
    by_key = {record.archive_key: record for record in records}
    there = stored.by_archive(objects)
    found: list[Discrepancy] = []
    for key, record in by_key.items():
        if record.state in ("completed", "lost"):
            found += _about_record(store_url, record, replicas, there.get(key, {}))
    for key, parts_there in there.items():
        known = by_key.get(key)
        if known is not None and known.state not in ("failed", "deleted"):
            continue
        if stored.is_whole(parts_there):
            # Even if the catalog does not know it, a whole backup is never debris.
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
    store_url: str, record: BackupRecord, replicas: Mapping[str, Condition | None], there: Mapping[str, ObjectInfo]
) -> Iterator[Discrepancy]:
    archive, envelope = there.get("archive"), there.get("envelope")
    right = archive is not None and archive.size_bytes == record.size_bytes
    size = archive.size_bytes if archive is not None else None
    if replicas.get(record.backup_id) == "intact":
        if not right:
            yield Discrepancy.of(store_url, record, "missing" if archive is None else "damaged", size)
            return
        # Judged by its size alone: no envelope is larger, and none is empty.
        if envelope is None or not 0 < envelope.size_bytes <= envelopes.MAX_BYTES:
            yield Discrepancy.of(store_url, record, "no envelope", size)
        if ("hold" in there) != (record.hold_reason is not None):
            yield Discrepancy.of(store_url, record, "hold note")
    elif right and envelope is not None:
        yield Discrepancy.of(store_url, record, "found", size)
        if "hold" in there and record.hold_reason is None:
            yield Discrepancy.of(store_url, record, "hold note")
    elif record.backup_id not in replicas:
        yield Discrepancy.of(store_url, record, "no store")
    if record.state == "lost" and not record.stores and replicas.get(record.backup_id) is not None:
        yield Discrepancy.of(store_url, record, "lost", record.size_bytes)


def with_dependents(item: Discrepancy, records: Iterable[BackupRecord]) -> Discrepancy:
    """A difference about a missing backup, with the backups that are built on it."""
    if item.kind not in BAD:
        return item
    built_on_it = [
        record.backup_id
        for record in records
        if record.state in ("completed", "lost") and item.backup_id in [archive.backup_id for archive in record.chain]
    ]
    return replace(item, needed_by=tuple(built_on_it))


def wrong_beside(record: BackupRecord, store: ObjectStore, now: datetime) -> Iterator[Kind]:
    """Differences of envelope and hold note from the catalog. A lock may last longer than the envelope says."""
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
