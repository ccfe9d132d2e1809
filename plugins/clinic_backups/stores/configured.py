"""The stores of one installation: the primary one, to which backups go, and the further ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, PlaceMissing, SettingsError, StoreAway, TransientError
from clinic_backups.base.listening import nobody
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.identified import answers
from clinic_backups.stores.kinds import parse_url

T = TypeVar("T")
FURTHER_STORES = "CLINIC_BACKUPS_REPLICA_STORES"
CLINICS_IN_A_ROW = 2
"""A store counts as down after it has failed for this many different clinics in a row."""


def canonical(url: str) -> str:
    """A store's URL as the store itself writes it. :raises SettingsError: it is not a store's URL."""
    place = parse_url(url)
    if not place.kind.conn_type:
        return Path(place.prefix).absolute().as_uri()
    return f"{place.scheme}://{place.bucket}/{place.prefix}".rstrip("/")


def _is_nested(one: str, other: str) -> bool:
    """Whether one of two URLs lies inside the other. Links to folders are followed."""
    first, second = (_resolved(place).rstrip("/") + "/" for place in (one, other))
    return first != second and (first.startswith(second) or second.startswith(first))


def _resolved(place: str) -> str:
    """The path of a folder store. A further store with a wrong setting has none."""
    if not place.startswith("file://"):
        return place
    return Path(parse_url(place).prefix).resolve().as_uri()


class Stores:
    """Opens each store when it is first needed, so that one that cannot be opened does not block the others.

    :param primary_url: URL of the store that backups go to.
    :param further: the URL of each further store, by the Airflow connection that opens it.
    :param open_store: opens a store from its URL and the name of its connection.
    :raises SettingsError: the primary's URL is wrong. A further store's wrong setting is raised when it is opened.
    """

    def __init__(
        self, primary_url: str, further: Mapping[str, str], open_store: Callable[[str, str], ObjectStore]
    ) -> None:
        self._open = open_store
        self._opened: dict[str, ObjectStore] = {}
        self._configured: dict[str, tuple[str, str]] = {canonical(primary_url): (primary_url, "backup_store")}
        self._wrong: dict[str, SettingsError] = {}
        for conn_id, url in further.items():
            try:
                place = canonical(url)
            except SettingsError as error:
                # No backup may fail because of a further store, so the error is raised where that store is needed.
                place = f"store {conn_id}"
                self._wrong[place] = SettingsError(f"{FURTHER_STORES}, {conn_id}: {error.message}", hint=error.hint)
            if place in self._configured:
                place = f"store {conn_id}"
                self._wrong[place] = SettingsError(
                    f"{FURTHER_STORES}, {conn_id}: {url} is named twice as a store.",
                    hint="Use another bucket, region or provider for the replicas.",
                )
            elif (outer := next((other for other in self._configured if _is_nested(place, other)), None)) is not None:
                place = f"store {conn_id}"
                self._wrong[place] = SettingsError(
                    f"{FURTHER_STORES}, {conn_id}: {url} and the store {outer} lie one inside the other.",
                    hint="If the outer one is deleted or lost, so is the inner one. Use another bucket, region or"
                    " provider for the replicas.",
                )
            self._configured[place] = (url, conn_id)

    @classmethod
    def of(cls, *opened: ObjectStore) -> Stores:
        """Make this from open stores, the primary first."""
        known = {canonical(store.url): store for store in opened}
        first, *others = known
        return cls(first, {url: url for url in others}, lambda url, conn_id: known[url])

    @property
    def urls(self) -> tuple[str, ...]:
        """All stores, the primary first."""
        return tuple(self._configured)

    @property
    def connections(self) -> dict[str, str]:
        """The URL of each store by the name of its connection."""
        return {conn_id: place for place, (_, conn_id) in self._configured.items()}

    @property
    def primary(self) -> ObjectStore:
        """The store that backups go to. :raises SettingsError: it cannot be opened."""
        return self.at(self.urls[0])

    def at(self, url: str) -> ObjectStore:
        """The store at a URL. :raises SettingsError: it is not in the settings, or cannot be opened."""
        if url not in self._configured:
            raise SettingsError(
                f"{url} holds backups, but is not a store of these settings.",
                hint=f"Add it to {FURTHER_STORES}. If it was given up, run"
                f" `clinic-backups catalog forget-store {url}`.",
            )
        if url in self._wrong:
            raise self._wrong[url]
        if url not in self._opened:
            self._opened[url] = self._open(*self._configured[url])
        return self._opened[url]

    def first(
        self,
        check: Callable[[ObjectStore], T],
        on_failure: Callable[[str, ClinicBackupsError], object] = nobody,
    ) -> tuple[ObjectStore, T]:
        """The first store for which ``check`` does not raise, and its result.

        :param on_failure: called with a store's URL and error before the next one is tried.
        :raises ClinicBackupsError: all failed. This is the first store's error, with the others as notes.
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
    """Distinguishes a store that is down from single objects that fail. Such an object does not stop the others."""

    def __init__(self) -> None:
        self._down: dict[str, ClinicBackupsError] = {}
        self._failed: dict[str, set[ClinicId]] = {}

    def require(self, url: str) -> None:
        """:raises ClinicBackupsError: the store at that URL is down. This is the error that it gave."""
        if url in self._down:
            raise self._down[url]

    def note(self, url: str, store: ObjectStore | None, clinic_id: ClinicId, error: ClinicBackupsError) -> bool:
        """Record an error, and return whether the store counts as down from now on.

        A store that shows its marker is up. It still counts as down after it has failed for ``CLINICS_IN_A_ROW``
        different clinics without a success in between.

        :param store: none if it could not even be opened.
        """
        failed = self._failed.setdefault(url, set())
        failed.add(clinic_id)
        down = store is None or isinstance(error, (SettingsError, StoreAway, PlaceMissing))
        down = down or len(failed) >= CLINICS_IN_A_ROW
        if down or (store is not None and isinstance(error, TransientError) and not answers(store)):
            self._down[url] = error
        return url in self._down

    def give_up(self, url: str, error: ClinicBackupsError) -> None:
        """Count it as down from now on."""
        self._down[url] = error

    def passed(self, url: str) -> None:
        """Record a success there."""
        self._failed.pop(url, None)


NO_CLINIC = -1
"""Used in place of a clinic's id for work that is about no clinic: see :meth:`AnsweringStores.at`."""


class AnsweringStores:
    """Stores. One that does not answer is not asked again for every clinic."""

    def __init__(self, stores: Stores) -> None:
        self._stores, self._outages = stores, Outages()

    @property
    def urls(self) -> tuple[str, ...]:
        """All stores, the primary first."""
        return self._stores.urls

    def give_up(self, url: str, error: ClinicBackupsError) -> None:
        """Stop using it, because of that error."""
        self._outages.give_up(url, error)

    @contextmanager
    def at(self, url: str, clinic_id: ClinicId) -> Iterator[ObjectStore]:
        """The store at a URL, for work on a clinic. If it is down, its error is raised: see :class:`Outages`.

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
