"""A store's identity: the marker, a small object below its prefix that holds the store's id."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal
from uuid import UUID, uuid4

from pydantic import BaseModel

from clinic_backups.base import strict_json
from clinic_backups.base.documents import DOCUMENT, Time
from clinic_backups.base.errors import ObjectNotFound, PermanentError
from clinic_backups.base.plain import iso
from clinic_backups.stores.base import CONTENT_TYPE_JSON, ObjectStore

MARKER_KEY = "clinic-backups-store.json"
FORMAT = 1
MAX_BYTES = 4096


class UnreadableMarker(PermanentError):
    """The object under the marker's key was not written by this package."""


@dataclass(frozen=True)
class Marker:
    """The marker's content: an id that no other store has, and when it was created."""

    store_id: str
    made_at: datetime


class _Content(BaseModel):
    model_config = DOCUMENT
    format: Literal[1]
    store_id: UUID
    made_at: Time


def new_marker(at: datetime) -> Marker:
    """A marker for a store that has none."""
    return Marker(str(uuid4()), at)


def read_marker(store: ObjectStore) -> Marker | None:
    """The store's marker; none if the store answered that it has none.

    :raises PlaceMissing: the folder or bucket itself does not exist.
    :raises UnreadableMarker: the object is not a marker.
    :raises ClinicBackupsError: the store did not answer, or this account may not read the marker.
    """
    try:
        with store.open(MARKER_KEY) as stream:
            data = stream.read(MAX_BYTES + 1)
    except ObjectNotFound:
        return None
    try:
        return _parsed(data)
    except ValueError:
        raise UnreadableMarker(
            f"{store.url}/{MARKER_KEY} is not a marker of this package.",
            hint="Look at that object, and check who may write there. `clinic-backups store init` writes the marker.",
        ) from None


def write_marker(marker: Marker, store: ObjectStore) -> None:
    """:raises ObjectExists: there is one already."""
    text = json.dumps({"format": FORMAT, "store_id": marker.store_id, "made_at": iso(marker.made_at)}, indent=1)
    store.put(MARKER_KEY, io.BytesIO(text.encode()), content_type=CONTENT_TYPE_JSON)


@lru_cache(maxsize=8)  # a folder's marker is read before and after everything
def _parsed(data: bytes) -> Marker:
    if len(data) > MAX_BYTES:
        raise ValueError("too long")
    found = _Content.model_validate(strict_json.loads(data))
    return Marker(str(found.store_id), found.made_at)
