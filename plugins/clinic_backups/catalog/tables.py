"""The catalog's tables, as the newest migration leaves them."""

from __future__ import annotations

from datetime import datetime
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Float,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.clinic_id_text import ClinicIdText

SCHEMA = "clinic_backups"
metadata = MetaData(schema=SCHEMA)


def _column(name: str, hint: Any) -> Column[Any]:
    """The column of a field of :class:`BackupRecord`: a text, a number, a time, or JSON for everything else."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    if hint == ClinicId:
        return Column(name, ClinicIdText, nullable=False)
    of: Any = str if get_origin(kinds[0]) is Literal else kinds[0]
    known: dict[Any, Any] = {str: Text(), int: BigInteger(), bool: Boolean(), datetime: DateTime(timezone=True)}
    column = known.get(of) or JSONB(none_as_null=True)
    return Column(name, column, primary_key=name == "backup_id", nullable=NoneType in get_args(hint))


_NOT_COLUMNS = {"stores", "number"}
"""Fields of the record that are no columns: its stores are rows of ``backup_replica``, its number is the column id."""

# The fields of BackupRecord, and what the database alone computes.
backup = Table(
    "backup",
    metadata,
    # The number that the clinics' application knows a backup by, through the view respaldo.
    Column("id", BigInteger, nullable=False, unique=True, autoincrement=True),
    *(_column(name, hint) for name, hint in get_type_hints(BackupRecord).items() if name not in _NOT_COLUMNS),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # As BackupRecord.is_trusted, completed and regular: the last good backup is the newest of these.
    Column("good", Boolean, Computed("state = 'completed' AND (suspect IS NULL OR ...)", persisted=True)),
    # As BackupRecord.is_regular.
    Column("regular", Boolean, Computed("safety_of IS NULL AND ...", persisted=True), nullable=False),
    # For the view respaldo. None of a clinic whose id is not a number.
    Column("clinic_number", BigInteger, Computed("CASE WHEN clinic_id ~ ... END", persisted=True)),
    # As BackupRecord.data_time.
    Column("data_time", DateTime(timezone=True), Computed("coalesce(data_at, started_at)", persisted=True)),
    # For lists and trends, which must not open every record's JSON; none before it is completed.
    Column("rows_total", BigInteger, Computed("clinic_backups.rows_total(rows)", persisted=True)),
)

# How far a running backup is, once it has taken a while. A trigger removes the row with the end of its record.
backup_progress = Table(
    "backup_progress",
    metadata,
    Column("backup_id", Text, primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("table_number", Integer, nullable=False),
    Column("tables", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("raw_bytes", BigInteger, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

# How many backups there are of each day in UTC, and of each clinic. See catalog/backup_counts.py.
backup_count = Table(
    "backup_count",
    metadata,
    Column("day", Date),
    Column("clinic_id", ClinicIdText),
    Column("trigger", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
)

# How many replicas of completed backups each store has, of the backups of each day in UTC.
replica_count = Table(
    "replica_count",
    metadata,
    Column("day", Date, nullable=False),
    Column("store_url", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
)

# What the preflight of a run compared, so that its backups need not compare it again.
comparison = Table(
    "comparison",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("compared_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("database", Text, nullable=False),
    Column("definitions", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("tables", ARRAY(Text), nullable=False),
    Column("clinics", ARRAY(ClinicIdText), nullable=False),
    # The number of the run among those that compared rows.
    Column("turn", BigInteger, nullable=False, server_default="0"),
)

# Who did what. A trigger refuses every change and removal.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("clinic_id", ClinicIdText),
    Column("backup_id", Text),
    Column("run_id", Text),
    Column("address", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Column("actor_id", BigInteger),
)

# Where each backup lies: one row for each store that has it, or should have it and lost it.
backup_replica = Table(
    "backup_replica",
    metadata,
    Column("backup_id", Text, primary_key=True),
    Column("store_url", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="present"),
    Column("stored_at", DateTime(timezone=True), nullable=False),
    Column("checked_at", DateTime(timezone=True)),
    Column("etag", Text),
)

# When a store last failed: it is left alone for a while, so that one that is down does not hold up every clinic.
store = Table(
    "store",
    metadata,
    Column("store_url", Text, primary_key=True),
    Column("failed_at", DateTime(timezone=True), nullable=False),
    Column("error", Text, nullable=False),
    Column("hint", Text, nullable=False, server_default=""),
)

# Which store lies under which URL: its marker must show this id.
store_identity = Table(
    "store_identity",
    metadata,
    Column("store_url", Text, primary_key=True),
    Column("store_id", Text, nullable=False, unique=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("recorded_by", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False, server_default="false"),
)

# What is left of a clinic that was erased: counts and dates.
erasure = Table(
    "erasure",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("backups", Integer, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("first_backup_at", DateTime(timezone=True)),
    Column("last_backup_at", DateTime(timezone=True)),
    Column("remaining", Integer, nullable=False, server_default="0"),
    Column("finished_at", DateTime(timezone=True)),
    Column("ignore_unknown_holds", Boolean, nullable=False, server_default="false"),
    # One item for each store: what was counted there, and when.
    Column("evidence", JSONB, nullable=False, server_default="[]"),
)

# The blocks' digests in pieces: workers need them for incrementals and cannot read manifests.
backup_blocks = Table(
    "backup_blocks",
    metadata,
    Column("backup_id", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("digests", LargeBinary, nullable=False),
)

restore = Table(
    "restore",
    metadata,
    Column("restore_id", Text, primary_key=True),
    Column("id", BigInteger, nullable=False, unique=True, autoincrement=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("clinic_name", Text, nullable=False),
    Column("backup_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("tables", JSONB, nullable=False, server_default="[]"),
    Column("state", Text, nullable=False),
    Column("requested_by", Text, nullable=False, server_default=""),
    Column("approved_by", Text, nullable=False, server_default=""),
    Column("notes", Text, nullable=False, server_default=""),
    Column("run_id", Text),
    Column("plan", JSONB, nullable=False),
    Column("plan_digest", Text, nullable=False),
    Column("safety_backup_id", Text),
    # In the clinics' database, as xid8: what became of it says what became of a restore whose process died.
    Column("transaction_id", Text),
    Column("committing_at", DateTime(timezone=True)),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("error", Text),
    Column("hint", Text),
)

# Plans of restores that somebody was asked to approve, and what became of it. A trigger refuses every other change.
approval = Table(
    "approval",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("backup_id", Text, nullable=False),
    Column("plan_digest", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("run_id", Text),
    Column("requested_by", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    # None of a copy into a new schema, which has no plan.
    Column("plan", JSONB(none_as_null=True)),
    Column("page", Text, nullable=False),
    Column("planned_at", DateTime(timezone=True), nullable=False),
    Column("waits_until", DateTime(timezone=True), nullable=False),
    # The task instance that waits for the answer.
    Column("asked_by", Text),
    Column("answer", Text),
    Column("answered_by", Text),
    Column("reason", Text),
    Column("how", Text),
    Column("answered_at", DateTime(timezone=True)),
    Column("valid_until", DateTime(timezone=True)),
    Column("withdrawn_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    Column("used_by", Text),
)

# What drills restored and proved, or could not. A trigger refuses every change and removal.
proof = Table(
    "proof",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("clinic_name", Text, nullable=False),
    Column("backup_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("data_time", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("place", Text, nullable=False),
    Column("certificate", Text, nullable=False),
    Column("signature", LargeBinary),
    Column("public_key", Text),
    Column("error", Text),
    Column("hint", Text),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("key_hashes", ARRAY(LargeBinary), nullable=False),
    Column("forgotten_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("forgotten_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reason_class", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    # See :class:`~clinic_backups.base.meant_key.MeantKey`.
    Column("meant", JSONB(none_as_null=True)),
)

forgotten_key = Table(
    "forgotten_key",
    metadata,
    Column("key_id", Text, Computed("left(encode(sha256(secret), ...", persisted=True), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    # Of a catalog before this one, from a store.
    Column("taken_over", Boolean, nullable=False, server_default="false"),
)

# The secrets, encrypted, as the stores hold them.
forgotten_sealed = Table(
    "forgotten_sealed",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("recipients_id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

# Backups that were written as files that people open. See :class:`~clinic_backups.catalog.exports.ExportRecord`.
export = Table(
    "export",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("clinic_id", ClinicIdText, nullable=False),
    Column("backup_id", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("protection", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("run_id", Text),
    Column("approved_by", Text),
    Column("begun_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("made_at", DateTime(timezone=True)),
    Column("rows", BigInteger),
    Column("store_url", Text),
    Column("key", Text),
    Column("file_name", Text),
    Column("size_bytes", BigInteger),
    Column("sha256", Text),
    Column("expires_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
)

clinic = Table(
    "clinic",
    metadata,
    Column("clinic_id", ClinicIdText, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("objective_hours", Integer),
    Column("schedule", Text),
    # Since when its backups should be proven by drills.
    Column("proof_since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # For the order of ids. None of an id that is not a number.
    Column("clinic_number", BigInteger, Computed("CASE WHEN clinic_id ~ ... END", persisted=True)),
    # The name without case and accents.
    Column("search_name", Text(collation="C"), Computed("lower(translate(name, ...))", persisted=True)),
)

notification = Table(
    "notification",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("clinic_id", ClinicIdText),
    Column("backup_id", Text),
    Column("thread_id", BigInteger),
    Column("facts", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("addressed_at", DateTime(timezone=True)),
    Column("urgent", Boolean, nullable=False, server_default="false"),
    Column("to_approvers", Boolean, nullable=False, server_default="false"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("notification_id", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("message_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    Column("server_failed_at", DateTime(timezone=True)),
    Column("settled_at", DateTime(timezone=True)),
    Column("error", Text),
)
