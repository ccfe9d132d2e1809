"""Envelopes in the store: the commit point of a backup."""

from __future__ import annotations

import io
import json

from clinic_backups.errors import IntegrityError, ObjectNotFound
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
