"""Reads the archives that a restore needs, each once, from the first store with a good replica, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from clinic_backups.archive.blocks import OWN_ARCHIVE, Block
from clinic_backups.archive.bounds import RATIO, Bound, believed, guess
from clinic_backups.archive.reader import Manifest, Segment, read_archive
from clinic_backups.base.backup_facts import ArchiveInfo, ChainArchive
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound
from clinic_backups.base.listening import NOBODY, Listener, nobody
from clinic_backups.restore.stores_read import StoresRead
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import require_intact
from clinic_backups.stores.configured import Stores

T = TypeVar("T")
OnBadReplica = Callable[["Source", str, ClinicBackupsError], object]

Choice = Callable[[str, Block], bool]
"""Whether a block of a table is wanted."""

KEPT_BYTES = 32 * 1024 * 1024
"""The most bytes of a backup's own rows that wait in memory for the manifest. With more, the archive is read again."""


def _unknown(backup_id: str) -> None:
    """The bound of a backup where no catalog knows it."""


@dataclass(frozen=True)
class Source:
    """The backup to restore.

    :param archive: its position and expected properties, from the catalog or its envelope.
    :param chain: the same for the backups that it is built on.
    :param bound: how much the backup holds, as far as that is known.
    :param is_undo: it is a safety backup: it belongs to the database from which it was read.
    """

    backup_id: str
    clinic_id: ClinicId
    archive: ArchiveInfo
    chain: tuple[ChainArchive, ...] = ()
    bound: Bound | None = None
    is_undo: bool = False

    @classmethod
    def of(cls, envelope: Envelope, unpack_ratio: int) -> Source:
        """The backup that an envelope describes, for a restore without a catalog."""
        bound = believed(envelope, unpack_ratio)
        is_undo = envelope.safety_of is not None
        return cls(envelope.backup_id, envelope.clinic_id, envelope.archive, envelope.chain, bound, is_undo)


@dataclass(frozen=True)
class Fetched:
    """A backup whose own archive was read to its end and was right.

    :param archives: this archive and those that it is built on, by the index that the manifest's blocks have of them.
    :param store: the store whose replica of its own archive was right.
    :param segments: the rows of its own archive, if they were few enough to keep.
    """

    manifest: Manifest
    archives: Mapping[int, Source]
    store: ObjectStore
    segments: tuple[Segment, ...] | None


class Wanted(Protocol):
    """Takes blocks from archives."""

    def begin(self, archive: int) -> bool:
        """Announce the archive of the next segments; returns whether it should hold blocks that are still missing.

        It may be called again for the same archive in another store. Blocks that were taken until then stay taken.
        """

    def take(self, segment: Segment) -> bool:
        """Take the missing blocks of a segment whose digests were checked. Returns whether some are still missing."""


