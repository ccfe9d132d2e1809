"""What a restore is asked for, what it would do, and what it did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from clinic_backups.base.documents import read
from clinic_backups.base.model import RestoreMode, iso, plain
from clinic_backups.base.text import one_line

MODES: tuple[RestoreMode, ...] = ("exact", "missing", "live")


@dataclass(frozen=True)
class Wish:
    """What is wanted of a backup.

    :param mode: ``exact``: the clinic becomes what the backup holds; ``missing``: only rows that are gone come back;
        ``live``: as exact, and what changed since the plan was made stays.
    :param tables: only these, and what their rows need; all when empty.
    :param ignore_dropped: restore although columns of the backup are gone from the database.
    :param other_database: restore although the database is another one than backups are read from.
    """

    mode: RestoreMode = "exact"
    tables: tuple[str, ...] = ()
    ignore_dropped: bool = False
    other_database: bool = False


@dataclass(frozen=True, kw_only=True)
class RestoreRequest(Wish):
    """What somebody asks for: a wish, of which backup, and by whom.

    :param backup_id: which backup; else the newest completed at or before ``as_of``; else the newest completed.
    :param into_schema: not into the clinic, but as a copy into a new schema of this name.
    """

    clinic_id: int
    backup_id: str | None = None
    as_of: datetime | None = None
    into_schema: str | None = None
    requested_by: str = ""
    notes: str = ""
    run_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: for the catalog."""
        return plain(self) | {"tables": list(self.tables)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestoreRequest:
        """The request that :meth:`to_json` wrote."""
        return read(_REQUEST, data)


@dataclass(frozen=True)
class Target:
    """The database that a restore writes to, as its server says.

    :param host: as the connection reached it.
    :param system: the cluster's system identifier; none where the role may not ask.
    :param timeline: none where it is not known.
    :param started_at: when the server was started.
    :param difference: how it differs from the database that backups are read from, in a sentence; empty: it does not.
    """

    host: str
    port: int
    database: str
    database_oid: int
    system: str | None
    timeline: int | None
    started_at: str
    version: str
    standby: bool = False
    difference: str = ""
    compared: bool = True
    """False: there is no connection ``clinic_db`` to compare it with."""

    @property
    def name(self) -> str:
        """For people."""
        return f"database {one_line(self.database)} at {one_line(self.host)}:{self.port}"

    @property
    def identity(self) -> str:
        """Equal for the same database reached at the same place: what an approval is given for."""
        server = self.system or f"started {self.started_at}"
        parts = (self.host, self.port, self.database, self.database_oid, server, self.timeline)
        return json.dumps(parts)


@dataclass(frozen=True)
class TablePlan:
    """What the restore would do to one table.

    ``keys`` are a few primary keys of each operation, as text: numbers that the database itself gave the rows, never
    other values of a row, and no key that may be a person's, such as the number of an identity card.
    """

    table: str
    insert: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, int] = field(default_factory=dict)
    """Columns that differ in the rows to update, with how many rows each differs in."""
    notes: tuple[str, ...] = ()
    """Drift and triggers: what else is to be known about this table."""

    @property
    def writes(self) -> int:
        return self.insert + self.update + self.delete


@dataclass(frozen=True)
class Refusal:
    """Why the restore cannot be applied: what, where, and the remedy. ``table`` is empty where it is about none."""

    table: str
    message: str
    hint: str


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do. ``digest`` names exactly these writes: what was approved is what is applied."""

    clinic_id: int
    clinic_name: str
    backup_id: str
    snapshot_at: datetime
    mode: RestoreMode
    tables: tuple[TablePlan, ...]
    refusals: tuple[Refusal, ...]
    digest: str
    notes: tuple[str, ...] = ()
    """What is to be known of the backup: that it is incomplete or suspect."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What ``digest`` was computed from: the digest of each table's writes, the backup, the mode."""
    moment: Mapping[str, Any] = field(default_factory=dict)
    """Of the mode ``live``: what tells later which rows changed since."""
    target: Target | None = None
    """None in plans that were recorded before version 0011 of the catalog."""

    @property
    def writes(self) -> int:
        """Rows that would be written in all tables."""
        return sum(table.writes for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: for XCom, the catalog and ``--json``."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"snapshot_at": iso(self.snapshot_at)}))
        return values | {"writes": self.writes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestorePlan:
        """The plan that :meth:`to_json` wrote."""
        return read(_PLAN, data)


_REQUEST, _PLAN = TypeAdapter(RestoreRequest), TypeAdapter(RestorePlan)


def digest_of(parts: Mapping[str, str]) -> str:
    """SHA-256, in hex, over the digests of each table's writes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
