"""Older versions in S3, their locks, and the parts of unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from clinic_backups.stores._provider import Version
from clinic_backups.stores._s3_errors import UNSUPPORTED, error_code
from clinic_backups.stores.base import UnfinishedUpload


def lock_end(head: Mapping[str, Any]) -> datetime | None:
    """The end of the version's lock in an answer of HeadObject; may be in the past."""
    until: datetime | None = head.get("ObjectLockRetainUntilDate")
    return until and until.astimezone(UTC)


def versions(client: Any, bucket: str, name: str, page_size: int) -> Iterator[Version]:
    """All versions and delete markers of exactly ``name``; in a bucket without versioning, the object if it exists."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Prefix=name, PaginationConfig={"PageSize": page_size}
    )
    found: list[str] = []
    markers: list[str] = []
    try:
        for page in pages:
            found += [item["VersionId"] for item in page.get("Versions", ()) if item["Key"] == name]
            markers += [item["VersionId"] for item in page.get("DeleteMarkers", ()) if item["Key"] == name]
    except ClientError as error:
        if error_code(error) not in UNSUPPORTED:
            raise
        # A service that cannot list versions keeps none.
        found = [""]
    for version in found:
        yield from _with_lock(client, bucket, name, version)
    # Delete markers come last, so that a hidden object stays hidden until all its versions are deleted.
    yield from map(Version, markers)


def all_names(client: Any, bucket: str, start: str, page_size: int) -> Iterator[str]:
    """Names that begin with ``start`` and have a version or a delete marker; without versioning, the objects' names."""
    paging = {"Bucket": bucket, "Prefix": start, "PaginationConfig": {"PageSize": page_size}}
    try:
        for page in client.get_paginator("list_object_versions").paginate(**paging):
            for kind in ("Versions", "DeleteMarkers"):
                yield from (item["Key"] for item in page.get(kind, ()))
    except ClientError as error:
        if error_code(error) not in UNSUPPORTED:
            raise
        for page in client.get_paginator("list_objects_v2").paginate(**paging):
            yield from (item["Key"] for item in page.get("Contents", ()))


def _with_lock(client: Any, bucket: str, name: str, version: str) -> Iterator[Version]:
    try:
        head = client.head_object(Bucket=bucket, Key=name, **({"VersionId": version} if version else {}))
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchKey", "NoSuchVersion"):
            raise
    else:
        yield Version(version, lock_end(head), head.get("ObjectLockLegalHoldStatus") == "ON")


def unfinished(client: Any, bucket: str, start: str, page_size: int) -> Iterator[UnfinishedUpload]:
    """Unfinished multipart uploads for names that begin with ``start``."""
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, Prefix=start, PaginationConfig={"PageSize": page_size}
    )
    for page in pages:
        for item in page.get("Uploads", ()):
            # Some services treat the prefix as a folder, or ignore it.
            if item["Key"].startswith(start):
                yield UnfinishedUpload(item["Key"], item["Initiated"].astimezone(UTC), item["UploadId"])


def lock_problem(client: Any, bucket: str) -> str:
    try:
        answer = client.get_object_lock_configuration(Bucket=bucket)
    except ClientError as error:
        if error_code(error) in UNSUPPORTED:
            return "This S3 service has no Object Lock. Use one that has it, or turn locks off."
        if error_code(error) != "ObjectLockConfigurationNotFoundError":
            raise
        answer = {}
    if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled":
        return ""
    return f"The bucket {bucket!r} has no Object Lock. Enable versioning and Object Lock on it, or use one that has it."
