"""Measures what locks, gate and proof cost in small clinics' backups: ``python -m bench._guards``, the job on stdin.

One process backs up the same clinics each night, with these checks and without them. To leave them out, it replaces the
functions.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from unittest import mock

from bench import children
from bench.compared import compared_by_preflight
from clinic_backups.app import Parts
from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import machine_now
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect, session_settings
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Table
from clinic_backups.maintenance.store_init import StoreInit
from clinic_backups.tenant import gate, plausibility
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.table_locks import TableLocks
from clinic_backups.tenant.tenant_db import Snapshot

WARM_UP = 2
UNGUARDED = 1_000_000
"""Added to a clinic's number in the catalog: the backups without guards are those of another clinic there."""
DAY = (
    "INSERT INTO public.auditoria_bitacora (accion, modelo, objeto_id, agente_usuario, ocurrido_en, usuario_id)"
    " SELECT 'alta', 'paciente', '1', 'banco', now(), min(id) FROM public.usuarios_usuario GROUP BY clinica_id",
    "UPDATE public.usuarios_paciente SET telefono = 'hoy ' || {day} WHERE id IN"
    " (SELECT min(id) FROM public.usuarios_paciente GROUP BY clinica_id)",
)
"""What each clinic does between two nights: a table has one more row, and another row is changed."""


@contextmanager
def unguarded() -> Iterator[None]:
    """Backups take no locks, look at no list of tables and compare nothing while this lasts."""

    def begin(locks: TableLocks) -> None:
        with locks._db.cursor() as cursor:
            cursor.execute(session_settings(cursor, locks._settings))

    def tables(
        snapshot: Snapshot, folder: object, request: object, queries: Mapping[str, str], *rest: object
    ) -> tuple[dict[str, Table], tuple[Gap, ...]]:
        return snapshot.tables(sorted(queries)), ()

    nothing: Callable[..., Any] = lambda *given, **named: plausibility.Plausibility()  # noqa: E731
    with (
        mock.patch.object(TableLocks, "take", begin),
        mock.patch.object(TableLocks, "prove", lambda *given: None),
        mock.patch.object(gate, "passed", tables),
        mock.patch.object(plausibility, "check", nothing),
    ):
        yield


class _OfClinic:
    """Renders the extracts for one clinic, whatever clinic is asked for."""

    def __init__(self, clinic_id: int) -> None:
        self._clinic_id = clinic_id

    def rendered(self, folder: SqlFolder, number: int) -> dict[str, str]:
        """As :meth:`SqlExtract.rendered`."""
        return SqlExtract().rendered(folder, self._clinic_id)


class Nights:
    """One process that backs up clinics."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._connections = {name: Connection(**fields) for name, fields in job["connections"].items()}
        self._superuser, self._server_pid = Connection(**job["superuser"]), int(job["server_pid"])
        self.clinics: list[int] = job["clinics"]
        settings = Settings(
            store_url=job["store_url"], recipients=(job["recipient"],), server_side_encryption="none", time_zone="UTC"
        )
        self._parts = Parts(settings, self._connections.get)
        StoreInit(self._parts.catalog, machine_now, "bench").run(self._parts.bare_stores.primary, take_over=True)
        self._day = 0

    def night(self, *, guarded: bool, first: bool = False) -> dict[str, float]:
        """Back up all clinics. Seconds of the wall clock, of this process's CPU, and of its and the server's CPU.

        :param first: each is the clinic's first backup, as far as the catalog knows.
        """
        if first:
            self._day += 1
        shift = self._day * 1000 if first else 0
        began, cpu, all_cpu = time.perf_counter(), time.process_time(), self._cpu_seconds()
        with self._parts.kept.keeping():
            self._back_up_all(guarded=guarded, shift=shift)
        return {
            "wall": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "all_cpu": self._cpu_seconds() - all_cpu,
        }

    def _back_up_all(self, *, guarded: bool, shift: int) -> None:
        for clinic_id in self.clinics:
            number = clinic_id + shift + (0 if guarded else UNGUARDED)
            # As in a nightly run, which compares the rows of all clinics once, before the first backup.
            request = BackupRequest(Clinic(number, "Banco"), compared=compared_by_preflight(self._parts, number))
            queries = SqlExtract().rendered(SqlFolder(PROJECT_SQL), clinic_id)
            if guarded:
                # The gate renders the extracts too. Here the clinic has another number in the catalog.
                with mock.patch.object(gate, "SqlExtract", lambda: _OfClinic(clinic_id)):  # noqa: B023 - used at once
                    self._parts.backup().run(request, queries=queries)
            else:
                with unguarded():
                    self._parts.backup().run(request, queries=queries)

    def day(self) -> None:
        """The clinics work."""
        self._day += 1
        with closing(connect(self._superuser)) as db, db, db.cursor() as cursor:
            cursor.execute("; ".join(DAY).format(day=self._day))

    def _cpu_seconds(self) -> float:
        return time.process_time() + children.server_cpu_seconds(self._server_pid)


def main() -> None:
    """Print what the nights took, with guards and without; each kind of night in turn, in changing order."""
    job = json.load(sys.stdin)
    nights = Nights(job)
    if job["rounds"] == 0:
        night = nights.night(guarded=job["guarded"])
        answer = {
            "night": night,
            "process_cpu": time.process_time(),
            # The server does no work for this process before the night, so the night's server CPU is all of it.
            "process_all_cpu": time.process_time() + night["all_cpu"] - night["cpu"],
        }
        print(json.dumps({"seconds": night["wall"], "peak_rss_bytes": children.peak_rss_bytes(), **answer}))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(job["rounds"] + WARM_UP):
        nights.day()
        for first in (False, True):
            for guarded in (True, False) if number % 2 else (False, True):
                took = nights.night(guarded=guarded, first=first)
                if number >= WARM_UP:
                    found.setdefault(f"{'first' if first else 'night'} {guarded}", []).append(took)
    seconds = sum(night["wall"] for nights_ in found.values() for night in nights_)
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": children.peak_rss_bytes(), "found": found}))


if __name__ == "__main__":
    main()