class Archives:
    """Reads backups from the stores.

    If a store has no replica of an archive, or a damaged one, or does not answer, the next store is tried.

    :param identities: secret keys, one of which opens the archives.
    :param listener: told which step begins, and how much of an archive was read.
    :param bound_of: returns by their ids how much the backups of the chain hold; none if that is not known.
    :param unpack_ratio: an archive may unpack to this many times its size if nothing is known of its backup.
    :param on_bad_replica: called with the source, a store's URL and its error before the next store is tried.
    :param notes: keeps which store was read.
    """

    def __init__(
        self,
        stores: Stores,
        identities: Sequence[Any],
        *,
        listener: Listener = NOBODY,
        on_bad_replica: OnBadReplica = nobody,
        notes: StoresRead | None = None,
        bound_of: Callable[[str], Bound | None] = _unknown,
        unpack_ratio: int = RATIO,
    ) -> None:
        self._bound_of, self._unpack_ratio = bound_of, unpack_ratio
        self._stores, self.identities = stores, identities
        self.listener, self._on_bad_replica = listener, on_bad_replica
        self._notes = notes if notes is not None else StoresRead()

    def fetch(self, source: Source, *, keep: bool = True, only: Choice | None = None) -> Fetched:
        """Read the backup's own archive to its end, before anything else, because the manifest is its last member.

        :param keep: keep its rows if they are few, so that :meth:`read` need not read the archive again.
        :param only: keep only the blocks of which this is true. Then :meth:`read` may be asked for these alone.
        :raises ClinicBackupsError: no store has a good replica; the first store's error.
        """
        store, (manifest, segments) = self._first_good(
            source, "checking", lambda store: self._fetch(source, store, keep=keep, only=only)
        )
        known = {archive.backup_id: archive for archive in source.chain}
        archives = {OWN_ARCHIVE: self._bounded(source)}
        for number in manifest.needed():
            backup_id = manifest.archives[number]
            if backup_id not in known:
                raise IntegrityError(
                    f"Backup {source.backup_id} needs {backup_id}, but neither the catalog nor the envelope says"
                    " where that is.",
                    hint="Somebody has changed the store or the catalog. Choose another backup.",
                )
            archives[number] = self._bounded(Source(backup_id, source.clinic_id, known[backup_id]))
        return Fetched(manifest, archives, store, segments)

    def read(self, backup: Fetched, wanted: Wanted) -> None:
        """Give ``wanted`` its missing blocks. Each archive that should hold some is read once, until all have come.

        Each block's digest is compared while it is read, and the digests come from the manifest that :meth:`fetch` has
        checked. So the blocks that came out of a replica before it turned out to be damaged are right. The next store's
        replica only has to give the rest.

        :raises ClinicBackupsError: no store has a good replica of one archive; or what ``wanted`` raises.
        """
        taker = _Taker(wanted)
        try:
            for number, source in backup.archives.items():
                if not taker.begin(number):
                    continue
                if number != OWN_ARCHIVE:
                    self._read_parent(number, source, taker)
                elif backup.segments is None:
                    self.listener.step(f"reading {source.backup_id}")
                    self._read_needed(backup.store, source, taker)
                else:
                    with suppress(_Enough):
                        for segment in backup.segments:
                            taker.take(segment)
        except _TakerFailed as failed:
            raise failed.error from None

    def checked_stores(self, backup: Fetched) -> dict[int, ObjectStore]:
        """For each archive, the first store with a good replica; for callers that cannot continue with another replica.

        :raises ClinicBackupsError: no store has a good replica of one; the first store's error.
        """
        parents = {number: source for number, source in backup.archives.items() if number != OWN_ARCHIVE}
        return {OWN_ARCHIVE: backup.store} | {number: self._checked(source) for number, source in parents.items()}

    def require_stored(self, source: Source) -> None:
        """Compare all archives of a backup with what its envelope says, without opening them.

        :raises ClinicBackupsError: no store has a good replica of one; the first store's error.
        """
        for archive in (source, *(Source(each.backup_id, source.clinic_id, each) for each in source.chain)):
            self._checked(archive)

    def read_in(self, store: ObjectStore, source: Source, on_segment: Callable[[Segment], object] = nobody) -> Manifest:
        """Read the archive of one store to its end. What ``on_segment`` raises comes out.

        :raises ClinicBackupsError: it is not the one that is wanted.
        """
        with store.open(source.archive.key) as stream:
            counted = cast(BinaryIO, _Counted(stream, source.archive.size_bytes, self.listener))
            manifest = read_archive(
                counted, self.identities, expected=source.archive, bound=self._bounded(source).bound,
                on_segment=on_segment,
            )  # fmt: skip
        if manifest.clinic.id != source.clinic_id or manifest.backup_id != source.backup_id:
            raise IntegrityError(
                f"{source.archive.key} holds backup {manifest.backup_id} of clinic {manifest.clinic.id}, not"
                f" backup {source.backup_id} of clinic {source.clinic_id}.",
                hint="Somebody may have exchanged archives in the store. Nothing was changed.",
            )
        return manifest

    def _bounded(self, source: Source) -> Source:
        """The same source with its bound."""
        if source.bound is not None:
            return source
        bound = self._bound_of(source.backup_id) or guess(source.archive.size_bytes, self._unpack_ratio)
        return replace(source, bound=bound)

    def _fetch(
        self, source: Source, store: ObjectStore, *, keep: bool, only: Choice | None
    ) -> tuple[Manifest, tuple[Segment, ...] | None]:
        kept = _Kept(KEPT_BYTES if keep else 0, only)
        return self.read_in(store, source, kept.take), kept.segments

    def _read_parent(self, number: int, source: Source, taker: _Taker) -> None:
        def read(store: ObjectStore) -> None:
            if taker.begin(number):
                self._read_needed(store, source, taker)

        self._first_good(source, "reading", read)

    def _read_needed(self, store: ObjectStore, source: Source, taker: _Taker) -> None:
        """Read an archive until the last missing block has come."""
        with suppress(_Enough):
            self.read_in(store, source, taker.take)
        self.listener.read(source.archive.size_bytes, source.archive.size_bytes)

    def _checked(self, source: Source) -> ObjectStore:
        def check(store: ObjectStore) -> None:
            require_intact(source.archive, store, lambda done: self.listener.read(done, source.archive.size_bytes))

        store, _ = self._first_good(source, "checking", check)
        return store

    def _first_good(self, source: Source, doing: str, check: Callable[[ObjectStore], T]) -> tuple[ObjectStore, T]:
        what = f"{doing} the archive of {source.backup_id}"
        self.listener.step(what)

        failures: list[ClinicBackupsError] = []

        def pass_over(url: str, error: ClinicBackupsError) -> None:
            failures.append(error)
            self._notes.bad(source.backup_id, url, error)
            self._on_bad_replica(source, url, error)
            if url != self._stores.urls[-1]:
                self.listener.step(f"{what} in {self._stores.urls[self._stores.urls.index(url) + 1]}")

        try:
            found = self._stores.first(check, pass_over)
            self._notes.good(source.backup_id, found[0].url)
            return found
        except ObjectNotFound as error:
            if not all(isinstance(failure, ObjectNotFound) for failure in failures):
                raise
            raise ObjectNotFound(
                f"Backup {source.backup_id} was not found: {source.archive.key} is in no store that was asked"
                f" ({', '.join(self._stores.urls)}).",
                hint="Is CLINIC_BACKUPS_STORE_URL the store that the backup was written to? If it is, `clinic-backups"
                f" catalog verify` says what is missing. {error.hint}",
            ) from None


