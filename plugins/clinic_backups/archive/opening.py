"""Opens the beginning of an archive, to know whether a key fits it, without reading all of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import DAMAGED_HINT, ENCRYPTION
from clinic_backups.base.errors import IntegrityError

BEGINNING_BYTES = 1024 * 1024
"""Enough for age's header, many recipients included, and for the first block of a zstd frame (128 KiB)."""
PIECE_BYTES = 256
"""A block of a zstd frame has four bytes or more and unpacks to 128 KiB at most: a piece unpacks to 8 MiB at most."""
_MAGIC_AT, _MAGIC = 257, b"ustar"
"""Of a tar archive: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html"""


def require_opens(stream: BinaryIO, identities: Sequence[Any]) -> None:
    """Decrypt and unpack the beginning of an archive. What age authenticated of it is right; the rest was not read.

    :param identities: from :func:`clinic_backups.archive.encryption.load_identities`.
    :raises WrongIdentity: none of the keys opens it.
    :raises IntegrityError: it is damaged, or not an archive of this package.
    """
    beginning, plain = _read(stream, BEGINNING_BYTES), io.BytesIO()
    try:
        ENCRYPTION.open(io.BytesIO(beginning), plain, identities)
    except IntegrityError:
        # The rest is missing on purpose. Each piece of 64 KiB before it was authenticated on its own.
        if len(beginning) < BEGINNING_BYTES or not plain.tell():
            raise
    first, reader, packed = b"", CODEC.reader(), plain.getvalue()
    try:
        # In small pieces and no further: a frame of 1 MiB may unpack to gigabytes.
        for place in range(0, len(packed), PIECE_BYTES):
            if len(first) > _MAGIC_AT + len(_MAGIC):
                break
            first += reader.decompress(packed[place : place + PIECE_BYTES])
    except CODEC.Damaged:
        first = b""
    if first[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise IntegrityError("The archive opens, and does not hold a backup of this package.", hint=DAMAGED_HINT)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return bytes(data)
