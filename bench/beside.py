"""Other clinics' small statements while one clinic is restored: their times beside it against their usual times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from bench.figures import Figure
from bench.large_clinic import back_up
from bench.people import USUAL, compared, people
from bench.restore import Restored
from bench.world import LargeClinic, Loaded, World
from clinic_backups.tenant.tenant_db import Snapshot

GROUP = "small statements of another clinic beside the restore of a large one"
ROWS = 500_000
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
    connection = loaded.superuser.libpq_parameters()
    with people(connection, OTHER) as usual:
        time.sleep(alone)
    with people(connection, OTHER) as planning:
        plan_seconds = restored.plan_what_is_gone().seconds
    with people(connection, OTHER) as applying:
        apply_seconds = restored.apply(facts).seconds
    with people(connection, OTHER) as after:
        time.sleep(alone)
    usual.add(after)
    world.say(f"{GROUP}: plan {plan_seconds:.1f} s, restore {apply_seconds:.1f} s")
    parts = ((USUAL, usual), ("while it is planned", planning), ("while it is applied", applying))
    return compared(GROUP, parts, facts)


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


def _execute(world: World, loaded: Loaded, *statements: str) -> None:
    with closing(world.postgres.connect(loaded.superuser.schema)) as db, db, db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
