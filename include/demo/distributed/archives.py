"""Reads archives with the secret key and without the package: age, zstd, tar."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pyrage
import zstandard

MANIFEST = "manifest.json"


def rows_in(archive: bytes, identity: str) -> int:
    """Open an archive to its end; returns the number of rows that its manifest counts, in its whole chain.

    :raises Exception: the key is another one, or the archive is not whole.
    """
    packed, manifest, last = io.BytesIO(), dict[str, Any](), ""
    pyrage.decrypt_io(io.BytesIO(archive), packed, [pyrage.x25519.Identity.from_str(identity)])
    packed.seek(0)
    with (
        zstandard.ZstdDecompressor().stream_reader(packed) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as tar,
    ):
        for member in tar:
            last = member.name
            if last == MANIFEST:
                content = tar.extractfile(member)
                manifest = json.load(content) if content else {}
    if last != MANIFEST:
        raise ValueError("The archive does not end with its manifest.")
    return sum(int(table["rows"]) for table in manifest["tables"])
