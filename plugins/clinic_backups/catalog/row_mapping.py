"""A backup's record as columns of the table ``backup``, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from clinic_backups.base.backup_facts import ChainArchive, Gap
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.envelope import Envelope
from clinic_backups.catalog.tables import backup, backup_replica

_FIELDS = [field.name for field in fields(BackupRecord) if field.name in backup.c]
_STORES = (
    select(func.array_agg(aggregate_order_by(backup_replica.c.store_url, backup_replica.c.stored_at)))
    .where(backup_replica.c.backup_id == backup.c.backup_id, backup_replica.c.state == "present")
    .correlate(backup)
    .scalar_subquery()
    .label("stores")
)
COLUMNS = [*(backup.c[name] for name in _FIELDS), backup.c.id.label("number"), _STORES]
"""The columns that :func:`record_of` needs."""


def values_of(record: BackupRecord) -> dict[str, Any]:
    """The row of the table ``backup``; the stores are in a table of their own, and the database gives the number."""
    lists = {
        "recipients": list(record.recipients),
        "chain": [asdict(archive) for archive in record.chain],
        "gaps": [asdict(gap) for gap in record.gaps],
        "noted": record.noted.to_json() if record.noted else None,
        "deletion": list(record.deletion),
    }
    return {name: getattr(record, name) for name in _FIELDS} | lists


def record_of(row: Any) -> BackupRecord:
    """The record in a row of :data:`COLUMNS`, or of more than these."""
    lists = {
        "recipients": tuple(row["recipients"]),
        "chain": tuple(ChainArchive(**archive) for archive in row["chain"]),
        "gaps": tuple(Gap(**gap) for gap in row["gaps"]),
        "deletion": tuple(row["deletion"]),
        "stores": tuple(row["stores"] or ()),
        "number": row["number"],
        "noted": Envelope.from_json(row["noted"]) if row["noted"] else None,
    }
    return BackupRecord(**({name: row[name] for name in _FIELDS} | lists))
