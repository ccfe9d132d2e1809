"""The replicas of each backup: which stores hold one, which lost it, and which still lack one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, Subquery, bindparam, case, delete, exists, func, literal, select, update
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.backup_record import FUTURE_TOLERANCE, BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.replica import Condition, Loss, ReplicaProblem
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.lacking import lacking
from clinic_backups.catalog.shared_round_trips import later
from clinic_backups.catalog.tables import backup, backup_replica, store, store_identity

_WRITTEN: Mapping[Condition, str] = {"intact": "present", "missing": "lost", "damaged": "damaged"}
"""The states in the table."""
READ: Mapping[str, Condition] = {word: condition for condition, word in _WRITTEN.items()}
PRESENT = _WRITTEN["intact"]
Announce = Callable[[SqlConnection, list[Loss]], object]
REST = timedelta(minutes=15)
"""A store that failed is not used for this time."""


@dataclass(frozen=True)
class Backlog:
    """A store that lacks replicas of completed backups, and its last failure, if any."""

    store_url: str
    missing: int
    oldest_at: datetime
    error: str = ""
    hint: str = ""


class Replicas:
    """The replicas of backups. A backup without any intact replica is ``lost`` until one is found again."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def of_clinic(self, clinic_id: ClinicId) -> dict[str, dict[str, Condition]]:
        """The state of each replica, by backup id and store URL."""
        statement = (
            select(backup_replica.c.backup_id, backup_replica.c.store_url, backup_replica.c.state)
            .join(backup, backup.c.backup_id == backup_replica.c.backup_id)
            .where(backup.c.clinic_id == clinic_id)
        )
        found: dict[str, dict[str, Condition]] = {}
        with self._database.transaction("reading where backups lie") as db:
            for row in db.execute(statement):
                found.setdefault(row.backup_id, {})[row.store_url] = READ[row.state]
        return found

    def mark(
        self, backup_id: str, store_url: str, condition: Condition, at: datetime, announce: Announce | None = None
    ) -> list[Loss]:
        """Record the condition of a replica. A backup is lost with its last intact replica, and found with its first.

        The same applies to the backups that are built on it. Returns those that are lost by this.

        :param announce: see :meth:`mark_all`.
        """
        losses = self.mark_all(store_url, {backup_id: condition}, at, announce)
        return [loss for loss in losses if loss.backup_id != backup_id]

    def lose(
        self,
        record: BackupRecord,
        store_url: str,
        problem: ReplicaProblem,
        at: datetime,
        announce: Announce | None = None,
    ) -> list[Loss]:
        """Record that a store lost a backup; returns that loss, and those of the backups that are built on it."""
        return self.mark_all(store_url, {record.backup_id: problem}, at, announce)

    def mark_all(
        self, store_url: str, conditions: Mapping[str, Condition], at: datetime, announce: Announce | None = None
    ) -> list[Loss]:
        """As :meth:`mark`, for several backups at once, all or none.

        Returns the losses: those of the backups themselves, then those of the backups that are built on them.

        :param conditions: by backup id.
        :param announce: called in the same transaction with the losses, if there are any.
        """
        rows = [{"backup_id": backup_id, "store_url": store_url, "state": _WRITTEN[condition], "stored_at": at,
                 "checked_at": at} for backup_id, condition in conditions.items()]  # fmt: skip
        statement = insert(backup_replica).values(rows)
        new = {"state": statement.excluded.state, "checked_at": at}
        with self._database.transaction(f"writing where backups lie: {', '.join(list(conditions)[:3])}") as db:
            db.execute(statement.on_conflict_do_update(index_elements=["backup_id", "store_url"], set_=new))
            built_on_them = settle(db, conditions, store_url)
            losses = _own_losses(db, store_url, conditions)
            own = {loss.backup_id for loss in losses}
            losses += [loss for loss in built_on_them if loss.backup_id not in own]
            if losses and announce is not None:
                announce(db, losses)
        return losses

    def settle(self, backup_ids: Iterable[str], store_url: str, announce: Announce) -> list[Loss]:
        """As :func:`settle`, in a transaction of its own.

        It finds and announces backups that completed on a lost parent.
        """
        with self._database.transaction("settling what is lost") as db:
            losses = settle(db, backup_ids, store_url)
            if losses:
                announce(db, losses)
        return losses

    def etags(self, backup_ids: Iterable[str], store_url: str) -> dict[str, str]:
        """The etags of a store's objects that were read and right, by backup id."""
        values = {"ids": list(backup_ids), "url": store_url}
        with self._database.statement("reading which replicas were read") as db:
            return {row.backup_id: row.etag for row in db.execute(_ETAGS, values) if row.etag is not None}

    def note_etag(self, backup_id: str, store_url: str, etag: str) -> None:
        """Record that the object with this etag was read and right."""
        here = (backup_replica.c.backup_id == backup_id) & (backup_replica.c.store_url == store_url)
        with self._database.transaction(f"noting that {backup_id} was read") as db:
            db.execute(update(backup_replica).where(here).values(etag=etag))

    def waiting(
        self, store_urls: Sequence[str], *, clinic_id: ClinicId | None = None
    ) -> list[tuple[ClinicId, str, str]]:
        """Completed backups that a store lacks, as (clinic, backup, store), the newest first."""
        missing = _missing(store_urls)
        statement = select(backup.c.clinic_id, backup.c.backup_id, missing.c.store_url).select_from(
            backup.join(missing, _lacks(missing))
        )
        with self._database.transaction("reading which replicas are missing") as db:
            where = backup.c.clinic_id == clinic_id if clinic_id is not None else lacking(db, store_urls)
            if where is None:
                return []
            statement = statement.where(where).order_by(backup.c.started_at.desc(), missing.c.store_url)
            return [(row.clinic_id, row.backup_id, row.store_url) for row in db.execute(statement)]

    def backlog(self, store_urls: Sequence[str]) -> list[Backlog]:
        """The number of replicas that each store lacks. Stores that lack none are left out."""
        missing = _missing(store_urls)
        statement = (
            select(
                missing.c.store_url,
                func.count(),
                func.min(backup.c.started_at),
                func.coalesce(func.max(store.c.error), ""),
                func.coalesce(func.max(store.c.hint), ""),
            )
            .select_from(
                missing.join(backup, _lacks(missing)).outerjoin(store, store.c.store_url == missing.c.store_url)
            )
            .group_by(missing.c.store_url)
            .order_by(missing.c.store_url)
        )
        with self._database.transaction("reading which replicas are missing") as db:
            where = lacking(db, store_urls)
            return [] if where is None else [Backlog(*row) for row in db.execute(statement.where(where))]

    def count_in(self, store_url: str) -> int:
        """The number of backups in a store, according to the catalog."""
        here = (backup_replica.c.store_url == store_url) & (backup_replica.c.state == PRESENT)
        with self._database.transaction("reading where backups lie") as db:
            return int(db.execute(select(func.count()).select_from(backup_replica).where(here)).scalar_one())

    def store_urls(self) -> list[str]:
        """Every store that holds a backup, or should."""
        with self._database.transaction("reading where backups lie") as db:
            statement = select(backup_replica.c.store_url).distinct().order_by(backup_replica.c.store_url)
            return [url for (url,) in db.execute(statement)]

    def adopt(self, store_url: str, at: datetime) -> int:
        """Record this store for backups that were completed before replicas were recorded; returns their number."""
        unrecorded = ~exists().where(backup_replica.c.backup_id == backup.c.backup_id)
        old = select(backup.c.backup_id, literal(store_url), literal(at)).where(
            backup.c.state.in_(("completed", "deleting")), unrecorded
        )
        with self._database.transaction("writing where older backups lie") as db:
            columns = ["backup_id", "store_url", "stored_at"]
            return int(db.execute(insert(backup_replica).from_select(columns, old)).rowcount)

    def forget_store(self, store_url: str) -> int:
        """Remove a store from the records, but no objects; returns the number of its backups."""
        replica = backup_replica.alias("replica")
        here = exists().where(replica.c.backup_id == backup.c.backup_id, replica.c.store_url == store_url)
        elsewhere = exists().where(
            backup_replica.c.backup_id == backup.c.backup_id,
            backup_replica.c.store_url != store_url,
            backup_replica.c.state == PRESENT,
        )
        parent = backup.alias("parent")
        broken = exists().where(parent.c.backup_id == backup.c.parent_id, parent.c.state == "lost")
        lose = update(backup).where(backup.c.state == "completed").values(state="lost", updated_at=func.now())
        with self._database.transaction("forgetting a store") as db:
            db.execute(lose.where(here, ~elsewhere))
            while db.execute(lose.where(broken)).rowcount:
                pass  # one round for each link of the longest chain
            for known in (store, store_identity):
                db.execute(delete(known).where(known.c.store_url == store_url))
            return int(db.execute(delete(backup_replica).where(backup_replica.c.store_url == store_url)).rowcount)

    def note_failure(self, store_url: str, error: ClinicBackupsError, at: datetime) -> None:
        """Record that a store failed, so that it is not used for a while: see :meth:`resting`."""
        new = {"failed_at": at, "error": error.message, "hint": error.hint}
        statement = insert(store).values(store_url=store_url, **new)
        with self._database.transaction("noting that a store failed") as db:
            db.execute(statement.on_conflict_do_update(index_elements=["store_url"], set_=new))

    def note_success(self, store_url: str) -> None:
        """Record that a store works again."""
        with self._database.transaction("noting that a store works") as db:
            db.execute(delete(store).where(store.c.store_url == store_url))

    def resting(self, now: datetime) -> set[str]:
        """The stores that failed a short while ago."""
        lately = store.c.failed_at.between(now - REST, now + FUTURE_TOLERANCE)
        with self._database.transaction("reading which stores failed") as db:
            return {url for (url,) in db.execute(select(store.c.store_url).where(lately))}


