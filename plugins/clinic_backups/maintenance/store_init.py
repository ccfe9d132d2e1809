"""Gives a store its identity once: the marker in the store, and its id in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.errors import ObjectExists, PermanentError, PlaceMissing, TransientError
from clinic_backups.catalog.identities import Identities, StoreIdentity
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.condition import require_any
from clinic_backups.stores.marker import MARKER_KEY, Marker, UnreadableMarker, new_marker, read_marker, write_marker

Outcome = Literal["made", "adopted", "known", "taken over"]
BY_REBUILD = "(catalog rebuild)"
"""The suffix of the recorder's name, if a rebuild found the store's marker."""
TAKE_OVER = "`clinic-backups store init --take-over`"


@dataclass(frozen=True)
class Initialised:
    """The result.

    :param outcome: ``made`` for a store without backups, ``adopted`` for one with backups of this catalog, ``known`` if
        there was nothing to do, ``taken over`` if that was requested.
    """

    identity: StoreIdentity
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self.identity.to_json() | {"outcome": self.outcome}


class StoreInit:
    """Initialises stores. Repeating it changes nothing, and the next run finishes one that died.

    :param now: the clock.
    :param by: the person who does it.
    """

    def __init__(self, catalog: Catalog, now: Callable[[], datetime], by: str) -> None:
        self._catalog, self._now, self._by = catalog, now, by
        self._identities, self._replicas = Identities(catalog.database), Replicas(catalog.database)

    def run(self, store: ObjectStore, *, take_over: bool = False, new: bool = False) -> Initialised:
        """Initialise one store.

        :param store: the store itself, without the check of its id.
        :param take_over: accept a store with another marker, or one that lacks backups of the catalog.
        :param new: accept an empty store although the catalog was rebuilt. It could be an old store that is not
            mounted.
        :raises PermanentError: it belongs to another catalog, or is known under another URL. The hint says what to do.
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
        # Recorded first, so that a crash in between leaves no unknown marker.
        pending = known if known is not None and not known.confirmed else None
        identity = pending or self._record(store, new_marker(self._now()), confirmed=False)
        try:
            write_marker(Marker(identity.store_id, identity.made_at), store)
        except ObjectExists:
            raise TransientError(
                f"Another process is initialising {store.url}.", hint="Run it again in a moment."
            ) from None
        self._identities.confirm(identity)
        return Initialised(replace(identity, confirmed=True), outcome)

    def adopt_marker(self, store: ObjectStore) -> str | None:
        """Record a store's marker, if it has one, in a rebuilt catalog, which knows no stores.

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
                hint="Only this package may write to a further store. If it is a copy that another program made, delete"
                f" {MARKER_KEY} in it. If {other.store_url} is its old URL: run `clinic-backups catalog forget-store"
                f" {other.store_url}`, then this command again, then `clinic-backups catalog rebuild`.",
            )

    def _first(self, store: ObjectStore, *, new: bool) -> Outcome:
        """Whether a store without a marker is new or ours. :raises PermanentError: that cannot be told."""
        expected = self._replicas.count_in(store.url)
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
                else f"{store.url} is empty, but the catalog lists {expected} backups there.",
                hint="Check that it is mounted and the right bucket and endpoint. `clinic-backups catalog rebuild`"
                " takes over backups that only the store knows. Then run this again."
                if keys
                else f"Check that it is mounted and the right bucket and endpoint. If all is lost: {TAKE_OVER}.",
            ) from None
        return "adopted"


def _empty(store: ObjectStore) -> PermanentError:
    return PermanentError(
        f"{store.url} is empty, and this catalog was rebuilt: it cannot tell whether a store was there before.",
        hint="If backups should be there, mount it, or correct the URL; `clinic-backups catalog rebuild` then takes"
        " them over. If it is a new store: `clinic-backups store init --new`.",
    )


def _changed(store: ObjectStore, known: StoreIdentity, marker: Marker | None) -> PermanentError:
    found = f"found store {marker.store_id}" if marker else f"found no {MARKER_KEY} there"
    return PermanentError(
        f"The catalog knows {store.url} as store {known.store_id}, but {found}.",
        hint="Mount it, or correct the URL and the connection. If it was lost and created again on purpose:"
        f" {TAKE_OVER}, then `clinic-backups catalog verify --record` to record the losses.",
    )


def _foreign(store: ObjectStore, marker: Marker) -> PermanentError:
    return PermanentError(
        f"{store.url} is store {marker.store_id}, which is not in this catalog. It belongs to another installation.",
        hint="Correct the URL. If this catalog is new and the store is its own, run `clinic-backups catalog rebuild`."
        f" If it is to belong to this catalog from now on: {TAKE_OVER}.",
    )
