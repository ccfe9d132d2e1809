"""A proxy before a PostgreSQL server that counts round trips: a driver sends more than the statements it gets."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from contextlib import suppress

from tests.proxy import Proxy

SSL_REQUEST = 80877103


class CountingProxy(Proxy):
    """Forwards everything, and keeps each query that is sent, with its role; one query may hold several statements."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.sent: list[tuple[str, str]] = []

    def round_trips(self, *, but: str = "\0") -> Counter[str]:
        """The number of queries of each role, but for those with this text."""
        return Counter(role for role, query in self.sent if but not in query)

    def begin(self, client: socket.socket, server: socket.socket) -> None:
        threading.Thread(target=self._read, args=(client, server), daemon=True).start()
        threading.Thread(target=_forward, args=(server, client), daemon=True).start()

    def _read(self, client: socket.socket, server: socket.socket) -> None:
        """Forward a client's messages one by one: see "Message Formats" in PostgreSQL's manual."""
        role = ""
        with suppress(OSError, EOFError), client.makefile("rb") as stream:
            while True:
                kind = _exactly(stream, 1) if role else b""
                head = _exactly(stream, 4)
                body = _exactly(stream, int.from_bytes(head) - 4)
                if not role and int.from_bytes(body[:4]) != SSL_REQUEST:
                    words = body[4:].split(b"\0")
                    role = dict(zip(words[::2], words[1::2], strict=False))[b"user"].decode()
                elif kind == b"Q":
                    self.sent.append((role, body.rstrip(b"\0").decode()))
                server.sendall(kind + head + body)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _exactly(stream: object, size: int) -> bytes:
    data: bytes = stream.read(size)  # type: ignore[attr-defined]
    if len(data) < size:
        raise EOFError
    return data
