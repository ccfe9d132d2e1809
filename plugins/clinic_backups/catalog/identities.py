"""The id that the marker under each store's URL must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.plain import plain
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import store_identity


@dataclass(frozen=True)
class StoreIdentity:
    """One store in the catalog.

    :param confirmed: whether its marker was seen in the store. Until then the store must not be used.
    """

    store_url: str
    store_id: str
    made_at: datetime
    recorded_at: datetime
    recorded_by: str
    confirmed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return plain(self)


_COLUMNS = [store_identity.c[name] for name in StoreIdentity.__dataclass_fields__]


class Identities:
    """The stores' ids. No two URLs have the same id, because a replica in the same bucket is not a second one."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def of(self, store_url: str) -> StoreIdentity | None:
        """The identity of a URL; none if it is not known."""
        return self._one(store_identity.c.store_url == store_url)

    def by_id(self, store_id: str) -> StoreIdentity | None:
        """The identity with this id; none if it is not known."""
        return self._one(store_identity.c.store_id == store_id)

    def find(self) -> list[StoreIdentity]:
        """All confirmed stores, by URL."""
        statement = select(*_COLUMNS).where(store_identity.c.confirmed).order_by(store_identity.c.store_url)
        with self._database.transaction("reading the stores' ids") as db:
            return [StoreIdentity(*row) for row in db.execute(statement)]

    def expected(self, store_url: str) -> Callable[[], str | None]:
        """A function that reads the id that a store must have, and remembers it."""
        known: list[str] = []

        def ask() -> str | None:
            if not known and (found := self.of(store_url)) is not None and found.confirmed:
                known.append(found.store_id)
            return known[0] if known else None

        return ask

    def record(self, identity: StoreIdentity) -> None:
        """Record it, replacing an earlier identity of that URL."""
        values = {name: getattr(identity, name) for name in StoreIdentity.__dataclass_fields__}
        statement = insert(store_identity).values(values)
        with self._database.transaction(f"recording which store {identity.store_url} is") as db:
            db.execute(statement.on_conflict_do_update(index_elements=["store_url"], set_=values))

    def confirm(self, identity: StoreIdentity) -> None:
        """Record that its marker was seen in the store."""
        mine = (store_identity.c.store_url == identity.store_url) & (store_identity.c.store_id == identity.store_id)
        with self._database.transaction(f"recording which store {identity.store_url} is") as db:
            db.execute(update(store_identity).where(mine).values(confirmed=True))

    def _one(self, condition: ColumnElement[bool]) -> StoreIdentity | None:
        with self._database.transaction("reading the stores' ids") as db:
            row = db.execute(select(*_COLUMNS).where(condition)).one_or_none()
        return StoreIdentity(*row) if row else None
