"""An archive that was not read counts as intact only by marks that the writers of its bucket cannot set."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.stores.azure import AzureStore
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.file import FileStore
from clinic_backups.stores.gcs import GcsStore
from clinic_backups.stores.s3 import S3Store
from tests.conftest import BUCKET, MakeStore
from tests.fleet import Fleet, reads_of
from tests.postgres_fixtures import DemoDatabase


def forge(store: ObjectStore, record: BackupRecord, folder: Path, client: Any, prefix: str) -> None:
    """Other content of the same size in the archive's place, with all that a writer of the bucket may say of it."""
    with store.open(record.archive_key) as stream:
        content = bytearray(stream.read())
    content[len(content) // 2] ^= 1
    forged, name = bytes(content), f"{prefix}/{record.archive_key}"
    said = {"backup_id": record.backup_id, "md5": record.md5 or "", "sha256": record.sha256 or ""}
    if isinstance(store, AzureStore):
        from azure.storage.blob import ContentSettings

        blob, true_md5 = client.get_blob_client(BUCKET, name), bytearray.fromhex(record.md5 or "")
        blob.upload_blob(forged, overwrite=True, metadata=said)
        blob.set_http_headers(ContentSettings(content_md5=true_md5))
        assert blob.get_blob_properties().content_settings.content_md5 == true_md5
    elif isinstance(store, S3Store):
        client.put_object(Bucket=BUCKET, Key=name, Body=forged, Metadata=said | {"etag": record.md5 or ""})
    elif isinstance(store, GcsStore):
        blob = client.bucket(BUCKET).blob(name)
        blob.metadata = said
        blob.upload_from_string(forged)
    else:
        path = folder / "store" / prefix / record.archive_key
        before = path.stat()
        path.write_bytes(forged)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    info = store.stat(record.archive_key)
    assert (info.size_bytes, hashlib.md5(forged).hexdigest() == record.md5) == (record.size_bytes, False)


def test_what_a_writer_of_the_bucket_says_of_an_archive_is_not_believed(
    demo_database: DemoDatabase, make_store: MakeStore, provider: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    prefix = f"forged-{uuid4().hex}"
    store, other = make_store(prefix), FileStore(tmp_path / "other")
    fleet = Fleet(demo_database, store, other)
    client = None if provider == "file" else request.getfixturevalue(f"{provider}_client")
    first, second, last = fleet.on_day(0), fleet.on_day(1, full_every_days=0), fleet.on_day(2, full_every_days=0)
    ids = [record.backup_id for record in (first, second, last)]
    reads = reads_of(store)
    proven = "not compared" if provider == "file" else "intact"
    looked = fleet.check()
    assert (looked.archives, looked.discrepancies) == (dict.fromkeys(ids, proven), [])
    assert sorted(looked.not_compared) == (ids if provider == "file" else [])
    assert not [key for key in reads if key.endswith(".age")]
    assert fleet.check(read=True).archives == dict.fromkeys(ids, "intact")

    forge(store, second, tmp_path, client, prefix)
    looked = fleet.check()
    if provider == "file":
        assert (looked.archives[second.backup_id], looked.discrepancies) == ("not compared", [])
    else:
        assert [(item.kind, item.backup_id) for item in looked.discrepancies] == [("damaged", second.backup_id)]
    assert looked.archives | {second.backup_id: ""} == dict.fromkeys(ids, proven) | {second.backup_id: ""}
    assert fleet.check(read=True).archives[second.backup_id] == "damaged"

    # Of a catalog that was rebuilt nobody knows a mark: what cannot be proven is not called intact.
    fleet.execute("UPDATE clinic_backups.backup_replica SET etag = NULL")
    assert fleet.check().archives[second.backup_id] == {"gcs": "damaged"}.get(provider, "not compared")

    # Retention deletes older backups only for a last good backup that is really there.
    forge(store, last, tmp_path, client, prefix)
    fleet.clean(31.5)
    assert fleet.state(last) == "lost"
    assert fleet.state(first) == "completed"
    assert fleet.check(read=True).archives[first.backup_id] == "intact"


def test_a_replica_that_was_made_is_recognized_later_and_an_exchanged_one_is_read(
    demo_database: DemoDatabase, make_store: MakeStore, provider: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if provider == "file":
        pytest.skip("a folder has no marks")
    prefix = f"replicated-{uuid4().hex}"
    one, two = FileStore(tmp_path / "one"), make_store(prefix)
    fleet = Fleet(demo_database, one, two)
    record = fleet.on_day(0)
    assert fleet.replicate().problems == []
    assert fleet.check(two.url).archives == {record.backup_id: "intact"}
    # The same content, put again by somebody: it is another object, and read before anything is said of it.
    two.delete(record.archive_key)
    with one.open(record.archive_key) as stream:
        two.put(record.archive_key, stream)
    reads = reads_of(two)
    for again in range(2):
        looked = fleet.check(two.url, record=True)
        assert (looked.archives, looked.discrepancies) == ({record.backup_id: "intact"}, [])
        # Azure's mark is of the object, the others' of its content. Once read it is known.
        assert reads.count(record.archive_key) == (1 if provider == "azure" else 0), again
    client = request.getfixturevalue(f"{provider}_client")
    forge(two, record, tmp_path, client, prefix)
    assert [item.kind for item in fleet.check(two.url).discrepancies] == ["damaged"]
