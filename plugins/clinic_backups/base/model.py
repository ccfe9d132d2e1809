"""The records that the layers share. All are frozen, and none knows where it is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SkipValidation, with_config

from clinic_backups.base import documents
from clinic_backups.base.documents import Code, Count, Flag, Name, Names, Sha256, Text
from clinic_backups.base.errors import PermanentError, to_record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT_VERSION = 1
CONTENT_TYPE_ENVELOPE = "application/json"
FUTURE_TOLERANCE = timedelta(minutes=2)
"""A backup up to this far ahead is not future-dated: a server that took over may be slightly behind."""

Kind = Literal["full", "incremental"]
WantedKind = Literal["auto", "full", "incremental"]
RestoreMode = Literal["exact", "missing", "live"]
Condition = Literal["intact", "missing", "damaged"]
"""The state of an archive in one store."""
ReplicaProblem = Literal["missing", "damaged"]
LossProblem = Literal["missing", "damaged", "incomplete"]
"""incomplete: the archive is there, but one that it is built on is missing."""
Trigger = Literal["scheduled", "manual"]
_SAFETY_NOTES = re.compile(r"before the restore of ([0-9]+-[0-9]{8}T[0-9]{6}Z)")
State = Literal["running", "completed", "failed", "lost", "deleting", "deleted"]


@dataclass(frozen=True)
class Clinic:
    """One tenant, as ``include/sql/all_clinics.sql`` names it."""

    id: Count
    name: Code
    language: Name = "es"


@dataclass(frozen=True)
class Column:
    """One column of a table; ``type`` as PostgreSQL's ``format_type`` spells it."""

    name: Name
    type: Code
    not_null: Flag
    default: Code | None
    identity: Literal["", "always", "by default"]
    generated: Code | None
    """The expression of a generated column. Its values are not in the blocks; a restore computes them again."""
    definition: documents.Definition | None = None
    """The column's enums and composite types, as JSON (``pg_catalog/tables.sql``); none in older manifests."""
    number: documents.ColumnNumber | None = None
    """PostgreSQL's column number. A rename keeps it, and no later column of the table gets it."""

    @property
    def is_numbered(self) -> bool:
        """Whether the database numbers its rows: an identity, or a default that takes a sequence's next number."""
        return bool(self.identity) or "nextval(" in (self.default or "")


@dataclass(frozen=True)
class ForeignKey:
    """``columns`` of this table point to ``references_columns`` of ``references`` (``schema.table``)."""

    name: Name
    columns: Names
    references: Name
    references_columns: Names
    deferrable: Flag
    indexed: Flag
    """Whether an index starts with these columns, so that the referring rows of a parent are found quickly."""


@dataclass(frozen=True)
class Table:
    """One table, as PostgreSQL's own catalog describes it. ``name`` is ``schema.table``, unquoted."""

    name: Name
    columns: Annotated[tuple[Column, ...], Field(max_length=documents.MAX_COLUMNS)]
    primary_key: Names
    foreign_keys: Annotated[tuple[ForeignKey, ...], Field(max_length=documents.MAX_KEYS)]
    oid: documents.Oid | None = None
    """PostgreSQL's OID; a rename keeps it. Valid only in the manifest's database; none in older manifests."""

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns whose values are in the blocks, in table order."""
        return tuple(column for column in self.columns if column.generated is None)


@dataclass(frozen=True)
class Gap:
    """Rows that a backup lacks: the table, and a sentence that says why."""

    table: Text
    reason: Text


@dataclass(frozen=True)
class Loss:
    """A replica that the catalog lists is missing in its store, or differs from what was stored."""

    clinic_id: int
    clinic_name: str
    backup_id: str
    store_url: str
    problem: LossProblem

    @classmethod
    def of(cls, record: BackupRecord, store_url: str, problem: LossProblem) -> Loss:
        """Make the loss of one replica of a backup."""
        return cls(record.clinic_id, record.clinic_name, record.backup_id, store_url, problem)


@dataclass(frozen=True)
class ArchiveInfo:
    """The stored archive: its key below the store's prefix, its size and its digests in lower-case hex."""

    key: str
    size_bytes: Count
    sha256: Sha256
    md5: documents.Md5


