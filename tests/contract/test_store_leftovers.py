"""Objects that cost money although no listing shows them: older versions, and uploads that were never completed."""

from __future__ import annotations

import io
import os
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from clinic_backups.base.errors import IntegrityError, ObjectLocked, PermanentError, PlaceMissing, TransientError
from clinic_backups.stores.base import ObjectStore, UnfinishedUpload
from tests.conftest import BUCKET, MakeStore
from tests.contract.buckets import PART, VERSIONED, Bucket, denied, keys, read

CONTENT = random.Random(17).randbytes(PART + 1)
Begin = Callable[[ObjectStore, str], None]


def put(store: ObjectStore, key: str, content: bytes = b"x", **options: Any) -> None:
    store.put(key, io.BytesIO(content), **options)


def begun(store: ObjectStore, prefix: str = "") -> list[str]:
    """Keys of the unfinished uploads."""
    return sorted(upload.key for upload in store.unfinished(prefix))


class TestPurge:
    def test_removes_the_object_and_no_other(self, make_store: MakeStore) -> None:
        place = f"test/{os.urandom(8).hex()}"
        store, neighbour = make_store(place, page_size=2), make_store(place + "0")
        others = ["a/key.json", "a/key2", "a/key3/more", "b"]
        for key in ("a/key", *others):
            put(store, key, metadata={"n": "1"})
        put(neighbour, "a/key")
        store.purge("a/key")
        assert sorted(keys(store)) == sorted(others)
        assert keys(neighbour) == ["a/key"]
        store.purge("a/key")
        store.purge("never/there")
        assert sorted(keys(store)) == sorted(others)
        put(store, "a/key", b"again")
        assert (read(store, "a/key"), store.stat("a/key").metadata) == (b"again", {})

    def test_of_a_multipart_object(self, store: ObjectStore) -> None:
        put(store, "key", CONTENT)
        store.purge("key")
        assert keys(store) == []

    @pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b"])
    def test_unsafe_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(PermanentError, match="Not a usable key"):
            store.purge(key)

    def test_a_missing_bucket_is_named(self, provider: str, make_store: MakeStore) -> None:
        if provider == "file":
            pytest.skip("of buckets")
        store = make_store("prefix", bucket="no-such-bucket")
        actions: list[Callable[[], Any]] = [lambda: store.purge("key"), store.lock_problem]
        if provider != "gcs":  # It has nothing to ask.
            actions.append(lambda: list(store.unfinished()))
        for action in actions:
            with pytest.raises(PlaceMissing, match="'no-such-bucket' does not exist") as caught:
                action()
            assert type(caught.value) is PlaceMissing


