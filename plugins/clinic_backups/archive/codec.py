"""The compression of archives: its suffix, its writer and its reader, and nobody else knows which one it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import zstandard

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""What zstd's highest level needs; a frame that wants more memory is refused."""


class Packing(Protocol):
    """What makes one frame."""

    def compress(self, data: bytes, /) -> bytes:
        """What of the frame is ready by now."""

    def flush(self) -> bytes:
        """The end of the frame."""


class Unpacking(Protocol):
    """What reads one frame."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, /) -> bytes:
        """What of the content is ready by now. :raises Zstd.Damaged: this is no such frame."""


@dataclass(frozen=True)
class Zstd:
    """The compression stage as a DAG file names it. ``level`` 1 is the fastest and, on clinics' CSV, also the best."""

    level: int = 1

    NAME: ClassVar[str] = "zstd"
    SUFFIX: ClassVar[str] = ".zst"
    Damaged: ClassVar[type[Exception]] = zstandard.ZstdError

    def writer(self) -> Packing:
        """Makes a frame with a checksum and an end: zstandard's reader ends silently on a file that was cut short."""
        return zstandard.ZstdCompressor(level=self.level, write_checksum=True).compressobj()

    @staticmethod
    def reader() -> Unpacking:
        """Reads a frame. Not a stream_reader: that one does not tell a frame's end from a cut."""
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
