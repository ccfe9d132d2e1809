"""A proxy before PostgreSQL or an S3. It causes one fault at one request: it cuts, drops an answer, stalls or kills."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tests.proxy import Proxy, close

Kind = Literal["cut before", "lose answer", "stall", "kill before", "kill after"]
KINDS: tuple[Kind, ...] = ("cut before", "lose answer", "stall", "kill before", "kill after")
_METHOD = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) ")
_CONTINUE = b"HTTP/1.1 100 "
_CHUNK = 1 << 16


def is_commit(data: bytes) -> bool:
    """Whether a client of PostgreSQL sends a COMMIT."""
    return b"COMMIT\0" in data


def is_request(data: bytes) -> bool:
    """Whether a client of HTTP begins a request."""
    return _METHOD.match(data) is not None


@dataclass(frozen=True)
class Armed:
    """A fault and at which point it happens, counted from 1."""

    kind: Kind
    number: int
    kill: Callable[[], object] = lambda: None


class FaultProxy(Proxy):
    """Forwards, and counts the points at which a fault can happen.

    :param port: of the server, on this machine.
    :param is_point: whether what a client sends, when it has its last answer, is such a point.
    """

    def __init__(self, port: int, is_point: Callable[[bytes], bool]) -> None:
        super().__init__("127.0.0.1", port)
        self.is_point = is_point
        self._armed: Armed | None = None
        self.points, self.fired = 0, False

    def arm(self, fault: Armed | None) -> None:
        """Count from now on, and do this fault once."""
        with self.lock:
            self._armed, self.points, self.fired = fault, 0, False

    def disarm(self) -> None:
        """No fault any more; connections that are left are cut, also those that stall."""
        with self.lock:
            self._armed = None
        self.close_all()

    def point(self) -> Armed | None:
        """One more point; the fault that happens at it."""
        with self.lock:
            self.points += 1
            if self._armed is None or self.fired or self.points != self._armed.number:
                return None
            self.fired = True
            return self._armed

    def forget(self, *sockets: socket.socket) -> None:
        with self.lock:
            self.sockets.difference_update(sockets)

    def begin(self, client: socket.socket, server: socket.socket) -> None:
        _Line(self, client, server).start()


class _Line:
    """One connection, in both directions."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._waits_for_request = True
        self._fault: Armed | None = None
        self._stalls = threading.Event()
        self._left = 2

    def start(self) -> None:
        for pump in (self._requests, self._answers):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        self._left -= 1
        if self._stalls.is_set():
            return  # both stay open until the proxy is disarmed
        # A client that was killed must be seen by its server, and the other way round.
        close(self._client)
        close(self._server)
        self._proxy.forget(self._client, self._server)

    def _requests(self) -> None:
        while data := self._client.recv(_CHUNK):
            if self._stalls.is_set():
                return
            if self._waits_for_request and self._proxy.is_point(data):
                self._waits_for_request = False
                self._fault = self._proxy.point()
                if self._fault is not None and not self._goes_on(self._fault):
                    return
            self._server.sendall(data)

    def _goes_on(self, fault: Armed) -> bool:
        """Whether the request is forwarded."""
        if fault.kind == "stall":
            self._stalls.set()
        elif fault.kind == "kill before":
            fault.kill()
        return fault.kind in ("lose answer", "kill after")

    def _answers(self) -> None:
        while data := self._server.recv(_CHUNK):
            if self._stalls.is_set():
                return
            if not data.startswith(_CONTINUE):
                self._waits_for_request = True
                if self._fault is not None:
                    if self._fault.kind == "kill after":
                        self._fault.kill()
                    return
            self._client.sendall(data)