class TestVersions:
    @pytest.fixture
    def versioned(self, s3_client: Any, buckets: None) -> Bucket:
        return Bucket(s3_client, VERSIONED)

    @pytest.mark.parametrize("others", [("key2", "key3"), ("key.json", "key2")])
    def test_all_of_them_go_and_no_others(self, versioned: Bucket, others: tuple[str, str]) -> None:
        """Over several pages.

        SeaweedFS lists folders named ``key.versions``, after those of ``key.json``, and then leaves out versions on
        later pages: the store finds some left, and says so.
        """
        for number in range(3):
            versioned.put(b"%d" % number)
            versioned.store.delete("key")
        versioned.put(CONTENT)
        for key in others:
            put(versioned.store, key)
            versioned.store.delete(key)
        versions = versioned.versions()
        ours = [version for version in versions if version[0] == versioned.place["Key"]]
        assert (len(versions), len(ours)) == (11, 7)
        if "key.json" in others:
            with pytest.raises(TransientError, match="are left"):
                versioned.store.purge("key")
            versioned.store._page_size = 1000
        versioned.store.purge("key")
        assert versioned.versions() == [version for version in versions if version not in ours]

    def test_those_of_an_object_that_was_deleted(self, versioned: Bucket) -> None:
        versioned.put()
        versioned.store.delete("key")
        assert len(versioned.versions()) == 2
        versioned.store.purge("key")
        assert versioned.versions() == []

    def test_a_damaged_upload_leaves_none(self, versioned: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(versioned.store, "_difference", lambda found, upload: "it is another")
        for content in (b"x", CONTENT):
            with pytest.raises(IntegrityError):
                put(versioned.store, "key", content)
            assert versioned.versions() == []

    def test_a_damaged_upload_is_hidden_where_versions_may_not_be_deleted(
        self, versioned: Bucket, monkeypatch: pytest.MonkeyPatch, changed: Any
    ) -> None:
        event, refuse = denied("DeleteObject")
        changed(event, lambda request, **more: refuse(request) if "versionId=" in request.url else None)
        monkeypatch.setattr(versioned.store, "_difference", lambda found, upload: "it is another")
        with pytest.raises(IntegrityError) as caught:
            put(versioned.store, "key")
        assert any("may still be in the store" in note for note in caught.value.__notes__)
        assert keys(versioned.store) == []

    def test_who_may_not_is_told_the_permission(self, versioned: Bucket, changed: Any) -> None:
        versioned.put()
        before = versioned.versions()
        changed(*denied("DeleteObject"))
        with pytest.raises(PermanentError) as caught:
            versioned.store.purge("key")
        assert type(caught.value) is PermanentError and "DeleteObjectVersion" in caught.value.hint
        changed(*denied("ListMultipartUploads"))
        with pytest.raises(PermanentError) as caught:
            list(versioned.store.unfinished())
        assert "s3:ListBucketMultipartUploads" in caught.value.hint
        assert versioned.versions() == before
        changed(*denied("ListObjectVersions"))
        with pytest.raises(PermanentError) as caught:
            versioned.store.purge("key")
        assert "s3:ListBucketVersions" in caught.value.hint

    def test_a_service_that_cannot_list_them_has_none(self, s3_client: Any, changed: Any) -> None:
        place = Bucket(s3_client, BUCKET)
        put(place.store, "key")
        changed(*denied("ListObjectVersions", "NotImplemented", 501))
        place.store.purge("key")
        assert keys(place.store) == []

    @pytest.mark.parametrize("provider", ["gcs"], indirect=True)
    def test_google_deletes_each_generation(self, store: ObjectStore, gcs_client: Any) -> None:
        """fake-gcs-server keeps one generation only, and ignores which one it is asked to delete."""
        urls: list[str] = []
        gcs_client._http.hooks["response"] = [lambda answer, **_: urls.append(answer.request.url)]
        try:
            put(store, "key")
            store.purge("key")
        finally:
            gcs_client._http.hooks["response"] = []
        assert any("versions=True" in url for url in urls)
        assert "generation=" in urls[-2]


@pytest.mark.parametrize("provider", ["azure"], indirect=True)
class TestAzureVersions:
    """Azurite has snapshots and no versions: those are put into its list by hand, and the requests looked at."""

    def test_snapshots_go_too(self, store: Any) -> None:
        put(store, "key")
        blob = store._container.get_blob_client(store._name("key"))
        blob.create_snapshot()
        store.purge("key")
        assert list(store._container.list_blobs(store._prefix, include=["snapshots"])) == []

    @pytest.fixture
    def deletions(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        from clinic_backups.stores.azure import REQUEST

        seen: list[str] = []

        def see(pair: Any) -> None:
            if pair.http_request.method == "DELETE":
                seen.append(unquote(pair.http_request.query.get("versionid", "")))

        monkeypatch.setitem(REQUEST, "raw_response_hook", see)
        return seen

    @pytest.mark.parametrize("locked", [False, True])
    def test_each_version_is_deleted_by_its_id(
        self, store: Any, deletions: list[str], monkeypatch: pytest.MonkeyPatch, locked: bool
    ) -> None:
        from azure.storage.blob import BlobProperties

        put(store, "key")
        until = datetime.now(UTC) + timedelta(days=1)

        def version(number: int, *, key: str = "key", current: bool = False) -> Any:
            found = BlobProperties(name=store._name(key))
            found.version_id, found.is_current_version = f"2026-01-0{number}T00:00:00.0000000Z", current or None
            found.immutability_policy.expiry_time = until if locked and number == 1 else None
            return found

        listed = [version(1), version(2), version(3, current=True), version(4, key="key2", current=True)]
        monkeypatch.setattr(store._container, "list_blobs", lambda **_: iter([] if deletions else listed))
        if locked:
            with pytest.raises(ObjectLocked, match=f"until {until:%Y-%m-%d}"):
                store.purge("key")
            assert deletions == []
            assert read(store, "key") == b"x"
        else:
            store.purge("key")
            assert deletions == [
                "2026-01-01T00:00:00.0000000Z", "2026-01-02T00:00:00.0000000Z", "", "2026-01-03T00:00:00.0000000Z",
            ]  # fmt: skip


class TestUnfinished:
    @pytest.fixture
    def begin(self, provider: str, request: pytest.FixtureRequest) -> Begin:
        """``begin(store, key)``: leave an upload behind as a killed process does."""
        if provider == "gcs":
            pytest.skip("Google Cloud Storage does not list its sessions")
        if provider == "file":

            def leave(store: Any, key: str) -> None:
                path = store.root / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".~{path.name}.{uuid.uuid4().hex}.part").write_bytes(b"half of it")

        elif provider == "s3":
            client = request.getfixturevalue("s3_client")

            def leave(store: Any, key: str) -> None:
                place = {"Bucket": BUCKET, "Key": store._name(key)}
                upload = client.create_multipart_upload(**place)
                client.upload_part(**place, UploadId=upload["UploadId"], PartNumber=1, Body=b"half of it")

        else:

            def leave(store: Any, key: str) -> None:
                class Broken(io.BytesIO):
                    def read(self, size: int | None = -1, /) -> bytes:
                        if not (piece := super().read(size)):
                            raise KeyboardInterrupt
                        return piece

                with pytest.raises(KeyboardInterrupt):
                    store.put(key, Broken(CONTENT))

        return leave

    def test_is_listed_and_aborted(self, store: ObjectStore, begin: Begin) -> None:
        begin(store, "7/a")
        begin(store, "8/a")
        put(store, "7/b")
        uploads = list(store.unfinished("7/"))
        assert begun(store) == ["7/a", "8/a"]
        assert begun(store, "7/") == ["7/a"]
        assert begun(store, "9") == []
        (upload,) = uploads
        assert upload.started_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - upload.started_at) < timedelta(minutes=1)
        assert keys(store) == ["7/b"]
        store.abort(upload)
        assert begun(store) == ["8/a"]
        assert keys(store) == ["7/b"]
        store.abort(upload)
        put(store, "7/c", CONTENT)
        assert read(store, "7/c") == CONTENT

    def test_two_of_one_key(self, store: ObjectStore, begin: Begin, provider: str) -> None:
        """Azure keeps the blocks of both as one."""
        begin(store, "key")
        begin(store, "key")
        uploads = list(store.unfinished())
        assert len({upload.token for upload in uploads}) == len(uploads) == (1 if provider == "azure" else 2)
        store.abort(uploads[0])
        assert list(store.unfinished()) == uploads[1:]

    def test_over_all_pages_and_within_the_prefix(self, make_store: MakeStore, begin: Begin) -> None:
        place = f"test/{os.urandom(8).hex()}"
        store, neighbour = (make_store(name, page_size=2, part_size_bytes=PART) for name in (place, place + "0"))
        wanted = ["a", "ab", "b/c", "b/d", "e"]
        for key in wanted:
            begin(store, key)
        begin(neighbour, "a")
        assert begun(store) == wanted
        assert begun(store, "b/") == ["b/c", "b/d"]
        for upload in list(store.unfinished()):
            store.abort(upload)
        assert begun(store) == []
        assert begun(neighbour) == ["a"]

    def test_an_object_under_its_key_is_not_touched(self, store: ObjectStore, begin: Begin) -> None:
        begin(store, "key")
        (upload,) = store.unfinished()
        put(store, "key", b"content")
        store.abort(upload)
        assert begun(store) == []
        assert read(store, keys(store)[0]) == b"content"

    @pytest.mark.parametrize("provider", ["gcs"], indirect=True)
    def test_google_lists_none(self, store: ObjectStore) -> None:
        assert list(store.unfinished()) == []
        store.abort(UnfinishedUpload("key", datetime.now(UTC), "token"))


