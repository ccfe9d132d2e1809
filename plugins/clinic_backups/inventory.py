"""What a store holds against what the catalog says, both ways: for ``catalog verify`` and for the weekly sweep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from clinic_backups import envelopes, stored
from clinic_backups.catalog.copies import Copies, CopyState
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.records import Catalog
from clinic_backups.errors import ClinicBackupsError
from clinic_backups.model import BackupRecord, Loss, parse_key
from clinic_backups.stores.base import ObjectInfo, ObjectStore, UnfinishedUpload

OLD_ENOUGH = timedelta(days=1)
"""Younger debris may belong to something that goes on."""
BACKUPS, PREFLIGHT = "backups/", "preflight/"
_CLINIC = re.compile(r"backups/(0|[1-9][0-9]{0,17})/")
_PROBE = re.compile(r"preflight/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Kind = Literal["missing", "damaged", "no envelope", "found", "unknown backup", "debris", "unfinished upload"]
KINDS: Mapping[Kind, str] = {
    "missing": "the catalog counts on it, and it is gone",
    "damaged": "the catalog counts on it, and it is another one",
    "no envelope": "the archive is there, and its envelope is gone",
    "found": "the catalog does not count on it, and it is there and right",
    "unknown backup": "a backup that the catalog does not know: see `clinic-backups catalog rebuild`",
    "debris": "a part of a backup that never came to be, or was deleted",
    "unfinished upload": "an upload that was begun and never ended",
}


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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """What is to be done.

    :param record: write into the catalog what is gone, damaged or found again, and write missing envelopes.
    :param sweep: remove debris and unfinished uploads that are older than a day.
    :param read: read every archive and compare its SHA-256, not only its size.
    """

    record: bool = False
    sweep: bool = False
    read: bool = False


@dataclass
class Inventory:
    """What was found in one store.

    :param objects: how many objects of backups were looked at.
    :param strangers: how many are none of ours, and were left alone.
    :param problems: what could not be looked at or put right, as (clinic or key, error).
    """

    store_url: str
    objects: int = 0
    strangers: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    problems: list[tuple[str, ClinicBackupsError]] = field(default_factory=list)


class StoreCheck:
    """Compares stores with the catalog, clinic by clinic, so that memory is that of one clinic.

    :param now: the clock.
    :param on_step: told what is looked at.
    """

    def __init__(
        self, *, catalog: Catalog, now: Callable[[], datetime], on_step: Callable[[str], object] = lambda step: None
    ) -> None:
        self._catalog, self._now, self._on_step = catalog, now, on_step
        self._places = Copies(catalog.database)

    def run(self, store: ObjectStore, task: Task, *, clinic_id: int | None = None) -> Inventory:
        """Look at one store, or at what it has of one clinic. :raises ClinicBackupsError: it cannot be listed."""
        self._on_step(f"listing {store.url}")
        prefix = BACKUPS if clinic_id is None else f"{BACKUPS}{clinic_id}/"
        found = Inventory(store.url)
        uploads = _by_clinic(store.unfinished(prefix))
        seen: set[int] = set()
        for number, group in groupby(store.list(prefix), key=lambda info: _clinic_of(info.key)):
            objects = list(group)
            ours = [info for info in objects if parse_key(info.key) is not None]
            found.objects += len(ours)
            found.strangers += len(objects) - len(ours)
            if number is not None:
                seen.add(number)
                self._clinic(_Clinic(store, number, uploads.get(number, [])), ours, task, found)
        everybody = self._catalog.clinic_ids() if clinic_id is None else [clinic_id]
        for number in sorted({*everybody, *uploads} - seen):
            self._clinic(_Clinic(store, number, uploads.get(number, [])), [], task, found)
        if clinic_id is None:
            self._probes(store, task, found)
        return found

    def _clinic(self, clinic: _Clinic, objects: Sequence[ObjectInfo], task: Task, found: Inventory) -> None:
        if not self._compared(clinic, objects) and not task.read:
            return
        self._on_step(f"{clinic.store.url}: clinic {clinic.id}")
        # Again: what was stored or deleted between the listing and the question to the catalog is settled by now.
        try:
            if not (task.record or task.sweep):
                found.discrepancies += self._read(clinic, self._listed(clinic), task)
                return
            with self._catalog.lock(clinic.id, "clinic", "copies"):
                for item in self._read(clinic, self._listed(clinic), task):
                    found.discrepancies.append(self._settle(clinic, item, task, found))
        except AlreadyRunning as error:
            found.problems.append((f"clinic {clinic.id}", error))

    def _compared(self, clinic: _Clinic, objects: Iterable[ObjectInfo]) -> list[Discrepancy]:
        records = self._catalog.find(clinic_id=clinic.id)
        places = self._places.of_clinic(clinic.id)
        here = {backup_id: states.get(clinic.store.url) for backup_id, states in places.items()}
        return compare(clinic.store.url, clinic.id, records, here, objects, clinic.uploads, self._now())

    def _listed(self, clinic: _Clinic) -> list[Discrepancy]:
        objects = [info for info in clinic.store.list(f"{BACKUPS}{clinic.id}/") if parse_key(info.key) is not None]
        return self._compared(clinic, objects)

    def _read(self, clinic: _Clinic, discrepancies: list[Discrepancy], task: Task) -> Iterator[Discrepancy]:
        """Also by content: what is said to be found always, and all the others where that was asked for."""
        at_odds = {item.backup_id for item in discrepancies if item.kind in ("missing", "damaged")}
        for item in discrepancies:
            record = self._catalog.get(item.backup_id) if item.kind == "found" and item.backup_id else None
            if record is None or stored.read_through(record.archive, clinic.store) == "intact":
                yield item
        if task.read:
            for record in self._catalog.find(clinic_id=clinic.id, state="completed"):
                if clinic.store.url in record.stores and record.backup_id not in at_odds:
                    self._on_step(f"{clinic.store.url}: reading {record.backup_id}")
                    condition = stored.read_through(record.archive, clinic.store)
                    if condition != "intact":
                        yield _of(clinic.store.url, record, condition, record.size_bytes)

    def _settle(self, clinic: _Clinic, item: Discrepancy, task: Task, found: Inventory) -> Discrepancy:
        try:
            if item.kind in ("debris", "unfinished upload"):
                return self._remove(clinic, item) if task.sweep else item
            record = self._catalog.get(item.backup_id) if item.backup_id else None
            if not task.record or record is None:
                return item
            if item.kind == "no envelope":
                envelopes.ensure(record.envelope(), clinic.store)
                return replace(item, action="written again")
            if item.kind == "found":
                self._places.mark(record.backup_id, clinic.store.url, "present", self._now())
            elif item.kind == "missing" or item.kind == "damaged":
                state: CopyState = "lost" if item.kind == "missing" else "damaged"
                more = self._places.mark(record.backup_id, clinic.store.url, state, self._now())
                found.losses += [Loss.of(record, clinic.store.url, item.kind), *more]
            else:
                return item
            return replace(item, action="recorded")
        except ClinicBackupsError as error:
            found.problems.append((item.key, error))
            return item

    def _remove(self, clinic: _Clinic, item: Discrepancy) -> Discrepancy:
        if item.kind == "unfinished upload":
            for upload in clinic.uploads:
                if upload.key == item.key:
                    clinic.store.abort(upload)
        else:
            clinic.store.delete(item.key)
        return replace(item, action="removed")

    def _probes(self, store: ObjectStore, task: Task, found: Inventory) -> None:
        """What a preflight that was killed left."""
        for info in store.list(PREFLIGHT):
            if not _PROBE.fullmatch(info.key):
                found.strangers += 1
            elif info.last_modified < self._now() - OLD_ENOUGH:
                item = Discrepancy(store.url, "debris", info.key, size_bytes=info.size_bytes)
                if task.sweep:
                    store.delete(info.key)
                    item = replace(item, action="removed")
                found.discrepancies.append(item)


@dataclass(frozen=True)
class _Clinic:
    """One clinic's part of a store."""

    store: ObjectStore
    id: int
    uploads: Sequence[UnfinishedUpload]


