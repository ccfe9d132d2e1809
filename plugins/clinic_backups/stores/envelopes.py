"""Envelopes in the store, which commit backups, and the hold notes beside them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from clinic_backups.archive.envelope_checks import problem_of
from clinic_backups.archive.object_keys import envelope_key_of, hold_key_of, parse_key
from clinic_backups.base import strict_json
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.documents import MAX_REASON, Line, usable_time
from clinic_backups.base.envelope import FORMAT_VERSION, Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectExists, ObjectNotFound
from clinic_backups.base.plain import iso
from clinic_backups.stores.base import CONTENT_TYPE_JSON, ObjectStore

MAX_BYTES = 1024 * 1024
AT_A_TIME = 8
"""The number of envelopes that are fetched at once; each is one small request."""
_CHANGED = "Somebody changed the store. Look at the object, and check who may write there."


@dataclass(frozen=True)
class Hold:
    """A hold note: why a backup is kept, by whom, and perhaps since when."""

    reason: Annotated[Line, Field(min_length=1)]
    by: Line
    at: Annotated[datetime | None, BeforeValidator(usable_time)] = None

    @property
    def said(self) -> str:
        """The note's content for people. Anybody who may write there may have written it."""
        since = f", since {iso(self.at)}" if self.at else ""
        return f"{self.reason} (by {self.by or 'nobody'}{since}; by a note in the store that the catalog did not write)"


_HOLD = TypeAdapter(Hold)
FROM_NOTE = " (note in the store)"
"""The suffix of the holder's name, if the catalog knows a hold only from a note."""
UNREADABLE = Hold("unreadable hold note", "clinic-backups")
"""A note that cannot be read counts as this hold: one hold too many does no harm."""


class NoEnvelope(IntegrityError):
    """The object is not an envelope of this package, or only a part of one."""


class OtherArchive(IntegrityError):
    """The envelope belongs to an archive with another key."""


def write(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope beside its archive, after which the backup exists. A lock that has ended is not requested.

    :raises IntegrityError: it would not be valid, and is not stored.
    """
    lasting = envelope.locked_until is not None and envelope.locked_until > now
    key = envelope_key_of(envelope.archive.key)
    if problem := problem_of(envelope, envelope.clinic_id, now):
        raise IntegrityError(
            f"The envelope of {envelope.backup_id} would not be usable: {problem}.",
            hint="It was not stored. Check the clocks (`clinic-backups check`), and that names in the clinics'"
            " database are plain text. If both are right, report this: it is an error of this package.",
        )
    _write(key, envelope.to_json(), store, locked_until=envelope.locked_until if lasting else None)


def ensure(envelope: Envelope, store: ObjectStore, *, now: datetime) -> None:
    """Store an envelope. An existing one is replaced only if it cannot be read or belongs to the same archive.

    :raises IntegrityError: the existing one belongs to another archive, or has a newer format. It stays.
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
                f"Two different backups have one key: {store.url}/{key} is not the envelope of"
                f" {envelope.backup_id} in the catalog.",
                hint="Nothing was changed there. Perhaps two installations write to this store. Look at both archives,"
                " and move the wrong one away by hand.",
            ) from None
        if there is None or not there.says_the_same(envelope):
            store.delete(key)
            write(envelope, store, now=now)


