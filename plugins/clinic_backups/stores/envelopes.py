"""Envelopes in the store: the commit point of a backup. And the notes beside them that say that one is on hold."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clinic_backups.archive.envelope_checks import problem_of, usable_time
from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of, parse_key
from clinic_backups.base import strict_json
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectExists, ObjectNotFound
from clinic_backups.base.model import CONTENT_TYPE_ENVELOPE, FORMAT_VERSION, BackupRecord, Envelope, iso
from clinic_backups.base.text import one_line
from clinic_backups.stores.base import ObjectStore

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
"""What a note that cannot be read counts as: better one hold too many."""


class NoEnvelope(IntegrityError):
    """What lies there is nothing that this package wrote, or only a part of it."""


class OtherArchive(IntegrityError):
    """The envelope is of an archive under another key."""


def write(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope beside its archive: from here on the backup exists. A lock that is past is not asked for.

    :raises IntegrityError: nobody could use it: it is not stored.
    """
    lasting = envelope.locked_until is not None and envelope.locked_until > now
    key = envelope_key_of(envelope.archive.key)
    if problem := problem_of(envelope, envelope.clinic_id, now):
        raise IntegrityError(
            f"The envelope of {envelope.backup_id} would not be usable: {problem}.",
            hint="It was not stored. Do the clocks agree (`clinic-backups check`), and are the names in the clinics'"
            " database plain text? Else report this: it is an error of this package.",
        )
    _write(key, envelope.to_json(), store, locked_until=envelope.locked_until if lasting else None)


def ensure(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope. What lies there is replaced only if it cannot be read, or tells of the same archive.

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
        if there is None or not there.says_the_same(envelope):
            store.delete(key)
            write(envelope, store, now=now)


def load(archive_key: str, store: ObjectStore, *, now: datetime) -> Envelope:
    """The envelope of an archive, checked. Its texts may hold what should not be shown: see ``harmless``.

    :raises ObjectNotFound: it has none.
    :raises NoEnvelope: the object is not an envelope, or its values are not possible.
    :raises OtherArchive: it is of another archive.
    :raises IntegrityError: it is of a newer format.
    """
    key = envelope_key_of(archive_key)
    envelope, parts = _parsed(key, store), parse_key(key)
    if envelope.archive.key != archive_key:
        raise OtherArchive(f"{store.url}/{key} is the envelope of another archive.", hint=_CHANGED)
    if parts is None:
        raise NoEnvelope(
            f"{archive_key} is not the key of an archive of this package.",
            hint="Give the key, or the URL, under which the backup was stored.",
        )
    if problem := problem_of(envelope, parts.clinic_id, now):
        raise NoEnvelope(f"{store.url}/{key} cannot be used: {problem}.", hint=_CHANGED)
    return envelope


def is_as_noted(record: BackupRecord, store: ObjectStore) -> bool:
    """Whether the envelope in the store is the one that the catalog noted for a running record before it was written.

    :raises ClinicBackupsError: the store did not answer.
    """
    try:
        return record.noted is not None and _parsed(envelope_key_of(record.archive_key), store) == record.noted
    except (ObjectNotFound, IntegrityError):
        return False


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
        if _hold_in(note) is None or (since and usable_time(since) is None):
            raise IntegrityError(
                f"The note of the hold on {record.backup_id} would not be readable; it was not stored.",
                hint=f"Release it and hold it again, for a reason of one line and at most {MAX_REASON} characters.",
            )
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


def is_by_note(record: BackupRecord) -> bool:
    """The record's hold was taken over from a note."""
    return (record.held_by or "").endswith(FROM_NOTE)


def by_note(hold: Hold) -> str:
    """The holder of a hold that is taken over from a note: the catalog says where it has the name from."""
    return hold.by.removesuffix(FROM_NOTE)[: MAX_REASON - len(FROM_NOTE)] + FROM_NOTE


def _hold(archive_key: str, store: ObjectStore) -> Hold | None:
    key = hold_key_of(archive_key)
    try:
        data = _load(key, store)
    except ObjectNotFound:
        return None
    found = _hold_in(data)
    if found is None:
        raise IntegrityError(f"{store.url}/{key} is no note of a hold.", hint=_CHANGED)
    return found


def _hold_in(data: Any) -> Hold | None:
    """What a note says; none if it says nothing."""
    texts = [data.get("reason"), data.get("by")] if isinstance(data, dict) else []
    lines = [one_line(text) for text in texts if isinstance(text, str)]
    if len(lines) != 2 or not lines[0] or any(len(line) > MAX_REASON for line in lines):
        return None
    return Hold(lines[0], lines[1], usable_time(data.get("at")))


def _write(key: str, data: dict[str, Any], store: ObjectStore, **options: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1).encode()
    if len(text) > MAX_BYTES:
        raise IntegrityError(
            f"{key} would have {len(text):,} bytes; no more than {MAX_BYTES:,} are read.",
            hint="It was not stored. Has the database thousands of tables with long names? Report this.",
        )
    store.put(key, io.BytesIO(text), content_type=CONTENT_TYPE_ENVELOPE, **options)


def _parsed(key: str, store: ObjectStore) -> Envelope:
    data = _load(key, store)
    try:
        envelope = Envelope.from_json(data)
        newer = envelope.format > FORMAT_VERSION
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
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
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise NoEnvelope(f"{store.url}/{key} has more than {MAX_BYTES:,} bytes.", hint=_CHANGED)
    try:
        return strict_json.loads(data)
    except ValueError as error:
        raise NoEnvelope(f"{store.url}/{key} is not readable: {error}.", hint=_CHANGED) from None
