"""Backs up a share of clinics as a task does: ``python -m bench._far_store``, with the job on stdin."""

from __future__ import annotations

import json
import sys
import time

from bench import children
from bench.compared import compared_by_preflight
from clinic_backups.app import Parts
from clinic_backups.backup.clinics_at_once import Section, outcomes_of
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import machine_now
from clinic_backups.base.connections import Connection
from clinic_backups.base.one_at_a_time import Turns
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.base.settings import Settings
from clinic_backups.maintenance.store_init import StoreInit
from clinic_backups.tenant.extract import SqlExtract, SqlFolder


def main() -> None:
    """Two nights; prints the seconds of the second one."""
    job = json.load(sys.stdin)
    connections = {name: Connection(**fields) for name, fields in job["connections"].items()}
    settings = Settings(
        store_url=job["store_url"], recipients=(job["recipient"],), server_side_encryption="none",
        clinics_at_once=job["at_once"],
    )  # fmt: skip
    parts = Parts(settings, connections.get)
    parts.open_all()
    StoreInit(parts.catalog, machine_now, "bench").run(parts.bare_stores.primary, take_over=True)
    clinics = [Clinic(number, "Banco") for number in job["clinics"]]
    compared = compared_by_preflight(parts, *job["clinics"])
    folder, turns, seconds = SqlFolder(PROJECT_SQL), Turns(), 0.0

    def back_up(clinic: Clinic, section: Section) -> None:
        request = BackupRequest(clinic, compared=compared)
        parts.backup(turns=turns).run(request, queries=SqlExtract().rendered(folder, clinic.id))

    with parts.kept.keeping():
        for _ in range(2):
            began = time.perf_counter()
            for done in outcomes_of(clinics, back_up, at_once=job["at_once"], stop=lambda: None):
                if done.error is not None:
                    raise done.error
            seconds = time.perf_counter() - began
            time.sleep(1.1)  # a clinic has one backup in a second
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": children.peak_rss_bytes()}))


if __name__ == "__main__":
    main()
