"""Checks whether an envelope is valid, because anybody who may write into a store can forge one.

Every envelope passes these checks after it is read from a store, and before it is written there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from clinic_backups.archive.object_keys import parse_key
from clinic_backups.base.backup_facts import Gap
from clinic_backups.base.backup_id import moment_of
from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.base.documents import BIGINT, EARLIEST, LATEST, Text
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.text import JOINERS, one_line

MAX_CHAIN, MAX_TABLES, MAX_TABLE_NAME, MAX_RECIPIENTS, MAX_RECIPIENT = 250, 10_000, 300, 100, 4_000
MAX_GAPS, MAX_GAP = 1_000, 4_000
MAX_TEXT = 500
_LONGER_TEXTS = {"notes": 2_000, "suspect": 10_000}
_SOURCE = re.compile(r"([0-9]{1,20}|\?)/[0-9]{1,10}/.{1,63}")
"""See ``clinic_backups.tenant.source_database``."""
MAX_NUMBER = 2**31
"""Higher numbers are neither written to envelopes nor accepted from them. A forged number just below it can use up
the numbers. Later envelopes are then written without one, so that a forged envelope stops no backup."""
AHEAD = timedelta(days=1)
"""Past times may be this much later than now, because they may come from other machines' clocks."""
APART = timedelta(days=1)
"""The largest difference between the time in an id or a key and the times of its envelope."""
LONGEST = timedelta(days=36_500 + 365 + 1)
"""The latest end of a term or a lock that the settings can produce, counted from now."""
_WRONG = {
    "kind": "has an unknown kind",
    "trigger": "has an unknown kind",
    "archive": "has no usable checksum",
    "fingerprint": "has no usable checksum",
    "safety_of": "names a restored backup that is not a backup of the clinic",
    "number": "has a number that is out of range",
    "chain": "has an entry in its chain that is not an archive of the clinic",
}
"""What is said of an envelope with a wrong value in one of these fields."""
_ENVELOPE = TypeAdapter(Envelope)
_TEXTS = [
    name
    for name, hint in get_type_hints(Envelope, include_extras=True).items()
    if get_origin(hint) not in (dict, tuple) and Text in (hint, *get_args(hint))
]
"""The fields that are texts, also those that may be missing."""


def problem_of(envelope: Envelope, clinic_id: ClinicId, now: datetime) -> str:
    """The reason why an envelope in a clinic's folder cannot be used; empty if it can.

    Everything that reaches the catalog is checked: one value that cannot be read back would stop every clinic.
    """
    if envelope.clinic_id != clinic_id or isinstance(envelope.clinic_id, bool):
        return f"it is in the folder of clinic {clinic_id}, but its envelope names another clinic"
    if not _is_backup_id(envelope.backup_id, clinic_id):
        return "its envelope has no usable backup id"
    try:
        _ENVELOPE.validate_python(envelope)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        return f"its envelope {_WRONG.get(field, 'has values of a wrong type')}"
    if envelope.safety_of is not None and not _names_one_of(envelope.safety_of, clinic_id):
        return f"its envelope {_WRONG['safety_of']}"
    return (
        _about_amounts(envelope)
        or _about_chain(envelope, clinic_id)
        or _about_times(envelope, now)
        or _about_names(envelope)
        or _about_source(envelope)
    )


def harmless(envelope: Envelope) -> Envelope:
    """The envelope with its texts made safe to show.

    They are not refused, because names and notes may hold anything.
    """
    texts: dict[str, Any] = {
        name: _shown(text, _LONGER_TEXTS.get(name, MAX_TEXT))
        for name in _TEXTS
        if (text := getattr(envelope, name)) is not None
    }
    gaps = tuple(Gap(_shown(gap.table, MAX_GAP), _shown(gap.reason, MAX_GAP)) for gap in envelope.gaps)
    return replace(envelope, **texts, gaps=gaps)


def usable_end(moment: datetime | None, now: datetime) -> datetime | None:
    """The end of a lock from a provider, limited to the latest that the settings can produce; none stays none."""
    latest = min(now + LONGEST, LATEST)
    return None if moment is None else moment if moment <= latest else latest