def load(archive_key: str, store: ObjectStore, *, now: datetime) -> Envelope:
    """The envelope of an archive, checked. Its texts may not be safe to show: see ``harmless``.

    :raises ObjectNotFound: the archive has none.
    :raises NoEnvelope: the object is not an envelope, or its values are not valid.
    :raises OtherArchive: it belongs to another archive.
    :raises IntegrityError: it has a newer format.
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
    """Whether the envelope in the store equals the catalog's note of a running record.

    :raises ClinicBackupsError: the store did not answer.
    """
    try:
        return record.noted is not None and _parsed(envelope_key_of(record.archive_key), store) == record.noted
    except (ObjectNotFound, IntegrityError):
        return False


def discard(archive_key: str, store: ObjectStore) -> None:
    """Remove the objects of an attempt that did not become a backup. :raises ObjectLocked: its lock still lasts."""
    store.delete(envelope_key_of(archive_key))
    store.delete(archive_key)


def withdraw(archive_key: str, store: ObjectStore, error: BaseException) -> None:
    """Remove an archive that gets no envelope because of ``error``. A failure to do so is noted on ``error``."""
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
    """Write the hold note beside an archive, with reason and start, or remove it if the hold was released.

    If the record does not know that a hold ended, its note stays: see :func:`unreleased_hold`.
    """
    if unreleased_hold(record, store) is not None:
        return
    drop_hold(record, store)
    if record.hold_reason is not None:
        since = iso(record.held_at) if record.held_at else None
        note = {"backup_id": record.backup_id, "reason": record.hold_reason, "by": record.held_by, "at": since}
        if _hold_in(note) is None or (since and usable_time(since) is None):
            raise IntegrityError(
                f"The hold note of {record.backup_id} would not be readable, and was not stored.",
                hint=f"Release it and hold it again, with a reason of one line and at most {MAX_REASON} characters.",
            )
        _write(hold_key_of(record.archive_key), note, store)


def drop_hold(record: BackupRecord, store: ObjectStore) -> None:
    """Remove the note, because the hold was just released."""
    store.delete(hold_key_of(record.archive_key))


def unreleased_hold(record: BackupRecord, store: ObjectStore) -> Hold | None:
    """A hold in the note beside the archive, if the record knows neither the hold nor its end.

    This happens if the catalog was rebuilt from a store that was down when the hold was set. A note that cannot be
    read, or has no start, counts as a hold too. Only a release that is not older than the hold ends it.

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
    """Reason and holder, each one line; none if it is not on hold. :raises IntegrityError: the note is not valid."""
    found = _hold(archive_key, store)
    return (found.reason, found.by) if found else None


def is_by_note(record: BackupRecord) -> bool:
    """Whether the record's hold was taken over from a note."""
    return (record.held_by or "").endswith(FROM_NOTE)


def by_note(hold: Hold) -> str:
    """The holder of a hold that is taken over from a note, with a suffix that says so."""
    return hold.by.removesuffix(FROM_NOTE)[: MAX_REASON - len(FROM_NOTE)] + FROM_NOTE


def _hold(archive_key: str, store: ObjectStore) -> Hold | None:
    key = hold_key_of(archive_key)
    try:
        data = _load(key, store)
    except ObjectNotFound:
        return None
    found = _hold_in(data)
    if found is None:
        raise IntegrityError(f"{store.url}/{key} is not a hold note.", hint=_CHANGED)
    return found


def _hold_in(data: object) -> Hold | None:
    """The hold in a note; none if it is not valid."""
    try:
        return _HOLD.validate_python(data)
    except ValidationError:
        return None


def _write(key: str, data: dict[str, Any], store: ObjectStore, **options: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1).encode()
    if len(text) > MAX_BYTES:
        raise IntegrityError(
            f"{key} would have {len(text):,} bytes; at most {MAX_BYTES:,} are read.",
            hint="It was not stored. The database may have thousands of tables with long names. Report this.",
        )
    store.put(key, io.BytesIO(text), content_type=CONTENT_TYPE_JSON, trust_answer=True, **options)


def _parsed(key: str, store: ObjectStore) -> Envelope:
    data = _load(key, store)
    try:
        envelope = Envelope.from_json(data)
        newer = envelope.format > FORMAT_VERSION
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise NoEnvelope(f"{store.url}/{key} is not an envelope.", hint=_CHANGED) from None
    if newer:
        raise IntegrityError(
            f"{store.url}/{key} has format {envelope.format}; this version reads up to {FORMAT_VERSION}.",
            hint="Use the version of this package that wrote it, or a newer one.",
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
