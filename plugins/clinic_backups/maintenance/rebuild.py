"""The catalog from the envelopes in a store alone: no key, no other catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from clinic_backups.archive.envelope_checks import harmless
from clinic_backups.archive.object_keys import ROOT, parse_key, prefix_of
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound, PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.model import BackupRecord, Condition, Envelope, State, iso
from clinic_backups.catalog.copies import Copies
from clinic_backups.catalog.erasures import Erasure, Erasures
from clinic_backups.catalog.locks import AlreadyRunning, ClinicLock
from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance.twins import Claim, Opens, Twins, refusals
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.identified import answers

AT_A_TIME = 8
"""Envelopes that are fetched at once: each is one small request."""
BATCH = 64
"""Envelopes that are kept in memory, of up to a MiB each."""
KEPT, SMALL_BYTES = 1_000, 64 * 1024
"""So many of a clinic's envelopes, none larger, are kept between the look at their ids and their taking over."""
TAKEN_OVER: tuple[State, ...] = ("failed", "deleted")
"""What the catalog says of a backup that is believed less than a store that has it: a store that comes back, say."""


@dataclass
class Rebuilt:
    """What came of it.

    :param store_id: which store it is, as its marker says; none where it has none.
    :param adopted: backups that the catalog did not know, or took for failed or deleted.
    :param known: those that it knew, as they are.
    :param held: those that are on hold by this.
    :param conflicts: objects that do not fit, with the reason; nothing was changed for them. But a backup whose note of
        a hold cannot be read is taken over, and kept on hold.
    :param incomplete: archives without an envelope: no backups.
    :param busy: clinics that another process works at; nothing of them was looked at.
    :param strangers: objects that this package did not make.
    """

    store_url: str
    store_id: str | None = None
    adopted: int = 0
    known: int = 0
    held: int = 0
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    strangers: int = 0

    @property
    def is_empty(self) -> bool:
        """The store has neither a marker nor anything of a backup: it may be another place, or not mounted."""
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
    """Write every backup of a store into the catalog that the catalog does not know. A second time changes nothing.

    What is wrong with one backup is reported and stops no other; neither does a clinic that is being worked at.

    :param others: further stores of this installation: of two archives with one id, one may lie there.
    :param opens: reads an archive with the key, where the key is here: it tells such archives apart.
    :raises ClinicBackupsError: the store or the catalog failed; what was written so far stays and is right.
    """
    report, twins = Rebuilt(store.url, store_id), Twins(now, others, opens)
    # The newest of a clinic counts: one that is open again deletes what is taken over now.
    last = {erasure.clinic_id: erasure for erasure in reversed(Erasures(catalog.database).find())}
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="envelopes") as pool:
        for folder, group in groupby(store.list(ROOT), key=lambda info: "/".join(info.key.split("/")[:2])):
            clinic_id = _looked_over(group, report)
            if clinic_id is None:
                continue
            listener.step(f"{store.url}/{folder}")
            try:
                with catalog.lock(clinic_id, "clinic", "copies") as lock:
                    erasure = last.get(clinic_id)
                    _Clinic(clinic_id, store, catalog, now, report, pool, lock, listener, erasure, twins).run()
            except AlreadyRunning:
                report.busy.append(clinic_id)
    return report


def _looked_over(group: Iterable[ObjectInfo], report: Rebuilt) -> int | None:
    """The clinic of a folder's objects; none if they are all strangers, who are counted."""
    clinic_id = None
    for info in group:
        parts = parse_key(info.key)
        if parts is None:
            report.strangers += 1
        else:
            clinic_id = parts.clinic_id
    return clinic_id