def _about_amounts(envelope: Envelope) -> str:
    if envelope.number is not None and not 0 < envelope.number < MAX_NUMBER:
        return f"its envelope {_WRONG['number']}"
    if len(envelope.rows) > MAX_TABLES or sum(envelope.rows.values()) >= BIGINT:
        return "its envelope counts too many tables or rows"
    if len(envelope.gaps) > MAX_GAPS:
        return "its envelope names too many gaps"
    if not _are_names(envelope.rows, MAX_TABLE_NAME):
        return "its envelope has names of tables that are not valid"
    if len(envelope.recipients) > MAX_RECIPIENTS or not _are_names(envelope.recipients, MAX_RECIPIENT):
        return "its envelope has public keys that are not valid"
    return ""


def _about_chain(envelope: Envelope, clinic_id: ClinicId) -> str:
    parent_id, chain = envelope.parent_id, envelope.chain
    if envelope.kind == "full":
        return "" if parent_id is None and not chain else "its envelope says that a full backup is built on another"
    right = _is_backup_id(parent_id, clinic_id) and parent_id != envelope.backup_id and 0 < len(chain) <= MAX_CHAIN
    if not right or chain[0].backup_id != parent_id:
        return "its envelope has a parent or a chain that is not valid"
    for archive in chain:
        parsed = parse_key(archive.key) if isinstance(archive.key, str) else None
        ours = parsed is not None and (parsed.clinic_id, parsed.part) == (clinic_id, "archive")
        if not ours or not _is_backup_id(archive.backup_id, clinic_id):
            return f"its envelope {_WRONG['chain']}"
    return ""


def _about_times(envelope: Envelope, now: datetime) -> str:
    started_at, finished_at = envelope.started_at, envelope.finished_at
    data_at = envelope.data_at
    ends = [envelope.expires_at, *([envelope.locked_until] if envelope.locked_until is not None else [])]
    if any(moment.tzinfo is None for moment in (started_at, finished_at, *([data_at] if data_at else []), *ends)):
        return "its envelope has times without a zone"
    if not EARLIEST <= started_at <= finished_at <= now + AHEAD:
        return "its envelope has a start or an end that is not valid"
    if data_at is not None and not EARLIEST <= data_at <= finished_at:
        return "its envelope has a time of its data that is not valid"
    if not all(EARLIEST <= moment <= min(now + LONGEST, LATEST) for moment in ends):
        return "its envelope has an end of its term that is not valid"
    return ""


def _about_names(envelope: Envelope) -> str:
    """Check that id, key and times can belong to one backup.

    The id is made first. A retry keeps it, has a later start and makes another key. An earlier version kept the key
    too.
    """
    named_at, key = moment_of(envelope.backup_id), parse_key(envelope.archive.key)
    drawn_at = key.began_at if key else None
    if named_at is None:
        return "its envelope has no usable backup id"
    if envelope.started_at < named_at - APART:
        return "its envelope has a start before the time in its id"
    if drawn_at is None or not named_at - APART <= drawn_at <= envelope.finished_at + APART:
        return "its key has another time than its id and its envelope"
    return ""


def _about_source(envelope: Envelope) -> str:
    source = envelope.source_db
    if source is None or (source.isprintable() and _SOURCE.fullmatch(source)):
        return ""
    return "its envelope names a source database that is not valid"


def _is_backup_id(value: object, clinic_id: ClinicId) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"{_begins(clinic_id)}-[0-9]{{8}}T[0-9]{{6}}Z", value) is not None


def _names_one_of(value: object, clinic_id: ClinicId) -> bool:
    """Less strict: this id is never looked up, and refusing it would forbid a safety backup and so the restore."""
    return isinstance(value, str) and re.fullmatch(rf"{_begins(clinic_id)}-[0-9A-Za-z-]{{1,60}}", value) is not None


def _begins(clinic_id: ClinicId) -> str:
    return re.escape(component_of(clinic_id))


def _are_names(texts: Iterable[str], most: int) -> bool:
    return all(0 < len(text) <= most and text.isprintable() for text in texts)


def _shown(text: str, most: int) -> str:
    seen = all(character.isprintable() or character in JOINERS for character in text)
    return (text if seen else one_line(text))[:most]