@pytest.mark.parametrize("provider", ["azure"], indirect=True)
class TestAzureBlocks:
    def test_of_other_programs_are_left_alone(self, store: Any) -> None:
        """They do not tell when they were staged: it may be just now."""
        store._container.get_blob_client(store._name("key")).stage_block("their-block", b"x")
        assert list(store.unfinished()) == []

    def test_an_upload_that_began_since_is_not_broken(self, store: Any) -> None:
        old, new = (f"{hour:08x}{'0' * 24}" for hour in (1_700_000_000, 1_800_000_000))
        blob = store._container.get_blob_client(store._name("key"))
        blob.stage_block(f"{old}00000000", b"x")
        (upload,) = store.unfinished()
        assert upload.started_at == datetime.fromtimestamp(1_700_000_000, UTC)
        blob.stage_block(f"{new}00000000", b"x")
        store.abort(upload)
        (other,) = store.unfinished()
        assert other.token == new

    def test_an_object_that_appears_meanwhile_is_not_touched(self, store: Any, monkeypatch: Any) -> None:
        blob = store._container.get_blob_client(store._name("key"))
        blob.stage_block("0" * 40, b"x")
        (upload,) = store.unfinished()
        blob.upload_blob(b"", overwrite=True)
        # As if it had appeared just after the blocks were looked at.
        monkeypatch.setattr(store, "_newest_put", lambda name: upload.token)
        store.abort(upload)
        assert keys(store) == ["key"]

    def test_an_empty_object_is_finished(self, store: Any) -> None:
        put(store, "key", b"")
        store._container.get_blob_client(store._name("key")).stage_block("0" * 40, b"x")
        assert list(store.unfinished()) == []


