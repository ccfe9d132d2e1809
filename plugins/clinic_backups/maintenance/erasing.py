"""Removes older versions, debris and unfinished uploads of an erased clinic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from clinic_backups.archive.object_keys import KeyParts, keys_beside, parse_key, prefix_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.errors import IntegrityError, ObjectNotFound, PermanentError, TransientError
from clinic_backups.catalog.erasures import Erasure
from clinic_backups.catalog.locks import ClinicLock
from clinic_backups.stores import condition as stored
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import AnsweringStores


def purge_rest(
    url: str,
    stores: AnsweringStores,
    erasure: Erasure,
    records: Sequence[BackupRecord],
    lock: ClinicLock,
    now: datetime,
) -> int:
    """Remove an erased clinic's remaining objects from one store, with all versions.

    They belong to deleted backups, or to backups without a record. Returns the number of objects that a last listing
    still showed.

    :param records: all records of the clinic.
    :raises PermanentError: there are backups that the catalog does not know.
    :raises ClinicBackupsError: a store does not answer, or an object is locked.
    """
    kept = {each.archive_key for each in records if each.state not in ("deleted", "failed") or not erasure.covers(each)}
    known = {each.archive_key for each in records}
    prefix = prefix_of(erasure.clinic_id)
    with stores.at(url, erasure.clinic_id) as store:
        there = stored.by_archive(store.list(prefix))
    unknown = [key for key, objects in there.items() if stored.is_whole(objects) and key not in known]
    nobodys = [key for key in unknown if _is_nobodys(key, stores, erasure, now)]
    if held := [key for key in nobodys if not erasure.ignore_unknown_holds and _has_note(key, stores, erasure)]:
        raise PermanentError(
            f"{url} has {len(held)} archives of clinic {erasure.clinic_id} that the catalog does not know. They have"
            f" a hold note, but no valid envelope: {', '.join(held[:3])}.",
            hint="No catalog can take them over. Look at the notes beside them (they end with .hold.json). If nobody"
            f" needs them: `clinic-backups erase-clinic {in_shell(erasure.clinic_id)} --ignore-unknown-holds`.",
        )
    if unknown := [key for key in unknown if key not in nobodys]:
        # They may be on hold. Only a catalog that knows them can tell.
        raise PermanentError(
            f"{url} has {len(unknown)} backups of clinic {erasure.clinic_id} that the catalog does not know.",
            hint="Run `clinic-backups catalog rebuild`, look at them, and then erase the clinic again. Move objects"
            " that it reports as conflicts away by hand.",
        )
    with stores.at(url, erasure.clinic_id) as store:
        gone = {parts.archive_key for key in store.all_keys(prefix) if (parts := parse_key(key))} - kept
        uploads = [
            upload
            for upload in store.unfinished(prefix)
            if (parts := parse_key(upload.key)) and parts.archive_key not in kept
        ]
    for archive_key in sorted(gone):
        lock.require()
        with stores.at(url, erasure.clinic_id) as store:
            for key in keys_beside(archive_key):
                store.purge(key)
    for upload in uploads:
        lock.require()
        with stores.at(url, erasure.clinic_id) as store:
            store.abort(upload)
    with stores.at(url, erasure.clinic_id) as store:
        left = keys_of(store, erasure.clinic_id)
    if still := [key for key in left if key.archive_key not in kept]:
        raise TransientError(
            f"{url} still lists {len(still)} objects of clinic {erasure.clinic_id} that were deleted.",
            hint="Run the erasure again. If it happens again, check whether another program writes there.",
        )
    return len(left)


def keys_of(store: ObjectStore, clinic_id: ClinicId) -> set[KeyParts]:
    """The keys of a clinic's remaining objects in a store, including hidden versions."""
    return {parts for key in store.all_keys(prefix_of(clinic_id)) if (parts := parse_key(key))}


def _is_nobodys(archive_key: str, stores: AnsweringStores, erasure: Erasure, now: datetime) -> bool:
    """Whether the archive has no valid envelope in any store, so that no catalog can take it over."""
    for url in stores.urls:
        with stores.at(url, erasure.clinic_id) as store:
            try:
                envelopes.load(archive_key, store, now=now)
                return False
            except (envelopes.NoEnvelope, envelopes.OtherArchive, ObjectNotFound):
                pass
            except IntegrityError:
                return False  # of a newer version of this package
    return True


def _has_note(archive_key: str, stores: AnsweringStores, erasure: Erasure) -> bool:
    """Whether a hold note is beside the archive in some store, readable or not. Anybody may have put it there."""
    for url in stores.urls:
        with stores.at(url, erasure.clinic_id) as store:
            try:
                if envelopes.load_hold(archive_key, store) is not None:
                    return True
            except IntegrityError:
                return True
    return False
