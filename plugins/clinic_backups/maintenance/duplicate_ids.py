"""Finds the right one of several archives that claim the id of one backup, if that is possible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.archive.object_keys import prefix_of
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore

Opens = Callable[[ObjectStore, Envelope], object]
"""Reads an archive with the key. Raises an error if the archive is not the envelope's backup."""


@dataclass(frozen=True)
class Claim:
    """One archive whose envelope names that backup, and its store."""

    store: ObjectStore
    envelope: Envelope

    @property
    def key(self) -> str:
        """The archive's."""
        return self.envelope.archive.key


class DuplicateIds:
    """Tells archives with one id apart. Anybody who may write into a store can add an archive with a real backup's id.

    :param others: further stores, which may hold the real one.
    :param opens: reads an archive with the key; none without the key.
    """

    def __init__(self, now: datetime, others: Sequence[ObjectStore] = (), opens: Opens | None = None) -> None:
        self._now, self._others, self._opens = now, others, opens

    def elsewhere(self, clinic_id: ClinicId, here: Mapping[str, Mapping[str, ObjectInfo]]) -> Iterator[Claim]:
        """A clinic's archives in the other stores that this store lacks or has with another size.

        A store that does not answer is left out, because it may be the lost one.
        """
        for store in self._others:
            try:
                there = stored.by_archive(store.list(prefix_of(clinic_id)))
                for key, objects in there.items():
                    if stored.is_whole(objects) and not _is_replica(objects, here.get(key, {})):
                        yield from self._claim(key, store)
            except ClinicBackupsError:
                continue

    def chosen(self, claims: Sequence[Claim]) -> Claim | None:
        """The only archive that is right. All are read, with the key if there is one.

        None if that cannot be told.
        """
        try:
            right = [claim for claim in claims if self._is_right(claim)]
        except ClinicBackupsError:
            return None  # a store did not answer, or another key is needed
        return right[0] if len(right) == 1 else None

    def _claim(self, key: str, store: ObjectStore) -> Iterator[Claim]:
        try:
            yield Claim(store, envelopes.load(key, store, now=self._now))
        except (IntegrityError, ObjectNotFound):
            return  # not a backup

    def _is_right(self, claim: Claim) -> bool:
        """:raises ClinicBackupsError: it could not be read, or another key is needed."""
        try:
            with claim.store.open(claim.key) as stream:
                if stream.read(len(ENCRYPTION.HEADER)) != ENCRYPTION.HEADER:
                    return False
            if self._opens is None:
                return stored.read_through(claim.envelope.archive, claim.store) == "intact"
            self._opens(claim.store, claim.envelope)
        except (IntegrityError, ObjectNotFound):
            return False
        return True


def refusals(backup_id: str, claims: Sequence[Claim], chosen: Claim | None) -> Iterator[tuple[Claim, str]]:
    """The archives that are refused for the id that they claim, with the reasons."""
    for claim in claims:
        if claim is chosen:
            continue
        others = _named([other for other in claims if other is not claim])
        if chosen is None:
            then = (
                "Nobody can tell which is right, so neither was taken over: look at each with `clinic-backups restore"
                f" --clinic {in_shell(claim.envelope.clinic_id)} --archive KEY --plan`, which needs the secret key;"
                " move the"
                " objects of the wrong one away by hand, and run this again"
            )
        else:
            then = (
                f"{_named([chosen])} was read and is right, and this one is not: check who may write there, and move"
                " this one away by hand"
            )
        yield claim, f"it claims the id {backup_id}, and so does {others}. {then}"


def _named(claims: Collection[Claim]) -> str:
    return ", ".join(f"{claim.store.url}/{claim.key}" for claim in claims)


def _is_replica(objects: Mapping[str, ObjectInfo], here: Mapping[str, ObjectInfo]) -> bool:
    """Whether both are replicas of one archive, as far as a listing shows."""
    return stored.is_whole(here) and here["archive"].size_bytes == objects["archive"].size_bytes
