"""A backup and its chain as one file: a tar of the encrypted archives, with instructions."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from clinic_backups.archive import by_hand
from clinic_backups.base.backup_facts import ArchiveInfo
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import IntegrityError

BLOCK = tarfile.BLOCKSIZE
END = b"\0" * (2 * BLOCK)
LEEME = """\
Este archivo contiene el respaldo {backup_id} y todos los respaldos en los que se apoya.
Cada uno solo no se puede restaurar: hacen falta todos. Están cifrados; se abren con la clave secreta.
Ábralos en este orden, cada uno en la misma carpeta, con {encryption}, {codec} y tar:

{commands}

El último es el respaldo mismo: su manifest.json dice qué bloques de qué archivo forman cada tabla.
"""
README = """\
This file holds the backup {backup_id} and all backups that it is built on.
Each of them alone cannot be restored: all are needed. They are encrypted; the secret key opens them.
Open them in this order, each into the same folder, with {encryption}, {codec} and tar:

{commands}

The last one is the backup itself: its manifest.json says which blocks of which archive make up each table.
"""


@dataclass(frozen=True)
class Part:
    """One archive of the chain; ``backup_id`` is the backup whose archive it is."""

    backup_id: str
    archive: ArchiveInfo

    @property
    def filename(self) -> str:
        return self.archive.key.rpartition("/")[2]


def parts_of(record: BackupRecord) -> list[Part]:
    """All archives that a backup needs, in the order of opening: the full one first, its own last."""
    chain = sorted(record.chain, key=lambda each: each.backup_id)
    return [*(Part(each.backup_id, each) for each in chain), Part(record.backup_id, record.archive)]


def texts(backup_id: str, parts: Sequence[Part]) -> list[tuple[str, bytes]]:
    """The instructions in both languages."""
    commands = "\n".join(f"  {by_hand.unpacked('identity.txt', part.filename)} | tar --extract" for part in parts)
    named = (("LEEME.txt", LEEME), ("README.txt", README))
    return [
        (name, text.format(backup_id=backup_id, commands=commands, **by_hand.TOOLS).encode()) for name, text in named
    ]


def tar_size(backup_id: str, parts: Sequence[Part]) -> int:
    """The size of :func:`tar` in bytes."""
    sizes = [*(len(text) for _, text in texts(backup_id, parts)), *(part.archive.size_bytes for part in parts)]
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + len(END)


def tar(
    backup_id: str, parts: Sequence[Part], read: Callable[[Part], Iterator[bytes]], at: datetime
) -> Iterator[bytes]:
    """The file, piece by piece. Only one piece is in memory at a time.

    :raises IntegrityError: an archive does not have the recorded size. The download ends early then.
    """
    for name, text in texts(backup_id, parts):
        yield from _member(name, len(text), iter((text,)), at)
    for part in parts:
        yield from _member(part.filename, part.archive.size_bytes, read(part), at)
    yield END


def _member(name: str, size: int, pieces: Iterator[bytes], at: datetime) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(at.timestamp()), 0o600
    # USTAR if possible, because each header is then one block, as the announced size requires.
    yield info.tobuf(tarfile.GNU_FORMAT)
    done = 0
    for piece in pieces:
        done += len(piece)
        yield piece
    if done != size:
        raise IntegrityError(f"{name} has {done} bytes, not {size}.", hint="Verify the backup: clinic-backups verify.")
    yield b"\0" * (-size % BLOCK)
