"""Envelopes in the store: the commit point of a backup. And the notes beside them that say that one is on hold."""

from __future__ import annotations

import io
import json
from typing import Any

from clinic_backups.errors import IntegrityError, ObjectExists, ObjectNotFound
from clinic_backups.model import (
    CONTENT_TYPE_ENVELOPE,
    FORMAT_VERSION,
    BackupRecord,
    Envelope,
    envelope_key_of,
    hold_key_of,
)
from clinic_backups.stores.base import ObjectStore

MAX_BYTES = 1024 * 1024
_CHANGED = "Somebody changed the store: look at the object and at who may write there."


def write(envelope: Envelope, store: ObjectStore) -> None:
    """Store an envelope beside its archive: from here on the backup exists."""
    _write(envelope_key_of(envelope.archive.key), envelope.to_json(), store, locked_until=envelope.locked_until)


def ensure(envelope: Envelope, store: ObjectStore) -> None:
    """Store an envelope where it is missing, or is another one."""
    try:
        write(envelope, store)
    except ObjectExists:
        try:
            there = load(envelope.archive.key, store)
        except IntegrityError:
            there = None
        if there != envelope:
            store.delete(envelope_key_of(envelope.archive.key))
            write(envelope, store)


def load(archive_key: str, store: ObjectStore) -> Envelope:
    """The envelope of an archive. :raises ObjectNotFound: it has none. :raises IntegrityError: it is no envelope."""
    key = envelope_key_of(archive_key)
    data = _load(key, store)
    try:
        envelope = Envelope.from_json(data)
        newer = envelope.format > FORMAT_VERSION
    except (AttributeError, KeyError, TypeError, ValueError):
        raise IntegrityError(f"{store.url}/{key} is no envelope.", hint=_CHANGED) from None
    if newer:
        raise IntegrityError(
            f"{store.url}/{key} is of format {envelope.format}; this package knows up to {FORMAT_VERSION}.",
            hint="Use the package's version that wrote it, or a newer one.",
        )
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


def write_hold(record: BackupRecord, store: ObjectStore) -> None:
    """Note beside an archive that it is on hold, and why; remove the note where it is not."""
    key = hold_key_of(record.archive_key)
    store.delete(key)
    if record.hold_reason is not None:
        _write(key, {"backup_id": record.backup_id, "reason": record.hold_reason, "by": record.held_by}, store)


def load_hold(archive_key: str, store: ObjectStore) -> tuple[str, str] | None:
    """Reason and holder; none if it is not on hold. :raises IntegrityError: there is a note that says nothing."""
    key = hold_key_of(archive_key)
    try:
        data = _load(key, store)
    except ObjectNotFound:
        return None
    try:
        return str(data["reason"]), str(data["by"])
    except (KeyError, TypeError):
        raise IntegrityError(f"{store.url}/{key} is no note of a hold.", hint=_CHANGED) from None


def _write(key: str, data: dict[str, Any], store: ObjectStore, **options: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1).encode()
    store.put(key, io.BytesIO(text), content_type=CONTENT_TYPE_ENVELOPE, **options)


def _load(key: str, store: ObjectStore) -> Any:
    with store.open(key) as stream:
        data = stream.read(MAX_BYTES)
    try:
        return json.loads(data)
    except ValueError:
        raise IntegrityError(f"{store.url}/{key} is no JSON.", hint=_CHANGED) from None
