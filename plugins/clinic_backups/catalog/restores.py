"""The records of restores: begun, noted on the way, completed or failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.backup_record import State
from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.base.errors import PermanentError, TransientError, to_record
from clinic_backups.base.listening import nobody
from clinic_backups.base.plain import plain
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import restore

RestoreMode = Literal["exact", "missing", "live", "rows"]


def parents_of(plan: Mapping[str, Any]) -> list[str]:
    """The parent tables of a plan in JSON; plans of before decision 0029 name none."""
    return [table["table"] for table in plan.get("tables", ()) if table.get("is_parent")]


@dataclass(frozen=True)
class RestoreRecord:
    """One restore: who asked for what, what was approved, and what came of it.

    :param plan: ``RestorePlan.to_json()`` of what was approved.
    :param tables: only these; all when empty.
    :param transaction_id: the restore's transaction in the clinics' database, noted just before its commit.
    :param committing_at: when that was.
    """

    restore_id: str
    clinic_id: ClinicId
    clinic_name: str
    backup_id: str
    mode: RestoreMode
    plan: Mapping[str, Any] = field(repr=False)
    plan_digest: str
    started_at: datetime
    state: State = "running"
    tables: tuple[str, ...] = ()
    requested_by: str = ""
    approved_by: str = ""
    notes: str = ""
    run_id: str | None = None
    safety_backup_id: str | None = None
    transaction_id: str | None = None
    committing_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    hint: str | None = None

    @property
    def seconds(self) -> float | None:
        """Wall time from its start to its end."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    @property
    def backup_at(self) -> str:
        """The moment that the backup's data comes from, in ISO 8601."""
        return str(self.plan["snapshot_at"])

    @property
    def target(self) -> str:
        """The database that was written to, for people; empty in records of before version 0011."""
        target = self.plan.get("target")
        return f"{target['database']} at {target['host']}:{target['port']}" if target else ""

    @property
    def parents(self) -> list[str]:
        """The parent tables of the plan: only missing rows are inserted there."""
        return parents_of(self.plan)

    def rows(self, operation: Literal["insert", "update", "delete"]) -> int:
        """How many rows of all tables the plan inserts, updates or deletes."""
        return sum(table[operation] for table in self.plan["tables"])

    def completed(self, finished_at: datetime) -> RestoreRecord:
        """This record once its transaction has committed."""
        return replace(self, state="completed", finished_at=max(self.started_at, finished_at))

    def failed(self, error: BaseException, finished_at: datetime) -> RestoreRecord:
        """This record after a failure, with the error's text and hint where it is one of ours."""
        text, hint = to_record(error)
        ended_at = max(self.started_at, finished_at)
        return replace(self, state="failed", finished_at=ended_at, error=text, hint=hint)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with the derived figures, for ``--json``."""
        return plain(self) | {
            "tables": list(self.tables),
            "target": self.target,
            "inserted": self.rows("insert"),
            "updated": self.rows("update"),
            "deleted": self.rows("delete"),
            "seconds": self.seconds,
        }


Announce = Callable[[SqlConnection, RestoreRecord], object]
Also = Callable[[SqlConnection], object]
_FIELDS = [field.name for field in fields(RestoreRecord)]
_COLUMNS = [restore.c[name] for name in _FIELDS]


def restore_id_of(clinic_id: ClinicId, started_at: datetime) -> str:
    """Readable and unique: one clinic has at most one restore a second."""
    return f"r-{component_of(clinic_id)}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


class Restores:
    """What was restored when. Every method raises our errors, without values of rows.

    A running record can change in two ways only, each at most once and each returning it as it is then: it is noted
    what its restore is about to do, and it is finished. Who works with an older copy of it is refused.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def begin(self, record: RestoreRecord) -> RestoreRecord:
        """Write a running record. :raises TransientError: this clinic has a restore of the same second."""
        values = {name: getattr(record, name) for name in _FIELDS}
        values |= {"tables": list(record.tables), "plan": dict(record.plan)}
        with self._database.transaction("recording a restore's start") as db:
            if not db.execute(insert(restore).values(values).on_conflict_do_nothing()).rowcount:
                raise TransientError(
                    f"Restore {record.restore_id} exists already. A clinic can begin only one restore a second.",
                    hint="Try again in a second.",
                )
        return record

    def note_safety_backup(self, restore_id: str, backup_id: str, *, instead_of: str | None = None) -> RestoreRecord:
        """Write which backup holds the state before. :raises PermanentError: there is no such running record.

        :param instead_of: the one that was noted before somebody else wrote, and the restore began anew.
        """
        return self._note(restore_id, was={"safety_backup_id": instead_of}, safety_backup_id=backup_id)

    def note_transaction(
        self, restore_id: str, transaction_id: str, at: datetime, *, also: Also = nobody
    ) -> RestoreRecord:
        """Write which transaction of the clinics' database is about to commit.

        :param also: called in the same transaction; what it raises undoes the note.
        :raises PermanentError: there is no such running record: somebody has closed it, so nothing may be committed.
        """
        return self._note(restore_id, also, transaction_id=transaction_id, committing_at=at)

    def also(self, restore_id: str, do: Also) -> None:
        """Call something in a transaction while the record is running.

        :raises PermanentError: there is no such running record.
        """
        self._note(restore_id, do)

    def finish(self, record: RestoreRecord, announce: Announce = nobody) -> RestoreRecord:
        """Write a record that is completed or failed now; returns it as it is in the catalog.

        :param record: as :meth:`begin` or the last note returned it, completed or failed; its plan as it was applied.
        :param announce: called in the same transaction: writes the mails about it into the outbox.
        :raises PermanentError: there is no such running record, or its transaction was noted after this copy was read.
        """
        statement = (
            update(restore)
            .where(restore.c.restore_id == record.restore_id, restore.c.state == "running")
            # Else one process writes "failed, nothing changed" while the other one is about to commit.
            .where(restore.c.transaction_id.is_not_distinct_from(record.transaction_id))
            .values(state=record.state, finished_at=record.finished_at, error=record.error, hint=record.hint)
            .values(plan=record.plan)
            .values(safety_backup_id=func.coalesce(record.safety_backup_id, restore.c.safety_backup_id))
            .returning(*_COLUMNS)
        )
        with self._database.transaction(f"recording that restore {record.restore_id} {record.state}") as db:
            row = db.execute(statement).mappings().one_or_none()
            if row is None:
                _raise_not_running(record.restore_id)
            finished = _record(row)
            announce(db, finished)
        return finished

    def get(self, restore_id: str) -> RestoreRecord | None:
        """One record, or ``None``."""
        found = self._select(select(*_COLUMNS).where(restore.c.restore_id == restore_id))
        return found[0] if found else None

    def find(
        self,
        *,
        clinic_id: ClinicId | None = None,
        run_id: str | None = None,
        state: State | None = None,
        safety_backup_id: str | None = None,
        limit: int | None = None,
    ) -> list[RestoreRecord]:
        """The records that fit, the newest first."""
        statement = select(*_COLUMNS).order_by(restore.c.id.desc()).limit(limit)
        wanted = {"clinic_id": clinic_id, "run_id": run_id, "state": state, "safety_backup_id": safety_backup_id}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(restore.c[name] == value)
        return self._select(statement)

    def _note(
        self, restore_id: str, also: Also = nobody, *, was: Mapping[str, Any] | None = None, **values: object
    ) -> RestoreRecord:
        expected = was or {}
        statement = (
            update(restore)
            .where(restore.c.restore_id == restore_id, restore.c.state == "running")
            .where(*(restore.c[name].is_not_distinct_from(expected.get(name)) for name in values))
            .values(values or {"state": "running"})
            .returning(*_COLUMNS)
        )
        with self._database.transaction(f"noting what restore {restore_id} is about to do") as db:
            row = db.execute(statement).mappings().one_or_none()
            if row is None:
                _raise_not_running(restore_id)
            also(db)
        return _record(row)

    def _select(self, statement: Select[Any]) -> list[RestoreRecord]:
        with self._database.transaction("reading the catalog") as db:
            return [_record(row) for row in db.execute(statement).mappings()]


def _record(row: Any) -> RestoreRecord:
    return RestoreRecord(**(dict(row) | {"tables": tuple(row["tables"])}))


def _raise_not_running(restore_id: str) -> NoReturn:
    raise PermanentError(
        f"The catalog has no running restore {restore_id}, or somebody else has changed it.",
        hint="Another process has closed it or works at it: look at its record.",
    )