@dataclass(frozen=True)
class ChainArchive(ArchiveInfo):
    """The archive of a backup that an incremental one is built on."""

    backup_id: str


@with_config(revalidate_instances="always")
@dataclass(frozen=True)
class Envelope:
    """The public description of one backup, without patient data. Writing it, last, commits the backup."""

    backup_id: str
    clinic_id: Count
    clinic_name: Text
    kind: Kind
    trigger: Trigger
    parent_id: SkipValidation[str | None]
    started_at: datetime
    finished_at: datetime
    expires_at: datetime
    archive: ArchiveInfo
    rows: dict[Text, Count]
    """Rows per table, by ``schema.table``."""
    raw_bytes: Count
    """Bytes of CSV in all blocks, before compression."""
    recipients: tuple[Text, ...]
    fingerprint: Sha256
    requested_by: Text
    notes: Text = ""
    locked_until: datetime | None = None
    """The end of the lock that was requested from its stores."""
    chain: tuple[ChainArchive, ...] = ()
    """The backups that an incremental one is built on: its parent first, the full one last."""
    gaps: tuple[Gap, ...] = ()
    """The gaps that somebody allowed: rows that should be in the backup but are not."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that was restored."""
    data_at: datetime | None = None
    """The time of its rows, at the latest. Earlier than the start if a standby lagged; none in older envelopes."""
    suspect: Text | None = None
    """Why it is suspect: tables and counts, no values."""
    number: Count | None = None
    """The number by which the clinics' application knows it. A rebuild takes it over; none in older envelopes."""
    format: documents.Format = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; times as UTC in ISO 8601 with ``Z``."""
        return plain(self)

    def says_the_same(self, other: Envelope) -> bool:
        """Whether both are equal. The number may be missing in an older envelope."""
        if None in (self.number, other.number):
            other = replace(other, number=self.number)
        return self == other

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Envelope:
        """Read an envelope that :meth:`to_json` wrote. Unknown keys of later versions are ignored.

        :raises KeyError, TypeError, ValueError: the data are not an envelope.
        """
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        for key in ("started_at", "finished_at", "expires_at", "locked_until", "data_at"):
            if fields.get(key) is not None or key not in ("locked_until", "data_at"):
                fields[key] = _in_utc(datetime.fromisoformat(fields[key]))
        fields["archive"] = ArchiveInfo(**fields["archive"])
        if not all(isinstance(fields.get(key, []), (list, tuple)) for key in ("recipients", "chain", "gaps")):
            raise TypeError("recipients, chain and gaps are lists")
        fields["recipients"] = tuple(fields["recipients"])
        fields["chain"] = tuple(ChainArchive(**archive) for archive in fields.get("chain", ()))
        fields["gaps"] = tuple(Gap(**gap) for gap in fields.get("gaps", ()))
        if "safety_of" not in fields:
            # Envelopes from before this field existed have it in the notes.
            found = _SAFETY_NOTES.fullmatch(str(fields.get("notes", "")))
            fields["safety_of"] = found[1] if found else None
        return cls(**fields)


@dataclass(frozen=True)
class BackupRequest:
    """A request for one backup of one clinic."""

    clinic: Clinic
    trigger: Trigger = "manual"
    requested_by: str = ""
    notes: str = ""
    run_id: str | None = None
    """Airflow's run id: a retry with the same one continues the same record."""
    kind: WantedKind = "auto"
    retries_left: bool = False
    """Whether a transient failure will be retried. If so, nobody is notified yet."""
    allow_gaps: bool = False
    """Whether gaps are allowed. The backup is then marked as incomplete."""
    rows_compared: bool = False
    """Whether the preflight of the same run has just compared the rows of all clinics with the extracts."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that will be restored."""
    chosen: tuple[str, ...] = ()
    """For a safety backup: the tables that will be restored, if that is not all."""


