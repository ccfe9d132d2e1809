"""Says what a store holds, from the store alone: no catalog, no key, no clinics' database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from clinic_backups.archive.envelope_checks import harmless
from clinic_backups.archive.object_keys import parse_key
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import IntegrityError, ObjectNotFound
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.stores import condition, envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore

StoredState = Literal["complete", "unfinished", "damaged", "chain broken"]


@dataclass(frozen=True)
class StoredBackup:
    """One backup, or what is left of one.

    :ivar state: ``complete``: all archives that it needs are there, in the sizes that its envelope says.
        ``unfinished``: an archive without an envelope, which is no backup. ``damaged``: its archive is missing or has
        another size, or its envelope cannot be read. ``chain broken``: the same is true of an archive that it is built
        on.
    :ivar problem: what is wrong, in a sentence.
    """

    archive_key: str
    clinic_id: ClinicId
    state: StoredState
    envelope: Envelope | None = None
    size_bytes: int = 0
    is_held: bool = False
    problem: str = ""

    @property
    def data_at(self) -> datetime | None:
        """The moment of its rows."""
        return (self.envelope.data_at or self.envelope.started_at) if self.envelope else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        of = self.envelope
        return {
            "archive_key": self.archive_key,
            "clinic_id": self.clinic_id,
            "state": self.state,
            "problem": self.problem,
            "size_bytes": self.size_bytes,
            "on_hold": self.is_held,
            "backup_id": of.backup_id if of else None,
            "clinic_name": of.clinic_name if of else None,
            "kind": of.kind if of else None,
            "data_at": iso(self.data_at) if self.data_at else None,
            "rows": sum(of.rows.values()) if of else None,
            "safety_of": of.safety_of if of else None,
            "read_from": of.read_from if of else None,
        }


@dataclass
class StoreContents:
    """All backups of one store, the clinics in order, each one's newest backup first."""

    store_url: str
    backups: list[StoredBackup] = field(default_factory=list)
    other_objects: int = 0


def read_contents(
    store: ObjectStore, now: datetime, listener: Listener = NOBODY, *, clinic_id: ClinicId | None = None
) -> StoreContents:
    """List a store and read its envelopes.

    :param clinic_id: only this clinic.
    :raises ClinicBackupsError: the store failed.
    """
    found = StoreContents(store.url)
    with ThreadPoolExecutor(envelopes.AT_A_TIME, thread_name_prefix="envelopes") as pool:
        for folder, group in condition.by_folder(store):
            objects = list(group)
            ours = [info for info in objects if parse_key(info.key) is not None]
            found.other_objects += len(objects) - len(ours)
            there = condition.by_archive(ours)
            if not there or (clinic_id is not None and _clinic_of(next(iter(there))) != clinic_id):
                continue
            listener.step(f"{store.url}/{folder}")
            with_envelope = [key for key in there if "envelope" in there[key]]
            loaded = dict(zip(with_envelope, pool.map(lambda key: _load(key, store, now), with_envelope), strict=True))
            backups = list(_backups(there, loaded))
            found.backups += sorted(backups, key=lambda each: each.archive_key.rsplit("_", 2)[-2:], reverse=True)
    return found


def _clinic_of(archive_key: str) -> ClinicId | None:
    parts = parse_key(archive_key)
    return parts.clinic_id if parts else None


def _load(archive_key: str, store: ObjectStore, now: datetime) -> Envelope | str:
    try:
        return harmless(envelopes.load(archive_key, store, now=now))
    except (IntegrityError, ObjectNotFound) as error:
        return error.message


def _backups(
    there: Mapping[str, Mapping[str, ObjectInfo]], loaded: Mapping[str, Envelope | str]
) -> Iterator[StoredBackup]:
    sizes = {key: parts["archive"].size_bytes for key, parts in there.items() if "archive" in parts}
    for key, parts in there.items():
        clinic, envelope = _clinic_of(key), loaded.get(key)
        if clinic is None:
            continue
        known = envelope if isinstance(envelope, Envelope) else None
        state, problem = _state(key, envelope, sizes)
        yield StoredBackup(key, clinic, state, known, sizes.get(key, 0), "hold" in parts, problem)


def _state(key: str, envelope: Envelope | str | None, sizes: Mapping[str, int]) -> tuple[StoredState, str]:
    if envelope is None:
        return "unfinished", "There is no envelope: a backup that did not end, or one that is just being written."
    if isinstance(envelope, str):
        return "damaged", envelope
    if problem := _unlike([(key, envelope.archive.size_bytes)], sizes):
        return "damaged", problem
    needed = ((archive.key, archive.size_bytes) for archive in envelope.chain)
    if problem := _unlike(needed, sizes):
        return "chain broken", problem
    return "complete", ""


def _unlike(wanted: Iterable[tuple[str, int]], sizes: Mapping[str, int]) -> str:
    """What is wrong with the first archive that is missing or has another size; empty if all are there."""
    for key, size in wanted:
        if key not in sizes:
            return f"The archive {key} is missing."
        if sizes[key] != size:
            return f"The archive {key} has {sizes[key]:,} bytes, and its envelope says {size:,}."
    return ""
