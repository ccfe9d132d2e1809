"""The files of a folder store: how they are named, listed, opened, dated and forced to disk."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

from clinic_backups.stores._wire import MAX_METADATA_BYTES

# The prefix of the store's own files: unfinished objects, metadata and the lock. No part of a key starts with it.
OWN = ".~"
# The name of an unfinished file contains its object's name. Names of metadata files never end like this.
_UNFINISHED = re.compile(r"\.~(.+)\.[0-9a-f]{32}(\.meta)?\.part", re.DOTALL)


def object_of(unfinished: str) -> str | None:
    """The name of the object that an unfinished file was to become; ``None`` for any other file."""
    match = _UNFINISHED.fullmatch(unfinished)
    return match[1] if match else None


def metadata_file_of(path: Path) -> Path:
    """The hidden file with the metadata of an object."""
    return path.with_name(f"{OWN}{path.name}.meta")


def names_in(folder: Path) -> list[str]:
    """The names in a folder. Folders and links to folders end with a slash. Empty if it was removed meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name + "/" * entry.is_dir() for entry in entries]
    except FileNotFoundError:
        return []


def names_below(folder: Path, prefix: str) -> list[str]:
    """The names in a folder that a listing has to look at; see :func:`names_in`.

    :param prefix: what the keys start with, from this folder on. If it names a folder, the others are not read: there
        may be one for each of ten thousand clinics.
    """
    name, slash, _ = prefix.partition("/")
    if not slash:
        return names_in(folder)
    return [f"{name}/"] if name not in ("", ".", "..") and (folder / name).is_dir() else []


def opened(path: Path) -> io.FileIO:
    """A regular file, for reading. :raises FileNotFoundError: it is a folder, a link, a pipe or the like."""
    # Opened without waiting, because opening a pipe could block for ever.
    try:
        stream = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(errno.ENOENT, "a symbolic link is not an object") from None
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise FileNotFoundError(errno.ENOENT, "only a regular file is an object")


def metadata_in(path: Path) -> dict[str, str]:
    """The metadata in the hidden file; empty if it is not valid, because nothing is decided by metadata."""
    with opened(path) as stream:
        data = stream.read(MAX_METADATA_BYTES * 8)
    try:
        # Not strict_json: metadata may hold any text.
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    named = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if named else {}


def time_in(seconds: float) -> datetime:
    """A file's time. A time out of range becomes the latest possible one, so that the file does not count as old."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
