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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_leave

from clinic_backups.base import documents
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.forgotten import ForgottenRecord, ForgottenSecret, ReasonClass
from clinic_backups.base.meant_key import MEANT, MeantKey
from clinic_backups.base.row_key import PART, readings
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import forgotten, forgotten_key, forgotten_sealed

NamedKey = str | tuple[tuple[str, ...], ...]
"""A key that somebody named, as it was written; or the ways in which the server writes it, each by its parts."""
MOST_HASHES = 100_000
"""Of one key: a part can be read in several ways."""
_QUOTED = re.compile(r'["\\(),\s]', re.ASCII)


@dataclass(frozen=True)
class ForgottenTable:
    """The forgotten rows of one table of a clinic.

    :param by_secret: the hashes, with the key with which they were made. There are several if the catalog took
        requests of another one over.
    :param meant: which table and columns they are about; none if they do not say it.
    :param requests: the number of each in this catalog, or 0, and its moment.
    """

    by_secret: tuple[tuple[bytes, frozenset[bytes]], ...] = field(repr=False)
    meant: MeantKey | None = None
    requests: tuple[tuple[int, datetime], ...] = ()

    @property
    def hashes(self) -> frozenset[bytes]:
        """All hashes."""
        return frozenset().union(*(hashes for _, hashes in self.by_secret))

    def names(self, parts: Sequence[Sequence[tuple[str, str]]]) -> bool:
        """Whether the row with this key is forgotten.

        :param parts: for each part of the key the ways to read it, with what PostgreSQL writes for them.
        """
        return any(
            hash_of(secret, [kind for kind, _ in way], [text for _, text in way]) in hashes
            for way in itertools.product(*parts)
            for secret, hashes in self.by_secret
        )


@dataclass(frozen=True)
class ForgottenOfClinic:
    """What a restore of a clinic leaves out, by the names that the tables had when it was recorded.

    :param notes: what else whoever looks at the plan should know of the requests, as sentences.
    """

    tables: dict[str, tuple[ForgottenTable, ...]]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The same text for the same requests. It is empty if there are no requests."""
        said = sorted(
            [name, sorted(each.hex() for each in table.hashes),
             *([json.dumps(table.meant.to_json())] if table.meant else ())]
            for name, tables in self.tables.items() for table in tables
        )  # fmt: skip
        return hashlib.sha256(json.dumps(said).encode()).hexdigest() if said else ""


class Forgotten:
    """Writes and finds erasure requests. PostgreSQL refuses to change or remove one."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def add(
        self, clinic_id: ClinicId, rows: Mapping[str, Sequence[NamedKey]], *, by: str, reason: str,
        reason_class: ReasonClass = "other", meant: Mapping[str, MeantKey] | None = None,
    ) -> list[int]:  # fmt: skip
        """Record that rows must not come back, all or none. Returns the numbers of the records.

        :param rows: the keys by table.
        :param meant: by table, what the keys are keys of, if the clinics' database said it.
        :raises SettingsError: a key has too many parts.
        """
        secret = self._own_secret()
        values = [
            {"clinic_id": clinic_id, "table_name": table, "forgotten_by": by, "reason": reason,
             "reason_class": reason_class, "key_id": secret.key_id, "meant": _stored((meant or {}).get(table)),
             "key_hashes": sorted(_hashes(secret.of_table(clinic_id, table), key))}
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
            table.key_hashes, table.reason_class, table.key_id, table.meant,
        ).order_by(table.forgotten_at, table.id)  # fmt: skip
        if clinic_id is not None:
            statement = statement.where(table.clinic_id == clinic_id)
        with self._database.statement("reading which rows must not come back") as db:
            return [
                ForgottenRecord(
                    *row[:6],
                    tuple(map(bytes, row.key_hashes)),
                    row.reason_class,
                    row.key_id,
                    None if row.meant is None else documents.read(MEANT, row.meant),
                )
                for row in db.execute(statement)
            ]

    def of_clinic(self, clinic_id: ClinicId) -> ForgottenOfClinic:
        """What a restore of this clinic leaves out."""
        records = self.find(clinic_id)
        return by_table(records, self.secrets()) if records else ForgottenOfClinic({})

    def secrets(self) -> dict[str, ForgottenSecret]:
        """The catalog's own secret, and those that it took over from stores, by their ids."""
        with self._database.statement("reading the keys of forgotten rows") as db:
            found = [ForgottenSecret(bytes(each)) for each in db.execute(select(forgotten_key.c.secret)).scalars()]
        return {each.key_id: each for each in found}

    def take_over(
        self, records: Sequence[ForgottenRecord], secrets: Iterable[ForgottenSecret],
        sealed: Mapping[tuple[str, str], bytes],
    ) -> None:  # fmt: skip
        """Record requests that a store holds, and secrets that the catalog does not have, all or none.

        :param sealed: how the store holds these secrets, by their ids and the ids of the public keys.
        """
        keys = [{"secret": each.value, "taken_over": True} for each in secrets]
        values = [
            {"clinic_id": each.clinic_id, "table_name": each.table, "forgotten_at": each.at, "forgotten_by": each.by,
             "reason": each.reason, "reason_class": each.reason_class, "key_id": each.key_id,
             "key_hashes": list(each.hashes), "meant": _stored(each.meant)}
            for each in records
        ]  # fmt: skip
        with self._database.transaction("taking over which rows must not come back") as db:
            if keys:
                db.execute(insert_or_leave(forgotten_key).values(keys).on_conflict_do_nothing())
            for (key_id, recipients_id), data in sealed.items():
                row = {"key_id": key_id, "recipients_id": recipients_id, "sealed": data}
                db.execute(insert_or_leave(forgotten_sealed).values(row).on_conflict_do_nothing())
            for record in values:
                db.execute(insert(forgotten).values(record))

    def sealed(self, recipients_id: str) -> dict[str, bytes]:
        """The secrets that were sealed for these public keys, as the stores hold them, by their ids."""
        table = forgotten_sealed.c
        statement = select(table.key_id, table.sealed).where(table.recipients_id == recipients_id)
        with self._database.statement("reading the sealed keys of forgotten rows") as db:
            return {key_id: bytes(sealed) for key_id, sealed in db.execute(statement)}

    def seal(self, recipients_id: str, seal: Callable[[bytes], bytes]) -> dict[str, bytes]:
        """Seal the secrets that are not sealed yet, and return all as :meth:`sealed`.

        Each is sealed once: the same bytes in each store can be compared without a secret key.
        """
        there = self.sealed(recipients_id)
        for key_id, secret in self.secrets().items():
            if key_id not in there:
                row = {"key_id": key_id, "recipients_id": recipients_id, "sealed": seal(secret.value)}
                with self._database.transaction("sealing the keys of forgotten rows") as db:
                    # Somebody else may have done it just now. Then that one counts.
                    db.execute(insert_or_leave(forgotten_sealed).values(row).on_conflict_do_nothing())
        return self.sealed(recipients_id)

    def own_key_id(self) -> str:
        """The id of the catalog's own secret."""
        return self._own_secret().key_id

    def _own_secret(self) -> ForgottenSecret:
        with self._database.statement("reading the key of forgotten rows") as db:
            found = db.execute(
                select(forgotten_key.c.secret).where(forgotten_key.c.taken_over.is_(False))
            ).scalar_one_or_none()
        if found is None:
            raise PermanentError(
                "The catalog has lost the key with which it recognises forgotten rows.",
                hint="Restore the table clinic_backups.forgotten_key from a backup of the catalog.",
            )
        return ForgottenSecret(bytes(found))


