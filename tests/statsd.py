"""A real receiver of statsd on loopback, which keeps what it gets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

WAIT_SECONDS = 30


class Statsd:
    """``lines`` are the metrics in the order in which they came, such as ``airflow.a.b,kind=full:1|c``."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Statsd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def ours(self, since: int = 0) -> list[str]:
        """Those of this package, without Airflow's prefix."""
        return [line.removeprefix("airflow.") for line in self.lines[since:] if "clinic_backups." in line.split(":")[0]
                and line.startswith("airflow.clinic_backups.")]  # fmt: skip

    def wait(self, what: Callable[[list[str]], bool], since: int = 0) -> list[str]:
        """Ours, once they are so. A datagram may come a moment after its task has ended."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not what(found := self.ours(since)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            self.lines += data.decode().splitlines()


@contextmanager
def receiving() -> Iterator[Statsd]:
    """Airflow's own sender in this process sends to it, with tags."""
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk._shared.observability.metrics.statsd_logger import get_statsd_logger
    from airflow.sdk.observability.stats import Stats
    from statsd import StatsClient

    with Statsd() as found:
        Stats.initialize(
            factory=lambda: get_statsd_logger(
                stats_class=StatsClient, host="127.0.0.1", port=found.port, prefix="airflow",
                influxdb_tags_enabled=True, statsd_influxdb_enabled=True,
            ),
            export_legacy_names=False,
        )  # fmt: skip
        try:
            yield found
        finally:
            Stats.initialize(factory=NoStatsLogger, export_legacy_names=False)
