"""The compression of archives: its name, suffix, writer and reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import zstandard

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""The memory that zstd's highest level needs. A frame that needs more is refused."""


class Packing(Protocol):
    """Writes one frame."""

    def compress(self, data: bytes, /) -> bytes:
        """The bytes of the frame that are ready."""

    def flush(self) -> bytes:
        """The end of the frame."""


class Unpacking(Protocol):
    """Reads one frame."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after its end."""

    def decompress(self, data: bytes, /) -> bytes:
        """The content that is ready. :raises Zstd.Damaged: this is not a zstd frame."""


@dataclass(frozen=True)
class Zstd:
    """The compression stage as a DAG file names it. ``level`` 1 is the fastest and, on clinics' CSV, also the best."""

    level: int = 1

    NAME: ClassVar[str] = "zstd"
    SUFFIX: ClassVar[str] = ".zst"
    Damaged: ClassVar[type[Exception]] = zstandard.ZstdError

    def writer(self) -> Packing:
        """Makes a frame with a checksum.

        Its end is checked too: zstandard's reader ends silently if a file was cut short.
        """
        return zstandard.ZstdCompressor(level=self.level, write_checksum=True).compressobj()

    @staticmethod
    def reader() -> Unpacking:
        """Reads a frame. A stream_reader is not used, because it cannot tell a frame's end from a cut."""
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
