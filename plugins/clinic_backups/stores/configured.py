"""The stores of one installation: the one that backups go to, and those that get copies of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from clinic_backups.base.errors import ClinicBackupsError, PlaceMissing, SettingsError, StoreAway, TransientError
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.identified import answers
from clinic_backups.stores.kinds import parse_url

T = TypeVar("T")
REPLICAS = "CLINIC_BACKUPS_REPLICA_STORES"
CLINICS_IN_A_ROW = 2
"""For so many different clinics a store must fail, one after the other, before it is taken for the store's fault."""


def canonical(url: str) -> str:
    """A store's URL as the store itself writes it. :raises SettingsError: it is not a store's URL."""
    place = parse_url(url)
    if not place.kind.conn_type:
        return Path(place.prefix).absolute().as_uri()
    return f"{place.scheme}://{place.bucket}/{place.prefix}".rstrip("/")


def _is_nested(one: str, other: str) -> bool:
    """One of two places lies inside the other one. Links to folders are followed for that."""
    first, second = (_resolved(place).rstrip("/") + "/" for place in (one, other))
    return first != second and (first.startswith(second) or second.startswith(first))


def _resolved(place: str) -> str:
    """One that is not a URL, of a replica with a wrong setting, lies nowhere."""
    if not place.startswith("file://"):
        return place
    return Path(parse_url(place).prefix).resolve().as_uri()


class Stores:
    """Opens each store when it is first needed: one that cannot be opened keeps nobody from the others.

    :param primary_url: where backups go.
    :param replicas: the URL of each further store, by the Airflow connection that opens it.
    :param open_store: opens a store from its URL and the name of its connection.
    :raises SettingsError: the primary's URL is wrong. What is wrong with a replica is raised where it is opened.
    """

    def __init__(
        self, primary_url: str, replicas: Mapping[str, str], open_store: Callable[[str, str], ObjectStore]
    ) -> None:
        self._open = open_store
        self._opened: dict[str, ObjectStore] = {}
        self._places: dict[str, tuple[str, str]] = {canonical(primary_url): (primary_url, "backup_store")}
        self._wrong: dict[str, SettingsError] = {}
        for conn_id, url in replicas.items():
            try:
                place = canonical(url)
            except SettingsError as error:
                # No backup fails because of a replica: it is told where the replica is needed.
                place = f"replica {conn_id}"
                self._wrong[place] = SettingsError(f"{REPLICAS}, {conn_id}: {error.message}", hint=error.hint)
            if place in self._places:
                place = f"replica {conn_id}"
                self._wrong[place] = SettingsError(
                    f"{REPLICAS}, {conn_id}: {url} is named twice as a store.",
                    hint="A copy belongs into another bucket, region or provider.",
                )
            elif (outer := next((other for other in self._places if _is_nested(place, other)), None)) is not None:
                place = f"replica {conn_id}"
                self._wrong[place] = SettingsError(
                    f"{REPLICAS}, {conn_id}: {url} and the store {outer} lie one inside the other.",
                    hint="What deletes or loses the outer one takes the inner one with it. A copy belongs into another"
                    " bucket, region or provider.",
                )
            self._places[place] = (url, conn_id)

    @classmethod
    def of(cls, *opened: ObjectStore) -> Stores:
        """Stores that are open already, the primary first."""
        known = {canonical(store.url): store for store in opened}
        first, *others = known
        return cls(first, {url: url for url in others}, lambda url, conn_id: known[url])

    @property
    def urls(self) -> tuple[str, ...]:
        """All places, the primary first."""
        return tuple(self._places)

    @property
    def connections(self) -> dict[str, str]:
        """The URL of each store by the name of its connection."""
        return {conn_id: place for place, (_, conn_id) in self._places.items()}

    @property
    def primary(self) -> ObjectStore:
        """Where backups go. :raises SettingsError: it cannot be opened."""
        return self.at(self.urls[0])

    def at(self, url: str) -> ObjectStore:
        """The store at a place. :raises SettingsError: it is no store of these settings, or cannot be opened."""
        if url not in self._places:
            raise SettingsError(
                f"{url} holds backups, and is no store of these settings.",
                hint=f"Name it in {REPLICAS}; or, where it is given up, `clinic-backups catalog forget-store {url}`.",
            )
        if url in self._wrong:
            raise self._wrong[url]
        if url not in self._opened:
            self._opened[url] = self._open(*self._places[url])
        return self._opened[url]

    def first(
        self,
        check: Callable[[ObjectStore], T],
        on_failure: Callable[[str, ClinicBackupsError], object] = lambda url, error: None,
    ) -> tuple[ObjectStore, T]:
        """The first store for which ``check`` does not raise, and what it returned.

        :param on_failure: told of a store's URL and error before the next one is tried.
        :raises ClinicBackupsError: all failed; the first store's error, the others' as notes.
        """
        failures: list[ClinicBackupsError] = []
        for url in self.urls:
            try:
                store = self.at(url)
                return store, check(store)
            except ClinicBackupsError as error:
                failures.append(error)
                on_failure(url, error)
        for other in failures[1:]:
            failures[0].add_note(f"And: {other.message}")
        raise failures[0]

    def __iter__(self) -> Iterator[ObjectStore]:
        """Each store, the primary first, opened as it is reached."""
        return map(self.at, self.urls)


