"""Opens archives with the programs age, zstd and tar, and checks each block's SHA-256."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.faults.clinics import Version, records

PROGRAMS = ("age", "zstd", "tar")


class NotReadable(Exception):
    """An archive cannot be opened, or does not hold what it lists."""


@dataclass(frozen=True)
class Archive:
    """Its manifest, and the blocks that lie in it by (table, SHA-256)."""

    manifest: Mapping[str, Any]
    blocks: Mapping[tuple[str, str], bytes]


def open_archive(data: bytes, identity: Path, folder: Path) -> Archive:
    """:raises NotReadable: a program refused it, or a block is another one than is listed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "sealed").write_bytes(data)
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; age -d -i "$0" sealed | zstd -dcq | tar -xf -', str(identity)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotReadable(f"age, zstd or tar failed: {done.stderr.strip()[-300:]}")
    manifest = json.loads((folder / "manifest.json").read_text())
    blocks: dict[tuple[str, str], bytes] = {}
    for index in sorted(folder.glob("tables/*/*.json")):
        csv, place = index.with_suffix(".csv").read_bytes(), 0
        for digest, _, size in json.loads(index.read_text())["blocks"]:
            block, place = csv[place : place + size], place + size
            if hashlib.sha256(block).hexdigest() != digest:
                raise NotReadable(f"a block of {index.parent.name} has another SHA-256")
            blocks[unquote(index.parent.name), digest] = block
        if place != len(csv):
            raise NotReadable(f"{index.parent.name} has bytes in no block")
    return Archive(manifest, blocks)


def content(archive: Archive, others: Mapping[str, Archive]) -> Version:
    """All rows of a backup, out of its archive and those of its chain. :raises NotReadable: a block is nowhere."""
    names, columns, rows = archive.manifest["archives"], {}, {}
    for table in archive.manifest["tables"]:
        name, lines = table["name"].removeprefix("public."), []
        for digest, count, _, place in table["blocks"]:
            holder = archive if place == 0 else others.get(names[place])
            block = holder.blocks.get((table["name"], digest)) if holder else None
            if block is None:
                raise NotReadable(f"a block of {name} is not in the archive of {names[place]}")
            found = list(records(block))
            if len(found) != count:
                raise NotReadable(f"a block of {name} has {len(found)} rows and lists {count}")
            lines += found
        columns[name] = tuple(column["name"] for column in table["columns"] if column["generated"] is None)
        if lines:
            rows[name] = tuple(sorted(lines))
    return Version(columns, rows)