class _Clinic:
    """One clinic's part of a store, under both of the clinic's locks: nobody stores or deletes meanwhile."""

    def __init__(
        self, clinic_id: int, store: ObjectStore, catalog: Catalog, now: datetime, report: Rebuilt, pool: Executor,
        lock: ClinicLock, listener: Listener, erasure: Erasure | None,
        twins: Twins,
    ) -> None:  # fmt: skip
        self._id, self._store, self._catalog, self._now = clinic_id, store, catalog, now
        self._report, self._pool, self._lock, self._listener = report, pool, lock, listener
        self._erasure, self._twins = erasure, twins
        self._kept: dict[str, Envelope] = {}
        self._places = Copies(catalog.database)
        self._noted = self._places.of_clinic(clinic_id)
        self._there: dict[str, dict[str, ObjectInfo]] = {}

    def run(self) -> None:
        # Again: what was stored or deleted since the first listing is settled by now.
        self._there = stored.by_archive(self._store.list(prefix_of(self._id)))
        whole: list[str] = []
        for key, objects in self._there.items():
            if stored.is_whole(objects):
                whole.append(key)
            else:
                self._report.incomplete += [info.key for info in objects.values()]
        single = self._single(sorted(whole, key=_by_time))
        # A parent before its children. A retry keeps its name, and may be built on what has a later one: once more.
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
                self._conflict(key, f"the backup {envelope.parent_id} that it is built on is not there")

    def _single(self, keys: Sequence[str]) -> list[str]:
        """Those that can be used. Of several with one id that the catalog does not know, at most one: the right one,
        and not the one that comes first. The others are reported."""
        known = {record.backup_id for record in self._catalog.find(clinic_id=self._id)}
        usable: list[str] = []
        claims: dict[str, list[Claim]] = {}
        for key, envelope in self._loaded(keys):
            usable.append(key)
            if envelope.backup_id not in known:
                claims.setdefault(envelope.backup_id, []).append(Claim(self._store, envelope))
            if len(self._kept) < KEPT and self._there[key]["envelope"].size_bytes <= SMALL_BYTES:
                self._kept[key] = envelope
        for claim in self._twins.elsewhere(self._id, self._there):
            if claim.envelope.backup_id in claims:
                claims[claim.envelope.backup_id].append(claim)
        for backup_id, found in claims.items():
            if len(found) == 1:
                continue
            self._listener.step(f"{self._store.url}: {len(found)} archives claim to be {backup_id}")
            for refused, why in refusals(backup_id, found, self._twins.chosen(found)):
                if refused.store is self._store:
                    usable.remove(refused.key)
                    self._conflict(refused.key, why)
        self._lock.require()
        return usable

    def _loaded(self, keys: Sequence[str]) -> Iterator[tuple[str, Envelope]]:
        """Those that can be used; the others are reported."""
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
        """An envelope, or why it cannot be used. Whoever may write into the store may have written it."""
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
            return f"the archive has {size_bytes} bytes, its envelope says otherwise"
        return harmless(envelope)

    def _why_erased(self, envelope: Envelope) -> str:
        """Of what a store brought back after its clinic was erased; empty: nothing is wrong."""
        erasure = self._erasure
        if erasure is None or erasure.finished_at is None or envelope.started_at > erasure.requested_at:
            return ""
        if self._catalog.get(envelope.backup_id) is not None:
            return ""
        return f"the clinic was erased, with all that was begun before {iso(erasure.requested_at)}: {again(self._id)}"

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
            # What the catalog knows of it counts. Of one that was deleted and is back, that is also the end of its
            # hold: else a note that nobody removed would hold it again.
            record = replace(known.completed(_believed(known), self._store.url), deleted_at=None, error=None, hint=None)
        hold = self._hold(known or record) if "hold" in self._there[key] else None
        if hold is envelopes.UNREADABLE:
            self._conflict(key, "its note of a hold cannot be read; it is kept on hold")
        try:
            if self._write(record, known) and hold:
                self._catalog.hold(record, hold.reason, envelopes.by_note(hold), hold.at)
                self._report.held += 1
        except (PermanentError, ValueError) as error:
            # ValueError: text that the driver does not even send.
            why = error.message if isinstance(error, PermanentError) else "the catalog cannot hold what it says"
            self._conflict(key, why)

    def _hold(self, record: BackupRecord) -> envelopes.Hold | None:
        try:
            return envelopes.unreleased_hold(record, self._store)
        except ClinicBackupsError:
            if not answers(self._store):
                raise
            return envelopes.UNREADABLE

    def _why_bad(self, known: BackupRecord, record: BackupRecord) -> str:
        """What was found lost or damaged is not believed by its size alone: it is read. Empty: nothing is wrong."""
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
            # This also settles whether it is lost: by its copies, and by what it is built on.
            self._places.mark(record.backup_id, self._store.url, "intact", self._now)
        return True

    def _conflict(self, key: str, problem: str) -> None:
        self._report.conflicts.append((key, problem))


def again(clinic_id: int) -> str:
    """How an erased clinic's backups that are there again are deleted."""
    return (
        f"run `clinic-backups erase-clinic {clinic_id} --reason TEXT`, then `clinic-backups catalog rebuild`, and the"
        " first one again: it deletes them"
    )


def _by_time(archive_key: str) -> tuple[str, str]:
    parts = parse_key(archive_key)
    return parts.began if parts else "", archive_key


def _believed(known: BackupRecord) -> Envelope:
    """What the catalog says that the envelope must be."""
    return known.noted or known.envelope()


def _difference(known: BackupRecord, found: Envelope) -> str:
    """Why a backup that the catalog knows is not taken over; empty: it is the one that the catalog knows."""
    if known.state not in ("completed", "lost", *TAKEN_OVER):
        return f"the catalog says that it is {known.state}"
    try:
        believed = _believed(known)
    except (PermanentError, ValueError):
        # It failed before anything was stored. Whoever can write into the store can see such a record's name.
        return f"the catalog says that it {known.state}, and has not noted what was stored: back the clinic up again"
    names = ("clinic_id", "kind", "parent_id", "chain", "rows", "raw_bytes", "fingerprint", "recipients")
    different = [name for name in names if getattr(believed, name) != getattr(found, name)]
    of_archive = ("key", "size_bytes", "sha256", "md5")
    different += [name for name in of_archive if getattr(believed.archive, name) != getattr(found.archive, name)]
    return f"the catalog says otherwise about its {', '.join(different)}" if different else ""
