"""An erasure request: a row that must not come back, as the catalog and the stores record it.

The key of the row is a keyed hash. So is the mark of the request itself, over all that is recorded of it. A person who
may write to a store does not have the secret. So a request that this person makes or changes has a wrong mark, and is
not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.meant_key import MeantKey
from clinic_backups.base.plain import iso

FORMAT = 1
ReasonClass = Literal["person", "authority", "mistake", "other"]
CLASSES: tuple[ReasonClass, ...] = get_args(ReasonClass)
"""Why a row must not come back: the person asked, an authority or a law asks, it was recorded by mistake, or else."""
SECRET_BYTES = 32
_MARKING = b"clinic-backups: the mark of an erasure request, 1"


@dataclass(frozen=True)
class ForgottenRecord:
    """One erasure request.

    :param number: in this catalog; 0 if it was read from a store.
    :param by: who recorded it.
    :param reason: a person's words. Stores do not have it, because it may hold a name.
    :param key_id: of the secret with which the hashes were made.
    :param meant: the table and the columns of its key; none in requests of older versions, or if nobody knows.
    """

    number: int
    clinic_id: ClinicId
    table: str
    at: datetime
    by: str
    reason: str
    hashes: tuple[bytes, ...] = field(repr=False)
    reason_class: ReasonClass = "other"
    key_id: str = ""
    meant: MeantKey | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the hashes."""
        return {"number": self.number, "clinic_id": self.clinic_id, "table": self.table, "forgotten_at": iso(self.at),
                "forgotten_by": self.by, "class": self.reason_class, "reason": self.reason}  # fmt: skip

    def document(self) -> dict[str, Any]:
        """What stores hold of it, without the mark."""
        meant = {} if self.meant is None else {"meant": self.meant.to_json()}
        return {
            "format": FORMAT, "key_id": self.key_id, "clinic_id": self.clinic_id, "table": self.table,
            "key_hashes": sorted(each.hex() for each in self.hashes), "forgotten_at": iso(self.at),
            "forgotten_by": self.by, "class": self.reason_class,
        } | meant  # fmt: skip


@dataclass(frozen=True)
class ForgottenSecret:
    """A secret with which hashes and marks are made. Each catalog has one, and those of catalogs before it."""

    value: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """The id by which requests name it. Nobody finds another secret with the same id."""
        return hashlib.sha256(self.value).hexdigest()[:32]

    def of_table(self, clinic_id: ClinicId, table: str) -> bytes:
        """The key of the hashes in one table of a clinic, so that no database sees the secret itself."""
        return hmac.digest(self.value, json.dumps([str(clinic_id), table]).encode(), "sha256")

    def mark(self, record: ForgottenRecord) -> bytes:
        """What only this secret makes of a request."""
        said = json.dumps(record.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hmac.digest(hmac.digest(self.value, _MARKING, "sha256"), said.encode(), "sha256")


def check_of(marks: Iterable[bytes]) -> str:
    """A short text that is the same for the same requests, for comparing two lists by eye."""
    digest = hashlib.sha256(b"".join(sorted(set(marks)))).hexdigest()
    return f"{digest[:4]}-{digest[4:8]}-{digest[8:12]}"
