"""The compression of archives: the interface of one, and the one in use."""

from __future__ import annotations

from typing import ClassVar, Protocol

from clinic_backups.archive.zstd import Zstd


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
        """The content that is ready. :raises Codec.Damaged: this is not such a frame."""


class Codec(Protocol):
    """A compression: its name and suffix, and the command that opens its frames without this package.

    ``COMMAND`` reads standard input and writes standard output.
    """

    NAME: ClassVar[str]
    SUFFIX: ClassVar[str]
    COMMAND: ClassVar[str]
    Damaged: ClassVar[type[Exception]]

    def writer(self) -> Packing:
        """Makes one frame. The frame must have a checksum: its reader must notice damage."""

    def reader(self) -> Unpacking:
        """Reads one frame, in little memory whatever the frame says. It must tell the frame's end from a cut."""


CODEC: Codec = Zstd(level=1)
"""The compression of new archives, and of those that can be read."""
