"""Checks that the stores take, return and delete objects, and that they can lock them where that is wanted."""

from __future__ import annotations

import io
from uuid import uuid4

from clinic_backups.archive.object_keys import new_probe
from clinic_backups.base.errors import IntegrityError, afterwards
from clinic_backups.base.findings import Report
from clinic_backups.base.settings import Settings
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores


def check_stores(stores: Stores, settings: Settings, report: Report) -> None:
    """Check the primary store, and the further ones. Writes one small object in each, and deletes it again."""
    _check_lock(stores.primary, settings, report)
    _check_store(stores.primary, report)
    for url in stores.urls[1:]:
        _check_further(url, stores, settings, report)


def _check_store(store: ObjectStore, report: Report) -> None:
    known_as = store.identified()
    key, content = new_probe(), uuid4().bytes
    with afterwards(lambda: store.delete(key)):
        store.put(key, io.BytesIO(content))
        with store.open(key) as stream:
            read = stream.read()
        if read != content or store.stat(key).size_bytes != len(content):
            raise IntegrityError(
                f"{store.url} returned other bytes than were written to {key}.",
                hint="Look for a proxy, a cache or a policy between here and the store that changes objects.",
            )
    named = f" It is store {known_as}." if known_as else ""
    report.ok("store", f"{store.url}: objects can be written, read and deleted.{named}")


def _check_lock(store: ObjectStore, settings: Settings, report: Report) -> None:
    if settings.lock_days and (problem := store.lock_problem()):
        report.error(
            "store",
            f"CLINIC_BACKUPS_LOCK_DAYS is {settings.lock_days}, and {problem}",
            "Use a bucket that can lock objects, see docs/stores.md, or set CLINIC_BACKUPS_LOCK_DAYS=0.",
        )


def _check_further(url: str, stores: Stores, settings: Settings, report: Report) -> None:
    """Check a further store. Its failure is only a warning: replicas are made later, and no backup waits for them."""
    of_store = Report()
    with of_store.check("store"):
        store = stores.at(url)
        _check_lock(store, settings, of_store)
        _check_store(store, of_store)
    for finding in of_store.findings:
        if finding.level == "error":
            report.warn("store", f"Further store {url}: {finding.message}", finding.hint)
