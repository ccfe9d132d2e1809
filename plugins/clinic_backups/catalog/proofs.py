"""The proofs of drills: one row for each, also of those that failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, insert, literal, select, text

from clinic_backups.base.backup_record import FUTURE_TOLERANCE
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.plain import iso
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.clinic_id_text import ClinicIdText
from clinic_backups.catalog.outbox import Notice, queue
from clinic_backups.catalog.tables import clinic, proof

Outcome = Literal["proven", "failed"]


@dataclass(frozen=True)
class ProofRecord:
    """One drill of one unit.

    :param certificate: the document, as it was signed.
    :param signature: none if there was no key.
    :param seconds: how long the restore and its comparison took. A unit's RTO is that of its newest proof.
    """

    number: int
    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    outcome: Outcome
    data_time: datetime
    finished_at: datetime
    seconds: float
    place: str
    certificate: str
    signature: bytes | None = None
    public_key: str | None = None
    error: str | None = None
    hint: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the backup was proven."""
        return self.outcome == "proven"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the document."""
        return {
            "number": self.number, "clinic_id": self.clinic_id, "clinic_name": self.clinic_name,
            "backup_id": self.backup_id, "outcome": self.outcome, "data_time": iso(self.data_time),
            "finished_at": iso(self.finished_at), "seconds": round(self.seconds, 3), "place": self.place,
            "is_signed": self.signature is not None, "error": self.error, "hint": self.hint,
        }  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A unit that may be drilled.

    :param backup_id: its newest good backup; none if it has none.
    :param chain_bytes: the size of all archives that a restore of it reads.
    :param proven_at: when its newest good proof was made.
    :param proven_id: the backup of that proof.
    :param seconds: how long that took.
    :param failed: its last drill failed.
    :param since: when it was first seen.
    """

    clinic_id: ClinicId
    name: str
    backup_id: str | None
    chain_bytes: int
    since: datetime
    proven_at: datetime | None = None
    proven_id: str | None = None
    seconds: float | None = None
    failed: bool = False


_COLUMNS = [proof.c.id, *(proof.c[name] for name in list(ProofRecord.__dataclass_fields__)[1:])]
_CANDIDATES = text("""
    SELECT c.clinic_id, c.name, b.backup_id, coalesce(b.chain_bytes, 0)::bigint, c.proof_since, g.finished_at,
           g.backup_id, g.seconds, coalesce(l.outcome = 'failed', false)
      FROM clinic_backups.clinic AS c
      LEFT JOIN LATERAL (
           SELECT b.backup_id,
                  b.size_bytes + (SELECT coalesce(sum((a->>'size_bytes')::bigint), 0)
                                    FROM jsonb_array_elements(coalesce(b.chain, '[]')) AS a) AS chain_bytes
             FROM clinic_backups.backup AS b
            WHERE b.clinic_id = c.clinic_id AND b.good AND b.started_at <= :until AND b.data_time <= :until
            ORDER BY b.started_at DESC LIMIT 1) AS b ON true
      LEFT JOIN LATERAL (
           SELECT p.finished_at, p.backup_id, p.seconds FROM clinic_backups.proof AS p
            WHERE p.clinic_id = c.clinic_id AND p.outcome = 'proven' AND p.finished_at <= :until
            ORDER BY p.id DESC LIMIT 1) AS g ON true
      LEFT JOIN LATERAL (
           SELECT p.outcome FROM clinic_backups.proof AS p
            WHERE p.clinic_id = c.clinic_id ORDER BY p.id DESC LIMIT 1) AS l ON true
     WHERE c.active
     ORDER BY c.clinic_number ASC NULLS LAST, c.clinic_id ASC""").columns(clinic_id=ClinicIdText)


class Proofs:
    """Writes and finds proofs."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def next_number(self) -> int:
        """The number for a new proof. One that is not used is left out."""
        statement = text("SELECT nextval(pg_get_serial_sequence('clinic_backups.proof', 'id'))")
        with self._database.statement("taking a number for a proof") as db:
            return int(db.execute(statement).scalar_one())

    def add(self, record: ProofRecord, notice: Notice | None = None) -> None:
        """Write a proof and, in the same transaction, the mail about it."""
        values = {name: getattr(record, name) for name in ProofRecord.__dataclass_fields__ if name != "number"}
        with self._database.transaction(f"recording the proof of {record.backup_id}") as db:
            db.execute(insert(proof).values(id=record.number, **values))
            if notice is not None:
                queue(db, notice, record.finished_at)

    def get(self, number: int, clinics: Collection[ClinicId] | None = None) -> ProofRecord | None:
        """One proof. :param clinics: whoever asks may see only these."""
        found = self._find(proof.c.id == number)
        return found[0] if found and (clinics is None or found[0].clinic_id in clinics) else None

    def of_clinic(self, clinic_id: ClinicId, limit: int = 20) -> list[ProofRecord]:
        """The proofs of a unit, the newest first."""
        return self._find(proof.c.clinic_id == clinic_id, limit=limit)

    def newest_at(self) -> datetime | None:
        """When the newest drill of any unit ended, whether it proved anything or not. ``None``: there was no drill."""
        newest = select(proof.c.finished_at).order_by(proof.c.id.desc()).limit(1)
        with self._database.statement("finding the newest drill") as db:
            found: datetime | None = db.execute(newest).scalar_one_or_none()
        return found

    def last_good(self, clinic_id: ClinicId) -> ProofRecord | None:
        """The newest proof of a unit that did not fail."""
        found = self._find(proof.c.clinic_id == clinic_id, proof.c.outcome == "proven", limit=1)
        return found[0] if found else None

    def newest(self) -> list[ProofRecord]:
        """The newest proof of each active unit, in the order of their ids."""
        statement = (
            select(*_COLUMNS)
            .join(clinic, clinic.c.clinic_id == proof.c.clinic_id)
            .where(clinic.c.active)
            .distinct(clinic.c.clinic_number, proof.c.clinic_id)
            .order_by(clinic.c.clinic_number.asc().nulls_last(), proof.c.clinic_id, proof.c.id.desc())
        )
        with self._database.statement("reading the newest proofs") as db:
            return [ProofRecord(*row) for row in db.execute(statement)]

    def candidates(self, now: datetime) -> list[Candidate]:
        """All active units, in the order of their ids."""
        with self._database.statement("reading which backups are proven") as db:
            return [Candidate(*row) for row in db.execute(_CANDIDATES, {"until": now + FUTURE_TOLERANCE})]

    def failures_since(self, moment: datetime) -> int:
        """How many drills failed since then."""
        statement = select(func.count()).where(proof.c.outcome == "failed", proof.c.finished_at >= literal(moment))
        with self._database.statement("counting failed drills") as db:
            return int(db.execute(statement).scalar_one())

    def _find(self, *where: Any, limit: int | None = None) -> list[ProofRecord]:
        statement: Any = select(*_COLUMNS).where(*where).order_by(proof.c.id.desc()).limit(limit)
        with self._database.statement("reading proofs") as db:
            rows: Sequence[Any] = db.execute(statement).all()
        return [ProofRecord(*row) for row in rows]
