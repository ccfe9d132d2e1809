"""How to open an archive without this package."""

from __future__ import annotations

from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION

TOOLS = {"encryption": ENCRYPTION.NAME, "codec": CODEC.NAME}
"""The programs that it needs besides tar."""


def unpacked(key_file: str, archive: str) -> str:
    """The shell command that writes an archive's tar file to standard output. :param archive: a file."""
    return f"{ENCRYPTION.COMMAND} {key_file} {archive} | {CODEC.COMMAND}"