class _TakerFailed(Exception):
    """The receiver of the blocks failed, not the store, so another store would not help."""

    def __init__(self, error: ClinicBackupsError) -> None:
        super().__init__(error)
        self.error = error


class _Enough(Exception):
    """Nothing more is missing from the archive that is read."""


class _Taker:
    """The receiver of the blocks. Its errors are told apart from a store's."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def begin(self, archive: int) -> bool:
        try:
            return self._wanted.begin(archive)
        except ClinicBackupsError as error:
            raise _TakerFailed(error) from error

    def take(self, segment: Segment) -> None:
        """:raises _Enough: nothing more is missing from this archive."""
        try:
            goes_on = self._wanted.take(segment)
        except ClinicBackupsError as error:
            raise _TakerFailed(error) from error
        if not goes_on:
            raise _Enough


class _Kept:
    """Segments, kept as long as they are few."""

    def __init__(self, room: int, only: Choice | None) -> None:
        self._room, self._only = room, only
        self._segments: list[Segment] = []

    def take(self, segment: Segment) -> None:
        if self._only is not None:
            segment = _chosen(segment, self._only)
        self._room -= len(segment.data)
        if self._room >= 0:
            self._segments.append(segment)
        else:
            self._segments.clear()

    @property
    def segments(self) -> tuple[Segment, ...] | None:
        """All of them; none if they were too many."""
        return tuple(self._segments) if self._room >= 0 else None


def _chosen(segment: Segment, choice: Choice) -> Segment:
    """A segment with the chosen blocks alone."""
    at, blocks, parts = 0, list[Block](), list[bytes]()
    for block in segment.blocks:
        if choice(segment.table, block):
            blocks.append(block)
            parts.append(segment.data[at : at + block.size_bytes])
        at += block.size_bytes
    return Segment(segment.table, tuple(blocks), b"".join(parts))


class _Counted:
    """A stream that reports how much of it was read."""

    def __init__(self, stream: BinaryIO, total: int, listener: Listener) -> None:
        self._stream, self._total, self._listener, self._done = stream, total, listener, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        self._listener.read(self._done, self._total)
        return data
