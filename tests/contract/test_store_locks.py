"""Locks that a service enforces, and locks that a store refuses to request.

SeaweedFS enforces Object Lock as Amazon does: both modes, legal holds, single and multipart uploads. The other two
emulators enforce nothing: see test_store_lock_requests.py.
"""

from __future__ import annotations

import io
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clinic_backups.base.errors import ObjectLocked, PermanentError
from clinic_backups.stores import _cloud
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.file import FileStore
from tests.conftest import BUCKET
from tests.contract.buckets import LOCKED, MODES, PART, VERSIONED, Bucket, denied, keys, read, soon

SIZES = [1, PART + 1]
CONTENT = random.Random(13).randbytes(PART + 1)


@pytest.fixture(params=MODES)
def locked(request: pytest.FixtureRequest, s3_client: Any, buckets: None) -> Bucket:
    return Bucket(s3_client, LOCKED, request.param)


@pytest.fixture
def governed(s3_client: Any, buckets: None) -> Bucket:
    return Bucket(s3_client, LOCKED)


class TestS3:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_service_keeps_the_object(self, locked: Bucket, size: int) -> None:
        until = soon()
        version = locked.put(CONTENT[:size], locked_until=until)
        reported = locked.store.stat("key").locked_until
        assert reported is not None and until <= reported < until + timedelta(seconds=1)
        head = locked.client.head_object(**locked.place)
        assert head["ObjectLockMode"].lower() == (locked.store._lock_mode).lower()
        before = locked.versions()
        with pytest.raises(ClientError, match="AccessDenied"):
            locked.client.delete_object(**locked.place, VersionId=version)
        with pytest.raises(ObjectLocked, match=f"is locked until {reported:%Y-%m-%d %H:%M:%S} UTC") as caught:
            locked.store.purge("key")
        assert caught.value.hint
        assert (locked.versions(), read(locked.store)) == (before, CONTENT[:size])

    def test_governance_is_never_bypassed_even_by_an_account_that_may(self, governed: Bucket) -> None:
        version = governed.put(locked_until=soon())
        with pytest.raises(ObjectLocked):
            governed.store.purge("key")
        governed.client.delete_object(**governed.place, VersionId=version, BypassGovernanceRetention=True)
        assert governed.versions() == []

    def test_compliance_is_not_bypassed_by_anybody(self, s3_client: Any, buckets: None) -> None:
        bucket = Bucket(s3_client, LOCKED, "compliance")
        version = bucket.put(locked_until=soon())
        with pytest.raises(ClientError, match="AccessDenied"):
            s3_client.delete_object(**bucket.place, VersionId=version, BypassGovernanceRetention=True)
        with pytest.raises(ClientError, match="AccessDenied"):
            s3_client.put_object_retention(**bucket.place, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": soon(5)})

    def test_a_delete_hides_a_locked_object_and_keeps_its_data(self, locked: Bucket) -> None:
        version = locked.put(locked_until=soon())
        locked.store.delete("key")
        assert keys(locked.store) == []
        with pytest.raises(ObjectLocked):
            locked.store.purge("key")
        assert locked.client.get_object(**locked.place, VersionId=version)["Body"].read() == b"x"

    @pytest.mark.parametrize("size", SIZES)
    def test_a_lock_that_has_passed_leaves_nothing_in_the_way(self, locked: Bucket, size: int) -> None:
        until = soon(3)
        locked.put(CONTENT[:size], locked_until=until)
        locked.store.delete("key")
        with pytest.raises(ObjectLocked):
            locked.store.purge("key")
        time.sleep((until - datetime.now(UTC)).total_seconds() + 1.2)
        locked.store.purge("key")
        assert locked.versions() == []

    def test_a_lock_on_an_older_version_keeps_all_of_them(self, governed: Bucket) -> None:
        governed.put(b"first", locked_until=soon())
        governed.store.delete("key")
        governed.put(b"second")
        before = governed.versions()
        assert len(before) == 3
        with pytest.raises(ObjectLocked):
            governed.store.purge("key")
        assert (governed.versions(), read(governed.store)) == (before, b"second")

    def test_a_clock_that_is_fast_changes_nothing_either(
        self, governed: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store takes the lock for passed; the service refuses the first of its deletions."""

        class Tomorrow(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + timedelta(days=1)

        governed.put(b"first", locked_until=soon())
        governed.store.delete("key")
        governed.put(b"second")
        before = governed.versions()
        monkeypatch.setattr(_cloud, "datetime", Tomorrow)
        with pytest.raises(ObjectLocked, match="is locked until"):
            governed.store.purge("key")
        assert governed.versions() == before

    def test_a_legal_hold_has_no_end(self, governed: Bucket) -> None:
        governed.put()
        governed.client.put_object_legal_hold(**governed.place, LegalHold={"Status": "ON"})
        with pytest.raises(ObjectLocked) as caught:
            governed.store.purge("key")
        assert "until" not in caught.value.message and "legal hold" in caught.value.hint
        governed.client.put_object_legal_hold(**governed.place, LegalHold={"Status": "OFF"})
        governed.store.purge("key")
        assert governed.versions() == []

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("bucket", [BUCKET, VERSIONED])
    def test_a_bucket_that_cannot_lock(self, s3_client: Any, buckets: None, bucket: str, size: int) -> None:
        """A store asks for the bucket's configuration before it uploads with a lock.

        If a bucket only keeps versions, SeaweedFS accepts a multipart upload with a lock and reports the lock, but the
        object can be deleted.
        """
        place, source = Bucket(s3_client, bucket), io.BytesIO(CONTENT[:size])
        assert f"{bucket!r} has no Object Lock" in place.store.lock_problem()
        with pytest.raises(PermanentError, match="cannot be locked") as caught:
            place.store.put("key", source, locked_until=soon())
        assert type(caught.value) is PermanentError
        assert "has no Object Lock" in caught.value.hint
        assert source.tell() == 0
        assert (place.versions(), place.uploads()) == ([], [])
        place.store.put("key", source)

    def test_who_may_not_ask_may_lock(self, governed: Bucket, changed: Any) -> None:
        changed(*denied("GetObjectLockConfiguration"))
        governed.put(locked_until=soon())
        with pytest.raises(ObjectLocked):
            governed.store.purge("key")

    def test_who_may_not_ask_is_refused_by_a_bucket_that_cannot_lock(self, s3_client: Any, changed: Any) -> None:
        place = Bucket(s3_client, BUCKET)
        changed(*denied("GetObjectLockConfiguration"))
        for size in SIZES:
            with pytest.raises(PermanentError, match="InvalidRequest") as caught:
                place.store.put("key", io.BytesIO(CONTENT[:size]), locked_until=soon())
            assert "s3:PutObjectRetention" in caught.value.hint
        assert (keys(place.store), place.uploads()) == ([], [])

    def test_a_bucket_that_can(self, governed: Bucket) -> None:
        assert governed.store.lock_problem() == ""

    def test_who_may_not_ask_is_told_the_permission(self, governed: Bucket, changed: Any) -> None:
        changed(*denied("GetObjectLockConfiguration"))
        with pytest.raises(PermanentError, match="AccessDenied") as caught:
            governed.store.lock_problem()
        assert "s3:GetBucketObjectLockConfiguration" in caught.value.hint
        assert "secret" not in str(caught.value)

    def test_a_service_without_locks(self, governed: Bucket, changed: Any) -> None:
        changed(*denied("GetObjectLockConfiguration", "NotImplemented", 501))
        assert "no Object Lock" in governed.store.lock_problem()

    def test_who_may_not_lock_is_told_the_permission(self, governed: Bucket, changed: Any) -> None:
        changed(*denied("PutObject"))
        with pytest.raises(PermanentError, match="AccessDenied") as caught:
            governed.put(locked_until=soon())
        assert "s3:PutObjectRetention" in caught.value.hint

    @pytest.mark.parametrize("size", SIZES)
    def test_a_service_that_ignores_the_lock_is_found_out(self, governed: Bucket, changed: Any, size: int) -> None:
        def forget(params: Any, **_: Any) -> None:
            for header in [name for name in params["headers"] if name.lower().startswith("x-amz-object-lock")]:
                del params["headers"][header]

        for operation in ("PutObject", "CreateMultipartUpload"):
            changed(f"before-call.s3.{operation}", forget)
        with pytest.raises(PermanentError, match="the store reports no lock") as caught:
            governed.put(CONTENT[:size], locked_until=soon())
        assert "s3:GetObjectRetention" in caught.value.hint
        assert governed.versions() == []

    def test_a_weaker_lock_than_asked_for_is_found_out(self, s3_client: Any, buckets: None, changed: Any) -> None:
        """What it locked cannot be removed: it is hidden, and the error says so."""

        def weaken(params: Any, **_: Any) -> None:
            params["headers"]["x-amz-object-lock-mode"] = "GOVERNANCE"

        bucket = Bucket(s3_client, LOCKED, "compliance")
        changed("before-call.s3.PutObject", weaken)
        with pytest.raises(PermanentError, match="in mode GOVERNANCE") as caught:
            bucket.put(locked_until=soon())
        assert any("may still be in the store" in note and "is locked until" in note for note in caught.value.__notes__)
        assert keys(bucket.store) == []


@pytest.mark.parametrize("provider", ["file"], indirect=True)
class TestFile:
    def test_cannot_lock(self, store: ObjectStore) -> None:
        assert isinstance(store, FileStore)
        assert "cannot lock" in store.lock_problem()
        source = io.BytesIO(b"x")
        with pytest.raises(PermanentError) as caught:
            store.put("a/key", source, locked_until=soon())
        assert "cannot lock" in caught.value.hint
        assert source.tell() == 0
        assert list(store.root.iterdir()) == []
