"""Envelopes in the store: the commit point of a backup."""

from __future__ import annotations

import io
import json

from clinic_backups.errors import IntegrityError, ObjectNotFound
from clinic_backups.model import CONTENT_TYPE_ENVELOPE, BackupRecord, Envelope, envelope_key_of
from clinic_backups.stores.base import ObjectStore

MAX_BYTES = 1024 * 1024
_CHANGED = "Somebody changed the store: look at the object and at who may write there."


def write(envelope: Envelope, store: ObjectStore) -> None:
    """Store an envelope beside its archive: from here on the backup exists."""
    data = json.dumps(envelope.to_json(), ensure_ascii=False, indent=1).encode()
    store.put(envelope_key_of(envelope.archive.key), io.BytesIO(data), content_type=CONTENT_TYPE_ENVELOPE)


def load(archive_key: str, store: ObjectStore) -> Envelope:
    """The envelope of an archive. :raises ObjectNotFound: it has none. :raises IntegrityError: it is no envelope."""
    key = envelope_key_of(archive_key)
    with store.open(key) as stream:
        data = stream.read(MAX_BYTES)
    try:
        envelope = Envelope.from_json(json.loads(data))
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(f"{store.url}/{key} is no envelope.", hint=_CHANGED) from None
    if envelope.archive.key != archive_key:
        raise IntegrityError(f"{store.url}/{key} is the envelope of another archive.", hint=_CHANGED)
    return envelope


def read(record: BackupRecord, store: ObjectStore) -> Envelope | None:
    """The record's envelope; none if there is none. :raises IntegrityError: it is no envelope or of another backup."""
    try:
        envelope = load(record.archive_key, store)
    except ObjectNotFound:
        return None
    if envelope.backup_id != record.backup_id:
        raise IntegrityError(
            f"{store.url}/{envelope_key_of(record.archive_key)} is not the envelope of backup {record.backup_id}.",
            hint=_CHANGED,
        )
    return envelope


def exists(archive_key: str, store: ObjectStore) -> bool:
    """Whether the archive has an envelope."""
    try:
        store.stat(envelope_key_of(archive_key))
    except ObjectNotFound:
        return False
    return True
