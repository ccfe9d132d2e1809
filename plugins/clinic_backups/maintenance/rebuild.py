"""Rebuilds the catalog from the envelopes in a store. It needs no key and no other catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from clinic_backups.archive.envelope_checks import harmless
from clinic_backups.archive.object_keys import parse_key, prefix_of
from clinic_backups.base.backup_record import BackupRecord, State
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound, PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.replica import Condition
from clinic_backups.catalog.erasures import Erasure, Erasures
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance.duplicate_ids import Claim, DuplicateIds, Opens, refusals
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.identified import answers

BATCH = 64
"""The number of envelopes that are kept in memory, of up to a MiB each."""
KEPT, SMALL_BYTES = 1_000, 64 * 1024
"""The number and size of a clinic's envelopes that are kept between reading their ids and taking them over."""
TAKEN_OVER: tuple[State, ...] = ("failed", "deleted")
"""States of a record that a store's backup may override, for instance when a lost store comes back."""


@dataclass
class Rebuilt:
    """The result of a rebuild.

    :param store_id: the id in the store's marker; none if it has no marker.
    :param adopted: backups that were taken over: the catalog did not know them, or had them as failed or deleted.
    :param known: backups that the catalog knew already.
    :param held: backups that are on hold because of their notes.
    :param conflicts: objects that do not fit, with the reason. Nothing was changed for them, except that a backup
        whose
    hold note cannot be read is taken over and kept on hold.
    :param incomplete: archives without an envelope, which are not backups.
    :param busy: clinics that another process works on. They were skipped.
    :param other_objects: objects that this package did not make.
    :param requests: erasure requests that were taken over.
    :param known_requests: the number of those that the catalog knew already.
    """

    store_url: str
    store_id: str | None = None
    adopted: int = 0
    known: int = 0
    held: int = 0
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    busy: list[ClinicId] = field(default_factory=list)
    other_objects: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    known_requests: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the store has neither a marker nor objects of backups: it may be the wrong place, or not mounted."""
        told = (self.adopted, self.known, self.conflicts, self.incomplete, self.busy)
        return self.store_id is None and not any(told)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        conflicts = [{"key": key, "problem": problem} for key, problem in self.conflicts]
        return vars(self) | {"conflicts": conflicts}


def rebuild(
    store: ObjectStore,
    catalog: Catalog,
    now: datetime,
    listener: Listener = NOBODY,
    *,
    store_id: str | None = None,
    others: Sequence[ObjectStore] = (),
    opens: Opens | None = None,
) -> Rebuilt:
    """Record every backup of a store that the catalog does not know. Repeating it changes nothing.

    A wrong backup is reported and does not stop the others. A clinic that another process works on is skipped.

    :param others: further stores of this installation. Of two archives with one id, one may be there.
    :param opens: reads an archive with the key, if there is one, to tell such archives apart.
    :raises ClinicBackupsError: the store or the catalog failed. Records that were written so far stay and are
    right.
    """
    report, duplicates = Rebuilt(store.url, store_id), DuplicateIds(now, others, opens)
    # The clinic's newest erasure counts. If it is open, it deletes the backups that are taken over now.
    last = {erasure.clinic_id: erasure for erasure in reversed(Erasures(catalog.database).find())}
    with ThreadPoolExecutor(envelopes.AT_A_TIME, thread_name_prefix="envelopes") as pool:
        for folder, group in stored.by_folder(store):
            clinic_id = _looked_over(group, report)
            if clinic_id is None:
                continue
            listener.step(f"{store.url}/{folder}")
            try:
                with catalog.lock(clinic_id, "clinic", "replicas") as lock:
                    erasure = last.get(clinic_id)
                    _Clinic(clinic_id, store, catalog, now, report, pool, lock, listener, erasure, duplicates).run()
            except AlreadyRunning:
                report.busy.append(clinic_id)
    return report


def _looked_over(group: Iterable[ObjectInfo], report: Rebuilt) -> ClinicId | None:
    """The clinic of a folder's objects; none if all are of other programs. Those are counted."""
    clinic_id = None
    for info in group:
        parts = parse_key(info.key)
        if parts is None:
            report.other_objects += 1
        else:
            clinic_id = parts.clinic_id
    return clinic_id


