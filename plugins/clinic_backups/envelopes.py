"""Envelopes in the store: the commit point of a backup. And the notes beside them that say that one is on hold."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clinic_backups.envelope_checks import usable_time
from clinic_backups.errors import ClinicBackupsError, IntegrityError, ObjectExists, ObjectNotFound
from clinic_backups.model import (
    CONTENT_TYPE_ENVELOPE,
    FORMAT_VERSION,
    BackupRecord,
    Envelope,
    envelope_key_of,
    hold_key_of,
    iso,
)
from clinic_backups.stores.base import ObjectStore
from clinic_backups.text import one_line

MAX_BYTES = 1024 * 1024
MAX_REASON = 500
"""Characters of a hold's reason, and of its holder."""
_CHANGED = "Somebody changed the store: look at the object and at who may write there."


@dataclass(frozen=True)
class Hold:
    """What a note says: why a backup is kept, by whom, and since when if it says so."""

    reason: str
    by: str
    at: datetime | None

    @property
    def said(self) -> str:
        """For people: what the note says, which anybody may have written who may write there."""
        since = f", since {iso(self.at)}" if self.at else ""
        return f"{self.reason} (by {self.by or 'nobody'}{since}; by a note in the store that the catalog did not make)"


FROM_NOTE = " (note in the store)"
"""Ends the holder's name of a hold that the catalog knows from a note alone."""
UNREADABLE = Hold("unreadable note of a hold", "clinic-backups", None)
"""What is believed of a note that is none: better one hold too many."""


class NoEnvelope(IntegrityError):
    """What lies there is nothing that this package wrote, or only a part of it."""


def write(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope beside its archive: from here on the backup exists. A lock that is past is not asked for."""
    lasting = envelope.locked_until is not None and envelope.locked_until > now
    key = envelope_key_of(envelope.archive.key)
    _write(key, envelope.to_json(), store, locked_until=envelope.locked_until if lasting else None)


def ensure(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope where it is missing, where something lies that is none, or one that tells of the same archive.

    :raises IntegrityError: the one that is there tells of another archive, or is of a newer format: it stays.
    """
    try:
        write(envelope, store, now=now)
    except ObjectExists:
        key = envelope_key_of(envelope.archive.key)
        try:
            there = _parsed(key, store)
        except NoEnvelope:
            there = None
        if there is not None and _content(there) != _content(envelope):
            raise IntegrityError(
                f"Two different backups lie under one key: {store.url}/{key} is not the envelope of"
                f" {envelope.backup_id} as the catalog knows it.",
                hint="Nothing was changed there. Do two installations write to this store? Look at both archives, and"
                " move the one that should not be there away by hand.",
            ) from None
        if there != envelope:
            store.delete(key)
            write(envelope, store, now=now)


def load(archive_key: str, store: ObjectStore) -> Envelope:
    """The envelope of an archive. :raises ObjectNotFound: it has none. :raises IntegrityError: it is no envelope."""
    key = envelope_key_of(archive_key)
    envelope = _parsed(key, store)
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


def discard(archive_key: str, store: ObjectStore) -> None:
    """Remove what an attempt stored that came to no backup. :raises ObjectLocked: its lock still lasts."""
    store.delete(envelope_key_of(archive_key))
    store.delete(archive_key)


def withdraw(archive_key: str, store: ObjectStore, error: BaseException) -> None:
    """Remove an archive that gets no envelope because of ``error``, which is told where that fails."""
    try:
        if not exists(archive_key, store):
            store.delete(archive_key)
    except ClinicBackupsError as failure:
        error.add_note(f"{archive_key} may have stayed in the store, without an envelope: {failure.message}")


def exists(archive_key: str, store: ObjectStore) -> bool:
    """Whether the archive has an envelope."""
    try:
        store.stat(envelope_key_of(archive_key))
    except ObjectNotFound:
        return False
    return True


def write_hold(record: BackupRecord, store: ObjectStore) -> None:
    """Note beside an archive that it is on hold, why and since when; remove the note of a hold that was released.

    The note of a hold of which the record does not know the end stays: see :func:`unreleased_hold`.
    """
    if unreleased_hold(record, store) is not None:
        return
    drop_hold(record, store)
    if record.hold_reason is not None:
        since = iso(record.held_at) if record.held_at else None
        note = {"backup_id": record.backup_id, "reason": record.hold_reason, "by": record.held_by, "at": since}
        _write(hold_key_of(record.archive_key), note, store)


def drop_hold(record: BackupRecord, store: ObjectStore) -> None:
    """Remove the note: somebody released it just now."""
    store.delete(hold_key_of(record.archive_key))


def unreleased_hold(record: BackupRecord, store: ObjectStore) -> Hold | None:
    """A hold that the note beside the archive tells of, while the record knows neither of it nor of its end.

    The catalog was lost, and rebuilt from a store that was down when the hold was set. A note that cannot be read holds
    too, and so does one that does not say since when. Only a release that is not older than the hold ends it.

    :raises ClinicBackupsError: the store did not answer.
    """
    if record.hold_reason is not None:
        return None
    try:
        found = _hold(record.archive_key, store)
    except IntegrityError:
        found = UNREADABLE
    ended = found and found.at and record.released_at and found.at <= record.released_at
    return None if ended else found


def load_hold(archive_key: str, store: ObjectStore) -> tuple[str, str] | None:
    """Reason and holder, each one line; none if it is not on hold. :raises IntegrityError: a note that says nothing."""
    found = _hold(archive_key, store)
    return (found.reason, found.by) if found else None


def _hold(archive_key: str, store: ObjectStore) -> Hold | None:
    key = hold_key_of(archive_key)
    try:
        data = _load(key, store)
    except ObjectNotFound:
        return None
    texts = [data.get("reason"), data.get("by")] if isinstance(data, dict) else []
    lines = [one_line(text) for text in texts if isinstance(text, str)]
    if len(lines) != 2 or not lines[0] or any(len(line) > MAX_REASON for line in lines):
        raise IntegrityError(f"{store.url}/{key} is no note of a hold.", hint=_CHANGED)
    return Hold(lines[0], lines[1], usable_time(data.get("at")))


def _write(key: str, data: dict[str, Any], store: ObjectStore, **options: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1).encode()
    store.put(key, io.BytesIO(text), content_type=CONTENT_TYPE_ENVELOPE, **options)


def _parsed(key: str, store: ObjectStore) -> Envelope:
    data = _load(key, store)
    try:
        envelope = Envelope.from_json(data)
        newer = envelope.format > FORMAT_VERSION
    except (AttributeError, KeyError, TypeError, ValueError):
        raise NoEnvelope(f"{store.url}/{key} is no envelope.", hint=_CHANGED) from None
    if newer:
        raise IntegrityError(
            f"{store.url}/{key} is of format {envelope.format}; this package knows up to {FORMAT_VERSION}.",
            hint="Use the package's version that wrote it, or a newer one.",
        )
    return envelope


def _content(envelope: Envelope) -> tuple[str, int]:
    return envelope.archive.sha256, envelope.archive.size_bytes


def _load(key: str, store: ObjectStore) -> Any:
    with store.open(key) as stream:
        data = stream.read(MAX_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NoEnvelope(f"{store.url}/{key} is no JSON.", hint=_CHANGED) from None