@dataclass(frozen=True)
class BackupRecord:
    """One line of the catalog."""

    backup_id: str
    clinic_id: int
    clinic_name: str
    kind: Kind
    trigger: Trigger
    state: State
    started_at: datetime
    archive_key: str
    attempt: int = 1
    parent_id: str | None = None
    requested_by: str = ""
    notes: str = ""
    run_id: str | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    size_bytes: int | None = None
    raw_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    fingerprint: str | None = None
    recipients: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    hold_reason: str | None = None
    """Why it is kept until it is released, whatever the policy says."""
    held_by: str | None = None
    held_at: datetime | None = None
    """The time since when; none if it is not known."""
    released_by: str | None = None
    """The person who ended its last hold."""
    released_at: datetime | None = None
    deleted_at: datetime | None = None
    locked_until: datetime | None = None
    """The end of the locks in its stores."""
    chain: tuple[ChainArchive, ...] = ()
    """The backups that an incremental one is built on: its parent first, the full one last."""
    kind_reason: str | None = None
    """Why it is full or incremental."""
    schema_digest: str | None = None
    """Digest of the tables that it was read from; none in a rebuilt catalog."""
    gaps: tuple[Gap, ...] = ()
    """The gaps that somebody allowed: rows that should be in the backup but are not."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that was restored. A safety backup is restored only by its id."""
    data_at: datetime | None = None
    """The time of its rows, at the latest; none if it was not recorded. Use :attr:`data_time`."""
    suspect: str | None = None
    """Why it is suspect until somebody accepts it: tables and counts, no values."""
    accepted_by: str | None = None
    """The person who accepted a suspect backup."""
    accepted_at: datetime | None = None
    remark: str | None = None
    """What could not be checked, and why."""
    source_db: str | None = None
    """The database that it was read from, see ``source_database``; none in older records and rebuilt catalogs."""
    noted: Envelope | None = None
    """The note: the envelope's contents, recorded before it is written. Only the note can complete a running backup."""
    number: int | None = None
    """The number by which the clinics' application knows it, in the view ``respaldo``; the catalog assigns it."""
    deletion: tuple[dict[str, Any], ...] = ()
    """For a deleted backup: URL and id of each store that confirmed the deletion, and when."""
    stores: tuple[str, ...] = ()
    """URLs of the stores that are known to hold it."""

    @classmethod
    def of(cls, envelope: Envelope, store_url: str) -> BackupRecord:
        """The record of a backup that was found in a store."""
        known: dict[str, Any] = {name: getattr(envelope, name) for name in cls.__dataclass_fields__
                                 if name in Envelope.__dataclass_fields__}  # fmt: skip
        record = cls(**known | {"state": "completed", "archive_key": envelope.archive.key})
        return record.completed(envelope, store_url)

    @property
    def data_time(self) -> datetime:
        """The time of its rows, from which its age is counted."""
        return self.data_at or self.started_at

    @property
    def is_trusted(self) -> bool:
        """Whether it is not suspect, or was accepted. Only then may backups build on it or it be the last good one."""
        return self.suspect is None or self.accepted_at is not None

    @property
    def rows_total(self) -> int:
        return sum(self.rows.values())

    @property
    def seconds(self) -> float | None:
        """Wall time of the attempt that finished it."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    def completed(self, envelope: Envelope, store_url: str) -> BackupRecord:
        """This record after the backup was stored as the envelope says."""
        return replace(
            self,
            state="completed",
            stores=(store_url,),
            locked_until=envelope.locked_until,
            archive_key=envelope.archive.key,
            kind=envelope.kind,
            parent_id=envelope.parent_id,
            chain=envelope.chain,
            gaps=envelope.gaps,
            started_at=envelope.started_at,
            finished_at=envelope.finished_at,
            expires_at=envelope.expires_at,
            size_bytes=envelope.archive.size_bytes,
            raw_bytes=envelope.raw_bytes,
            sha256=envelope.archive.sha256,
            md5=envelope.archive.md5,
            rows=envelope.rows,
            fingerprint=envelope.fingerprint,
            recipients=envelope.recipients,
            data_at=envelope.data_at,
            suspect=envelope.suspect,
            noted=None,
        )

    def envelope(self) -> Envelope:
        """Make its envelope again. :raises ValueError: it was never completed."""
        missing = [name for name in ("finished_at", "expires_at", "size_bytes", "sha256", "md5", "fingerprint")
                   if getattr(self, name) is None]  # fmt: skip
        if missing:
            raise ValueError(f"{self.backup_id} has no {', '.join(missing)}")
        known: dict[str, Any] = {name: getattr(self, name) for name in Envelope.__dataclass_fields__
                                 if name not in ("archive", "format")}  # fmt: skip
        # The catalog does not keep the order in which a backup writes the tables.
        rows = dict(sorted(self.rows.items()))
        return Envelope(**known | {"rows": rows, "archive": ArchiveInfo(*astuple(self.archive)[:4])})

    @property
    def archive(self) -> ChainArchive:
        """The key, size and digests of its archive. :raises PermanentError: it was never completed."""
        if self.size_bytes is None or self.sha256 is None or self.md5 is None:
            raise PermanentError(
                f"The catalog has no archive for backup {self.backup_id}.", hint="Choose another backup."
            )
        return ChainArchive(self.archive_key, self.size_bytes, self.sha256, self.md5, self.backup_id)

    def failed(self, error: BaseException, finished_at: datetime) -> BackupRecord:
        """This record after a failure, with text and hint if it is an error of this package."""
        text, hint = to_record(error)
        # If the clock was set back in between, the end must still not be before the beginning.
        ended_at = max(self.started_at, finished_at)
        return replace(self, state="failed", finished_at=ended_at, error=text, hint=hint)

    def is_of_future(self, now: datetime) -> bool:
        """Whether it is dated in the future: a clock was wrong, or it is forged. It never counts as the newest."""
        return max(self.started_at, self.data_time) > now + FUTURE_TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with the derived figures, for ``--json``."""
        known = plain(replace(self, noted=None))
        del known["noted"]
        return known | {"rows_total": self.rows_total, "seconds": self.seconds, "key": self.archive_key}