class _Clinic:
    """One clinic's part of a store, under both of the clinic's locks, so that nobody stores or deletes meanwhile."""

    def __init__(
        self, clinic_id: ClinicId, store: ObjectStore, catalog: Catalog, now: datetime, report: Rebuilt, pool: Executor,
        lock: ClinicLock, listener: Listener, erasure: Erasure | None,
        duplicates: DuplicateIds,
    ) -> None:  # fmt: skip
        self._id, self._store, self._catalog, self._now = clinic_id, store, catalog, now
        self._report, self._pool, self._lock, self._listener = report, pool, lock, listener
        self._erasure, self._duplicates = erasure, duplicates
        self._kept: dict[str, Envelope] = {}
        self._replicas = Replicas(catalog.database)
        self._noted = self._replicas.of_clinic(clinic_id)
        self._there: dict[str, dict[str, ObjectInfo]] = {}

    def run(self) -> None:
        # Listed again under the locks, because objects may have been stored or deleted since the first listing.
        self._there = stored.by_archive(self._store.list(prefix_of(self._id)))
        whole: list[str] = []
        for key, objects in self._there.items():
            if stored.is_whole(objects):
                whole.append(key)
            else:
                self._report.incomplete += [info.key for info in objects.values()]
        single = self._single(sorted(whole, key=_by_time))
        # Parents come before children. A retry keeps its id and may be built on a backup with a later id, so try again.
        late: list[tuple[datetime, str]] = []
        for key, envelope in self._loaded(single):
            if self._parent_is_there(envelope):
                self._take(key, envelope)
            else:
                late.append((envelope.started_at, key))
        for key, envelope in self._loaded([key for _, key in sorted(late)]):
            if self._parent_is_there(envelope):
                self._take(key, envelope)
            else:
                self._conflict(key, f"its parent, backup {envelope.parent_id}, is not there")

    def _single(self, keys: Sequence[str]) -> list[str]:
        """The usable envelopes.

        If several have one id that the catalog does not know, only the right one is returned, not simply the first. The
        others are reported.
        """
        known = {record.backup_id for record in self._catalog.find(clinic_id=self._id)}
        usable: list[str] = []
        claims: dict[str, list[Claim]] = {}
        for key, envelope in self._loaded(keys):
            usable.append(key)
            if envelope.backup_id not in known:
                claims.setdefault(envelope.backup_id, []).append(Claim(self._store, envelope))
            if len(self._kept) < KEPT and self._there[key]["envelope"].size_bytes <= SMALL_BYTES:
                self._kept[key] = envelope
        for claim in self._duplicates.elsewhere(self._id, self._there):
            if claim.envelope.backup_id in claims:
                claims[claim.envelope.backup_id].append(claim)
        for backup_id, found in claims.items():
            if len(found) == 1:
                continue
            self._listener.step(f"{self._store.url}: {len(found)} archives claim to be {backup_id}")
            for refused, why in refusals(backup_id, found, self._duplicates.chosen(found)):
                if refused.store is self._store:
                    usable.remove(refused.key)
                    self._conflict(refused.key, why)
        self._lock.require()
        return usable

    def _loaded(self, keys: Sequence[str]) -> Iterator[tuple[str, Envelope]]:
        """The usable envelopes. The others are reported."""
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            loaded = list(self._pool.map(self._load, batch))
            self._lock.require()
            for key, envelope in zip(batch, loaded, strict=True):
                if isinstance(envelope, str):
                    self._conflict(key, envelope)
                elif problem := self._why_erased(envelope):
                    self._conflict(key, problem)
                else:
                    yield key, envelope

    def _load(self, key: str) -> Envelope | str:
        """An envelope, or the reason why it cannot be used.

        Anybody who may write into the store may have written it.
        """
        if (kept := self._kept.pop(key, None)) is not None:
            return kept
        try:
            envelope = envelopes.load(key, self._store, now=self._now)
        except (IntegrityError, ObjectNotFound) as error:
            return error.message
        except ClinicBackupsError as error:
            if not answers(self._store):
                raise
            return error.message
        size_bytes = self._there[key]["archive"].size_bytes
        if envelope.archive.size_bytes != size_bytes:
            return f"the archive has {size_bytes} bytes, but its envelope says otherwise"
        return harmless(envelope)

    def _why_erased(self, envelope: Envelope) -> str:
        """The reason why a backup of an erased clinic is refused. Empty: it is not refused."""
        erasure = self._erasure
        if erasure is None or erasure.finished_at is None or envelope.started_at > erasure.requested_at:
            return ""
        if self._catalog.get(envelope.backup_id) is not None:
            return ""
        return f"the clinic was erased with all backups begun before {iso(erasure.requested_at)}: {again(self._id)}"

    def _parent_is_there(self, envelope: Envelope) -> bool:
        if envelope.parent_id is None:
            return True
        parent = self._catalog.get(envelope.parent_id)
        return parent is not None and parent.state in ("completed", "lost")

    def _take(self, key: str, envelope: Envelope) -> None:
        record = BackupRecord.of(envelope, self._store.url)
        known = self._catalog.get(record.backup_id)
        if known is not None and (problem := _difference(known, envelope) or self._why_bad(known, record)):
            self._conflict(key, problem)
            return
        if known is not None:
            # The catalog's record counts. For a deleted backup that is back, this includes the end of its hold, because
            # a note that was not removed would otherwise hold it again.
            record = replace(known.completed(_believed(known), self._store.url), deleted_at=None, error=None, hint=None)
        hold = self._hold(known or record) if "hold" in self._there[key] else None
        if hold is envelopes.UNREADABLE:
            self._conflict(key, "its note of a hold cannot be read; it is kept on hold")
        try:
            if self._write(record, known) and hold:
                self._catalog.hold(record, hold.reason, envelopes.by_note(hold), hold.at)
                self._report.held += 1
        except (PermanentError, ValueError) as error:
            # ValueError: the driver refuses to send the text.
            why = error.message if isinstance(error, PermanentError) else "the catalog cannot hold its values"
            self._conflict(key, why)

    def _hold(self, record: BackupRecord) -> envelopes.Hold | None:
        try:
            return envelopes.unreleased_hold(record, self._store)
        except ClinicBackupsError:
            if not answers(self._store):
                raise
            return envelopes.UNREADABLE

    def _why_bad(self, known: BackupRecord, record: BackupRecord) -> str:
        """Read a replica that counts as lost or damaged, because its size alone proves nothing.

        Empty if nothing is wrong.
        """
        otherwise: Condition | None = "missing" if known.state == "lost" else None
        noted = self._noted.get(record.backup_id, {}).get(self._store.url, otherwise)
        if noted == "intact" and known.state == "completed":
            return ""
        self._listener.step(f"{self._store.url}: reading {record.backup_id}")
        try:
            condition = stored.read_through(record.archive, self._store)
        except ClinicBackupsError as error:
            if not answers(self._store):
                raise
            return error.message
        self._lock.require()
        counts = f"counts as {noted}" if noted else "is not known to be"
        return "" if condition == "intact" else f"it {counts} here, and was read: it is {condition}"

    def _write(self, record: BackupRecord, known: BackupRecord | None) -> bool:
        if known is None or known.state in TAKEN_OVER:
            if not self._catalog.adopt(record, over=TAKEN_OVER):
                self._conflict(record.archive_key, "its record was changed meanwhile")
                return False
            self._report.adopted += 1
        else:
            self._report.known += 1
        if known is None and record.parent_id is None:
            return True
        if known is None or known.state != "completed" or self._store.url not in known.stores:
            # This also decides whether it is lost, by its replicas and its chain.
            self._replicas.mark(record.backup_id, self._store.url, "intact", self._now)
        return True

    def _conflict(self, key: str, problem: str) -> None:
        self._report.conflicts.append((key, problem))


