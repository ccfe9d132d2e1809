"""Marks a backup as suspect if its rows look wrong, or come from another database than before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from clinic_backups.backup.stream import Stored
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.table import Table
from clinic_backups.tenant import plausibility
from clinic_backups.tenant.tenant_db import Snapshot


def with_suspicions(
    record: BackupRecord,
    snapshot: Snapshot,
    tables: Mapping[str, Table],
    queries: Mapping[str, str],
    stored: Stored,
    backups: Sequence[BackupRecord],
    recipients: Sequence[str],
    other_database: str,
    may_be_empty: Collection[str],
    *,
    now: datetime,
) -> BackupRecord:
    """The record, marked as suspect if the rows look wrong.

    :param other_database: how the database differs from that of the last backup; empty if it does not.
    :raises TransientError: the read rows cannot be right.
    """
    rows = {name: blocks.rows for name, blocks in stored.blocks.items()}
    good = [b for b in backups if b.is_trusted and b.is_regular and not b.is_of_future(now)]
    last_good = max(good, key=lambda backup: (backup.data_time, backup.backup_id)) if good else None
    found = plausibility.check(snapshot, tables, queries, rows, last_good, may_be_empty=may_be_empty)
    other_keys = ""
    if last_good is not None and last_good.recipients and not {*last_good.recipients} & {*recipients}:
        other_keys = f"It is encrypted to none of the keys of {last_good.backup_id}, the last good backup."
    record = replace(
        record,
        suspect="; ".join(filter(None, (other_database, found.suspect))) or None,
        remark=" ".join(filter(None, (other_keys, found.remark))) or None,
    )
    if found.accepted and last_good is not None and not other_database:
        return replace(record, accepted_by=last_good.accepted_by, accepted_at=last_good.accepted_at)
    return record
