"""The measured process of one backup by this package: ``python -m bench._backup``, with the job as JSON on stdin."""

from __future__ import annotations

import json
import sys
import time

from bench.children import peak_rss_bytes
from bench.compared import compared_by_preflight
from clinic_backups.app import Parts
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import machine_now
from clinic_backups.base.connections import Connection
from clinic_backups.base.settings import Settings
from clinic_backups.maintenance.store_init import StoreInit


def main() -> None:
    """Back up one clinic once; the seconds are those of the backup, without what starts the process."""
    job = json.load(sys.stdin)
    connections = {name: Connection(**fields) for name, fields in job["connections"].items()}
    settings = Settings(
        store_url=job["store_url"],
        recipients=(job["recipient"],),
        server_side_encryption="none",
        time_zone="UTC",
        chain_length=200,
    )
    parts = Parts(settings, connections.get)
    StoreInit(parts.catalog, machine_now, "bench").run(parts.bare_stores.primary, take_over=True)
    backup = parts.backup()
    clinic = Clinic(**job["clinic"])
    # As in a nightly run, which compares the rows of all clinics once, before the first backup.
    request = BackupRequest(clinic, kind=job.get("kind", "full"), compared=compared_by_preflight(parts, clinic.id))
    began = time.perf_counter()
    record = backup.run(request)
    seconds = time.perf_counter() - began
    answer = {
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "rows": record.rows_total,
        "csv_bytes": record.raw_bytes,
        "stored_bytes": record.size_bytes,
        "backup_id": record.backup_id,
        "archive_key": record.archive_key,
        "kind": record.kind,
        "kind_reason": record.kind_reason,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