class Outages:
    """Tells a store that is down from objects of it that make trouble: those keep nobody from the others."""

    def __init__(self) -> None:
        self._down: dict[str, ClinicBackupsError] = {}
        self._failed: dict[str, set[int]] = {}

    def require(self, url: str) -> None:
        """:raises ClinicBackupsError: the store at that place is down: what it said then."""
        if url in self._down:
            raise self._down[url]

    def note(self, url: str, store: ObjectStore | None, clinic_id: int, error: ClinicBackupsError) -> bool:
        """After an error that may be the store's fault: whether the store is taken for down from now on.

        A store that fails for a while and shows its marker is up. It is down all the same once it has failed for
        ``CLINICS_IN_A_ROW`` different clinics, and has done nothing right in between.

        :param store: none where it could not even be opened.
        """
        failed = self._failed.setdefault(url, set())
        failed.add(clinic_id)
        down = store is None or isinstance(error, (SettingsError, StoreAway, PlaceMissing))
        down = down or len(failed) >= CLINICS_IN_A_ROW
        if down or (store is not None and isinstance(error, TransientError) and not answers(store)):
            self._down[url] = error
        return url in self._down

    def give_up(self, url: str, error: ClinicBackupsError) -> None:
        """Take it for down from now on."""
        self._down[url] = error

    def passed(self, url: str) -> None:
        """Something was done there without an error."""
        self._failed.pop(url, None)


class AnsweringStores:
    """Stores of which one that does not answer is not asked again, for each clinic."""

    def __init__(self, stores: Stores) -> None:
        self._stores, self._outages = stores, Outages()

    @property
    def urls(self) -> tuple[str, ...]:
        """All places, the primary first."""
        return self._stores.urls

    def give_up(self, url: str, error: ClinicBackupsError) -> None:
        """Do nothing there from now on, because of that error."""
        self._outages.give_up(url, error)

    @contextmanager
    def at(self, url: str, clinic_id: int) -> Iterator[ObjectStore]:
        """The store at a place, for the work at a clinic. Once it is down, that is raised: see :class:`Outages`.

        :raises TransientError, SettingsError: it did not answer, or cannot be opened.
        """
        self._outages.require(url)
        store: ObjectStore | None = None
        try:
            store = self._stores.at(url)
            yield store
        except (TransientError, SettingsError, PlaceMissing) as error:
            self._outages.note(url, store, clinic_id, error)
            raise
        else:
            self._outages.passed(url)
