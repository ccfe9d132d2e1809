"""The measured process of one restore by this package: ``python -m bench._restore``, with the job as JSON on stdin."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pyrage

from bench.children import peak_rss_bytes
from clinic_backups.base.backup_facts import ChainArchive
from clinic_backups.base.connections import Connection
from clinic_backups.base.settings import Settings
from clinic_backups.restore.archives import Archives, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store


def main() -> None:
    """Do what the job asks for once; the seconds are those of the restore, without what starts the process."""
    job = json.load(sys.stdin)
    settings = Settings(store_url=job["store_url"], server_side_encryption="none", time_zone="UTC")
    restore = ClinicRestore(
        settings=settings,
        restore_db=Connection(**job["restore_db"]),
        archives=Archives(
            Stores.of(open_store(job["store_url"], None)), [pyrage.x25519.Identity.from_str(job["identity"])]
        ),
    )
    chain = tuple(ChainArchive(**archive) for archive in job["chain"])
    source = Source(job["backup_id"], job["clinic_id"], ChainArchive(**job["archive"]), chain)
    actions: dict[str, Callable[[], dict[str, Any]]] = {
        "into": lambda: {"rows": IntoRestore(restore).run(source, job["schema"]).rows},
        "plan": lambda: _told(restore.plan(source, Wish())),
        "apply": lambda: _told(restore.apply(source, Wish(), approved=job["approved"])),
    }
    began = time.perf_counter()
    answer = actions[job["action"]]()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()} | answer))


def _told(plan: Any) -> dict[str, Any]:
    return {"digest": plan.digest, "writes": plan.writes}


if __name__ == "__main__":
    main()
