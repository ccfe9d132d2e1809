"""Google Cloud Storage."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, ClassVar

from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.fileio import BlobReader, BlobWriter
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, PermanentError, TransientError
from clinic_backups.stores._cloud import CloudStore
from clinic_backups.stores._gcs_client import make_client
from clinic_backups.stores._gcs_errors import BUSY, cause_of, cause_of_refresh, reasons_of
from clinic_backups.stores._hashing import HashingReader
from clinic_backups.stores._provider import CONNECT_SECONDS, READ_SECONDS, FoundObject, Upload, Version
from clinic_backups.stores._wire import check_expiry, content_disposition
from clinic_backups.stores.base import LockMode, ObjectInfo, UnfinishedUpload
from clinic_backups.stores.kinds import AirflowHook, StoreConfig, StoreUrl

# A multiple of 256 KiB: https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
PART_SIZE_BYTES = 8 * 1024 * 1024
REQUEST: dict[str, Any] = {"timeout": (CONNECT_SECONDS, READ_SECONDS), "retry": DEFAULT_RETRY.with_timeout(60.0)}

_LOCKED_REASONS = frozenset({"retentionPolicyNotMet", "objectUnderActiveHold"})


__all__ = ["HOOK", "GcsStore", "make_client", "make_store"]

HOOK = AirflowHook("airflow.providers.google.cloud.hooks.gcs.GCSHook", "gcp_conn_id")


class GcsStore(CloudStore):
    """Objects in a bucket, each uploaded in one resumable session whose CRC-32C the service checks at the end.

    Unfinished sessions cannot be listed; the service drops them after a week. A deleted object can be recovered for the
    term of the bucket's soft delete, which cannot be shortened for one object.

    :param client: a ``google.cloud.storage.Client``.
    :param encryption: ``("kms", resource_name)`` for your own key. Google always encrypts.
    """

    _scheme = "gs"
    _sdk_errors: ClassVar = (
        GoogleAPICallError, RetryError, GoogleAuthError, InvalidResponse, DataCorruption, RequestException,
    )  # fmt: skip
    # https://cloud.google.com/storage/docs/object-lock: an account with a special right may shorten an unlocked one.
    _lock_modes: ClassVar = {"governance": "Unlocked", "compliance": "Locked"}
    _lock_rights = "grant the account storage.objects.setRetention on the bucket (roles/storage.objectAdmin)."

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        encryption: tuple[str, str] = ("none", ""),
        part_size_bytes: int = PART_SIZE_BYTES,
        page_size: int = 1000,
        lock_mode: LockMode = "governance",
    ) -> None:
        super().__init__(
            bucket, prefix, lock_mode=lock_mode, part_size_bytes=part_size_bytes, max_parts=None, page_size=page_size
        )
        self._client = client
        self._bucket = client.bucket(bucket)
        kind, key_id = encryption
        self._kms_key_name = key_id if kind == "kms" else None

    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        name = self._name(key)
        seconds = check_expiry(expires_in)
        try:
            with self._translated(name):
                link: str = self._bucket.blob(name).generate_signed_url(
                    version="v4",
                    expiration=timedelta(seconds=seconds),
                    method="GET",
                    response_disposition=content_disposition(filename),
                )
        # google.auth raises this for credentials without a private key.
        except AttributeError:
            raise PermanentError(
                f"The credentials for {self.url} cannot sign links.",
                hint="Use a service account key (keyfile_dict or key_path in the connection's extra).",
            ) from None
        return link

    def _upload(self, name: str, upload: Upload) -> str | None:
        blob = self._bucket.blob(name, kms_key_name=self._kms_key_name)
        blob.metadata = dict(upload.metadata)
        if upload.locked_until:
            retention = blob.retention
            retention.mode, retention.retain_until_time = self._lock_mode, upload.locked_until
        about = {"content_type": upload.content_type, "if_generation_match": 0, **REQUEST}
        parts = self._parts(upload.reader)
        first = next(parts, bytearray())
        try:
            if upload.reader.at_end:
                blob.upload_from_string(bytes(first), **about)
            else:
                self._upload_parts(blob, chain((first,), parts), about, upload.reader)
        except self._sdk_errors as error:
            if error is upload.reader.error:
                raise
            status = _status(error)
            if status == 412:
                raise self._exists(name) from None
            if status == 404:
                self._require_bucket()
            if status in (404, 410):
                raise self._broken(name) from None
            raise
        return self._etag_of_answer(blob, upload)

    def _etag_of_answer(self, blob: Any, upload: Upload) -> str | None:
        """The etag, if the service's answer has the size and the MD5 of what was sent."""
        if blob.md5_hash is None or not blob.etag:
            return None
        info = _info(blob)
        proven = (info.md5, info.size_bytes) == (upload.reader.md5, upload.reader.size_bytes)
        return info.etag if proven else None

    def _upload_parts(
        self, blob: Any, parts: Iterable[bytearray], about: dict[str, Any], reader: HashingReader
    ) -> None:
        writer = _Writer(blob, chunk_size=self._part_size_bytes, **about)
        try:
            for part in parts:
                writer.write(part)
            writer.complete()
        except BaseException as error:
            # A session that cannot be cancelled lapses after a week. It only has to stay incomplete.
            with suppress(*self._sdk_errors):
                writer.cancel()
            # The SDK raises this if the service kept less of a part than was sent.
            if isinstance(error, ValueError) and error is not reader.error:
                raise self._broken(blob.name) from None
            raise

    def _broken(self, name: str) -> TransientError:
        return TransientError(f"The upload session of {self._where(name)} broke.", hint="Try again.")

    def _find(self, name: str) -> FoundObject | None:
        blob = self._bucket.blob(name)
        try:
            blob.reload(**REQUEST)
        except NotFound:
            return None
        info = replace(_info(blob), locked_until=_locked_until(blob))
        return FoundObject(info, version=str(blob.generation), lock_mode=blob.retention.mode or "")

    def _difference(self, found: FoundObject, upload: Upload) -> str:
        md5, expected = found.info.md5, upload.reader.md5
        return "" if md5 in (None, expected) else f"its MD5 is {md5}, but {expected} was sent"

    def _download(self, name: str) -> tuple[Any, int]:
        blob = self._bucket.blob(name)
        blob.reload(**REQUEST)
        # With the generation, all ranges come from the same object.
        return BlobReader(
            blob, chunk_size=self._part_size_bytes, if_generation_match=blob.generation, **REQUEST
        ), blob.size

    def _list(self, start: str) -> Iterator[ObjectInfo]:
        for blob in self._client.list_blobs(self._bucket, prefix=start, page_size=self._page_size, **REQUEST):
            yield _info(blob)

    def _delete(self, name: str) -> None:
        try:
            self._bucket.blob(name).delete(**REQUEST)
        except NotFound:
            self._require_bucket()

    def _all_names(self, start: str) -> Iterator[str]:
        blobs = self._client.list_blobs(self._bucket, prefix=start, versions=True, page_size=self._page_size, **REQUEST)
        return (blob.name for blob in blobs)

    def _versions(self, name: str) -> Iterator[Version]:
        for listed in self._client.list_blobs(
            self._bucket, prefix=name, versions=True, page_size=self._page_size, **REQUEST
        ):
            if listed.name == name:
                blob = self._bucket.blob(name, generation=listed.generation)
                # Not every service with this protocol lists locks.
                with suppress(NotFound):
                    blob.reload(**REQUEST)
                    held = bool(blob.temporary_hold or blob.event_based_hold)
                    yield Version(str(blob.generation), _locked_until(blob), held)

    def _delete_version(self, name: str, version: Version) -> None:
        with suppress(NotFound):
            self._bucket.blob(name, generation=int(version.version)).delete(**REQUEST)

    def _unfinished(self, start: str) -> Iterator[UnfinishedUpload]:
        """Empty, because the service does not list sessions."""
        return iter(())

    def _abort(self, name: str, upload: UnfinishedUpload) -> None:
        """Nothing to do, because no sessions are listed."""

    def _lock_problem(self) -> str:
        bucket = self._client.bucket(self.bucket)
        try:
            bucket.reload(**REQUEST)
        except Forbidden:
            raise PermanentError(
                f"The account may not ask whether {self.url} can lock objects.",
                hint="Grant it storage.buckets.get on the bucket (roles/storage.bucketViewer).",
            ) from None
        if bucket.object_retention_mode == "Enabled":
            return ""
        return f"The bucket {self.bucket!r} has no object retention. Enable it, or use a bucket that has it."

    def _require_bucket(self) -> None:
        with suppress(*self._sdk_errors):
            if not self._bucket.exists(**REQUEST):
                raise self._no_bucket()

    def _translate(self, error: Exception, name: str) -> ClinicBackupsError:
        where, kind, status = self._where(name), type(error).__name__, _status(error)
        if isinstance(error, DataCorruption):
            return IntegrityError(f"{where} was damaged on the way ({kind}).", hint="Run it again.")
        if status == 404:
            try:
                self._require_bucket()
            except PermanentError as missing:
                return missing
            return self._missing(name)
        if status == 403 and _is_locked(error):
            return self._locked(name, self._lock_end(name))
        if status == 429 or status >= 500 or status == 408 or (status == 403 and reasons_of(error) & BUSY):
            return TransientError(
                f"Google Cloud Storage refused a request for {where} (HTTP {status}).",
                hint="The service is busy or had a fault; try again later.",
            )
        if status:
            cause, hint = cause_of(error, status)
            said = cause and f" {cause}."
            return PermanentError(
                f"Google Cloud Storage refused a request for {where} (HTTP {status}).{said}", hint=hint
            )
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            if isinstance(error, RefreshError) and error.retryable:
                return TransientError(f"No access token for {where} ({kind}).", hint="Try again later.")
            cause, hint = cause_of_refresh(error)
            return PermanentError(f"The credentials for {where} do not work ({kind}): {cause}.", hint=hint)
        return TransientError(
            f"Google Cloud Storage could not be reached for {where} ({kind}).",
            hint="Check the network; then try again.",
        )


