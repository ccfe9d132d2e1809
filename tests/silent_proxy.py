"""A proxy in front of a PostgreSQL server that stops forwarding, and keeps every connection open."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tests.proxy import Proxy


class SilentProxy(Proxy):
    """Forwards until it is told, or until what a client sends holds a certain text; then nothing, in either direction.

    :param host, port: of the server.
    :param until: a connection that sends this text falls silent before it is forwarded.
    :param after_bytes: a connection falls silent when the server sent so much on it.
    :param accepts: new connections are forwarded also when others fell silent.
    """

    def __init__(
        self, host: str, port: int, *, until: bytes = b"", after_bytes: int | None = None, accepts: bool = True
    ) -> None:
        super().__init__(host, port)
        self._until, self._after_bytes, self._accepts = until, after_bytes, accepts
        self.silent = 0
        self._quiet = threading.Event()

    def fall_silent(self) -> None:
        """All connections that there are, at once."""
        self._quiet.set()

    def wait_for_silence(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self.silent:
            assert time.monotonic() < deadline, "no connection fell silent"
            time.sleep(0.02)

    def answers(self) -> bool:
        return self._accepts or not (self.silent or self._quiet.is_set())

    def begin(self, client: socket.socket, server: socket.socket) -> None:
        _Line(self, client, server).start()


class _Line:
    def __init__(self, proxy: SilentProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._dead, self._received = False, 0

    def start(self) -> None:
        pairs: list[tuple[socket.socket, socket.socket, Callable[[bytes], bool]]] = [
            (self._client, self._server, self._asks_too_much), (self._server, self._client, self._said_enough),
        ]  # fmt: skip
        for source, target, ends in pairs:
            threading.Thread(target=self._pump, args=(source, target, ends), daemon=True).start()

    def _asks_too_much(self, data: bytes) -> bool:
        return bool(self._proxy._until) and self._proxy._until in data

    def _said_enough(self, data: bytes) -> bool:
        self._received += len(data)
        return self._proxy._after_bytes is not None and self._received > self._proxy._after_bytes

    def _pump(self, source: socket.socket, target: socket.socket, ends: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self._dead or self._proxy._quiet.is_set() or ends(data):
                    self._proxy.silent += not self._dead
                    self._dead = True
                    return  # and both sockets stay open
                target.sendall(data)
            if not self._dead:
                target.shutdown(socket.SHUT_WR)
