"""Amazon S3 and the services that speak its protocol (Backblaze B2, MinIO, SeaweedFS, Ceph …)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from typing import Any, ClassVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.stores import _s3_versions
from clinic_backups.stores._cloud import CloudStore
from clinic_backups.stores._provider import FoundObject, Upload, Version
from clinic_backups.stores._s3_client import CLIENT_CONFIG, make_client, s3_config, verify_of
from clinic_backups.stores._s3_errors import DENIED, EXPIRED_CODES, TRANSIENT_CODES, WORDLESS, cause_of, error_code
from clinic_backups.stores._wire import check_expiry, content_disposition
from clinic_backups.stores.base import LockMode, ObjectInfo, UnfinishedUpload
from clinic_backups.stores.kinds import AirflowHook, StoreConfig, StoreUrl

__all__ = ["CLIENT_CONFIG", "HOOK", "S3Store", "make_client", "make_store"]

HOOK = AirflowHook(
    "airflow.providers.amazon.aws.hooks.s3.S3Hook",
    "aws_conn_id",
    arguments=lambda connection: {"config": s3_config(connection), "verify": verify_of(connection)},
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html: parts of 5 MiB to 5 GiB, at most 10,000 of them.
PART_SIZE_BYTES = 16 * 1024 * 1024
MAX_PARTS = 10_000

_PLAIN_ETAG = re.compile(r"[0-9a-f]{32}\Z")
_MULTIPART_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]+\Z")


class S3Store(CloudStore):
    """Objects in a bucket, uploaded in parts, each of them with its MD5 for the service to check.

    :param client: a boto3 S3 client, made with :data:`CLIENT_CONFIG`.
    :param encryption: ``("none", "")``, ``("AES256", "")`` or ``("kms", key_id)``.
    :param conditional_writes: send ``If-None-Match: *``. If off, two writers that start at once may both write.
    :param parallel_parts: uploads at a time. Memory is about ``(parallel_parts + 1) * part_size_bytes``.
    :param lock_mode: mode of Object Lock. A governance lock is never bypassed, even if this account may do so.
    boto3's own ``upload_fileobj`` is not used: it has no conditional writes, and reads the source to its end after a
    failure.
    """

    _scheme = "s3"
    _sdk_errors: ClassVar = (ClientError, BotoCoreError)
    _lock_modes: ClassVar = {"governance": "GOVERNANCE", "compliance": "COMPLIANCE"}
    # Without the right to read locks, the service's answers do not contain the lock.
    _lock_rights = "allow s3:PutObjectRetention and s3:GetObjectRetention on the bucket."

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        encryption: tuple[str, str] = ("none", ""),
        conditional_writes: bool = True,
        part_size_bytes: int = PART_SIZE_BYTES,
        parallel_parts: int = 2,
        page_size: int = 1000,
        lock_mode: LockMode = "governance",
    ) -> None:
        super().__init__(
            bucket,
            prefix,
            lock_mode=lock_mode,
            part_size_bytes=part_size_bytes,
            max_parts=MAX_PARTS,
            page_size=page_size,
        )
        self._client = client
        self._parallel_parts = parallel_parts
        self._writes_once = conditional_writes
        self._condition = {"IfNoneMatch": "*"} if conditional_writes else {}
        kind, key_id = encryption
        self._encryption = {
            "none": {},
            "AES256": {"ServerSideEncryption": "AES256"},
            "kms": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id},
        }[kind]

    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        name = self._name(key)
        parameters = {
            "Bucket": self.bucket,
            "Key": name,
            "ResponseContentDisposition": content_disposition(filename),
        }
        with self._translated(name):
            link: str = self._client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=check_expiry(expires_in)
            )
        return link

    def _upload(self, name: str, upload: Upload) -> str | None:
        target = {"Bucket": self.bucket, "Key": name}
        about: dict[str, Any] = {
            "ContentType": upload.content_type,
            # Some proxies drop headers with an underscore.
            "Metadata": {label.replace("_", "-"): value for label, value in upload.metadata.items()},
            **self._encryption,
        }
        if upload.locked_until:
            about |= {"ObjectLockMode": self._lock_mode, "ObjectLockRetainUntilDate": upload.locked_until}
        parts = self._parts(upload.reader)
        first = next(parts, bytearray())
        try:
            if upload.reader.at_end:
                answer = self._client.put_object(
                    **target, **about, **self._condition, Body=first, ContentMD5=b64encode(_md5(first)).decode()
                )
                return _etag_of_answer(answer, upload)
            self._upload_parts(target, about, chain((first,), parts), upload.part_md5s)
        except ClientError as error:
            if error is not upload.reader.error and error_code(error) == "PreconditionFailed":
                raise self._exists(name) from None
            raise
        return None

    def _upload_parts(
        self, target: dict[str, str], about: dict[str, Any], parts: Iterable[bytearray], md5s: list[bytes]
    ) -> None:
        session = target | {"UploadId": self._client.create_multipart_upload(**target, **about)["UploadId"]}
        try:
            done: list[dict[str, Any]] = []
            pending: deque[Future[dict[str, Any]]] = deque()
            with ThreadPoolExecutor(self._parallel_parts, thread_name_prefix="s3-part") as pool:
                for part in parts:
                    if len(pending) == self._parallel_parts:
                        done.append(pending.popleft().result())
                    md5s.append(_md5(part))
                    pending.append(pool.submit(self._upload_part, session, len(md5s), part, md5s[-1]))
                done += [future.result() for future in pending]
            self._client.complete_multipart_upload(**session, **self._condition, MultipartUpload={"Parts": done})
        except BaseException as error:
            try:
                self._client.abort_multipart_upload(**session)
            except (ClientError, BotoCoreError) as failure:
                if error_code(failure) != "NoSuchUpload":
                    error.add_note("The unfinished multipart upload could not be aborted. Abort it by hand.")
            raise

    def _upload_part(self, session: dict[str, str], number: int, part: bytearray, md5: bytes) -> dict[str, Any]:
        answer = self._client.upload_part(**session, PartNumber=number, Body=part, ContentMD5=b64encode(md5).decode())
        # If the client's own checksums are on, the service requires them again here.
        checksums = {label: value for label, value in answer.items() if re.fullmatch("Checksum[A-Z0-9]+", label)}
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    def _find(self, name: str) -> FoundObject | None:
        try:
            head = self._client.head_object(Bucket=self.bucket, Key=name)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey", "NotFound"):
                return None
            raise
        # With KMS and customer keys the ETag is not an MD5 of the content.
        opaque = head.get("ServerSideEncryption", "").startswith("aws:") or "SSECustomerAlgorithm" in head
        etag = "" if opaque else head["ETag"].strip('"').lower()
        info = ObjectInfo(
            key=name,
            size_bytes=head["ContentLength"],
            last_modified=head["LastModified"],
            md5=etag if _PLAIN_ETAG.match(etag) else None,
            metadata={label.lower().replace("-", "_"): value for label, value in head["Metadata"].items()},
            locked_until=_s3_versions.lock_end(head),
            etag=head["ETag"],
        )
        return FoundObject(info, etag, head.get("VersionId", ""), head.get("ObjectLockMode", ""))

    def _difference(self, found: FoundObject, upload: Upload) -> str:
        if _PLAIN_ETAG.match(found.etag):
            expected = upload.reader.md5
        elif _MULTIPART_ETAG.match(found.etag):
            expected = f"{_md5(b''.join(upload.part_md5s)).hex()}-{len(upload.part_md5s)}"
        else:
            return ""
        return "" if found.etag == expected else f"its ETag is {found.etag}, but {expected} was expected"

    def _download(self, name: str) -> tuple[Any, int]:
        answer = self._client.get_object(Bucket=self.bucket, Key=name)
        return answer["Body"], answer["ContentLength"]

    def _list(self, start: str) -> Iterator[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=start, PaginationConfig={"PageSize": self._page_size}
        )
        for page in pages:
            for item in page.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["LastModified"], etag=item.get("ETag"))

    def _delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=name)

    def _all_names(self, start: str) -> Iterator[str]:
        return _s3_versions.all_names(self._client, self.bucket, start, self._page_size)

    def _versions(self, name: str) -> Iterator[Version]:
        return _s3_versions.versions(self._client, self.bucket, name, self._page_size)

    def _delete_version(self, name: str, version: Version) -> None:
        if not version.version:
            self._delete(name)
            return
        try:
            self._client.delete_object(Bucket=self.bucket, Key=name, VersionId=version.version)
        except ClientError as error:
            # Only Amazon's message tells a lock from a missing permission.
            locked = version.locked_until or "object lock" in error.response["Error"].get("Message", "").lower()
            if error_code(error) in DENIED and locked:
                raise self._locked(name, version.locked_until) from None
            raise

    def _unfinished(self, start: str) -> Iterator[UnfinishedUpload]:
        return _s3_versions.unfinished(self._client, self.bucket, start, self._page_size)

    def _abort(self, name: str, upload: UnfinishedUpload) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload.token)
        except ClientError as error:
            if error_code(error) != "NoSuchUpload":
                raise

    def _lock_problem(self) -> str:
        return _s3_versions.lock_problem(self._client, self.bucket)

    def _require_bucket(self) -> None:
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchBucket"):
                raise self._no_bucket() from None
            if error_code(error) not in ("403", "AccessDenied"):
                raise

    def _translate(self, error: Exception, name: str) -> ClinicBackupsError:
        where = self._where(name)
        if isinstance(error, ClientError):
            error = self._with_words(error)
        if isinstance(error, ClientError):
            return self._translate_answer(error, where)
        kind = type(error).__name__
        if isinstance(error, (HTTPClientError, BotoConnectionError, IncompleteReadError, CredentialRetrievalError)):
            return TransientError(
                f"The S3 service could not be reached for {where} ({kind}).",
                hint="Check network, endpoint_url and certificates; then try again.",
            )
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return PermanentError(
                f"There are no credentials for {where}.",
                hint="Set login and password of the connection, or give this machine a role.",
            )
        return PermanentError(f"The S3 request for {where} cannot be made ({kind}).", hint="Check the connection.")

    def _with_words(self, error: Any) -> Any:
        """An error with the cause, in place of the error of a HEAD request, whose answer has no body.

        A listing is requested instead, because it fails for the same wrong credentials, clock or region.
        """
        if error_code(error) not in WORDLESS or not error.operation_name.startswith("Head"):
            return error
        try:
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        except ClientError as said:
            # Both are denied, so report the right that was missing first: to read objects.
            return error if error_code(said) in DENIED else said
        except BotoCoreError as said:
            return said
        return error

    def _translate_answer(self, error: ClientError, where: str) -> ClinicBackupsError:
        code, status = error_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("NoSuchKey", "NotFound"):
            return self._missing(where.removeprefix(f"s3://{self.bucket}/"))
        if code == "NoSuchBucket":
            return self._no_bucket()
        cause, hint = cause_of(error, kms="SSEKMSKeyId" in self._encryption)
        message = f"The S3 service refused a request for {where}: {code} (HTTP {status})." + (cause and f" {cause}.")
        if code == "NotImplemented" or not (code in TRANSIENT_CODES or status == 429 or status >= 500):
            return PermanentError(message, hint=hint)
        if code in EXPIRED_CODES:
            return TransientError(message, hint=hint)
        return TransientError(message, hint="The service is busy or had a fault; try again later.")


def _etag_of_answer(answer: Mapping[str, Any], upload: Upload) -> str | None:
    """The ETag of a whole object, if it is the MD5 of what was sent. With KMS it is not an MD5."""
    etag = str(answer.get("ETag", ""))
    return etag if etag.strip('"').lower() == upload.reader.md5 else None


def _md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def make_store(client: Any, place: StoreUrl, config: StoreConfig) -> S3Store:
    """The store at a place. :param client: a boto3 S3 client."""
    return S3Store(
        client, place.bucket, place.prefix, conditional_writes=conditional_writes(config.connection),
        encryption=config.encryption, lock_mode=config.lock_mode,
    )  # fmt: skip


def conditional_writes(connection: Connection | None) -> bool:
    """The connection extra ``"conditional_writes"``.

    It is false for services without ``If-None-Match``, such as Backblaze B2.

    :raises SettingsError: it is neither true nor false.
    """
    return connection is None or connection.flag("conditional_writes", default=True)