def _missing(store_urls: Sequence[str]) -> Subquery:
    return select(func.unnest(list(store_urls)).label("store_url")).subquery("wanted")


def _lacks(missing: Subquery) -> ColumnElement[bool]:
    there = exists().where(
        backup_replica.c.backup_id == backup.c.backup_id,
        backup_replica.c.store_url == missing.c.store_url,
        backup_replica.c.state == PRESENT,
    )
    return (backup.c.state == "completed") & ~there


_PARENT = backup.alias("parent")
_INTACT = exists().where(backup_replica.c.backup_id == backup.c.backup_id, backup_replica.c.state == PRESENT)
_BUILT = backup.c.parent_id.is_(None) | exists().where(
    _PARENT.c.backup_id == backup.c.parent_id, _PARENT.c.state == "completed"
)
_STATE = case((_INTACT & _BUILT, "completed"), else_="lost")
# Built once, because each backup runs them.
_SETTLE = (
    update(backup)
    .where(backup.c.backup_id.in_(bindparam("ids", expanding=True)))
    .where(backup.c.state.in_(("completed", "lost")), backup.c.state != _STATE)
    .values(state=_STATE, updated_at=func.now())
    .returning(backup.c.backup_id, backup.c.state, backup.c.clinic_id, backup.c.clinic_name, backup.c.started_at)
)
_ETAGS = select(backup_replica.c.backup_id, backup_replica.c.etag).where(
    backup_replica.c.backup_id.in_(bindparam("ids", expanding=True)), backup_replica.c.store_url == bindparam("url")
)
_LOCK_PARENT = later(select(backup.c.backup_id).where(backup.c.backup_id == bindparam("of")).with_for_update(read=True))


