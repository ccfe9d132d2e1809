"""Faults between a store and its service: the error's family and hint, the remains in the store, and the memory."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, ObjectExists, PermanentError, TransientError
from clinic_backups.stores.base import ObjectStore, UnfinishedUpload
from clinic_backups.stores.connect import open_store, store_from_client
from clinic_backups.stores.file import FileStore
from tests.child import answer_of
from tests.conftest import BUCKET, CLOUDS, STORES
from tests.servers import CHECKOUT, HOST, Server, free_ports
from tests.store_clients import make_client

PART = 5 * 1024 * 1024
CONTENT = random.Random(11).randbytes(4 * PART)


def s3_store(connection: Connection, **options: Any) -> ObjectStore:
    from clinic_backups.stores.s3 import S3Store

    prefix = f"faults/{os.urandom(8).hex()}"
    return S3Store(make_client(connection), BUCKET, prefix, part_size_bytes=PART, **options)


def s3_client_of(store: ObjectStore) -> Any:
    return store._client  # type: ignore[attr-defined]


def answer_with(store: ObjectStore, operation: str, status: int, code: str, *, from_call: int = 1) -> list[int]:
    """Let the S3 client get an error instead of an answer, from the given call on. Returns the calls as they come."""
    from botocore.awsrequest import AWSResponse

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    calls: list[int] = []

    def answer(request: Any, **_: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) < from_call:
            return None
        body = f"<Error><Code>{code}</Code><Message>secret text</Message></Error>".encode()
        return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, Raw(body))

    s3_client_of(store).meta.events.register(f"before-send.s3.{operation}", answer)
    return calls


def unfinished(store: ObjectStore) -> list[Any]:
    prefix = store.url.removeprefix(f"s3://{BUCKET}/")
    found: list[Any] = s3_client_of(store).list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return found


class TestS3:
    @pytest.mark.parametrize("size", [0, 100, len(CONTENT)])
    def test_encryption_at_the_service(self, s3_connection: Connection, size: int) -> None:
        store = s3_store(s3_connection, encryption=("AES256", ""))
        store.put("key", io.BytesIO(CONTENT[:size]))
        name = store.url.removeprefix(f"s3://{BUCKET}/") + "/key"
        assert s3_client_of(store).head_object(Bucket=BUCKET, Key=name)["ServerSideEncryption"] == "AES256"
        with store.open("key") as stream:
            assert stream.read() == CONTENT[:size]

    @pytest.mark.parametrize("size", [100, len(CONTENT)])
    def test_a_client_with_the_sdks_own_checksums(self, s3_connection: Connection, size: int) -> None:
        """As a hook makes it when nobody gave it a configuration."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=s3_connection.extra["endpoint_url"],
            aws_access_key_id=s3_connection.login,
            aws_secret_access_key=s3_connection.password,
            region_name="us-east-1",
        )
        store = store_from_client(f"s3://{BUCKET}/faults/{os.urandom(8).hex()}", client)
        store._part_size_bytes = PART  # type: ignore[attr-defined]
        store.put("key", io.BytesIO(CONTENT[:size]))
        with store.open("key") as stream:
            assert stream.read() == CONTENT[:size]

    @pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
    def test_a_service_without_conditional_writes(self, s3_connection: Connection, operation: str) -> None:
        content = CONTENT if operation == "CompleteMultipartUpload" else b"x"
        store = s3_store(s3_connection)
        answer_with(store, operation, 501, "NotImplemented")
        with pytest.raises(PermanentError, match="NotImplemented") as caught:
            store.put("key", io.BytesIO(content))
        assert '"conditional_writes": false' in caught.value.hint
        assert unfinished(store) == []

    def test_conditional_writes_can_be_turned_off(self, s3_connection: Connection) -> None:
        store = s3_store(s3_connection, conditional_writes=False)
        conditions: list[str | None] = []
        for operation in ("PutObject", "CompleteMultipartUpload"):
            s3_client_of(store).meta.events.register(
                f"before-send.s3.{operation}",
                lambda request, **_: conditions.append(request.headers.get("If-None-Match")),
            )
        store.put("small", io.BytesIO(b"x"))
        store.put("large", io.BytesIO(CONTENT))
        assert conditions == [None, None]
        with pytest.raises(ObjectExists):
            store.put("large", io.BytesIO(b"x"))

    def test_a_failing_part_ends_the_upload_without_reading_on(self, s3_connection: Connection) -> None:
        store, source = s3_store(s3_connection), io.BytesIO(CONTENT * 4)
        answer_with(store, "UploadPart", 403, "AccessDenied", from_call=2)
        with pytest.raises(PermanentError, match="AccessDenied") as caught:
            store.put("key", source)
        assert "s3:PutObject" in caught.value.hint and "secret text" not in str(caught.value)
        assert source.tell() <= 6 * PART
        assert unfinished(store) == []
        assert list(store.list()) == []

    @pytest.mark.parametrize(
        ("status", "code", "family"),
        [
            (503, "SlowDown", TransientError),
            (500, "InternalError", TransientError),
            (429, "TooManyRequests", TransientError),
            (409, "ConditionalRequestConflict", TransientError),
            (400, "RequestTimeout", TransientError),
            (400, "BadDigest", TransientError),
            (400, "ExpiredToken", TransientError),
            (403, "RequestTimeTooSkewed", PermanentError),
            (301, "PermanentRedirect", PermanentError),
        ],
    )
    def test_answers_of_the_service(
        self, s3_connection: Connection, status: int, code: str, family: type[ClinicBackupsError]
    ) -> None:
        once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
        connection = Connection(**{**vars(s3_connection), "extra": {**s3_connection.extra, **once}})
        store = s3_store(connection)
        answer_with(store, "PutObject", status, code)
        with pytest.raises(family, match=code) as caught:
            store.put("key", io.BytesIO(b"x"))
        assert caught.value.hint and caught.value.__cause__ is None and caught.value.__suppress_context__

    def test_a_busy_service_is_asked_again(self, s3_connection: Connection) -> None:
        store = s3_store(s3_connection)
        calls = answer_with(store, "HeadObject", 503, "SlowDown")
        with pytest.raises(TransientError):
            store.stat("key")
        assert len(calls) == 4

    def test_a_connection_cut_during_a_download(self, s3_connection: Connection, s3_server: Server) -> None:
        with cut_connections(s3_server, after_bytes=2 * PART) as url:
            connection = Connection(**{**vars(s3_connection), "extra": {"endpoint_url": url}})
            store = s3_store(connection)
            store.put("key", io.BytesIO(CONTENT))
            read_bytes = 0
            with pytest.raises(TransientError) as caught, store.open("key") as stream:
                while piece := stream.read(1024 * 1024):
                    read_bytes += len(piece)
            assert caught.value.hint
            assert 0 < read_bytes < len(CONTENT)


