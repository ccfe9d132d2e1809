"""Azure Blob Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobBlock,
    BlobSasPermissions,
    BlobServiceClient,
    ContentSettings,
    ImmutabilityPolicy,
    generate_blob_sas,
)

from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.stores._azure_client import CLIENT_OPTIONS, REQUEST, make_client
from clinic_backups.stores._azure_errors import Meaning, meaning_of
from clinic_backups.stores._cloud import CloudStore
from clinic_backups.stores._provider import FoundObject, Upload, Version
from clinic_backups.stores._wire import check_expiry, content_disposition
from clinic_backups.stores.base import LockMode, ObjectInfo, UnfinishedUpload
from clinic_backups.stores.kinds import AirflowHook, StoreConfig, StoreUrl

__all__ = ["CLIENT_OPTIONS", "HOOK", "AzureStore", "make_client", "make_store"]

# The hook passes the connection's extra to the client. There is no other way to set client options.
HOOK = AirflowHook("airflow.providers.microsoft.azure.hooks.wasb.WasbHook", "wasb_conn_id", extra=CLIENT_OPTIONS)

# At most 50,000 blocks: https://learn.microsoft.com/rest/api/storageservices/put-block-list
PART_SIZE_BYTES = 16 * 1024 * 1024
MAX_BLOCKS = 50_000
_TAKEN = frozenset({"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"})
_NO_CONTAINER = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_LOCKED = frozenset({"BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"})
_OWN_BLOCK = re.compile(r"([0-9a-f]{32})[0-9]{8}\Z")
_SNAPSHOT = "snapshot="


class AzureStore(CloudStore):
    """Block blobs in a container: blocks are staged one by one, each with its MD5, and committed together.

    Staged blocks that were never committed are invisible. The service drops them after a week, :meth:`abort` at once. A
    deleted object can be recovered for the term of the account's soft delete, which cannot be shortened for one object.

    :param service_client: an ``azure.storage.blob.BlobServiceClient``, made with :data:`CLIENT_OPTIONS`.
    :param encryption: ``("kms", name)`` for an encryption scope. Azure always encrypts.
    """

    _scheme = "az"
    _sdk_errors: ClassVar = (AzureError,)
    _lock_modes: ClassVar = {"governance": "Unlocked", "compliance": "Locked"}
    _lock_rights = "grant Storage Blob Data Owner, or the permission i in the SAS token."

    def __init__(
        self,
        service_client: BlobServiceClient,
        container: str,
        prefix: str = "",
        *,
        encryption: tuple[str, str] = ("none", ""),
        part_size_bytes: int = PART_SIZE_BYTES,
        page_size: int = 1000,
        lock_mode: LockMode = "governance",
    ) -> None:
        super().__init__(
            container,
            prefix,
            lock_mode=lock_mode,
            part_size_bytes=part_size_bytes,
            max_parts=MAX_BLOCKS,
            page_size=page_size,
        )
        self._service = service_client
        self._container = service_client.get_container_client(container)
        kind, scope = encryption
        self._encryption: dict[str, Any] = {"encryption_scope": scope} if kind == "kms" else {}

    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        name = self._name(key)
        seconds = check_expiry(expires_in)
        account_key = getattr(self._service.credential, "account_key", None)
        if not account_key or not self._service.account_name:
            raise PermanentError(
                f"The credentials for {self.url} cannot sign links.",
                hint="Use the account's shared key: login and password, or connection_string in the extra.",
            )
        blob = self._container.get_blob_client(name)
        signature = generate_blob_sas(
            self._service.account_name,
            self.bucket,
            name,
            account_key=account_key,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(seconds=seconds),
            content_disposition=content_disposition(filename),
            protocol=self._service.scheme,
        )
        return f"{blob.url}?{signature}"

    def _upload(self, name: str, upload: Upload) -> str | None:
        blob = self._container.get_blob_client(name)
        blocks: list[BlobBlock] = []
        for number, part in enumerate(self._parts(upload.reader)):
            # With the put id, two writers of one key cannot commit each other's blocks.
            block_id = f"{upload.put_id}{number:08}"
            blob.stage_block(
                block_id, bytes(part), length=len(part), validate_content=True, **self._encryption, **REQUEST
            )
            blocks.append(BlobBlock(block_id=block_id))
        lock: dict[str, Any] = {}
        if upload.locked_until:
            policy = ImmutabilityPolicy(expiry_time=upload.locked_until, policy_mode=self._lock_mode)
            lock = {"immutability_policy": policy}
        settings = ContentSettings(content_type=upload.content_type, content_md5=bytearray.fromhex(upload.reader.md5))
        try:
            blob.commit_block_list(
                blocks,
                content_settings=settings,
                metadata=dict(upload.metadata),
                match_condition=MatchConditions.IfMissing,
                **lock,
                **self._encryption,
                **REQUEST,
            )
        except HttpResponseError as error:
            if error.status_code in (409, 412) and _code(error) in _TAKEN:
                raise self._exists(name) from None
            raise
        return None

    def _find(self, name: str) -> FoundObject | None:
        try:
            found = self._container.get_blob_client(name).get_blob_properties(**REQUEST)
        except ResourceNotFoundError as error:
            if _code(error) in _NO_CONTAINER:
                raise
            return None
        metadata, lock = dict(found.metadata or {}), found.immutability_policy
        until, etag = lock.expiry_time, str(found.etag)
        info = ObjectInfo(name, found.size, found.last_modified, metadata=metadata, locked_until=until, etag=etag)
        return FoundObject(info, version=found.version_id or "", lock_mode=lock.policy_mode or "")

    def _difference(self, found: FoundObject, upload: Upload) -> str:
        """The service checked each block's MD5. This checks that the object has exactly these blocks."""
        committed, _ = self._container.get_blob_client(found.info.key).get_block_list("committed", **REQUEST)
        own = [f"{upload.put_id}{number:08}" for number in range(len(committed))]
        sizes = sum(block.size for block in committed)
        if [block.id for block in committed] == own and sizes == upload.reader.size_bytes:
            return ""
        return "its blocks are not the ones that were sent"

    def _download(self, name: str) -> tuple[Any, int]:
        stream = self._container.get_blob_client(name).download_blob(max_concurrency=1, **REQUEST)
        return stream, stream.size

    def _list(self, start: str) -> Iterator[ObjectInfo]:
        for found in self._container.list_blobs(name_starts_with=start, results_per_page=self._page_size, **REQUEST):
            # Listings have the ETag without quotes; all other answers have quotes.
            etag = f'"{str(found.etag).strip(chr(34))}"' if found.etag else None
            yield ObjectInfo(found.name, found.size, found.last_modified, etag=etag)

    def _delete(self, name: str) -> None:
        with _gone_is_fine():
            self._container.get_blob_client(name).delete_blob(**REQUEST)

    def _all_names(self, start: str) -> Iterator[str]:
        include = ["versions", "snapshots"]
        for found in self._container.list_blobs(
            name_starts_with=start, include=include, results_per_page=self._page_size, **REQUEST
        ):
            yield found.name

    def _versions(self, name: str) -> Iterator[Version]:
        include = ["versions", "snapshots", "immutabilitypolicy", "legalhold"]
        for found in self._container.list_blobs(
            name_starts_with=name, include=include, results_per_page=self._page_size, **REQUEST
        ):
            if found.name == name:
                yield Version(
                    _SNAPSHOT + found.snapshot if found.snapshot else found.version_id or "",
                    found.immutability_policy.expiry_time,
                    bool(found.has_legal_hold),
                    current=not found.snapshot and bool(found.is_current_version or not found.version_id),
                )

    def _delete_version(self, name: str, version: Version) -> None:
        blob = self._container.get_blob_client(name)
        if version.current:
            # If the account keeps versions, deleting makes the object an older version. Only these can be deleted by
            # id.
            with _gone_is_fine():
                blob.delete_blob(delete_snapshots="include", **REQUEST)
        if version.version.startswith(_SNAPSHOT):
            snapshot = self._container.get_blob_client(name, snapshot=version.version.removeprefix(_SNAPSHOT))
            with _gone_is_fine():
                snapshot.delete_blob(**REQUEST)
        elif version.version:
            with _gone_is_fine():
                blob.delete_blob(version_id=version.version, **REQUEST)

    def _unfinished(self, start: str) -> Iterator[UnfinishedUpload]:
        """Blobs with only uncommitted blocks. Azure gives no time for them, so it is read from the ids of our blocks.

        Several uploads for one name count as one. Blocks of other programs are left out.
        """
        for found in self._container.list_blobs(
            name_starts_with=start, include=["uncommittedblobs"], results_per_page=self._page_size, **REQUEST
        ):
            if not found.size and self._find(found.name) is None:
                put_id = self._newest_put(found.name)
                if put_id:
                    begun = datetime.fromtimestamp(int(put_id[:8], 16), UTC)
                    yield UnfinishedUpload(found.name, begun, put_id)

    def _newest_put(self, name: str) -> str:
        """The id of the last ``put`` that staged blocks here; empty if there are none, or some of another program."""
        with _gone_is_fine():
            _, blocks = self._container.get_blob_client(name).get_block_list("uncommitted", **REQUEST)
            own = [_OWN_BLOCK.match(block.id) for block in blocks]
            return max((match[1] for match in own if match), default="") if all(own) else ""
        return ""

    def _abort(self, name: str, upload: UnfinishedUpload) -> None:
        """Commit an empty list, which drops the blocks, and delete the empty object that this creates."""
        # Another upload may have begun since. Its blocks would be dropped too.
        if self._newest_put(name) != upload.token:
            return
        blob = self._container.get_blob_client(name)
        try:
            empty = blob.commit_block_list([], match_condition=MatchConditions.IfMissing, **REQUEST)
        except HttpResponseError as error:
            if error.status_code in (409, 412) and _code(error) in _TAKEN:
                return
            raise
        with _gone_is_fine():
            blob.delete_blob(etag=str(empty["etag"]), match_condition=MatchConditions.IfNotModified, **REQUEST)
        if empty.get("version_id"):
            self._delete_version(name, Version(str(empty["version_id"])))

    def _lock_problem(self) -> str:
        try:
            found = self._container.get_container_properties(**REQUEST)
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            raise PermanentError(
                f"The account may not ask whether {self.url} can lock objects.",
                hint="Grant it Storage Blob Data Reader, or use an account key.",
            ) from None
        if found.immutable_storage_with_versioning_enabled:
            return ""
        return (
            f"The container {self.bucket!r} has no version-level immutability. Enable it and blob versioning, "
            "or use a container that has them."
        )

    def _require_bucket(self) -> None:
        """Nothing to do: every answer of Azure says if the container is missing."""

    def _meaning(self, error: Exception, code: str, status: int) -> Meaning:
        answer = getattr(error, "response", None)
        return meaning_of(
            code,
            status,
            method=str(getattr(getattr(answer, "request", None), "method", "")),
            # The client keeps a SAS token in the query of the container's address.
            url=self._container.url,
            date=str(answer.headers.get("date", "")) if answer is not None else "",
            text=str(error),
            now=datetime.now(UTC),
        )

    def _translate(self, error: Exception, name: str) -> ClinicBackupsError:
        where, kind = self._where(name), type(error).__name__
        status = (error.status_code or 0) if isinstance(error, HttpResponseError) else 0
        code = _code(error)
        if code in _NO_CONTAINER:
            return self._no_bucket("container")
        if status == 404:
            return self._missing(name)
        if code in _LOCKED:
            return self._locked(name, self._lock_end(name))
        if status in (408, 429) or status >= 500:
            return TransientError(
                f"Azure refused a request for {where}: {code} (HTTP {status}).",
                hint="The service is busy or had a fault; try again later.",
            )
        if status or isinstance(error, ClientAuthenticationError):
            meaning = self._meaning(error, code, status)
            family = TransientError if meaning.renewable else PermanentError
            said = meaning.cause and f" {meaning.cause}."
            return family(
                f"Azure refused a request for {where}: {code or kind} (HTTP {status}).{said}", hint=meaning.hint
            )
        return TransientError(
            f"Azure could not be reached for {where} ({kind}).", hint="Check network and account URL; then try again."
        )


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ResourceNotFoundError as error:
        if _code(error) in _NO_CONTAINER:
            raise


def _code(error: Exception) -> str:
    """The service's error code. The SDK has enumerations for some, whose text differs from the code."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def make_store(client: Any, place: StoreUrl, config: StoreConfig) -> AzureStore:
    """The store at a place. :param client: a ``BlobServiceClient``."""
    return AzureStore(client, place.bucket, place.prefix, encryption=config.encryption, lock_mode=config.lock_mode)
