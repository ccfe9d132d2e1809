"""A share of small clinics into a store that is far away: each answer of the store takes 30 ms longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import urlsplit
from uuid import uuid4

from bench import children
from bench.figures import Figure, Run, Subject, measure
from bench.world import BUCKET, World
from clinic_backups.base.connections import Connection
from tests.proxy import Proxy

GROUP = "a share of small clinics, and a store that is far away"
LATENCY_SECONDS = 0.030
CLINICS = 25
AT_ONCE = (1, 4, 8)
ROUNDS = 5


def figures(world: World) -> list[Figure]:
    """Seconds for each clinic, by how many are under way at once. The second night of each: small incrementals."""
    small = world.small_clinics(CLINICS + 1, world.scale.patients)
    clinics = [number for number in range(1, CLINICS + 2) if number != 6]  # the sixth has closed
    near = urlsplit(world.s3.url)

    def share(at_once: int, port: int) -> Run:
        store = Connection(
            "backup_store", "aws", login=world.s3.login, password=world.s3.password,
            extra={"endpoint_url": f"http://127.0.0.1:{port}"},
        )  # fmt: skip
        job = {
            "connections": {name: asdict(each) for name, each in (small.connections | {"backup_store": store}).items()},
            "store_url": f"s3://{BUCKET}/far-{uuid4().hex}",
            "recipient": world.recipient,
            "clinics": clinics,
            "at_once": at_once,
        }
        run, _ = children.python("bench._far_store", job)
        return Run(run.seconds / len(clinics), run.peak_rss_bytes)

    def far(at_once: int) -> Run:
        with _Late(near.hostname or "", near.port or 0) as late:
            return share(at_once, late.port)

    def named(where: str, at_once: int) -> str:
        return f"{where}, {at_once} at once"

    base = named("near", 1)
    subjects = [Subject(base, lambda: share(1, near.port or 0), note="seconds per clinic, the second night")]
    subjects += [
        Subject(named("near", many), lambda many=many: share(many, near.port or 0), (base,))  # type: ignore[misc]
        for many in AT_ONCE[1:]
    ]
    subjects += [
        Subject(named("30 ms away", many), lambda many=many: far(many), (base, named("near", many)))  # type: ignore[misc]
        for many in AT_ONCE
    ]
    return measure(GROUP, subjects, 2 if world.scale.quick else ROUNDS, facts={"clinics": CLINICS}, say=world.say)


class _Late(Proxy):
    """Behind it each answer of the server comes later."""

    def begin(self, client: socket.socket, server: socket.socket) -> None:
        asked = threading.Event()

        def delay() -> None:
            if asked.is_set():  # the first piece after something was sent
                asked.clear()
                time.sleep(LATENCY_SECONDS)

        for source, target, before in ((client, server, asked.set), (server, client, delay)):
            threading.Thread(target=_pass_on, args=(source, target, before), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, before: Callable[[], object]) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            before()
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
