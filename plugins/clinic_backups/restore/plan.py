"""The plan of a restore.

Names in a plan's sentences may be an attacker's, so each sentence becomes one line of visible text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from clinic_backups.base.documents import StoredId, read
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.restores import RestoreMode


@dataclass(frozen=True)
class Target:
    """The database that a restore writes to, as its server describes it.

    :param host: as the connection reached it.
    :param system: the cluster's system identifier; none if the role may not read it.
    :param timeline: none if it is not known.
    :param started_at: the server's start.
    :param difference: a sentence about how it differs from the database that backups are read from; empty if it does
        not.
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
    """False if there is no connection ``clinic_db`` to compare it with."""

    @property
    def name(self) -> str:
        """A description for people."""
        return f"database {one_line(self.database)} at {one_line(self.host)}:{self.port}"

    @property
    def identity(self) -> str:
        """Equal for the same database at the same address. An approval is valid for one identity."""
        server = self.system or f"started {self.started_at}"
        parts = (self.host, self.port, self.database, self.database_oid, server, self.timeline)
        return json.dumps(parts)


def _say_once(plan: TablePlan | RestorePlan, *fields: str) -> None:
    """Remove repetitions, whichever ways led to the same sentence. Each becomes one line of visible text."""
    for name in fields:
        said = (one_line(each) if isinstance(each, str) else each for each in getattr(plan, name))
        object.__setattr__(plan, name, tuple(dict.fromkeys(said)))


@dataclass(frozen=True)
class TablePlan:
    """What the restore would do to one table.

    ``keys`` are a few primary keys of each operation, as text. They are only numbers that the database itself gave the
    rows. No other value of a row is shown, and no key that may belong to a person, such as the number of an identity
    card.
    """

    table: str
    insert: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, int] = field(default_factory=dict)
    """Columns that differ in the rows to update, each with the number of these rows."""
    notes: tuple[str, ...] = ()
    """Other facts about this table that people need, such as drift and triggers. Each is said once."""
    is_parent: bool = False
    """Whether it is a parent table: only missing rows are inserted."""

    def __post_init__(self) -> None:
        _say_once(self, "notes")

    @property
    def writes(self) -> int:
        return self.insert + self.update + self.delete

    @property
    def rows(self) -> int:
        """The clinic's rows in the table, those of the backup and those of now."""
        return self.writes + self.unchanged


@dataclass(frozen=True)
class Refusal:
    """Why the restore cannot be applied: the reason, its place and the remedy.

    ``table`` is empty if it concerns no table.
    """

    table: str
    message: str
    hint: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))
        object.__setattr__(self, "hint", one_line(self.hint))


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do. ``digest`` identifies exactly these writes: only they are applied after an approval."""

    clinic_id: StoredId
    clinic_name: str
    backup_id: str
    snapshot_at: datetime
    mode: RestoreMode
    tables: tuple[TablePlan, ...]
    refusals: tuple[Refusal, ...]
    digest: str
    notes: tuple[str, ...] = ()
    """Facts about the backup that people need, for instance that it is incomplete or suspect."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The parts of ``digest``: the digest of each table's writes, the backup and the mode."""
    moment: Mapping[str, Any] = field(default_factory=dict)
    """For the mode ``live``: the facts that later show which rows changed since the plan."""
    target: Target | None = None
    """None in plans that were recorded before version 0011 of the catalog."""

    def __post_init__(self) -> None:
        _say_once(self, "notes", "refusals")

    @property
    def writes(self) -> int:
        """The number of rows that would be written in all tables."""
        return sum(table.writes for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: for XCom, the catalog and ``--json``."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"snapshot_at": iso(self.snapshot_at)}))
        return values | {"writes": self.writes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestorePlan:
        """The plan that :meth:`to_json` wrote."""
        return read(_PLAN, data)


_PLAN = TypeAdapter(RestorePlan)


def digest_of(parts: Mapping[str, str]) -> str:
    """SHA-256, in hex, over the digests of each table's writes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
