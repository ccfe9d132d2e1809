"""The alarm about backups that a store should hold and does not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from clinic_backups.catalog.outbox import Notice
from clinic_backups.catalog.records import Catalog
from clinic_backups.model import Loss, iso


def loss_notice(catalog: Catalog, losses: Sequence[Loss], now: datetime) -> Notice:
    """One notice for the operator about losses that the catalog knows by now, and what is left of those backups."""
    lost = []
    for loss in dict.fromkeys(losses):
        record = catalog.get(loss.backup_id)
        lost.append(
            {
                "clinic_id": loss.clinic_id,
                "clinic_name": loss.clinic_name,
                "backup_id": loss.backup_id,
                "store_url": loss.store_url,
                "problem": loss.problem,
                "left": list(record.stores) if record else [],
            }
        )
    names = {loss.clinic_id: loss.clinic_name for loss in losses}
    without = [
        {"clinic_id": clinic_id, "clinic_name": name}
        for clinic_id, name in sorted(names.items())
        if catalog.latest(clinic_id) is None
    ]
    facts = {"checked_at": iso(now), "lost": lost, "without": without}
    return Notice(f"loss:{iso(now)}", "loss", facts)
