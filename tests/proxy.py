"""The common part of the tests' proxies: they listen, connect to the server behind them, and close everything."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Accepts connections on a free port of this machine; a subclass says what happens on each.

    :param host, port: of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.sockets: set[socket.socket] = set()
        self.lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def begin(self, client: socket.socket, server: socket.socket) -> None:
        """Forward one connection, in threads of its own."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether a new connection is forwarded; else it is taken, and never answered."""
        return True

    def close_all(self) -> None:
        """Cut all connections."""
        with self.lock:
            left = list(self.sockets)
        for each in left:
            close(each)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close(self._listener)
        self.close_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._keep(client)
                if not self.answers():
                    continue
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                self._keep(server)
                self.begin(client, server)

    def _keep(self, each: socket.socket) -> None:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.sockets.add(each)


def close(each: socket.socket) -> None:
    """At once, also for the thread that waits in it."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