@pytest.mark.parametrize(
    ("answered", "trust", "asked"),
    [(None, True, 0), (None, False, 1), ('"00000000000000000000000000000000"', True, 1), ("opaque", True, 1)],
)
def test_an_answer_is_trusted_only_with_the_checksum_of_the_content(
    s3_connection: Connection, answered: str | None, trust: bool, asked: int
) -> None:
    store = s3_store(s3_connection)
    events, heads = s3_client_of(store).meta.events, []
    if answered:
        events.register("after-call.s3.PutObject", lambda parsed, **_: parsed.update(ETag=answered))
    events.register("before-call.s3.HeadObject", lambda **_: heads.append(1))
    stored = store.put("key", io.BytesIO(b"content"), trust_answer=trust)
    assert len(heads) == asked
    assert stored.etag == store.stat("key").etag


@pytest.mark.parametrize("provider", CLOUDS)
def test_a_download_that_ends_early_without_an_error_is_one(
    provider: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(*place_of(provider, request, tmp_path, monkeypatch))
    monkeypatch.setattr(store, "_download", lambda name: (io.BytesIO(CONTENT[:99]), 100))
    with pytest.raises(TransientError, match="ended after 99 of 100 bytes"), store.open("key") as stream:
        stream.read()


class TestWrongCredentials:
    def test_s3(self, s3_connection: Connection) -> None:
        store = s3_store(Connection(**{**vars(s3_connection), "password": "not-the-secret"}))
        for action in actions(store):
            with pytest.raises(PermanentError) as caught:
                action()
            assert type(caught.value) is PermanentError and caught.value.hint
            assert "not-the-secret" not in str(caught.value)

    def test_azure(self, azure_connection: Connection) -> None:
        wrong = Connection(**{**vars(azure_connection), "password": "bm90LXRoZS1zZWNyZXQ="})
        store = open_store(f"az://{BUCKET}/faults", wrong)
        for action in actions(store):
            with pytest.raises(PermanentError) as caught:
                action()
            assert type(caught.value) is PermanentError and caught.value.hint
            assert "bm90" not in str(caught.value)


class TestUnreachable:
    @pytest.mark.parametrize("provider", CLOUDS)
    def test_is_transient(self, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (port,) = free_ports(1)
        url = f"http://{HOST}:{port}"
        store: ObjectStore
        if provider == "s3":
            store = s3_store(Connection("c", "aws", login="a", password="b", extra={"endpoint_url": url}))
        elif provider == "gcs":
            from clinic_backups.stores import gcs

            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            monkeypatch.setitem(gcs.REQUEST, "retry", None)
            store = open_store(f"gs://{BUCKET}/faults", Connection("c", "google_cloud_platform"))
        else:
            from clinic_backups.stores import azure

            monkeypatch.setitem(azure.CLIENT_OPTIONS, "retry_total", 0)
            connection = Connection("c", "wasb", host=url + "/account", login="account", password="c2VjcmV0")
            store = open_store(f"az://{BUCKET}/faults", connection)
        for action in actions(store):
            with pytest.raises(TransientError) as caught:
                action()
            assert caught.value.hint


class TestFile:
    def test_only_the_owner_may_read(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "new" / "store")
        before = os.umask(0)
        try:
            store.make_place()
            store.put("a/b/key", io.BytesIO(b"x"), metadata={"n": "1"})
        finally:
            os.umask(before)
        for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PART, before[1]))
        try:
            with pytest.raises(PermanentError, match="File too large") as caught:
                store.put("a/key", io.BytesIO(CONTENT))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.hint
        assert [path.name for path in tmp_path.rglob("*")] == ["a"]

    def test_an_object_cannot_be_a_folder_too(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        store.put("a", io.BytesIO(b"x"))
        with pytest.raises(PermanentError, match="Not a directory") as caught:
            store.put("a/b", io.BytesIO(b"x"))
        assert "another key" in caught.value.hint
        assert [info.key for info in store.list()] == ["a"]

    def test_of_many_writers_one_wins(self, tmp_path: Path) -> None:
        results: list[str] = []

        def write(number: str) -> None:
            try:
                FileStore(tmp_path).put("key", io.BytesIO(number.encode() * PART), metadata={"n": number})
                results.append(number)
            except ObjectExists:
                results.append("refused")

        writers = [threading.Thread(target=write, args=(str(number),)) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        (winner,) = (result for result in results if result != "refused")
        store = FileStore(tmp_path)
        assert len(results) == 8
        assert store.stat("key").metadata == {"n": winner}
        with store.open("key") as stream:
            assert stream.read() == winner.encode() * PART

    def test_its_own_files_are_no_objects(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        (tmp_path / ".~0123.part").write_bytes(b"left by a killed process")
        store.put("key", io.BytesIO(b"x"), metadata={"n": "1"})
        assert [info.key for info in store.list()] == ["key"]
        for own in (".~0123.part", ".~key.meta", ".~lock", "a/.~b"):
            with pytest.raises(PermanentError, match="Not a usable key"):
                store.stat(own)


class TestKilledProcess:
    PROGRAM = """
import json, sys, time
sys.path.insert(0, "plugins")
from clinic_backups.base.connections import Connection
from clinic_backups.stores.connect import open_store

class Source:
    left = 40
    def read(self, size=-1, /):
        self.left -= 1
        if not self.left:
            print("uploading", flush=True)
            time.sleep(60)
        return bytes(1 << 20)

url, connection = json.load(sys.stdin)
open_store(url, Connection(**connection) if connection else None).put("key", Source())
"""

    @pytest.mark.parametrize("provider", STORES)
    def test_leaves_no_object(
        self, provider: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, connection = place_of(provider, request, tmp_path, monkeypatch)
        process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps([url, vars(connection) if connection else None]))
            process.stdin.close()
            assert process.stdout.readline() == "uploading\n"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        store = open_store(url, connection)
        assert list(store.list()) == []
        store.put("key", io.BytesIO(b"the retry"))
        with store.open("key") as stream:
            assert stream.read() == b"the retry"


class TestOpenStore:
    """From a URL and a connection to a round trip."""

    @pytest.mark.parametrize("provider", STORES)
    def test_round_trip(
        self, provider: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, connection = place_of(provider, request, tmp_path, monkeypatch)
        store = open_store(url, connection, encryption=("AES256", ""))
        store.put("key", io.BytesIO(b"content"), metadata={"clinic": "Ñ"})
        with store.open("key") as stream:
            assert stream.read() == b"content"
        assert store.stat("key").metadata == {"clinic": "Ñ"}
        assert store.url.startswith(url.split(":")[0])

    def test_azure_with_a_sas_token_cannot_sign_links(self, azure_connection: Connection) -> None:
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        token = generate_account_sas(
            azure_connection.login,
            account_key=azure_connection.password,
            resource_types=ResourceTypes(object=True, container=True),
            permission=AccountSasPermissions(read=True, write=True, list=True, create=True, delete=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
            protocol="http,https",
        )
        connection = Connection("c", "wasb", host=azure_connection.host, extra={"sas_token": "?" + token})
        store = open_store(f"az://{BUCKET}/faults/{os.urandom(8).hex()}", connection)
        store.put("key", io.BytesIO(b"content"))
        with pytest.raises(PermanentError, match="cannot sign") as caught:
            store.presign("key", expires_in=timedelta(hours=1), filename="a")
        assert "shared key" in caught.value.hint
        expired = Connection(
            "c", "wasb", host=azure_connection.host, extra={"sas_token": token.replace("sig=", "sig=A")}
        )
        with pytest.raises(PermanentError) as caught:
            open_store(f"az://{BUCKET}/faults", expired).stat("key")
        assert token[-20:] not in str(caught.value)

    def test_gcs_without_a_private_key_cannot_sign_links(
        self, gcs_server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
        store = open_store(f"gs://{BUCKET}/faults", None)
        with pytest.raises(PermanentError, match="cannot sign") as caught:
            store.presign("key", expires_in=timedelta(hours=1), filename="a")
        assert "keyfile_dict" in caught.value.hint


class TestMemory:
    SIZE = 160 * 1024 * 1024
    PROGRAM = """
import json, os, re, sys
from pathlib import Path
sys.path.insert(0, "plugins")
from clinic_backups.base.connections import Connection
from clinic_backups.stores.connect import open_store

class Source:
    def __init__(self, size): self.left, self.piece = size, os.urandom(1 << 20)
    def read(self, size=-1, /):
        size = min(size, len(self.piece), self.left)
        self.left -= size
        return self.piece[:size]

# Not ru_maxrss: that starts at what the process had which started this one.
def peak(): return int(re.search("VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024

url, connection, size = json.load(sys.stdin)
store = open_store(url, Connection(**connection) if connection else None)
store.put("warm-up", Source(1000))
before = peak()
store.put("large", Source(size))
uploaded = peak()
with store.open("large") as stream:
    while stream.read(1 << 20): pass
print(json.dumps([before, uploaded, peak()]))
"""

    @pytest.mark.parametrize(("provider", "limit_mib"), [("file", 20), ("s3", 100), ("gcs", 70), ("azure", 100)])
    def test_is_constant_in_the_size(
        self,
        provider: str,
        limit_mib: int,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An upload of 256 MiB, and its download, with the parts that are used in earnest."""
        url, connection = place_of(provider, request, tmp_path, monkeypatch)
        job = [url, vars(connection) if connection else None, self.SIZE]
        before, uploaded, downloaded = answer_of(self.PROGRAM, job)
        print(f"{provider}: {before} MiB before, {uploaded} after the upload, {downloaded} after the download")
        assert downloaded - before < limit_mib


def place_of(
    provider: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Connection | None]:
    """A new place of that provider: its URL, and the connection for it. Child processes find it the same way."""
    if provider == "file":
        (folder / "Copias de seguridad").mkdir()
        return f"{folder.as_uri()}/Copias de seguridad", None
    prefix = f"faults/{os.urandom(8).hex()}/"
    if provider == "gcs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs_server").url)
        return f"gs://{BUCKET}/{prefix}", None
    connection: Connection = request.getfixturevalue(f"{provider}_connection")
    return f"{'s3' if provider == 's3' else 'az'}://{BUCKET}/{prefix}", connection


def actions(store: ObjectStore) -> list[Callable[[], Any]]:
    """Every request that a store makes."""

    def read() -> None:
        with store.open("key") as stream:
            stream.read()

    requests: list[Callable[[], Any]] = [
        lambda: store.put("key", io.BytesIO(b"x")),
        read,
        lambda: store.stat("key"),
        lambda: list(store.list()),
        lambda: store.delete("key"),
        lambda: store.purge("key"),
        store.lock_problem,
    ]
    if not store.url.startswith("gs:"):  # Its sessions cannot be listed.
        requests.append(lambda: list(store.unfinished()))
        requests.append(lambda: store.abort(UnfinishedUpload("key", datetime.now(UTC), "token")))
    return requests


@contextmanager
def cut_connections(server: Server, *, after_bytes: int) -> Iterator[str]:
    """A proxy that closes a connection once it has sent that many bytes towards the client. Gives its address."""
    target = (HOST, int(server.url.rpartition(":")[2]))
    listener = socket.create_server((HOST, 0))
    listener.settimeout(0.2)
    stop = threading.Event()

    def pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        sent = 0
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                sent += len(data)
                if limit is not None and sent >= limit:
                    break
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            upstream = socket.create_connection(target)
            threading.Thread(target=pump, args=(client, upstream, None), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client, after_bytes), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()
