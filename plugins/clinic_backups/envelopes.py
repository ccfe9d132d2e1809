"""Envelopes in the store: the commit point of a backup, and what is left to go by when a process died."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime

from clinic_backups.catalog.records import Catalog
from clinic_backups.errors import IntegrityError, ObjectNotFound, TransientError
from clinic_backups.model import CONTENT_TYPE_ENVELOPE, BackupRecord, Envelope, envelope_key_of
from clinic_backups.stores.base import ObjectStore

MAX_BYTES = 1024 * 1024


def write(envelope: Envelope, store: ObjectStore) -> None:
    """Store an envelope beside its archive: from here on the backup exists."""
    data = json.dumps(envelope.to_json(), ensure_ascii=False, indent=1).encode()
    store.put(envelope_key_of(envelope.archive.key), io.BytesIO(data), content_type=CONTENT_TYPE_ENVELOPE)


def read(record: BackupRecord, store: ObjectStore) -> Envelope | None:
    """The record's envelope; none if there is none. :raises IntegrityError: it is no envelope or of another backup."""
    key = envelope_key_of(record.archive_key)
    try:
        with store.open(key) as stream:
            data = stream.read(MAX_BYTES)
    except ObjectNotFound:
        return None
    try:
        envelope = Envelope.from_json(json.loads(data))
    except (KeyError, TypeError, ValueError):
        envelope = None
    if envelope is None or envelope.backup_id != record.backup_id:
        raise IntegrityError(
            f"{store.url}/{key} is not the envelope of backup {record.backup_id}.",
            hint="Somebody changed the store: look at the object and at who may write there.",
        )
    return envelope


def exists(archive_key: str, store: ObjectStore) -> bool:
    """Whether the archive has an envelope."""
    try:
        store.stat(envelope_key_of(archive_key))
    except ObjectNotFound:
        return False
    return True


def settle(record: BackupRecord, store: ObjectStore, catalog: Catalog) -> BackupRecord | None:
    """Complete a running record whose envelope is in the store; none if there is no envelope.

    The caller holds the clinic's lock. The record gets no block list: the clinic's next backup is a full one.
    """
    envelope = read(record, store)
    if envelope is None:
        return None
    return catalog.finish(record.completed(envelope))


def close_dead(record: BackupRecord, store: ObjectStore, catalog: Catalog, now: Callable[[], datetime]) -> BackupRecord:
    """Complete or fail a running record whose process died. The caller holds the clinic's lock."""
    settled = settle(record, store, catalog)
    if settled is not None:
        return settled
    store.delete(record.archive_key)
    died = TransientError(
        "The backup's process ended without a word: killed, out of memory, or its machine stopped.",
        hint="See the task's log and the worker's memory. The clinic's next backup does not depend on this one.",
    )
    return catalog.fail(record, died, now())
