"""Code that the three cloud stores share: the steps of ``put`` and ``purge``, and streams that never end short."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectExists, PermanentError, TransientError
from clinic_backups.stores._hashing import HashingReader
from clinic_backups.stores._provider import PUT_ID, FoundObject, Provider, Upload, Version, show_time
from clinic_backups.stores._wire import check_list_prefix, encode_metadata
from clinic_backups.stores.base import ByteSource, ObjectInfo, StoredObject, UnfinishedUpload


class CloudStore(Provider):
    """Implements the stores' interface with the few requests that differ between providers."""

    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        locked_until: datetime | None = None,
        trust_answer: bool = False,
    ) -> StoredObject:
        name = self._name(key)
        put_id = _new_put_id()
        reader = HashingReader(source)
        wire = {PUT_ID: put_id} | encode_metadata(metadata)
        upload = Upload(reader, put_id, content_type, wire, _whole_second(locked_until))
        if upload.locked_until:
            self._require_locks(name)
        if not self._writes_once and self._look(name) is not None:
            raise self._exists(name)
        etag: str | None = None
        try:
            try:
                with self._translated(name, reader):
                    etag = self._upload(name, upload)
            except ObjectExists:
                # Our own request may have succeeded, its answer been lost, and the SDK's retry been refused.
                found = self._look(name)
                if found is None or found.put_id != put_id:
                    raise
            except PermanentError as error:
                if upload.locked_until is None or type(error) is not PermanentError or error is reader.error:
                    raise
                raise self._not_locked(error.message, error.hint) from None
            if etag is None or upload.locked_until or not trust_answer:
                etag = self._verify(name, upload)
        except BaseException as error:
            if reader.at_end:
                self._discard(name, put_id, error)
            raise
        return replace(reader.stored_as(key), etag=etag)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        name = self._name(key)
        with self._translated(name):
            body, size_bytes = self._download(name)
        with io.BufferedReader(_WholeStream(self, name, body, size_bytes), 1024 * 1024) as stream:
            yield stream

    def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)
        found = self._look(name)
        if found is None:
            with self._translated(name):
                self._require_bucket()
            raise self._missing(name)
        return found.described(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        start = self._prefix + check_list_prefix(prefix)
        with self._translated(start):
            for info in self._list(start):
                yield replace(info, key=info.key.removeprefix(self._prefix))

    def delete(self, key: str) -> None:
        name = self._name(key)
        with self._translated(name):
            self._delete(name)

    def purge(self, key: str) -> None:
        name, now = self._name(key), datetime.now(UTC)
        with self._translated(name):
            versions = list(self._versions(name))
            for version in versions:
                if version.held or (version.locked_until and version.locked_until > now):
                    raise self._locked(name, None if version.held else version.locked_until)
            # The longest lock comes first: if the clocks differ, the request is refused before anything has changed.
            for version in sorted(versions, key=_lock_end, reverse=True):
                self._delete_version(name, version)
            if versions and list(self._versions(name)):
                raise TransientError(
                    f"Versions of {self._where(name)} are left, or somebody has stored it again.",
                    hint="Purge it again.",
                )

    def all_keys(self, prefix: str = "") -> Iterator[str]:
        start = self._prefix + check_list_prefix(prefix)
        with self._translated(start):
            for name in self._all_names(start):
                yield name.removeprefix(self._prefix)

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        start = self._prefix + check_list_prefix(prefix)
        with self._translated(start):
            for upload in self._unfinished(start):
                yield replace(upload, key=upload.key.removeprefix(self._prefix))

    def abort(self, upload: UnfinishedUpload) -> None:
        # The key is not checked: an upload that another program began must be removable too.
        name = self._prefix + upload.key
        with self._translated(name):
            self._abort(name, upload)

    def lock_problem(self) -> str:
        with self._translated(self._prefix):
            return self._lock_problem()

    def _parts(self, reader: HashingReader) -> Iterator[bytearray]:
        """The content in parts of equal size. The last one may be shorter; none is empty."""
        count = 0
        while part := reader.read_part(self._part_size_bytes):
            count += 1
            if self._max_parts is not None and count > self._max_parts:
                raise PermanentError(
                    f"The object is larger than {self._max_parts} parts of {self._part_size_bytes} bytes.",
                    hint="Give the store a larger part size.",
                )
            yield part

    def _verify(self, name: str, upload: Upload) -> str | None:
        """Compare the stored object with what was sent, and return its etag."""
        found = self._look(name)
        if found is None:
            difference = "the store has no such object"
        elif found.info.size_bytes != upload.reader.size_bytes:
            difference = f"{found.info.size_bytes} bytes are there, {upload.reader.size_bytes} were sent"
        else:
            with self._translated(name):
                difference = self._difference(found, upload)
        if difference:
            raise IntegrityError(
                f"{self._where(name)} differs from what was uploaded: {difference}.",
                hint="The object is not used. Run the backup again. If it happens again, check network and store.",
            )
        self._verify_lock(name, found, upload.locked_until)
        return found.info.etag if found else None

    def _verify_lock(self, name: str, found: FoundObject | None, wanted: datetime | None) -> None:
        if found is None or wanted is None:
            return
        until, mode = found.info.locked_until, found.lock_mode
        if until is None or until < wanted or mode.lower() != self._lock_mode.lower():
            reported = f"a lock until {show_time(until)} in mode {mode or 'unknown'}" if until else "no lock"
            raise self._not_locked(
                f"{self._where(name)} was to be locked until {show_time(wanted)} in mode {self._lock_mode}; "
                f"the store reports {reported}.",
                "The object is not used.",
            )

    def _require_locks(self, name: str) -> None:
        """Ask once, before anything is uploaded.

        The later answer of HeadObject is not enough: SeaweedFS reports locks of multipart uploads in buckets without
        Object Lock, but does not enforce them.
        """
        if self._may_lock:
            return
        problem = ""
        # An account may be allowed to lock but not to ask. Then reading the lock back has to be enough.
        with suppress(PermanentError):
            problem = self.lock_problem()
        if problem:
            raise PermanentError(f"{self._where(name)} cannot be locked.", hint=problem)
        self._may_lock = True

    def _not_locked(self, message: str, hint: str) -> PermanentError:
        return PermanentError(message, hint=f"{hint} To lock objects: {self._lock_rights}")

    def _discard(self, name: str, put_id: str, error: BaseException) -> None:
        """Remove only what this ``put`` stored. A failure to do so is noted on ``error``."""
        try:
            found = self._look(name)
            if found is not None and found.put_id == put_id:
                version = Version(found.version, found.info.locked_until, current=True)
                try:
                    with self._translated(name):
                        self._delete_version(name, version)
                except ClinicBackupsError:
                    # If the bucket keeps older versions, the object can at least be hidden.
                    with self._translated(name):
                        self._delete(name)
                    raise
        except ClinicBackupsError as failure:
            error.add_note(f"{self._where(name)} may still be in the store; delete it. {failure.message}")


class _WholeStream(io.RawIOBase):
    """A download that raises, rather than ends, when bytes are missing."""

    def __init__(self, store: CloudStore, name: str, body: Any, size_bytes: int) -> None:
        self._store = store
        self._name = name
        self._body = body
        self._size_bytes = size_bytes
        self._done_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._translated(self._name):
            data = self._body.read(len(buffer))
        if not data and self._done_bytes != self._size_bytes:
            raise TransientError(
                f"{self._store._where(self._name)} ended after {self._done_bytes} of {self._size_bytes} bytes.",
                hint="The connection broke; read it again.",
            )
        buffer[: len(data)] = data
        self._done_bytes += len(data)
        return len(data)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None and not self.closed:
            close()
        super().close()


def _new_put_id() -> str:
    """A unique id of 32 hex digits.

    The first eight are the time, because Azure lists unfinished uploads without one.
    """
    return f"{int(datetime.now(UTC).timestamp()):08x}{secrets.token_hex(12)}"


def _whole_second(moment: datetime | None) -> datetime | None:
    """The time rounded up to a second. Providers keep a lock's end in whole seconds, and it must not end earlier."""
    return moment and (moment.astimezone(UTC) + timedelta(microseconds=999_999)).replace(microsecond=0)


def _lock_end(version: Version) -> datetime:
    return version.locked_until or datetime.min.replace(tzinfo=UTC)
