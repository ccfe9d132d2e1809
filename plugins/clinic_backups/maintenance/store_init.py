"""Gives a store its identity, once: the marker in the store, and its id in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.errors import ObjectExists, PermanentError, PlaceMissing, TransientError
from clinic_backups.catalog.copies import Copies
from clinic_backups.catalog.identities import Identities, StoreIdentity
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import require_any
from clinic_backups.stores.marker import MARKER_KEY, Marker, UnreadableMarker, new_marker, read_marker, write_marker

Outcome = Literal["made", "adopted", "known", "taken over"]
BY_REBUILD = "(catalog rebuild)"
"""Ends the name of who recorded a store whose marker a rebuild found."""
TAKE_OVER = "`clinic-backups store init --take-over`"


@dataclass(frozen=True)
class Initialised:
    """What came of it.

    :param outcome: ``made`` for a store without backups, ``adopted`` for one that holds backups of this catalog,
        ``known`` where nothing was to be done, ``taken over`` where that was said.
    """

    identity: StoreIdentity
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self.identity.to_json() | {"outcome": self.outcome}


class StoreInit:
    """Initialises stores. A second time changes nothing, and a run that died is finished by the next.

    :param now: the clock.
    :param by: who does it.
    """

    def __init__(self, catalog: Catalog, now: Callable[[], datetime], by: str) -> None:
        self._catalog, self._now, self._by = catalog, now, by
        self._identities, self._places = Identities(catalog.database), Copies(catalog.database)

    def run(self, store: ObjectStore, *, take_over: bool = False, new: bool = False) -> Initialised:
        """Initialise one store.

        :param store: the store itself, without anybody who compares its id.
        :param take_over: also where the store is marked as another one, or lacks what the catalog says is there.
        :param new: also an empty place, although the catalog was rebuilt: it may be an old store that is not mounted.
        :raises PermanentError: it is another catalog's, or the same as another one, and what to do about that.
        :raises ClinicBackupsError: the store or the catalog failed.
        """
        known, marker = self._identities.of(store.url), self._marker(store, take_over=take_over)
        if marker is not None:
            self._require_single(store, marker)
        if known is not None and marker is not None and known.store_id == marker.store_id:
            self._identities.confirm(known)
            return Initialised(replace(known, confirmed=True), "known" if known.confirmed else "made")
        if known is not None and known.confirmed and not take_over:
            raise _changed(store, known, marker)
        if marker is not None:
            if not take_over:
                raise _foreign(store, marker)
            return Initialised(self._record(store, marker, confirmed=True), "taken over")
        outcome: Outcome = "taken over" if take_over else self._first(store, new=new)
        store.make_place()
        # Recorded first: who dies in between leaves no marker that nobody knows.
        pending = known if known is not None and not known.confirmed else None
        identity = pending or self._record(store, new_marker(self._now()), confirmed=False)
        try:
            write_marker(Marker(identity.store_id, identity.made_at), store)
        except ObjectExists:
            raise TransientError(
                f"Somebody else initialises {store.url} at the same time.", hint="Run it again in a moment."
            ) from None
        self._identities.confirm(identity)
        return Initialised(replace(identity, confirmed=True), outcome)

    def adopt_marker(self, store: ObjectStore) -> str | None:
        """For a rebuilt catalog, which knows no store: record the marker that the store shows, if it has one.

        Returns the store's id.

        :raises PermanentError: the catalog knows that store under another URL.
        """
        marker = read_marker(store)
        if marker is None:
            return None
        self._require_single(store, marker)
        self._record(store, marker, confirmed=True)
        return marker.store_id

    def _marker(self, store: ObjectStore, *, take_over: bool) -> Marker | None:
        try:
            return read_marker(store)
        except PlaceMissing:
            return None
        except UnreadableMarker:
            if not take_over:
                raise
            store.delete(MARKER_KEY)
            return None

    def _record(self, store: ObjectStore, marker: Marker, *, confirmed: bool) -> StoreIdentity:
        identity = StoreIdentity(store.url, marker.store_id, marker.made_at, self._now(), self._by, confirmed)
        self._identities.record(identity)
        return identity

    def _require_single(self, store: ObjectStore, marker: Marker) -> None:
        other = self._identities.by_id(marker.store_id)
        if other is not None and other.store_url != store.url:
            raise PermanentError(
                f"{store.url} is store {marker.store_id}, which the catalog knows as {other.store_url}: the same place"
                " under two URLs, or a copy that another program made of it with the marker.",
                hint="A copy belongs into a place of its own that this package alone writes to. Of a copy, delete"
                f" {MARKER_KEY} in it first. If {other.store_url} is its old URL: `clinic-backups catalog forget-store"
                f" {other.store_url}`, this again, and `clinic-backups catalog rebuild`.",
            )

    def _first(self, store: ObjectStore, *, new: bool) -> Outcome:
        """Whether a store without a marker is new or ours. :raises PermanentError: neither can be seen."""
        expected = self._places.count_in(store.url)
        try:
            keys = [parts for info in store.list(ROOT) if (parts := parse_key(info.key))]
        except PlaceMissing:
            keys = []
            if expected:
                raise
        if not keys and not expected:
            if not new and any(each.recorded_by.endswith(BY_REBUILD) for each in self._identities.find()):
                raise _empty(store)
            return "made"
        try:
            require_any(store, self._catalog.archive_keys)
        except TransientError:
            raise PermanentError(
                f"{store.url} holds {len(keys)} objects of backups that the catalog does not know."
                if keys
                else f"{store.url} is empty, and the catalog says that {expected} backups lie there.",
                hint="Is it mounted, and the right bucket and endpoint? `clinic-backups catalog rebuild` takes over"
                " backups that only the store knows; then run this again."
                if keys
                else f"Is it mounted, and the right bucket and endpoint? If all in it is lost: {TAKE_OVER}.",
            ) from None
        return "adopted"


def _empty(store: ObjectStore) -> PermanentError:
    return PermanentError(
        f"{store.url} is empty, and this catalog was rebuilt: it does not know whether a store was there before.",
        hint="If backups should be there, mount it, or correct the URL; `clinic-backups catalog rebuild` then takes"
        " them over. If it is a new store: `clinic-backups store init --new`.",
    )


def _changed(store: ObjectStore, known: StoreIdentity, marker: Marker | None) -> PermanentError:
    found = f"found store {marker.store_id}" if marker else f"found no {MARKER_KEY} there"
    return PermanentError(
        f"The catalog knows {store.url} as store {known.store_id}, {found}.",
        hint=f"Mount it, or correct the URL and the connection. If it was lost and made anew on purpose: {TAKE_OVER},"
        " and `clinic-backups catalog verify --record` for what is gone.",
    )


def _foreign(store: ObjectStore, marker: Marker) -> PermanentError:
    return PermanentError(
        f"{store.url} is store {marker.store_id} already, and this catalog does not know it: another installation's.",
        hint="Correct the URL. If this catalog is new and the store is its own, run `clinic-backups catalog rebuild`."
        f" If it is to belong to this catalog from now on: {TAKE_OVER}.",
    )
