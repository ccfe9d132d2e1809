"""Rows that must not come back: erasure requests, with a keyed hash instead of the row's key.

The table is stored in plain, so that a restore knows which rows to look through. The hash is HMAC-SHA-256, with a key
that is derived from the catalog's own one for each clinic and table. So the clinics' database never sees the catalog's
key. Whoever reads the catalog can still try every number as a key: the hash hides keys from lists and mails, not from
the owner of the catalog.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.plain import iso
from clinic_backups.base.row_key import PART, readings
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import forgotten, forgotten_key

MOST_HASHES = 100_000
"""Of one key: a part can be read in several ways."""
_QUOTED = re.compile(r'["\\(),\s]', re.ASCII)


@dataclass(frozen=True)
class ForgottenRecord:
    """One erasure request.

    :param by: who recorded it.
    """

    number: int
    clinic_id: ClinicId
    table: str
    at: datetime
    by: str
    reason: str
    hashes: tuple[bytes, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the hashes."""
        return {"number": self.number, "clinic_id": self.clinic_id, "table": self.table, "forgotten_at": iso(self.at),
                "forgotten_by": self.by, "reason": self.reason}  # fmt: skip


@dataclass(frozen=True)
class ForgottenTable:
    """The forgotten rows of one table of a clinic.

    :param secret: the key of their hashes.
    """

    secret: bytes = field(repr=False)
    hashes: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True)
class ForgottenOfClinic:
    """What a restore of a clinic leaves out, by the names that the tables had when it was recorded."""

    tables: dict[str, ForgottenTable]

    @property
    def digest(self) -> str:
        """The same text for the same requests. It is empty if there are no requests."""
        said = [[name, sorted(each.hex() for each in table.hashes)] for name, table in sorted(self.tables.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest() if said else ""


class Forgotten:
    """Writes and finds erasure requests. PostgreSQL refuses to change or remove one."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def add(self, clinic_id: ClinicId, rows: Mapping[str, Sequence[str]], *, by: str, reason: str) -> list[int]:
        """Record that rows must not come back, all or none. Returns the numbers of the records.

        :param rows: the keys by table.
        :raises SettingsError: a key has too many parts.
        """
        secret = self._secret()
        values = [
            {"clinic_id": clinic_id, "table_name": table, "forgotten_by": by, "reason": reason,
             "key_hashes": sorted(_hashes(_secret_of(secret, clinic_id, table), key))}
            for table, keys in rows.items()
            for key in dict.fromkeys(keys)
        ]  # fmt: skip
        statement = insert(forgotten).returning(forgotten.c.id)
        with self._database.transaction("recording which rows must not come back") as db:
            return [db.execute(statement.values(row)).scalar_one() for row in values]

    def find(self, clinic_id: ClinicId | None = None) -> list[ForgottenRecord]:
        """All requests, or those of one clinic, in the order in which they were made."""
        table = forgotten.c
        statement = select(
            table.id, table.clinic_id, table.table_name, table.forgotten_at, table.forgotten_by, table.reason,
            table.key_hashes,
        ).order_by(table.id)  # fmt: skip
        if clinic_id is not None:
            statement = statement.where(table.clinic_id == clinic_id)
        with self._database.statement("reading which rows must not come back") as db:
            return [ForgottenRecord(*row[:-1], tuple(map(bytes, row[-1]))) for row in db.execute(statement)]

    def of_clinic(self, clinic_id: ClinicId) -> ForgottenOfClinic:
        """What a restore of this clinic leaves out."""
        records = self.find(clinic_id)
        if not records:
            return ForgottenOfClinic({})
        secret, hashes = self._secret(), dict[str, list[bytes]]()
        for record in records:
            hashes.setdefault(record.table, []).extend(record.hashes)
        return ForgottenOfClinic(
            {
                name: ForgottenTable(_secret_of(secret, clinic_id, name), tuple(sorted(set(each))))
                for name, each in hashes.items()
            }
        )

    def _secret(self) -> bytes:
        with self._database.statement("reading the key of forgotten rows") as db:
            found = db.execute(select(forgotten_key.c.secret)).scalar_one_or_none()
        if found is None:
            raise PermanentError(
                "The catalog has lost the key with which it recognises forgotten rows.",
                hint="Restore the table clinic_backups.forgotten_key from a backup of the catalog.",
            )
        return bytes(found)


def prefix_of(kinds: Sequence[str]) -> str:
    """What is hashed before the key itself, which is written as PostgreSQL writes a row of these columns."""
    return ",".join(kinds) + ":"


def _secret_of(secret: bytes, clinic_id: ClinicId, table: str) -> bytes:
    return hmac.digest(secret, json.dumps([str(clinic_id), table]).encode(), "sha256")


def _hashes(secret: bytes, key: str) -> set[bytes]:
    """The hashes of a key, for each way to read it."""
    ways = [[list(readings(part)) for part in parts] for parts in ([key], key.split(PART))[: 2 if PART in key else 1]]
    if sum(math.prod(map(len, way)) for way in ways) > MOST_HASHES:
        raise SettingsError(
            "A key has too many parts.", hint=f"Its parts stand between {PART}. Write it as `clinic-backups find` does."
        )
    return {
        hmac.digest(secret, (prefix_of([kind for kind, _ in parts]) + _row([text for _, text in parts])).encode(),
                    "sha256")
        for way in ways
        for parts in itertools.product(*way)
    }  # fmt: skip


def _row(parts: Sequence[str]) -> str:
    """The text of a row, as PostgreSQL's ``record_out`` writes it."""
    return "(" + ",".join(map(_quoted, parts)) + ")"


def _quoted(part: str) -> str:
    if part and not _QUOTED.search(part):
        return part
    return '"' + part.replace("\\", "\\\\").replace('"', '""') + '"'
