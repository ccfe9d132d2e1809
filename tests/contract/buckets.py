"""S3 buckets of the tests, seen from the service's side, and small helpers around stores."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.awsrequest import AWSResponse

from clinic_backups.stores.base import LockMode, ObjectStore
from clinic_backups.stores.s3 import S3Store

PART = 5 * 1024 * 1024
LOCKED, VERSIONED = "clinics-locked", "clinics-versioned"
MODES: list[LockMode] = ["governance", "compliance"]


def soon(seconds: float = 600) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def read(store: ObjectStore, key: str = "key") -> bytes:
    with store.open(key) as stream:
        return stream.read()


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list()]


class Bucket:
    """A store in an S3 bucket, and what the service itself says of it."""

    def __init__(self, client: Any, bucket: str, mode: LockMode = "governance") -> None:
        self.client, self.bucket, self.prefix = client, bucket, f"locks/{os.urandom(8).hex()}"
        self.store = S3Store(client, bucket, self.prefix, part_size_bytes=PART, page_size=2, lock_mode=mode)
        self.place = {"Bucket": bucket, "Key": f"{self.prefix}/key"}

    def put(self, content: bytes = b"x", **options: Any) -> str:
        """Put ``key``; gives the id of the version that is there then."""
        self.store.put("key", io.BytesIO(content), **options)
        version: str = self.client.head_object(**self.place)["VersionId"]
        return version

    def versions(self) -> list[tuple[str, str]]:
        """Every version and delete marker below the store's prefix."""
        answer = self.client.list_object_versions(Bucket=self.bucket, Prefix=self.prefix + "/")
        return [
            (item["Key"], item["VersionId"]) for kind in ("Versions", "DeleteMarkers") for item in answer.get(kind, [])
        ]

    def uploads(self) -> list[Any]:
        found: list[Any] = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix).get("Uploads", [])
        return found


def denied(operation: str, code: str = "AccessDenied", status: int = 403) -> tuple[str, Callable[..., Any]]:
    """An answer of the service to every request of that kind."""

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    def answer(request: Any, **_: Any) -> Any:
        body = f"<Error><Code>{code}</Code><Message>secret text</Message></Error>".encode()
        return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, Raw(body))

    return f"before-send.s3.{operation}", answer
