"""The alarm about backups that a store should hold but does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import ARRAY, Text, any_, literal, select, update
from sqlalchemy import Connection as SqlConnection

from clinic_backups.base.clinic_id import ClinicId, order_of
from clinic_backups.base.plain import iso
from clinic_backups.base.replica import Loss
from clinic_backups.catalog.any_of import any_clinic
from clinic_backups.catalog.outbox import Notice, queue
from clinic_backups.catalog.replicas import PRESENT
from clinic_backups.catalog.tables import backup, backup_replica, notification

LISTED = 200
"""A mail lists this many losses; of the others it gives only the number."""
NOTHING: Mapping[str, Any] = {"lost": [], "count": 0, "without": []}


class LossAlarm:
    """Tells the operator of losses, in the transaction that records them, so that every recorded loss is mailed.

    All losses of one run are in one mail. Losses that follow after it was sent are in another one. An
    :data:`~clinic_backups.catalog.replicas.Announce`.

    :param now: the clock.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._key = ""

    def __call__(self, db: SqlConnection, losses: Sequence[Loss]) -> None:
        now = self._now()
        self._key = self._key or f"loss:{iso(now)}"
        for number in count():
            key = f"{self._key}:{number}" if number else self._key
            queue(db, Notice(key, "loss", {"checked_at": iso(now), **NOTHING}, urgent=True), now)
            # Locked, so that nobody addresses the notice before it is changed.
            row = db.execute(
                select(notification.c.id, notification.c.facts, notification.c.addressed_at)
                .where(notification.c.key == key)
                .with_for_update()
            ).one()
            if row.addressed_at is None:
                facts = _facts(db, row.facts, losses, now)
                db.execute(update(notification).where(notification.c.id == row.id).values(facts=facts))
                return


def _facts(db: SqlConnection, told: Mapping[str, Any], losses: Iterable[Loss], now: datetime) -> dict[str, Any]:
    """The facts for the templates: those of the present notice and the new losses, the worst first.

    ``left`` lists the stores from which a backup can still be restored.
    """
    new: list[dict[str, Any]] = [
        {
            "clinic_id": loss.clinic_id,
            "clinic_name": loss.clinic_name,
            "backup_id": loss.backup_id,
            "store_url": loss.store_url,
            "problem": loss.problem,
        }
        for loss in dict.fromkeys(losses)
    ]
    left = _left(db, [entry["backup_id"] for entry in [*told["lost"], *new]])
    lost = [entry | {"left": left.get(entry["backup_id"], [])} for entry in [*told["lost"], *new]]
    clinics = {entry["clinic_id"]: entry["clinic_name"] for entry in new}
    good = _with_good_backup(db, list(clinics))
    without = {entry["clinic_id"]: entry["clinic_name"] for entry in told["without"] if entry["clinic_id"] not in good}
    without |= {clinic_id: name for clinic_id, name in clinics.items() if clinic_id not in good}
    return {
        "checked_at": iso(now),
        "lost": sorted(lost, key=lambda entry: bool(entry["left"]))[:LISTED],
        "count": told["count"] + len(new),
        "without": [
            {"clinic_id": clinic_id, "clinic_name": name}
            for clinic_id, name in sorted(without.items(), key=lambda pair: order_of(pair[0]))
        ],
    }


def _left(db: SqlConnection, backup_ids: list[str]) -> dict[str, list[str]]:
    statement = (
        select(backup_replica.c.backup_id, backup_replica.c.store_url)
        .join(backup, backup.c.backup_id == backup_replica.c.backup_id)
        .where(backup.c.backup_id == any_(literal(backup_ids, ARRAY(Text))))
        .where(backup.c.state == "completed", backup_replica.c.state == PRESENT)
        .order_by(backup_replica.c.stored_at)
    )
    found: dict[str, list[str]] = {}
    for row in db.execute(statement):
        found.setdefault(row.backup_id, []).append(row.store_url)
    return found


def _with_good_backup(db: SqlConnection, clinic_ids: list[ClinicId]) -> set[ClinicId]:
    statement = select(backup.c.clinic_id).where(
        backup.c.clinic_id == any_clinic(clinic_ids), backup.c.state == "completed"
    )
    return {clinic_id for (clinic_id,) in db.execute(statement.distinct())}
