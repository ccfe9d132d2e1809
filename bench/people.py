"""People of one clinic at work: small statements all the time, and their times beside other work."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from bench.figures import BenchError, Figure, Spread, percentile

PAUSE_SECONDS = 0.005
"""Between two statements of one person: a loop without pauses would be as busy as what it is compared with."""
OPERATIONS = {
    "read of one row by its key": "SELECT * FROM public.citas_consulta WHERE id = %(visit)s",
    "read of a patient's visits": "SELECT count(*) FROM public.citas_consulta WHERE paciente_id = %(patient)s",
    "update of one row": "UPDATE public.citas_consulta SET motivo = 'control' WHERE id = %(visit)s",
    "insert of one row": "INSERT INTO public.auditoria_bitacora"
    " (accion, modelo, objeto_id, agente_usuario, ocurrido_en, usuario_id)"
    " VALUES ('alta', 'paciente', '1', 'banco', now(), %(user)s)",
}
USUAL = "usual"


@dataclass
class Work:
    """What people did.

    :param times: seconds of each statement, by operation.
    :param seconds: how long they worked.
    """

    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in OPERATIONS})
    seconds: float = 0.0

    def add(self, other: Work) -> None:
        """As if both were one: before and after, because the machine may have other work too."""
        for name, more in other.times.items():
            self.times[name] += more
        self.seconds += other.seconds

    @property
    def each_second(self) -> float:
        """Statements in a second."""
        return sum(map(len, self.times.values())) / self.seconds


@contextmanager
def people(connection: Mapping[str, Any], clinic: int) -> Iterator[Work]:
    """Statements of one clinic go on as long as the block lasts; each in a transaction of its own.

    :param connection: parameters of libpq.
    """
    work = Work()
    ended, failures = threading.Event(), list[BaseException]()
    began = time.monotonic()
    thread = threading.Thread(target=_work, args=(connection, clinic, work, ended, failures.append), daemon=True)
    thread.start()
    try:
        yield work
    finally:
        ended.set()
        thread.join(60)
        work.seconds = time.monotonic() - began
    if failures or not all(work.times.values()):
        raise BenchError(f"The other clinic's statements failed: {failures or 'none was made'}")


def compared(
    group: str, parts: Sequence[tuple[str, Work]], facts: dict[str, Any], *, with_throughput: bool = False
) -> list[Figure]:
    """The times of each operation in each part, the 95th percentile against that of the first part.

    :param with_throughput: also the seconds of one statement, with its pause, as they follow from the throughput.
    """
    (_, usual), *_ = parts
    found = []
    if with_throughput:
        for when, work in parts:
            one = 1 / work.each_second
            ratio = one * usual.each_second
            ratios = {} if work is usual else {f"a statement and its pause, {USUAL}": Spread(ratio, ratio, ratio)}
            count = sum(map(len, work.times.values()))
            found.append(
                Figure(group, f"a statement and its pause, {when}", count, Spread(one, one, one), ratios, None)
            )
    for name in OPERATIONS:
        for when, work in parts:
            times = work.times[name]
            ratio = percentile(times, 95) / percentile(usual.times[name], 95)
            ratios = {} if work is usual else {f"{name}, {USUAL}": Spread(ratio, ratio, ratio)}
            percentiles = {f"p{number}": percentile(times, number) for number in (50, 95, 99)}
            found.append(
                Figure(
                    group, f"{name}, {when}", len(times), Spread.of(times), ratios, None,
                    facts=facts if work is usual else {}, percentiles=percentiles,
                )
            )  # fmt: skip
    return found


def _work(
    connection: Mapping[str, Any],
    clinic: int,
    work: Work,
    ended: threading.Event,
    failed: Callable[[BaseException], object],
) -> None:
    chosen = random.Random(7)
    try:
        with closing(psycopg2.connect(**connection)) as db, db.cursor() as cursor:
            db.autocommit = True
            keys = {}
            for name, query in (
                ("patient", f"SELECT id FROM public.usuarios_paciente WHERE clinica_id = {clinic}"),
                ("visit", "SELECT c.id FROM public.citas_consulta AS c JOIN public.usuarios_paciente AS p"
                          f" ON p.id = c.paciente_id WHERE p.clinica_id = {clinic}"),
                ("user", f"SELECT id FROM public.usuarios_usuario WHERE clinica_id = {clinic}"),
            ):  # fmt: skip
                cursor.execute(query)
                keys[name] = [key for (key,) in cursor.fetchall()]
            while not ended.is_set():
                for name, statement in OPERATIONS.items():
                    values = {kind: chosen.choice(some) for kind, some in keys.items()}
                    began = time.perf_counter()
                    cursor.execute(statement, values)
                    work.times[name].append(time.perf_counter() - began)
                    ended.wait(PAUSE_SECONDS)
    except BaseException as error:  # noqa: BLE001 - told by the thread that measures
        failed(error)
