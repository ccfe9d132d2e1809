"""The measured process of a chain's block lists: ``python -m bench._blocks``, with the job as JSON on stdin.

What an incremental backup does with them: read them from the catalog, index them, and ask for each block.
"""

from __future__ import annotations

import json
import sys
import time

import zstandard

from bench.children import peak_rss_bytes
from clinic_backups.archive.blocks import DIGEST_BYTES
from clinic_backups.archive.known_blocks import KnownBlocks
from clinic_backups.base.connections import Connection
from clinic_backups.catalog.records import Catalog


def main() -> None:
    """The seconds are those of reading and indexing; ``ask_seconds`` of asking for as many blocks as there are."""
    job = json.load(sys.stdin)
    catalog = Catalog(Connection(**job["catalog"]))
    record = catalog.find(clinic_id=job["clinic_id"], state="completed", limit=1)[0]
    chain = [record.backup_id, *(archive.backup_id for archive in record.chain)]
    before, began = peak_rss_bytes(), time.perf_counter()
    known = KnownBlocks(chain)
    for backup_id in chain:
        known.add(piece for _, piece in catalog.blocks(backup_id))
    for name in record.rows:
        known.find(name, bytes(DIGEST_BYTES))  # the index of a table is made when it is first asked
    seconds = time.perf_counter() - began
    peak = peak_rss_bytes()
    lists = [b"".join(piece for _, piece in catalog.blocks(backup_id)) for backup_id in chain]
    bare = [piece.partition(b"\n")[2] for piece in lists]
    digests = [digest[at : at + DIGEST_BYTES] for digest in bare for at in range(0, len(digest), DIGEST_BYTES)]
    largest = max(record.rows, key=lambda name: record.rows[name])
    began = time.perf_counter()
    for digest in digests:
        known.find(largest, digest)
    ask_seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_rss_bytes": peak,
                "ask_seconds": ask_seconds,
                "blocks": len(known),
                "archives": len(chain),
                "list_bytes": sum(map(len, lists)),
                "zstd_bytes": sum(len(zstandard.compress(piece, 19)) for piece in lists),
                "grown_bytes": peak - before,
            }
        )
    )


if __name__ == "__main__":
    main()
