"""A local folder, for the demo, for tests and for a mounted disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import (
    IntegrityError,
    ObjectExists,
    PermanentError,
    PlaceMissing,
    SettingsError,
)
from clinic_backups.base.listening import nobody
from clinic_backups.stores import base
from clinic_backups.stores._file_errors import explained
from clinic_backups.stores._files import (
    OWN,
    metadata_file_of,
    metadata_in,
    names_below,
    object_of,
    opened,
    sync_folder,
    time_in,
)
from clinic_backups.stores._hashing import HashingReader
from clinic_backups.stores._wire import check_key, check_list_prefix, encode_metadata
from clinic_backups.stores.base import ByteSource, ObjectInfo, StoredObject, UnfinishedUpload
from clinic_backups.stores.kinds import StoreConfig, StoreUrl

PART_SIZE_BYTES = 1024 * 1024
HOOK = None


class _Translated(io.RawIOBase):
    """A file whose read errors, such as a bad sector or a lost network disk, become the store's errors."""

    def __init__(self, file: Any, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._file, self._translate = file, translated

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._translate():
            return int(self._file.readinto(buffer))


class FileStore(base.ObjectStore):
    """Objects as files of mode 0600 below one folder, which may be copied or synchronized.

    An object is written and forced to disk under a temporary name, read back from the disk, and linked to its name.
    Metadata is beside it in a hidden file. Files that a killed process left are hidden too (``.~*.part``). Only
    :meth:`make_place` creates the folder itself, because files in an empty mount point vanish with the next mount.
    """

    trusted_seconds = 0
    has_clock = False
    signs_links = False

    def __init__(self, root: Path | str, *, part_size_bytes: int = PART_SIZE_BYTES) -> None:
        self.root = Path(root).absolute()
        self.url = self.root.as_uri()
        self._part_size_bytes = part_size_bytes

    def make_place(self) -> None:
        new = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        with self._translated("", HashingReader(io.BytesIO())):
            for folder in reversed(new):
                with suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                    sync_folder(folder.parent)

    def put(
        self,
        key: str,
        source: ByteSource,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        locked_until: datetime | None = None,
        trust_answer: bool = False,
    ) -> StoredObject:
        """See :class:`ObjectStore`. ``content_type`` is not kept, because file systems have no place for it."""
        path = self._path(key)
        if locked_until is not None:
            raise PermanentError(f"{self.url}/{key} cannot be locked.", hint=self.lock_problem())
        encode_metadata(metadata)
        reader = HashingReader(source)
        with self._translated(key, reader):
            self._require_root()
            self._require_no_links(key)
            if path.exists():
                raise self._exists(key)
            self._make_folder(path.parent)
            unfinished = path.parent / f"{OWN}{path.name}.{uuid4().hex}"
            part, beside = (unfinished.with_name(unfinished.name + ending) for ending in (".part", ".meta.part"))
            try:
                self._write(part, reader)
                self._verify(part, reader, key)
                self._show(part, beside, path, key, metadata)
            finally:
                for file in (part, beside):
                    with suppress(OSError):
                        file.unlink()
        return reader.stored_as(key)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._translated(key):
            self._require_no_links(key)
            stream = opened(path)
        with (
            stream,
            io.BufferedReader(_Translated(stream, partial(self._translated, key)), PART_SIZE_BYTES) as readable,
        ):
            yield readable

    def stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._translated(key):
            self._require_no_links(key)
            info = self._info(path, key)
            with suppress(FileNotFoundError):
                info = replace(info, metadata=metadata_in(metadata_file_of(path)))
            return info

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._translated(check_list_prefix(prefix)):
            self._require_root()
            yield from self._walk(self.root, "", prefix)
            self._require_root()

    def all_keys(self, prefix: str = "") -> Iterator[str]:
        """:raises PermanentError: a folder is a symbolic link. Objects may be left behind it."""
        with self._translated(check_list_prefix(prefix)):
            self._require_root()
            for info in self._walk(self.root, "", prefix, on_link=self._require_no_folder):
                yield info.key
            self._require_root()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated(key):
            self._require_root()
            self._require_no_links(key)
            if not path.parent.is_dir():
                return
            with self._lock():
                for file in (path, metadata_file_of(path)):
                    # A folder under an object's key is not an object.
                    with suppress(FileNotFoundError, IsADirectoryError):
                        file.unlink()
                sync_folder(path.parent)

    def purge(self, key: str) -> None:
        self.delete(key)

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Hidden files of killed writers, each with its intended key. Their time is that of the last write."""
        with self._translated(check_list_prefix(prefix)):
            self._require_root()
            for path in self._hidden(self.root, "", prefix):
                name = object_of(path.name)
                key = path.with_name(name).relative_to(self.root).as_posix() if name else ""
                if name and key.startswith(prefix):
                    with suppress(FileNotFoundError):
                        yield UnfinishedUpload(key, time_in(path.lstat().st_mtime), path.name)
            self._require_root()

    def abort(self, upload: UnfinishedUpload) -> None:
        path = self._path(upload.key)
        if "/" in upload.token or object_of(upload.token) != path.name:
            return
        with self._translated(upload.key), suppress(FileNotFoundError, NotADirectoryError):
            self._require_no_links(upload.key)
            path.with_name(upload.token).unlink()
            sync_folder(path.parent)

    def lock_problem(self) -> str:
        return "A local folder cannot lock objects: use a bucket that can, or turn locks off."

    def presign(self, key: str, *, expires_in: timedelta, filename: str) -> str:
        """:raises PermanentError: always, because a ``file://`` link never expires and works only on this machine."""
        self._path(key)
        raise PermanentError(
            f"A local folder has no download links; {key!r} needs one.",
            hint=f"Copy it from {self.url}, or download it through the web page.",
        )

    def _path(self, key: str) -> Path:
        check_key(key)
        if any(part.startswith(OWN) for part in key.split("/")):
            raise PermanentError(
                f"Not a usable key: {key!r}.", hint=f"Names that start with {OWN} are the store's own."
            )
        return self.root / key

    def _require_root(self) -> None:
        """:raises PlaceMissing: nothing is mounted there, or the folder was removed."""
        if not self.root.is_dir():
            raise self._no_root()

    def _require_no_links(self, key: str) -> None:
        """:raises PermanentError: one of the parent folders is a link, and may lead out of the store."""
        end = key.find("/")
        while end >= 0:
            folder = f"{self.root}/{key[:end]}"
            try:
                mode = os.lstat(folder).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return  # and nothing is below it
            if stat.S_ISLNK(mode):
                raise self._link(Path(folder))
            end = key.find("/", end + 1)

    def _require_no_folder(self, link: Path) -> None:
        if link.is_dir():
            raise self._link(link)

    def _link(self, path: Path) -> PermanentError:
        return PermanentError(
            f"{path.as_uri()} is a symbolic link, which a folder store does not follow.",
            hint="Replace the link by the folder itself, or mount its disk there, or remove the link.",
        )

    def _no_root(self) -> PlaceMissing:
        return PlaceMissing(
            f"The folder of {self.url} is not there.",
            hint="Mount its disk, or correct the URL. A new store's folder is made by `clinic-backups store init`.",
        )

    def _make_folder(self, folder: Path) -> None:
        """Create a folder below the root. The root itself is never created here."""
        if folder == self.root or folder.is_dir():
            return
        self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)

    def _write(self, part: Path, reader: HashingReader) -> None:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            while piece := reader.read_part(self._part_size_bytes):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _verify(self, part: Path, reader: HashingReader, key: str) -> None:
        with part.open("rb") as file:
            # Read from the disk, not from the page cache.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if file.tell() != reader.size_bytes or digest != reader.sha256:
                raise IntegrityError(
                    f"{self.url}/{key} was written to the disk and read back differently. It was removed.",
                    hint="Check the disk, then run the backup again.",
                )

    def _show(self, part: Path, beside: Path, path: Path, key: str, metadata: Mapping[str, str] | None) -> None:
        """Make the object visible. Its metadata come first, so that nobody sees an object without them."""
        with self._lock():
            if path.exists():
                raise self._exists(key)
            if metadata:
                with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                    json.dump(dict(metadata), file)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(metadata_file_of(path))
            else:
                with suppress(FileNotFoundError):
                    metadata_file_of(path).unlink()
            try:
                path.hardlink_to(part)
            except FileExistsError:
                raise self._exists(key) from None
            sync_folder(path.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Allow one writer at a time between the check for an object and its link.

        Content is written outside the lock.
        """
        with os.fdopen(os.open(self.root / f"{OWN}lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _walk(
        self, folder: Path, above: str, prefix: str, *, on_link: Callable[[Path], object] = nobody
    ) -> Iterator[ObjectInfo]:
        """In key order: a folder sorts as its name with a slash, between ``a.b`` and ``a0``. Links are not objects."""
        for name in sorted(names_below(folder, prefix[len(above) :])):
            key, path = above + name, folder / name
            if name.startswith(OWN) or not (key.startswith(prefix) or (name[-1] == "/" and prefix.startswith(key))):
                continue
            if path.is_symlink():
                on_link(path)
            elif name[-1] == "/":
                yield from self._walk(path, key, prefix, on_link=on_link)
            else:
                with suppress(FileNotFoundError):
                    yield self._info(path, key)

    def _hidden(self, folder: Path, above: str, prefix: str) -> Iterator[Path]:
        """The store's own files beside objects, in the order of their paths."""
        for name in sorted(names_below(folder, prefix[len(above) :])):
            key, path = above + name, folder / name
            if path.is_symlink():
                continue
            if name[-1] == "/":
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._hidden(path, key, prefix)
            elif name.startswith(OWN):
                yield path

    def _info(self, path: Path, key: str) -> ObjectInfo:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "only a regular file is an object")
        return ObjectInfo(key, found.st_size, time_in(found.st_mtime))

    @contextmanager
    def _translated(self, key: str, reader: HashingReader | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if reader is not None and error is reader.error:
                raise
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR) and not self.root.is_dir()
            where, reading = f"{self.url}/{key}", reader is None
            raise (self._no_root() if missing else explained(error, where, reading=reading)) from None

    def _exists(self, key: str) -> ObjectExists:
        return ObjectExists(
            f"{self.url}/{key} exists already.", hint="Objects are written once: use a new key, or delete it first."
        )


def make_client(connection: Connection) -> None:
    """A folder needs no client."""


def make_store(client: None, place: StoreUrl, config: StoreConfig) -> FileStore:
    """The store in a folder. :raises SettingsError: it does not support the encryption."""
    if config.encryption[0] == "kms":
        raise SettingsError(
            "A local folder cannot encrypt with a KMS key.",
            hint="Set CLINIC_BACKUPS_SERVER_SIDE_ENCRYPTION=none; archives are encrypted before they are stored.",
        )
    return FileStore(Path(place.prefix))