class _Writer(BlobWriter):  # type: ignore[misc]
    """Completes the object only on request. Its base class does so on every close, even by the garbage collector."""

    _completed = False

    def complete(self) -> None:
        self._completed = True
        super().close()

    def close(self) -> None:
        if self._completed:
            super().close()

    def cancel(self) -> None:
        """Cancel the session. ``terminate`` of the base class sends a DELETE to the wrong address."""
        if self._upload_and_transport:
            session, transport = self._upload_and_transport
            transport.delete(session.resumable_url, timeout=REQUEST["timeout"])


def _status(error: BaseException) -> int:
    if isinstance(error, GoogleAPICallError):
        return int(error.code or 0)
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def _info(blob: Any) -> ObjectInfo:
    return ObjectInfo(
        key=blob.name,
        size_bytes=blob.size,
        last_modified=blob.updated,
        md5=b64decode(blob.md5_hash).hex() if blob.md5_hash else None,
        metadata=dict(blob.metadata or {}),
        etag=blob.etag,
    )


def _locked_until(blob: Any) -> datetime | None:
    """The later end of the object's own lock and of the bucket's retention policy."""
    ends = [blob.retention.retain_until_time, blob.retention_expiration_time]
    return max((end for end in ends if end), default=None)


def _is_locked(error: Exception) -> bool:
    reasons = {item.get("reason") for item in getattr(error, "errors", ())}
    # In many answers the reason is only "forbidden", and the message names the policy or hold.
    return bool(reasons & _LOCKED_REASONS) or "cannot be deleted" in str(getattr(error, "message", ""))


def make_store(client: Any, place: StoreUrl, config: StoreConfig) -> GcsStore:
    """The store at a place. :param client: a ``google.cloud.storage.Client``."""
    return GcsStore(client, place.bucket, place.prefix, encryption=config.encryption, lock_mode=config.lock_mode)
