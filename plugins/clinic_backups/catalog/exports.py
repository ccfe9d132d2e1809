"""Exports of backups: who asked, how the file is protected, and where it lies until when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Select, func, insert, select, update

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import plain
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import export

Format = Literal["xlsx", "csv", "json", "sqlite"]
"""In the order in which people are offered them: the usual one first."""
FORMATS: tuple[Format, ...] = get_args(Format)
Protection = Literal["keys", "password", "none"]
"""keys: encrypted to public keys. password: a zip that needs one. none: only the mode of the file protects it."""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """One export.

    :param store_url: the store that holds the file; none if the command wrote it.
    :param made_at: none while it is being written, and if that failed.
    :param deleted_at: since when the store holds it no more.
    """

    id: int
    clinic_id: ClinicId
    backup_id: str
    format: Format
    protection: Protection
    requested_by: str
    run_id: str | None
    approved_by: str | None
    begun_at: datetime
    made_at: datetime | None
    rows: int | None
    store_url: str | None
    key: str | None
    file_name: str | None
    size_bytes: int | None
    sha256: str | None
    expires_at: datetime | None
    deleted_at: datetime | None

    def is_there(self, now: datetime) -> bool:
        """Whether the file can be downloaded."""
        return (
            self.made_at is not None and self.deleted_at is None and self.expires_at is not None
            and self.expires_at > now
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return plain(self)


_COLUMNS = [export.c[each.name] for each in fields(ExportRecord)]


class Exports:
    """Records and finds exports."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def begin(self, **known: Any) -> ExportRecord:
        """Record an export before its file is stored: so no file is ever without a record.

        :param known: fields of :class:`ExportRecord`.
        """
        with self._database.transaction("recording an export") as db:
            row = db.execute(insert(export).values(known).returning(*_COLUMNS)).mappings().one()
        return ExportRecord(**row)

    def finish(self, number: int, *, also: Callable[[SqlConnection], object] = nobody, **known: Any) -> ExportRecord:
        """Record that the file is there.

        :param also: called in the same transaction. If it raises, nothing is recorded.
        """
        statement = update(export).where(export.c.id == number).values(made_at=func.clock_timestamp(), **known)
        with self._database.transaction("recording an export") as db:
            also(db)
            row = db.execute(statement.returning(*_COLUMNS)).mappings().one()
        return ExportRecord(**row)

    def mark_deleted(self, number: int) -> None:
        """Record that the store does not hold the file any more."""
        statement = update(export).where(export.c.id == number, export.c.deleted_at.is_(None))
        with self._database.transaction("recording the end of an export") as db:
            db.execute(statement.values(deleted_at=func.clock_timestamp()))

    def get(self, number: int) -> ExportRecord | None:
        """One export, or ``None``."""
        found = self._select(select(*_COLUMNS).where(export.c.id == number))
        return found[0] if found else None

    def of_clinic(self, clinic_id: ClinicId, limit: int = 20) -> list[ExportRecord]:
        """The newest exports of a clinic that were made, the newest first."""
        made = (export.c.clinic_id == clinic_id, export.c.made_at.is_not(None))
        return self._select(select(*_COLUMNS).where(*made).order_by(export.c.id.desc()).limit(limit))

    def of_run(self, run_id: str) -> ExportRecord | None:
        """The export that a run has made; none if it has made none."""
        made = (export.c.run_id == run_id, export.c.made_at.is_not(None))
        found = self._select(select(*_COLUMNS).where(*made).order_by(export.c.id.desc()).limit(1))
        return found[0] if found else None

    def keys(self) -> dict[str, ClinicId]:
        """The keys of all files that may be in a store, and whose they are."""
        there = (export.c.key.is_not(None), export.c.deleted_at.is_(None))
        with self._database.statement("reading the exports") as db:
            return {
                str(key): whose for key, whose in db.execute(select(export.c.key, export.c.clinic_id).where(*there))
            }

    def stored(self, clinic_id: ClinicId, *, ended_before: datetime | None = None) -> list[ExportRecord]:
        """The exports whose files are in a store, also half-written ones. :param ended_before: only these."""
        there = [export.c.clinic_id == clinic_id, export.c.key.is_not(None), export.c.deleted_at.is_(None)]
        if ended_before is not None:
            there.append(export.c.expires_at <= ended_before)
        return self._select(select(*_COLUMNS).where(*there).order_by(export.c.id))

    def _select(self, statement: Select[Any]) -> list[ExportRecord]:
        with self._database.statement("reading the exports") as db:
            return [ExportRecord(**row) for row in db.execute(statement).mappings()]