def again(clinic_id: ClinicId) -> str:
    """How to delete backups of an erased clinic that have reappeared."""
    return (
        f"run `clinic-backups erase-clinic {in_shell(clinic_id)} --reason TEXT`, then `clinic-backups catalog rebuild`,"
        " and the first one again: it deletes them"
    )


def _by_time(archive_key: str) -> tuple[str, str]:
    parts = parse_key(archive_key)
    return parts.began if parts else "", archive_key


def _believed(known: BackupRecord) -> Envelope:
    """The envelope that the catalog expects."""
    return known.noted or known.envelope()


def _difference(known: BackupRecord, found: Envelope) -> str:
    """Why a known backup is not taken over; empty if it equals the catalog's record."""
    if known.state not in ("completed", "lost", *TAKEN_OVER):
        return f"the catalog says that it is {known.state}"
    try:
        believed = _believed(known)
    except (PermanentError, ValueError):
        # It failed before anything was stored. Anybody who can write into the store may know this record's id.
        return f"the catalog says that it {known.state}, and has no note of it: back the clinic up again"
    names = ("clinic_id", "kind", "parent_id", "chain", "rows", "raw_bytes", "fingerprint", "recipients")
    different = [name for name in names if getattr(believed, name) != getattr(found, name)]
    of_archive = ("key", "size_bytes", "sha256", "md5")
    different += [name for name in of_archive if getattr(believed.archive, name) != getattr(found.archive, name)]
    return f"it differs from the catalog in its {', '.join(different)}" if different else ""