def by_table(records: Iterable[ForgottenRecord], secrets: Mapping[str, ForgottenSecret]) -> ForgottenOfClinic:
    """What these requests of one clinic leave out.

    :raises PermanentError: the secret of one of them is not there, so its row would come back.
    """
    hashes: dict[str, dict[MeantKey | None, dict[bytes, list[bytes]]]] = {}
    requests: dict[tuple[str, MeantKey | None], list[tuple[int, datetime]]] = {}
    for record in records:
        if record.key_id not in secrets:
            raise PermanentError(
                f"The key with which rows of {record.table} were forgotten is not there (key {record.key_id}).",
                hint="Restore the table clinic_backups.forgotten_key from a backup of the catalog, or take it over from"
                " the stores: `clinic-backups catalog rebuild`, with CLINIC_BACKUPS_IDENTITY_FILE set.",
            )
        secret = secrets[record.key_id].of_table(record.clinic_id, record.table)
        hashes.setdefault(record.table, {}).setdefault(record.meant, {}).setdefault(secret, []).extend(record.hashes)
        requests.setdefault((record.table, record.meant), []).append((record.number, record.at))
    return ForgottenOfClinic(
        {
            name: tuple(
                ForgottenTable(
                    tuple((secret, frozenset(each)) for secret, each in by_secret.items()), meant,
                    tuple(requests[name, meant]),
                )
                for meant, by_secret in by_meant.items()
            )
            for name, by_meant in hashes.items()
        }
    )  # fmt: skip


def _stored(meant: MeantKey | None) -> dict[str, Any] | None:
    return None if meant is None else meant.to_json()


def prefix_of(kinds: Sequence[str]) -> str:
    """What is hashed before the key itself, which is written as PostgreSQL writes a row of these columns."""
    return ",".join(kinds) + ":"


def _hashes(secret: bytes, key: NamedKey) -> set[bytes]:
    """The hashes of a key, for each way to read it."""
    if isinstance(key, str):
        key = ((key,), tuple(key.split(PART)))[: 2 if PART in key else 1]
    ways = [[list(readings(part)) for part in parts] for parts in key]
    if sum(math.prod(map(len, way)) for way in ways) > MOST_HASHES:
        raise SettingsError(
            "A key has too many parts.", hint=f"Its parts stand between {PART}. Write it as `clinic-backups find` does."
        )
    return {
        hash_of(secret, [kind for kind, _ in parts], [text for _, text in parts])
        for way in ways
        for parts in itertools.product(*way)
    }


def hash_of(secret: bytes, kinds: Sequence[str], parts: Sequence[str]) -> bytes:
    """The hash of a row's key. :param parts: its values as PostgreSQL writes them."""
    return hmac.digest(secret, (prefix_of(kinds) + _row(parts)).encode(), "sha256")


def _row(parts: Sequence[str]) -> str:
    """The text of a row, as PostgreSQL's ``record_out`` writes it."""
    return "(" + ",".join(map(_quoted, parts)) + ")"


def _quoted(part: str) -> str:
    if part and not _QUOTED.search(part):
        return part
    return '"' + part.replace("\\", "\\\\").replace('"', '""') + '"'