@pytest.mark.parametrize("provider", ["file"], indirect=True)
class TestFile:
    def test_a_killed_writer_leaves_what_is_listed_under_its_key(self, store: Any, monkeypatch: Any) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if not (piece := super().read(size)):
                    raise KeyboardInterrupt
                return piece

        monkeypatch.setattr("pathlib.Path.unlink", lambda *arguments, **options: None)
        with pytest.raises(KeyboardInterrupt):
            store.put("a/key.json", Broken(CONTENT), metadata={"n": "1"})
        monkeypatch.undo()
        (upload,) = store.unfinished("a/key")
        assert upload.key == "a/key.json"
        store.abort(upload)
        assert [path.name for path in (store.root / "a").iterdir()] == []

    @pytest.mark.parametrize("name", ["b", f"b.{32 * 'a'}", f"b.{32 * 'a'}.meta"])
    def test_metadata_of_objects_is_finished(self, store: Any, name: str) -> None:
        put(store, f"a/{name}", metadata={"n": "1"})
        assert list(store.unfinished()) == []
        beside = f".~{name}.{uuid.uuid4().hex}.meta.part"
        (store.root / "a" / beside).write_text("{}")
        (upload,) = store.unfinished()
        assert (upload.key, upload.token) == (f"a/{name}", beside)
        store.abort(upload)
        assert list(store.unfinished()) == []
        assert store.stat(f"a/{name}").metadata == {"n": "1"}

    def test_only_its_own_hidden_files_are_aborted(self, store: Any) -> None:
        put(store, "a/key", metadata={"n": "1"})
        hidden, of_another = (f".~{name}.{uuid.uuid4().hex}.part" for name in ("key", "key2"))
        for path in (outside := store.root.parent / hidden, store.root / "a" / of_another):
            path.write_bytes(b"x")
        before = sorted(store.root.rglob("*"))
        for token in ("key", ".~key.meta", ".~lock", of_another, f"../{hidden}", f"../../{hidden}", str(outside), ""):
            store.abort(UnfinishedUpload("a/key", datetime.now(UTC), token))
        store.abort(UnfinishedUpload("never/key", datetime.now(UTC), hidden))
        store.abort(UnfinishedUpload("a/key/key", datetime.now(UTC), hidden))
        for key in (f"../{outside.name}", f"a/{of_another}", "../key"):
            with pytest.raises(PermanentError, match="Not a usable key"):
                store.abort(UnfinishedUpload(key, datetime.now(UTC), hidden))
        assert sorted(store.root.rglob("*")) == before
        assert outside.exists()