def parents_of(backup: BackupRecord, known: Mapping[str, BackupRecord]) -> Iterator[BackupRecord | None]:
    """The backups that a backup is built on, down to its full one. Ends with ``None`` if one is not known."""
    seen = {backup.backup_id}
    while backup.parent_id is not None:
        parent = known.get(backup.parent_id)
        if parent is None or parent.backup_id in seen:
            yield None
            return
        seen.add(parent.backup_id)
        yield parent
        backup = parent


def plain(record: DataclassInstance) -> dict[str, Any]:
    """A dataclass as plain JSON types, its times as :func:`iso` writes them."""
    return {key: iso(value) if isinstance(value, datetime) else value for key, value in asdict(record).items()}


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC. A time without a zone, or out of range, is returned unchanged: the checks refuse it."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment
    except OverflowError:
        return moment


def iso(moment: datetime) -> str:
    """UTC in ISO 8601 with ``Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def backup_id_of(clinic_id: int, started_at: datetime) -> str:
    """A readable and unique id: one clinic has at most one backup a second."""
    return f"{clinic_id}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def moment_of(backup_id: str) -> datetime | None:
    """The reverse of :func:`backup_id_of`: the start of that backup; none for an id of another form."""
    try:
        return datetime.strptime(backup_id.rpartition("-")[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
