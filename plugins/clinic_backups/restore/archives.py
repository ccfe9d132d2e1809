"""The archives that a restore needs: found in the first store that has each right, checked, and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from clinic_backups.archive_reader import Manifest, Segment, read_archive
from clinic_backups.errors import ClinicBackupsError, IntegrityError
from clinic_backups.model import ArchiveInfo, ChainArchive
from clinic_backups.storage import Stores
from clinic_backups.stored import require_intact
from clinic_backups.stores.base import ObjectStore

T = TypeVar("T")
OnStep = Callable[[str], object]
OnRead = Callable[[int, int], object]
OnBadCopy = Callable[["Source", str, ClinicBackupsError], object]


@dataclass(frozen=True)
class Source:
    """The backup to restore.

    :param archive: where it lies and what it must be, from the catalog or its envelope.
    :param chain: the same of what it is built on.
    """

    backup_id: str
    clinic_id: int
    archive: ArchiveInfo
    chain: tuple[ChainArchive, ...] = ()


class Archives:
    """Reads backups from the stores.

    Where a store has no copy of an archive, or a damaged one, or does not answer, the next one is tried.

    :param identities: secret keys, of which one opens the archives.
    :param on_step: told what is being done.
    :param on_read: told how many bytes of how many of an archive are read, from another thread.
    :param on_bad_copy: told of the source, a store's URL and its error before the next store is tried.
    """

    def __init__(
        self,
        stores: Stores,
        identities: Sequence[Any],
        *,
        on_step: OnStep = lambda step: None,
        on_read: OnRead = lambda done, total: None,
        on_bad_copy: OnBadCopy = lambda source, url, error: None,
    ) -> None:
        self._stores, self.identities = stores, identities
        self._on_step, self._on_read, self._on_bad_copy = on_step, on_read, on_bad_copy
        self._good: dict[str, ObjectStore] = {}
        """The store of each archive that was read from end to end."""
        self._needed: dict[str, list[Source]] = {}
        """What each of them is built on."""

    def checked_manifest(self, source: Source) -> Manifest:
        """Read the whole archive once, before anything else: what is damaged must not get as far as a database.

        Of each archive that it is built on the checksum is compared. Finds the first store whose copy is good.

        :raises ClinicBackupsError: none is; the first store's error.
        """
        manifest = self._first_good(source, self.check_in)
        known = {archive.backup_id: archive for archive in source.chain}
        needed: list[Source] = []
        for backup_id in manifest.needed():
            if backup_id not in known:
                raise IntegrityError(
                    f"Backup {source.backup_id} needs {backup_id}, of which neither catalog nor envelope know where"
                    " it lies.",
                    hint="Somebody changed the store or the catalog. Choose another backup.",
                )
            needed.append(Source(backup_id, source.clinic_id, known[backup_id]))
        for parent in needed:
            self._first_good(parent, self._checked_sum)
        self._needed[source.archive.key] = needed
        return manifest

    def store_of(self, source: Source) -> ObjectStore:
        """The store whose copy of a checked archive is good."""
        return self._good[source.archive.key]

    def _first_good(self, source: Source, check: Callable[[Source, ObjectStore], T]) -> T:
        what = f"the archive of {source.backup_id}"
        self._on_step(f"checking {what}")

        def pass_over(url: str, error: ClinicBackupsError) -> None:
            self._on_bad_copy(source, url, error)
            if url != self._stores.urls[-1]:
                self._on_step(f"checking {what} in {self._stores.urls[self._stores.urls.index(url) + 1]}")

        store, found = self._stores.first(lambda store: check(source, store), pass_over)
        self._good[source.archive.key] = store
        return found

    def _checked_sum(self, source: Source, store: ObjectStore) -> None:
        total = source.archive.size_bytes
        require_intact(source.archive, store, lambda done: self._on_read(done, total))

    def check_in(self, source: Source, store: ObjectStore) -> Manifest:
        """Read an archive of one store to its end. :raises ClinicBackupsError: it is not the one that is wanted."""
        manifest = self._read(store, source, lambda segment: None)
        self._require_same(manifest, source)
        return manifest

    def _require_same(self, manifest: Manifest, source: Source) -> None:
        if manifest.clinic.id != source.clinic_id or manifest.backup_id != source.backup_id:
            raise IntegrityError(
                f"{source.archive.key} holds backup {manifest.backup_id} of clinic {manifest.clinic.id}; wanted is"
                f" {source.backup_id} of clinic {source.clinic_id}.",
                hint="Somebody exchanged archives in the store. Nothing was changed.",
            )

    def read(self, source: Source, on_segment: Callable[[Segment], object]) -> Manifest:
        """Read the checked archive once more, and then each that it is built on, once.

        Segments come in the archives' order; of older archives also such as the backup does not have any more.
        """
        manifest = self._read(self._good[source.archive.key], source, on_segment)
        for parent in self._needed[source.archive.key]:
            self._on_step(f"reading {parent.backup_id}, which it is built on")
            self._require_same(self._read(self._good[parent.archive.key], parent, on_segment), parent)
        return manifest

    def _read(self, store: ObjectStore, source: Source, on_segment: Callable[[Segment], object]) -> Manifest:
        with store.open(source.archive.key) as stream:
            counted = cast(BinaryIO, _Counted(stream, source.archive.size_bytes, self._on_read))
            return read_archive(counted, self.identities, expected=source.archive, on_segment=on_segment)


class _Counted:
    """A stream that tells how much of it has been read."""

    def __init__(self, stream: BinaryIO, total: int, on_read: OnRead) -> None:
        self._stream, self._total, self._on_read, self._done = stream, total, on_read, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        self._on_read(self._done, self._total)
        return data
