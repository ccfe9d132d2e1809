"""Compression with zstd (https://facebook.github.io/zstd)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import zstandard

if TYPE_CHECKING:
    from clinic_backups.archive.codec import Packing, Unpacking

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""The memory that zstd's highest level needs. A frame that needs more is refused."""


@dataclass(frozen=True)
class Zstd:
    """See :class:`~clinic_backups.archive.codec.Codec`. On clinics' CSV, level 1 is the fastest and also the best."""

    level: int = 1

    NAME: ClassVar[str] = "zstd"
    SUFFIX: ClassVar[str] = ".zst"
    COMMAND: ClassVar[str] = "zstd --decompress"
    Damaged: ClassVar[type[Exception]] = zstandard.ZstdError

    def writer(self) -> Packing:
        """Makes a frame with a checksum.

        Its end is checked too: zstandard's reader ends silently if a file was cut short.
        """
        return zstandard.ZstdCompressor(level=self.level, write_checksum=True).compressobj()

    def reader(self) -> Unpacking:
        """Reads a frame. A stream_reader is not used, because it cannot tell a frame's end from a cut."""
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