def settle(db: SqlConnection, backup_ids: Iterable[str], store_url: str) -> list[Loss]:
    """Set the states of backups, and of those that are built on them, by their intact replicas; returns the newly lost.

    For a new backup, the caller locks its parent first: see :func:`lock_parent`.

    :param store_url: the store that the losses name.
    """
    changes: dict[str, Row[tuple[str, str, ClinicId, str, datetime]]] = {}
    waiting = sorted(backup_ids)
    while waiting:
        changed = db.execute(_SETTLE, {"ids": waiting}).all()
        for row in changed:
            # There are only two states, so a state that changed twice is the old one.
            if changes.pop(row.backup_id, None) is None:
                changes[row.backup_id] = row
        children = select(backup.c.backup_id).where(backup.c.parent_id.in_([row.backup_id for row in changed]))
        waiting = [child for (child,) in db.execute(children)] if changed else []
    lost = sorted((row for row in changes.values() if row.state == "lost"), key=lambda row: row.started_at)
    return [Loss(row.clinic_id, row.clinic_name, row.backup_id, store_url, "incomplete") for row in lost]


def lock_parent(db: SqlConnection, backup_id: str) -> None:
    """Until the transaction's end, nobody can record a loss of the parent without seeing the new backup.

    Locking the parent is enough: a loss further up the chain reaches the new backup through the parent's row.
    """
    db.execute(_LOCK_PARENT, {"of": backup_id})


def _own_losses(db: SqlConnection, store_url: str, conditions: Mapping[str, Condition]) -> list[Loss]:
    lost = [backup_id for backup_id, condition in conditions.items() if condition != "intact"]
    statement = select(backup.c.backup_id, backup.c.clinic_id, backup.c.clinic_name).where(backup.c.backup_id.in_(lost))
    known = {row.backup_id: row for row in db.execute(statement)} if lost else {}
    return [
        Loss(
            row.clinic_id, row.clinic_name, backup_id, store_url,
            "damaged" if conditions[backup_id] == "damaged" else "missing",
        )
        for backup_id in lost if (row := known.get(backup_id)) is not None
    ]  # fmt: skip
