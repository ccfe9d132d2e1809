"""Where the database is far away: an incremental backup over slow lines, and digests that the server computes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from bench.figures import Figure, Run, Subject, measure
from bench.large_clinic import COPY, ByHand, measured_backup
from bench.world import World
from clinic_backups.base.connections import Connection

GROUP = "an incremental backup of one large clinic, nothing changed, over slow lines"
DIGESTS = "digests of each 128 rows, by the server"
NEAR = "no slow line"
MBITS = (400, 100, 50)
ROUNDS = 3
CHUNK_BYTES = 32 * 1024
DIGEST = """SELECT count(digest) FROM (
    SELECT sha256(convert_to(string_agg(r::text, E'\\n'), 'UTF8')) AS digest
      FROM (SELECT r, (row_number() OVER () - 1) / 128 AS part FROM ({query}) AS r) AS numbered
     GROUP BY part) AS parts;"""


def figures(world: World) -> list[Figure]:
    """A full backup first; each incremental finds nothing new, so that what it takes is reading and transfer."""
    large = world.large_clinic(world.scale.rows)
    url, hand = (world.folder / "far").as_uri(), ByHand(world, large)
    _, answer = measured_backup(world, large.connections, url)
    facts = {name: answer[name] for name in ("rows", "csv_bytes")}
    digests = "\n".join(
        ["BEGIN READ ONLY;", *(DIGEST.format(query=query) for query in large.queries().values()), "END;"]
    )

    def again(reader: Connection) -> Run:
        return measured_backup(world, large.connections | {"clinic_db": reader}, url, "incremental")[0]

    def over(mbits: int) -> Run:
        """The rows come over the line; the catalog is near."""
        with slow_line(large.reader.host or "", large.reader.port or 0, mbits * 1_000_000 / 8) as port:
            return again(replace(large.reader, port=port))

    subjects = [
        Subject(COPY, hand.copy_to_null),
        Subject(DIGESTS, lambda: hand.let_run(digests), (COPY,), note="what would be read instead of the rows"),
        Subject(NEAR, lambda: again(large.reader), (COPY, DIGESTS)),
        *(
            Subject(f"{mbits} Mbit/s", lambda mbits=mbits: over(mbits), (COPY, DIGESTS, NEAR))  # type: ignore[misc]
            for mbits in MBITS
        ),
    ]
    rounds = 1 if world.scale.quick else min(ROUNDS, world.scale.rounds)
    return [replace(found, facts=facts) for found in measure(GROUP, subjects, rounds, say=world.say)]


@contextmanager
def slow_line(host: str, port: int, bytes_per_second: float) -> Iterator[int]:
    """A port of this machine behind which the server answers no faster than that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, host, port, bytes_per_second), daemon=True).start()
        yield int(listener.getsockname()[1])


def _serve(listener: socket.socket, host: str, port: int, bytes_per_second: float) -> None:
    with suppress(OSError):  # closed: the line is gone
        while True:
            client, _ = listener.accept()
            server = socket.create_connection((host, port))
            for source, target, speed in ((client, server, None), (server, client, bytes_per_second)):
                threading.Thread(target=_pass_on, args=(source, target, speed), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, bytes_per_second: float | None) -> None:
    free_at = time.monotonic()
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
            if bytes_per_second:
                # From when the line was free, not from now: what a sleep takes too long is made up for.
                free_at = max(free_at, time.monotonic() - 0.05) + len(data) / bytes_per_second
                time.sleep(max(0.0, free_at - time.monotonic()))
        target.shutdown(socket.SHUT_WR)
