"""The catalog from the envelopes in a store alone: no key, no other catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

from clinic_backups import envelopes
from clinic_backups.catalog.copies import Copies
from clinic_backups.catalog.records import Catalog
from clinic_backups.errors import IntegrityError, ObjectNotFound
from clinic_backups.model import BackupRecord, Envelope, parse_key
from clinic_backups.stores.base import ObjectInfo, ObjectStore

AT_A_TIME = 8
"""Envelopes that are fetched at once: each is one small request."""
_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}


@dataclass
class Rebuilt:
    """What came of it.

    :param adopted: backups that the catalog did not know.
    :param known: those that it knew, as they are.
    :param held: those of the adopted that are on hold.
    :param conflicts: objects that do not fit, with the reason; nothing was changed for them.
    :param incomplete: archives without an envelope: no backups.
    :param strangers: objects that are none of ours.
    """

    store_url: str
    adopted: int = 0
    known: int = 0
    held: int = 0
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    strangers: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        conflicts = [{"key": key, "problem": problem} for key, problem in self.conflicts]
        return vars(self) | {"conflicts": conflicts}


def rebuild(
    store: ObjectStore, catalog: Catalog, now: datetime, on_step: Callable[[str], object] = lambda step: None
) -> Rebuilt:
    """Write every backup of a store into the catalog that the catalog does not know. A second time changes nothing.

    :raises ClinicBackupsError: the store or the catalog failed; what was written so far stays and is right.
    """
    report, places = Rebuilt(store.url), Copies(catalog.database)
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="envelopes") as pool:
        for folder, group in groupby(store.list("backups/"), key=lambda info: "/".join(info.key.split("/")[:2])):
            on_step(f"{store.url}/{folder}")
            there = _sorted_out(group, report)
            whole = sorted(key for key, parts in there.items() if {"archive", "envelope"} <= parts.keys())
            report.incomplete += [
                info.key for parts in there.values() if not {"archive", "envelope"} <= parts.keys()
                for info in parts.values()
            ]  # fmt: skip
            # In the order of time: a parent before its children.
            loaded = list(pool.map(partial(_load, store), [there[key] for key in whole], whole))
            for key, envelope in sorted(zip(whole, loaded, strict=True), key=_moment):
                if isinstance(envelope, str):
                    report.conflicts.append((key, envelope))
                else:
                    _take(envelope, "hold" in there[key], store, catalog, places, now, report)
    return report


def _sorted_out(group: Iterator[ObjectInfo], report: Rebuilt) -> dict[str, dict[str, ObjectInfo]]:
    there: dict[str, dict[str, ObjectInfo]] = {}
    for info in group:
        parts = parse_key(info.key)
        if parts is None:
            report.strangers += 1
        else:
            there.setdefault(parts.archive_key, {})[parts.part] = info
    return there


def _load(store: ObjectStore, parts: Mapping[str, ObjectInfo], key: str) -> Envelope | str:
    """An envelope, or why it cannot be used. Whoever may write into the store may have written it."""
    try:
        envelope = envelopes.load(key, store)
    except (IntegrityError, ObjectNotFound) as error:
        return error.message
    parsed = parse_key(key)
    assert parsed is not None  # noqa: S101 - that is how it was found
    problem = _problem(envelope, parsed.clinic_id)
    if not problem and envelope.archive.size_bytes != parts["archive"].size_bytes:
        problem = f"the archive has {parts['archive'].size_bytes} bytes, its envelope says otherwise"
    return problem or envelope


def _problem(envelope: Envelope, clinic_id: int) -> str:
    if envelope.clinic_id != clinic_id or isinstance(envelope.clinic_id, bool):
        return f"it lies in the folder of clinic {clinic_id}, its envelope names another"
    if not isinstance(envelope.backup_id, str) or not re.fullmatch(
        rf"{clinic_id}-[0-9]{{8}}T[0-9]{{6}}Z", envelope.backup_id
    ):
        return "its envelope has no usable backup id"
    if envelope.kind not in ("full", "incremental") or envelope.trigger not in ("scheduled", "manual"):
        return "its envelope is of no known kind"
    if any(not isinstance(getattr(envelope.archive, name), str) or not form.fullmatch(getattr(envelope.archive, name))
           for name, form in _HEX.items()):  # fmt: skip
        return "its envelope has no usable checksum"
    if not isinstance(envelope.rows, dict):
        return "its envelope has values of a wrong type"
    texts = (envelope.clinic_name, envelope.requested_by, envelope.notes, envelope.fingerprint, *envelope.recipients)
    counts = (envelope.raw_bytes, envelope.archive.size_bytes, *envelope.rows.values())
    if not all(map(_is_text, (*texts, *envelope.rows))) or not all(
        type(count) is int and 0 <= count < 2**63 for count in counts
    ):
        return "its envelope has values of a wrong type"
    moments = (envelope.started_at, envelope.finished_at, envelope.expires_at, envelope.locked_until)
    if any(moment is not None and moment.tzinfo is None for moment in moments):
        return "its envelope has times without a zone"
    return ""


def _is_text(value: object) -> bool:
    """Text that PostgreSQL takes."""
    try:
        return isinstance(value, str) and "\0" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _take(
    envelope: Envelope, on_hold: bool, store: ObjectStore, catalog: Catalog, places: Copies, now: datetime,
    report: Rebuilt,
) -> None:  # fmt: skip
    key = envelope.archive.key
    record = BackupRecord.of(envelope, store.url)
    if envelope.parent_id is not None and catalog.get(envelope.parent_id) is None:
        report.conflicts.append((key, f"the backup {envelope.parent_id} that it is built on is not there"))
        return
    if catalog.adopt(record):
        report.adopted += 1
    else:
        known = catalog.get(record.backup_id)
        problem = _difference(known, record)
        if known is None or problem:
            report.conflicts.append((key, problem))
            return
        report.known += 1
        if store.url not in known.stores:
            places.mark(record.backup_id, store.url, "present", now)
        record = known
    if on_hold and record.hold_reason is None and (hold := envelopes.load_hold(key, store)):
        catalog.hold(record, *hold)
        report.held += 1


def _difference(known: BackupRecord | None, found: BackupRecord) -> str:
    if known is None:
        return "its record was removed meanwhile"
    if known.state not in ("completed", "lost"):
        return f"the catalog says that it is {known.state}"
    names = ("clinic_id", "archive_key", "size_bytes", "sha256")
    different = [name for name in names if getattr(known, name) != getattr(found, name)]
    return f"the catalog says otherwise about its {', '.join(different)}" if different else ""


def _moment(item: tuple[str, Envelope | str]) -> tuple[bool, Any]:
    return (True, item[0]) if isinstance(item[1], str) else (False, item[1].started_at)
