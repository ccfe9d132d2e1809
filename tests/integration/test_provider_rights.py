"""docs/providers: the documented rights are those that the code needs, and its requests are counted.

One life of a store is led at each provider's emulator, and every request is noted. SeaweedFS enforces the policy of
docs/providers/aws.md. The other two enforce nothing, so their requests are only compared with the documented rights.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import requests

from clinic_backups.backup.store_checks import check_stores
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ObjectNotFound, PermanentError
from clinic_backups.base.findings import Report
from clinic_backups.catalog.identities import Identities
from clinic_backups.stores.azure import AzureStore
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.gcs import GcsStore
from clinic_backups.stores.identified import IdentifiedStore
from clinic_backups.stores.s3 import S3Store, make_client
from tests import servers
from tests.conftest import BUCKET
from tests.fleet import Fleet
from tests.postgres_fixtures import DemoDatabase
from tests.servers import Server

PAGES = Path(__file__).parents[2] / "docs" / "providers"
PART = 5 * 1024 * 1024
Calls = list[str]

RIGHTS = {
    "s3": {
        "PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject", "UploadPart": "s3:PutObject",
        "CompleteMultipartUpload": "s3:PutObject", "AbortMultipartUpload": "s3:AbortMultipartUpload",
        "HeadObject": "s3:GetObject", "HeadObject?version": "s3:GetObjectVersion", "GetObject": "s3:GetObject",
        "DeleteObject": "s3:DeleteObject", "DeleteObject?version": "s3:DeleteObjectVersion",
        "ListObjectsV2": "s3:ListBucket", "ListObjectVersions": "s3:ListBucketVersions",
        "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    },
    "gcs": {
        "POST upload": "storage.objects.create", "PUT upload": "storage.objects.create",
        "DELETE upload": "storage.objects.create", "GET object": "storage.objects.get",
        "GET media": "storage.objects.get",
        "DELETE object": "storage.objects.delete", "GET objects": "storage.objects.list",
    },
    "azure": {
        "PUT block": "blobs/write", "PUT blocklist": "blobs/write", "HEAD blob": "blobs/read", "GET blob": "blobs/read",
        "GET blocklist": "blobs/read", "GET list": "blobs/read", "DELETE blob": "blobs/delete",
    },
}  # fmt: skip
"""The right that each request needs, by the reference of its provider."""
OF_LOCKS = {
    "s3:PutObjectRetention", "s3:GetObjectRetention", "s3:GetObjectLegalHold", "s3:GetBucketObjectLockConfiguration",
}  # fmt: skip


@contextmanager
def noted(client: Any) -> Iterator[Calls]:
    """The requests of a boto3 client while the block lasts, by the names of S3's API."""
    calls: Calls = []

    def note(model: Any, params: Any, **_: Any) -> None:
        calls.append(model.name + ("?version" if "versionId" in params["query_string"] else ""))

    client.meta.events.register("before-call.s3", note)
    try:
        yield calls
    finally:
        client.meta.events.unregister("before-call.s3", note)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The requests of Google's and Azure's clients."""
    calls: Calls = []
    send = requests.Session.send

    def note(session: Any, request: Any, **options: Any) -> Any:
        calls.append(said(request.method, request.url))
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", note)
    return calls


def said(method: str, url: str) -> str:
    place, query = urlsplit(url), parse_qs(urlsplit(url).query)
    if place.path.startswith(("/storage", "/upload", "/download", "/resumable")):
        if "/upload/" in place.path or "upload_id" in query:
            return f"{method} upload"
        if query.get("alt") == ["media"]:
            return f"{method} media"
        return f"{method} {'objects' if place.path.endswith('/o') else 'object' if '/o/' in place.path else 'bucket'}"
    return f"{method} {query.get('comp', ['blob'])[0]}"


def live(database: DemoDatabase, store: ObjectStore) -> None:
    """Everything that the package does in a store without locks."""
    fleet = Fleet(database, store)
    fleet.initialise()
    report = Report()
    check_stores(fleet.stores, fleet.settings, report)
    assert [finding.message for finding in report.findings if finding.level == "error"] == []
    first = fleet.on_day(0)
    fleet.kind = "auto"
    fleet.on_day(1)
    # As a large archive goes up, and as one is cut off.
    store.put("backups/1/large", io.BytesIO(bytes(PART + 1)))
    with pytest.raises(ZeroDivisionError):
        store.put("backups/1/cut", _Broken())  # type: ignore[arg-type]
    fleet.holds().hold(first.backup_id, "juicio", "ops")
    fleet.check(read=True, record=True, sweep=True)
    fleet.holds().release(first.backup_id, "ops")
    assert fleet.restored(fleet.again(first)).refusals == ()
    fleet.on_day(40, full_every_days=0)
    newest = fleet.on_day(41, full_every_days=0)
    fleet.clean(80)
    assert fleet.state(first) == "deleted" != fleet.state(newest)
    fleet.erase(1, 81)
    list(store.all_keys())
    list(store.unfinished())


class _Broken:
    """A source that fails after the first part."""

    def __init__(self) -> None:
        self._left = PART + 1

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            return bytes(1 // self._left)
        done = min(size, self._left)
        self._left -= done
        return bytes(done)


def policy(sid: str = "Objects") -> dict[str, Any]:
    """The policy of docs/providers/aws.md that has this statement."""
    blocks = re.findall(r"```json\n(.*?)```", (PAGES / "aws.md").read_text("utf-8"), re.S)
    found: dict[str, Any] = next(json.loads(block) for block in blocks if f'"Sid": "{sid}"' in block)
    return found


def actions(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded") / "server"
    with servers.seaweedfs(folder, bucket=BUCKET, accounts={"backups": "backups-password"}) as server:
        yield server


def client_of(server: Server, login: str, password: str) -> Any:
    return make_client(
        Connection("backup_store", "aws", login=login, password=password, extra={"endpoint_url": server.url})
    )


def allow(owner: Any, bucket: str, document: dict[str, Any]) -> None:
    """The policy of an identity as one of a bucket: SeaweedFS has those alone."""
    text = json.dumps(document).replace("your-bucket", bucket)
    allowed = json.loads(text)
    for statement in allowed["Statement"]:
        statement["Principal"] = {"AWS": "arn:aws:iam::000000000000:user/backups"}
    owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps(allowed))


@pytest.mark.parametrize("versioned", [False, True])
def test_the_policy_for_amazon_is_enough_and_no_more(
    demo_database: DemoDatabase, guarded: Server, versioned: bool
) -> None:
    owner = client_of(guarded, guarded.login, guarded.password)
    bucket = f"life-{uuid4().hex}"
    owner.create_bucket(Bucket=bucket)
    if versioned:
        owner.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    allow(owner, bucket, policy())
    client = client_of(guarded, "backups", "backups-password")
    with noted(client) as calls:
        live(demo_database, S3Store(client, bucket, "clinics", part_size_bytes=PART))
    needed = {RIGHTS["s3"][call] for call in calls if call in RIGHTS["s3"]}
    assert set(calls) <= RIGHTS["s3"].keys()
    documented = actions(policy()) - OF_LOCKS
    assert needed <= documented
    if versioned:
        assert needed == documented
    with pytest.raises(PermanentError):
        S3Store(client, bucket, "others").put("key", io.BytesIO(b"x"))


def test_without_one_of_the_rights_it_does_not_live(demo_database: DemoDatabase, guarded: Server) -> None:
    """The test above would pass with a service that allows everything."""
    owner = client_of(guarded, guarded.login, guarded.password)
    bucket = f"life-{uuid4().hex}"
    owner.create_bucket(Bucket=bucket)
    document = policy()
    for statement in document["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action != "s3:GetObject"]
    allow(owner, bucket, document)
    store = S3Store(client_of(guarded, "backups", "backups-password"), bucket, "clinics")
    with pytest.raises(PermanentError, match=r"AccessDenied|Forbidden|403"):
        live(demo_database, store)


def test_the_policy_for_the_api_server_is_enough_for_links_and_no_more(
    demo_database: DemoDatabase, guarded: Server
) -> None:
    owner = client_of(guarded, guarded.login, guarded.password)
    bucket = f"links-{uuid4().hex}"
    owner.create_bucket(Bucket=bucket)
    fleet = Fleet(demo_database, S3Store(owner, bucket, "clinics"))
    fleet.initialise()
    record = fleet.on_day(0)
    allow(owner, bucket, policy("Links"))
    bare = S3Store(client_of(guarded, "backups", "backups-password"), bucket, "clinics")
    store = IdentifiedStore(bare, Identities(fleet.catalog.database).expected(bare.url))
    assert store.stat(record.archive_key).size_bytes == record.size_bytes
    link = store.presign(record.archive_key, expires_in=timedelta(hours=1), filename="x")
    assert hashlib.sha256(requests.get(link, timeout=10).content).hexdigest() == record.sha256
    with pytest.raises(ObjectNotFound):
        store.stat("backups/1/missing")
    for change in (
        lambda: store.put("backups/1/more", io.BytesIO(b"x")),
        lambda: store.delete(record.archive_key),
        lambda: store.purge(record.archive_key),
    ):
        with pytest.raises(PermanentError):
            change()
    assert store.stat(record.archive_key).size_bytes == record.size_bytes


def documented_requests() -> dict[str, list[int]]:
    """The table of docs/providers/README.md: writes and reads of an incremental backup, then of a full one."""
    text = (PAGES / "README.md").read_text("utf-8")
    table = text[text.index("<!-- requests -->") : text.index("<!-- end of requests -->")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[3:] if line]
    return {row[0]: [int(cell) for cell in row[1:]] for row in rows}


def is_write(call: str) -> bool:
    """Whether providers charge a request as writing or listing."""
    return call.startswith(("PUT", "POST", "Put", "List")) or call in ("GET objects", "GET list")


def counts(database: DemoDatabase, store: ObjectStore, calls: Calls) -> list[int]:
    """The requests of a small backup in a share, whose process has read the marker a short while ago."""
    fleet = Fleet(database, store)
    fleet.initialise()
    fleet.store = IdentifiedStore(fleet.store, Identities(fleet.catalog.database).expected(fleet.store.url))
    fleet.kind = "auto"
    fleet.on_day(0)
    found = []
    for day, kind in ((1, "incremental"), (9, "full")):
        calls.clear()
        assert fleet.on_day(day).kind == kind
        writes = sum(map(is_write, calls))
        found += [writes, len(calls) - writes]
    return found


@pytest.mark.parametrize(
    ("row", "options"), [("s3", {}), ("s3 without conditional writes (Backblaze)", {"conditional_writes": False})]
)
def test_the_requests_of_a_small_backup_at_amazon_and_backblaze(
    demo_database: DemoDatabase, s3_client: Any, row: str, options: dict[str, bool]
) -> None:
    with noted(s3_client) as calls:
        found = counts(demo_database, S3Store(s3_client, BUCKET, f"counted/{uuid4().hex}", **options), calls)
    assert found == documented_requests()[row]


def test_the_requests_of_a_small_backup_at_google(demo_database: DemoDatabase, gcs_client: Any, sent: Calls) -> None:
    store = GcsStore(gcs_client, BUCKET, f"counted/{uuid4().hex}")
    assert counts(demo_database, store, sent) == documented_requests()["gcs"]


def test_the_requests_of_a_small_backup_at_azure(demo_database: DemoDatabase, azure_client: Any, sent: Calls) -> None:
    store = AzureStore(azure_client, BUCKET, f"counted/{uuid4().hex}")
    assert counts(demo_database, store, sent) == documented_requests()["azure"]


def documented_rights(page: str) -> set[str]:
    text = (PAGES / f"{page}.md").read_text("utf-8")
    start = text.index("<!-- rights -->")
    return set(re.findall(r"`([\w.]+/?\w+)`", text[start : text.index("<!-- end of rights -->")]))


def test_the_rights_for_google_are_those_that_are_used(
    demo_database: DemoDatabase, gcs_client: Any, sent: Calls
) -> None:
    live(demo_database, GcsStore(gcs_client, BUCKET, f"life/{uuid4().hex}", part_size_bytes=PART))
    calls = {call for call in sent if not call.endswith(" bucket")}
    assert calls <= RIGHTS["gcs"].keys()
    assert {RIGHTS["gcs"][call] for call in calls} == documented_rights("gcp")


def test_the_rights_for_azure_are_those_that_are_used(
    demo_database: DemoDatabase, azure_client: Any, sent: Calls
) -> None:
    live(demo_database, AzureStore(azure_client, BUCKET, f"life/{uuid4().hex}", part_size_bytes=PART))
    assert set(sent) <= RIGHTS["azure"].keys()
    assert {RIGHTS["azure"][call] for call in sent} == documented_rights("azure")


@pytest.mark.parametrize("page", ["aws", "gcp", "azure", "backblaze"])
def test_the_spanish_page_has_the_same_commands(page: str) -> None:
    def commands(folder: Path) -> list[str]:
        text = (folder / f"{page}.md").read_text("utf-8")
        lines = re.findall(r"^    (.+)$", text, re.M) + re.findall(r"```json\n(.*?)```", text, re.S)
        return sorted(re.split(r"\s+# ", line)[0] for line in lines)

    english = commands(PAGES)
    assert len(english) > 3
    assert commands(PAGES.parent / "es" / "providers") == english
