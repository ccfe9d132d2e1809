"""What locks, gate and proof cost inside of a small clinic's backup: ``python -m bench._guards``, the job on stdin.

The same process backs up the same clinic again and again, in turn with them and without: the functions are replaced.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench.children import peak_rss_bytes
from clinic_backups import gate, plausibility
from clinic_backups.clock import machine_now
from clinic_backups.connections import Connection
from clinic_backups.model import BackupRequest, Clinic, Gap, Table
from clinic_backups.parts import Parts
from clinic_backups.settings import Settings
from clinic_backups.store_init import StoreInit
from clinic_backups.table_locks import TableLocks, session_settings
from clinic_backups.tenant_db import Snapshot

WARM_UP = 3


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


def main() -> None:
    """Print the seconds and the CPU seconds of each round, with and without."""
    job = json.load(sys.stdin)
    connections = {name: Connection(**fields) for name, fields in job["connections"].items()}
    settings = Settings(
        store_url=job["store_url"], recipients=(job["recipient"],), server_side_encryption="none", time_zone="UTC"
    )
    parts = Parts(settings, connections.get)
    StoreInit(parts.catalog, machine_now, "bench").run(parts.bare_stores.primary, take_over=True)
    found: dict[str, list[float]] = {"with": [], "with_cpu": [], "without": [], "without_cpu": []}
    clinics = iter(range(1, 1_000_000))

    def back_up(name: str) -> None:
        # Each round is a clinic's first backup, as far as the catalog knows.
        request = BackupRequest(Clinic(next(clinics), "Banco"), kind="full", rows_compared=True)
        queries = parts_queries(job["clinic_id"])
        began, cpu = time.perf_counter(), time.process_time()
        parts.backup().run(request, queries=queries)
        if name:
            found[name].append(time.perf_counter() - began)
            found[f"{name}_cpu"].append(time.process_time() - cpu)

    for number in range(job["rounds"] + WARM_UP):
        back_up("with" if number >= WARM_UP else "")
        with unguarded():
            back_up("without" if number >= WARM_UP else "")
    print(json.dumps({"seconds": sum(found["with"]), "peak_rss_bytes": peak_rss_bytes(), **found}))


def parts_queries(clinic_id: int) -> dict[str, str]:
    """The extracts of one clinic."""
    from clinic_backups.extract import SqlExtract, SqlFolder
    from clinic_backups.settings import PROJECT_SQL

    return SqlExtract().rendered(SqlFolder(PROJECT_SQL), clinic_id)


if __name__ == "__main__":
    main()