def compare(
    store_url: str,
    clinic_id: int,
    records: Iterable[BackupRecord],
    places: Mapping[str, CopyState | None],
    objects: Iterable[ObjectInfo],
    uploads: Iterable[UnfinishedUpload],
    now: datetime,
) -> list[Discrepancy]:
    """Where one clinic's records and one store's objects do not agree.

    :param places: what the catalog says of each backup in this store, by id; nothing where it should not be there.
    :param objects: those of the clinic whose keys are ours.
    """
    by_key = {record.archive_key: record for record in records}
    there: dict[str, dict[str, ObjectInfo]] = {}
    for info in objects:
        if parts := parse_key(info.key):
            there.setdefault(parts.archive_key, {})[parts.part] = info
    found: list[Discrepancy] = []
    for key, record in by_key.items():
        if record.state in ("completed", "lost"):
            found += _about_record(store_url, record, places.get(record.backup_id), there.get(key, {}))
    for key, parts_there in there.items():
        known = by_key.get(key)
        if known is not None and known.state not in ("failed", "deleted"):
            continue
        whole = "archive" in parts_there and "envelope" in parts_there
        if whole and (known is None or known.state == "failed"):
            found.append(Discrepancy(store_url, "unknown backup", key, clinic_id,
                                     size_bytes=parts_there["archive"].size_bytes))  # fmt: skip
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


def _about_record(
    store_url: str, record: BackupRecord, place: CopyState | None, there: Mapping[str, ObjectInfo]
) -> Iterator[Discrepancy]:
    archive = there.get("archive")
    right = archive is not None and archive.size_bytes == record.size_bytes
    size = archive.size_bytes if archive is not None else None
    if place == "present":
        if not right:
            yield _of(store_url, record, "missing" if archive is None else "damaged", size)
        elif "envelope" not in there:
            yield _of(store_url, record, "no envelope", size)
    elif right and "envelope" in there:
        yield _of(store_url, record, "found", size)


def _of(store_url: str, record: BackupRecord, kind: Kind, size_bytes: int | None) -> Discrepancy:
    return Discrepancy(store_url, kind, record.archive_key, record.clinic_id, record.backup_id, size_bytes)


def _clinic_of(key: str) -> int | None:
    found = _CLINIC.match(key)
    return int(found[1]) if found else None


def _by_clinic(uploads: Iterable[UnfinishedUpload]) -> dict[int, list[UnfinishedUpload]]:
    found: dict[int, list[UnfinishedUpload]] = {}
    for upload in uploads:
        number = _clinic_of(upload.key)
        # A folder's unfinished files have hidden names of its own.
        if number is not None and (parse_key(upload.key) or "/.~" in upload.key):
            found.setdefault(number, []).append(upload)
    return found
