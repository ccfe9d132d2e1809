"""Several archives that claim the id of one backup: which of them is the backup, where that can be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from clinic_backups.archive.object_keys import prefix_of
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound
from clinic_backups.base.model import Envelope
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectInfo, ObjectStore

AGE_HEADER = b"age-encryption.org/v1\n"
Opens = Callable[[ObjectStore, Envelope], object]
"""Reads an archive with the key. It raises where the archive is not that of the envelope's backup."""


@dataclass(frozen=True)
class Claim:
    """One archive whose envelope names that backup, and the store in which it lies."""

    store: ObjectStore
    envelope: Envelope

    @property
    def key(self) -> str:
        """The archive's."""
        return self.envelope.archive.key


class Twins:
    """Tells apart what claims one id. Who may write into a store can add an archive with the id of a real backup.

    :param others: further stores, in which the real one may lie.
    :param opens: reads an archive with the key; none where the key is not here.
    """

    def __init__(self, now: datetime, others: Sequence[ObjectStore] = (), opens: Opens | None = None) -> None:
        self._now, self._others, self._opens = now, others, opens

    def elsewhere(self, clinic_id: int, here: Mapping[str, Mapping[str, ObjectInfo]]) -> Iterator[Claim]:
        """What the other stores have of a clinic, and this one has not, or has in another size.

        A store that does not answer is left out: it may be the one that was lost.
        """
        for store in self._others:
            try:
                there = stored.by_archive(store.list(prefix_of(clinic_id)))
                for key, objects in there.items():
                    if stored.is_whole(objects) and not _is_copy(objects, here.get(key, {})):
                        yield from self._claim(key, store)
            except ClinicBackupsError:
                continue

    def chosen(self, claims: Sequence[Claim]) -> Claim | None:
        """The only one whose archive is right: it was read, with the key where that is here.

        None: it cannot be told.
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
            return  # no backup of anybody

    def _is_right(self, claim: Claim) -> bool:
        """:raises ClinicBackupsError: it could not be read, or the key that is here is another one."""
        try:
            with claim.store.open(claim.key) as stream:
                if stream.read(len(AGE_HEADER)) != AGE_HEADER:
                    return False
            if self._opens is None:
                return stored.read_through(claim.envelope.archive, claim.store) == "intact"
            self._opens(claim.store, claim.envelope)
        except (IntegrityError, ObjectNotFound):
            return False
        return True


def refusals(backup_id: str, claims: Sequence[Claim], chosen: Claim | None) -> Iterator[tuple[Claim, str]]:
    """Each archive that is not taken for the backup whose id it claims, and why."""
    for claim in claims:
        if claim is chosen:
            continue
        others = _named([other for other in claims if other is not claim])
        if chosen is None:
            then = (
                "It cannot be told which is right, so neither was taken over: look at each with `clinic-backups restore"
                f" --clinic {claim.envelope.clinic_id} --archive KEY --plan`, which needs the secret key; move the"
                " objects of the wrong one away by hand, and run this again"
            )
        else:
            then = (
                f"{_named([chosen])} was read and is right, and this one is not: look at who may write there, and move"
                " this one away by hand"
            )
        yield claim, f"it claims the id {backup_id}, and so does {others}. {then}"


def _named(claims: Collection[Claim]) -> str:
    return ", ".join(f"{claim.store.url}/{claim.key}" for claim in claims)


def _is_copy(objects: Mapping[str, ObjectInfo], here: Mapping[str, ObjectInfo]) -> bool:
    """As far as a listing tells."""
    return stored.is_whole(here) and here["archive"].size_bytes == objects["archive"].size_bytes
