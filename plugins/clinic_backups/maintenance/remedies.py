"""Corrects one difference between a store and the catalog, under the clinic's locks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance.discrepancies import Discrepancy
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore, UnfinishedUpload


def write_beside(item: Discrepancy, store: ObjectStore, catalog: Catalog, now: datetime) -> Discrepancy:
    """Write a missing envelope or hold note from the catalog, or take over a hold that it does not know.

    :raises ClinicBackupsError: the store refused, or the existing object belongs to another backup and stays.
    """
    record = catalog.get(item.backup_id) if item.backup_id else None
    if record is None:
        return item
    if item.kind == "no envelope":
        envelopes.ensure(record.envelope(), store, now=now)
        return replace(item, action="written again")
    if hold := envelopes.unreleased_hold(record, store):
        catalog.hold(record, hold.reason, envelopes.by_note(hold), hold.at)
        return replace(item, action="recorded")
    envelopes.write_hold(record, store)
    return replace(item, action="removed" if record.hold_reason is None else "written again")


def remove(item: Discrepancy, store: ObjectStore, uploads: Iterable[UnfinishedUpload] = ()) -> Discrepancy:
    """Remove debris or an unfinished upload. :raises ClinicBackupsError: the store refused."""
    if item.kind == "unfinished upload":
        for upload in uploads:
            if upload.key == item.key:
                store.abort(upload)
    else:
        store.delete(item.key)
    return replace(item, action="removed")
