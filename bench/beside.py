"""Other clinics' small statements while one clinic is restored: their times beside it against their usual times."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from bench.figures import BenchError, Figure, Spread, percentile
from bench.large_clinic import back_up
from bench.restore import Restored
from bench.world import LargeClinic, Loaded, World
from clinic_backups.tenant.tenant_db import Snapshot

GROUP = "small statements of another clinic beside the restore of a large one"
ROWS = 500_000
PAUSE_SECONDS = 0.005
"""Between two statements of one person: a loop without pauses would be as busy as the restore."""
OTHER = 2
TRIGGERS = (
    "CREATE FUNCTION public.anotar() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM 1; RETURN COALESCE(NEW, OLD); END'",
    *(
        f"CREATE TRIGGER anotar BEFORE INSERT OR UPDATE OR DELETE ON public.{table}"
        " FOR EACH ROW EXECUTE FUNCTION public.anotar()"
        for table in ("citas_consulta", "usuarios_paciente", "auditoria_bitacora", "sistema_pagos_pago")
    ),
)
OPERATIONS = {
    "read of one row by its key": "SELECT * FROM public.citas_consulta WHERE id = %(visit)s",
    "read of a patient's visits": "SELECT count(*) FROM public.citas_consulta WHERE paciente_id = %(patient)s",
    "update of one row": "UPDATE public.citas_consulta SET motivo = 'control' WHERE id = %(visit)s",
    "insert of one row": "INSERT INTO public.auditoria_bitacora"
    " (accion, modelo, objeto_id, agente_usuario, ocurrido_en, usuario_id)"
    " VALUES ('alta', 'paciente', '1', 'banco', now(), %(user)s)",
}
Times = dict[str, list[float]]


def figures(world: World) -> list[Figure]:
    """The times of statements that run all the time: alone for a while, then while a restore is planned and applied."""
    loaded = world.large_clinic(min(world.scale.rows, ROWS), clinics=OTHER)
    _execute(world, loaded, *TRIGGERS)
    facts: dict[str, Any] = {}
    url = (world.folder / "beside").as_uri()
    back_up(world, loaded.connections, url, facts)
    restored = Restored(world, loaded, url)
    _execute(world, loaded, *_gone(loaded))
    world.postgres.psql(loaded.superuser.schema, "VACUUM (ANALYZE)")
    alone = 5 if world.scale.quick else 15
    with _people(loaded) as usual:
        time.sleep(alone)
    with _people(loaded) as planning:
        plan_seconds = restored.plan_what_is_gone().seconds
    with _people(loaded) as applying:
        apply_seconds = restored.apply(facts).seconds
    with _people(loaded) as after:
        time.sleep(alone)
    for name, more in after.items():
        usual[name] += more  # before and after: the machine may have other work too
    world.say(f"{GROUP}: plan {plan_seconds:.1f} s, restore {apply_seconds:.1f} s")
    parts = (("usual", usual), ("while it is planned", planning), ("while it is applied", applying))
    return [
        Figure(
            GROUP, f"{name}, {when}", len(times[name]), Spread.of(times[name]), _ratio(when, name, times, usual), None,
            facts=facts if when == "usual" else {},
            percentiles={f"p{number}": percentile(times[name], number) for number in (50, 95, 99)},
        )
        for name in OPERATIONS
        for when, times in parts
    ]  # fmt: skip


def _ratio(when: str, name: str, times: Times, usual: Times) -> dict[str, Spread]:
    """The ratio of the 95th percentiles."""
    if when == "usual":
        return {}
    ratio = percentile(times[name], 95) / percentile(usual[name], 95)
    return {f"{name}, usual": Spread(ratio, ratio, ratio)}


def _gone(large: LargeClinic) -> Iterator[str]:
    """Statements that take every row of the clinic away, and no other."""
    with Snapshot(large.superuser) as snapshot:
        keys = {name: table.primary_key for name, table in snapshot.tables(sorted(large.queries())).items()}
    queries = large.queries()
    yield "SET LOCAL session_replication_role = replica"
    for number, (name, key) in enumerate(keys.items()):
        yield f"CREATE TEMP TABLE gone_{number} AS SELECT {', '.join(key)} FROM ({queries[name]}) AS r"
    for number, (name, key) in enumerate(keys.items()):
        yield f"DELETE FROM {name} WHERE ({', '.join(key)}) IN (SELECT * FROM gone_{number})"


@contextmanager
def _people(loaded: Loaded) -> Iterator[Times]:
    """Statements go on as long as the block lasts; each in a transaction of its own."""
    times: Times = {name: [] for name in OPERATIONS}
    ended, failures = threading.Event(), list[BaseException]()
    thread = threading.Thread(target=_work, args=(loaded, times, ended, failures.append), daemon=True)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join(60)
    if failures or not all(times.values()):
        raise BenchError(f"The other clinic's statements failed: {failures or 'none was made'}")


def _work(loaded: Loaded, times: Times, ended: threading.Event, failed: Callable[[BaseException], object]) -> None:
    chosen = random.Random(7)
    try:
        with closing(psycopg2.connect(**loaded.superuser.libpq_parameters())) as db, db.cursor() as cursor:
            db.autocommit = True
            keys = {}
            for name, query in (
                ("patient", f"SELECT id FROM public.usuarios_paciente WHERE clinica_id = {OTHER}"),
                ("visit", "SELECT c.id FROM public.citas_consulta AS c JOIN public.usuarios_paciente AS p"
                          f" ON p.id = c.paciente_id WHERE p.clinica_id = {OTHER}"),
                ("user", f"SELECT id FROM public.usuarios_usuario WHERE clinica_id = {OTHER}"),
            ):  # fmt: skip
                cursor.execute(query)
                keys[name] = [key for (key,) in cursor.fetchall()]
            while not ended.is_set():
                for name, statement in OPERATIONS.items():
                    values = {kind: chosen.choice(some) for kind, some in keys.items()}
                    began = time.perf_counter()
                    cursor.execute(statement, values)
                    times[name].append(time.perf_counter() - began)
                    ended.wait(PAUSE_SECONDS)
    except BaseException as error:  # noqa: BLE001 - told by the thread that measures
        failed(error)


def _execute(world: World, loaded: Loaded, *statements: str) -> None:
    with closing(world.postgres.connect(loaded.superuser.schema)) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
