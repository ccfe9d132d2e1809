"""The preflight of the restore side: finds what would make restores and drills fail, before one is needed.

Nothing is restored. Each finding says what was asked and what was found; an answer that is missing is an error.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from clinic_backups.archive.encryption import WrongIdentity, load_identities
from clinic_backups.archive.opening import require_opens
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, PermanentError
from clinic_backups.base.findings import Finding, Report
from clinic_backups.base.postgres_tools import SERVER, find_tool
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.records import Catalog
from clinic_backups.restore import trial
from clinic_backups.restore.target import SAY_SO, target_of
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.tenant.source_database import elsewhere, identity_of
from clinic_backups.tenant.tenant_db import Snapshot

OPENED = 200
"""The most archives whose beginning is read in one check."""
ROOM_FACTOR, ROOM_BYTES = 3, 3 * 1024**3
"""A drill's disk: rows with indexes for each byte of CSV, and the server with its WAL (``max_wal_size`` is 2 GB)."""
Connections = Callable[[str], Connection | None]


@dataclass(frozen=True)
class Side:
    """What the restore side has.

    :param identity_file: the file with the secret key; none if it is not set.
    :param stores: opens the stores.
    :param find: returns the connection of that name; none if it is not defined.
    """

    settings: Settings
    identity_file: Path | None
    no_identity: ClinicBackupsError
    stores: Callable[[], Stores]
    catalog: Callable[[], Catalog]
    find: Connections


class Asked(TypedDict, total=False):
    """What a check asks for."""

    clinic_id: ClinicId | None
    """Only this clinic's backups; by default those of all."""
    of: BackupRecord | None
    """Only this backup, which is to be restored."""
    restores: bool
    """What restores need, by default: the connection restore_db and its rights."""
    other_database: bool
    """Somebody has said that restore_db is another database than backups are read from."""
    drills: bool
    """What drills need, by default: PostgreSQL's programs, and room on this machine's disk."""
    archives: bool
    """Open the beginning of archives, by default."""
    write: bool
    """Also write one row of each table and roll it back: see :mod:`clinic_backups.restore.trial`."""


def run(side: Side, **asked: Unpack[Asked]) -> list[Finding]:
    """Run all checks, and return all findings in their order."""
    clinic_id, of, opens = asked.get("clinic_id"), asked.get("of"), asked.get("archives", True)
    report = Report()
    identities = _identities(side, report)
    records: list[BackupRecord] = []
    newest: list[BackupRecord] = []
    with report.check("catalog"):
        catalog = side.catalog()
        catalog.require_newest()
        catalog.require_writable()
        report.ok("catalog", "The catalog is at this program's migration, and restores may be written there.")
        with report.check("clock"):
            catalog.clock.require_same()
            report.ok("clock", "This machine's clock agrees with the catalog's.")
        if opens:
            newest = [of] if of is not None else catalog.newest_of_each(clinic_id)
            former = [] if of is not None else catalog.newest_by_recipients(clinic_id)
            records = list({each.backup_id: each for each in (*newest, *former)}.values())
            if not newest:
                said = "No backup was opened: the catalog has no completed one."
                report.error("key", said, "clinic-backups backup --all")
    if opens:
        with report.check("store"):
            _check_archives(side, report, side.stores(), identities, records, {each.backup_id for each in newest})
    if asked.get("restores", True):
        is_other, write = asked.get("other_database", False), asked.get("write", False)
        _check_target(side, report, newest, other_database=is_other, write=write)
    if asked.get("drills", True):
        _check_drills(side, report, newest)
    return list(dict.fromkeys(report.findings))


def _identities(side: Side, report: Report) -> tuple[Any, ...]:
    with report.check("identity"):
        if side.identity_file is None:
            raise side.no_identity
        found = load_identities(side.identity_file)
        report.ok("identity", f"{side.identity_file} holds {len(found)} secret keys, and only its owner can read it.")
        return found
    return ()


def _check_archives(
    side: Side, report: Report, stores: Stores, identities: Sequence[Any], records: Sequence[BackupRecord],
    newest: set[str],
) -> None:  # fmt: skip
    """Open the beginning of an archive for each set of public keys, in the first store that has it."""
    away = Report()
    for url in stores.urls:
        with away.check("store", f"{url}: "):
            stores.at(url).identified()
    by_keys = {tuple(sorted(record.recipients)): record for record in reversed(records)}
    wanted = sorted(by_keys.values(), key=records.index)[:OPENED] if identities else []
    for record in wanted:
        with report.check("store", f"{record.backup_id}: "):
            try:
                _open(side, report, stores, record, identities)
            except WrongIdentity as error:
                _report_key(side, report, record, error, is_newest=record.backup_id in newest)
    if len(by_keys) > len(wanted) and wanted:
        report.warn(
            "key",
            f"{len(by_keys) - len(wanted)} more sets of public keys were not tried: a check opens {OPENED} archives.",
            "clinic-backups check --restore --clinic N asks for one clinic.",
        )
    is_read = bool(wanted) and not report.has_errors("store")
    for each in away.findings:  # a restore goes on with another store, as long as that has what is needed
        if is_read:
            report.warn("store", each.message, each.hint)
        else:
            report.error("store", each.message, each.hint, transient=each.transient)
    if is_read:
        ids = ", ".join(record.backup_id for record in wanted[:5])
        report.ok("key", f"The secret key opens the newest archive of each set of public keys, {len(wanted)}: {ids}.")
        report.ok("store", f"{', '.join(stores.urls)}: archives and envelopes can be read.")


def _report_key(side: Side, report: Report, record: BackupRecord, error: WrongIdentity, *, is_newest: bool) -> None:
    said = f"{record.backup_id}: {error.message} It is encrypted to {', '.join(record.recipients)}."
    if not is_newest:
        report.warn(
            "key",
            f"A former key is missing. {said}",
            "Add its secret key to the identity file, or no backup from that time can be restored.",
        )
    elif side.settings.own_keys_only and record.clinic_id in side.settings.clinic_recipients:
        report.warn(
            "key",
            f"{said} The clinic has keys of its own.",
            "A restore needs the secret key of this clinic. Ask for it, and give it with --identity.",
        )
    else:
        report.error("key", said, "Add the secret key of one of these to the identity file.")


def _open(side: Side, report: Report, stores: Stores, record: BackupRecord, identities: Sequence[Any]) -> None:
    """Look for each of its archives in one store after the other, as a restore does, and open its own.

    :raises ClinicBackupsError: no store has one of them; the first store's error.
    """

    def own(store: ObjectStore) -> None:
        _require_size(store, record.archive_key, record.size_bytes)
        with store.open(record.archive_key) as stream:
            require_opens(stream, identities)
        _look_at_envelope(side, report, store, record)

    stores.first(own)
    for each in record.chain:
        stores.first(partial(_require_size, key=each.key, size=each.size_bytes))


def _require_size(store: ObjectStore, key: str, size: int | None) -> None:
    if (found := store.stat(key).size_bytes) != size:
        raise PermanentError(
            f"{store.url}/{key} has {found:,} bytes, and the catalog says {size or 0:,}.",
            hint="clinic-backups catalog verify",
        )


def _look_at_envelope(side: Side, report: Report, store: ObjectStore, record: BackupRecord) -> None:
    """A restore with the catalog does without it, and a rebuild of the catalog does not."""
    try:
        envelopes.load(record.archive_key, store, now=side.catalog().clock())
    except ClinicBackupsError as error:
        report.warn("store", f"{record.backup_id}: {error.message}", error.hint)


def _check_target(
    side: Side, report: Report, newest: Sequence[BackupRecord], *, other_database: bool, write: bool
) -> None:
    connection = side.find("restore_db")
    if connection is None:
        report.error(
            "target",
            "The connection restore_db is not defined here, so nothing can be restored.",
            "Define it where restores run: a role that may read and write the clinics' tables. See docs/settings.md.",
        )
        return
    settings = side.settings
    with report.check("target"), Snapshot(connection, **settings.timeouts) as snapshot:
        target, refusals = target_of(
            snapshot, side.find("clinic_db"), other_database=other_database, **settings.timeouts
        )
        # Safety backups and copies of a point in time may have been read elsewhere.
        read_from = next((each.source_db for each in newest if each.source_db and each.is_regular), None)
        moved = elsewhere(read_from, identity_of(snapshot)) if not other_database else None
        is_known = read_from is not None and not moved
        for refusal in refusals:
            # For instance: clinic_db is a standby. The backups say that it is their database.
            (report.warn if is_known else report.error)("target", refusal.message, refusal.hint)
        if moved:
            report.error("target", moved, SAY_SO)
        if read_from is None and not target.compared and not other_database:
            report.warn("target", f"Whether {target.name} is the database of the backups cannot be told: clinic_db is"
                        " not defined here, and no backup names its database.", "Define clinic_db here.")  # fmt: skip
        ((temporary, database),) = snapshot.rows(
            "SELECT has_database_privilege(current_database(), 'TEMPORARY'), quote_ident(current_database())", None,
            "asking for the rights on the database",
        )  # fmt: skip
        if not temporary:
            report.error(
                trial.CHECK,
                f"The role of restore_db may not make temporary tables in {target.name}.",
                f"GRANT TEMPORARY ON DATABASE {database} TO its role;",
            )
        with report.check("clock"):
            side.catalog().clock.require_same_as("The database of restore_db", snapshot.time)
        same = "" if other_database else ", and backups are read from there"
        report.ok("target", f"restore_db leads to {target.name}, a primary{same}.")
    if report.has_errors("target"):
        return
    trial.try_tables(settings, connection, report, write=write)


def _check_drills(side: Side, report: Report, newest: Sequence[BackupRecord]) -> None:
    settings = side.settings
    if not settings.prove_within_days:
        report.note("programs", "CLINIC_BACKUPS_PROVE_WITHIN_DAYS is 0, so nothing was asked for drills.")
        return
    if (connection := side.find("drill_db")) is not None:
        with report.check("programs"), Snapshot(connection, **settings.timeouts):
            report.note("programs", "Drills use the server of drill_db, which answers.")
        return
    major = 0
    for name in ("restore_db", "clinic_db"):
        if not major and (connection := side.find(name)) is not None:
            # A drill needs neither of the two. It also runs while they are down.
            with suppress(ClinicBackupsError), Snapshot(connection, **settings.timeouts) as snapshot:
                ((number,),) = snapshot.rows(
                    "SELECT current_setting('server_version_num')::int", None, "asking for the version"
                )
                major = number // 10_000
    for name in SERVER:
        with report.check("programs", "A drill cannot run here: "):
            tool = find_tool(name, at_least=major, folder=settings.postgres_bin)
            report.ok("programs", f"Drills run {tool.path.parent}, of PostgreSQL {tool.version}.")
    _check_room(report, max((each.raw_bytes or 0 for each in newest), default=0))


def _check_room(report: Report, raw_bytes: int) -> None:
    place, needed = Path(tempfile.gettempdir()), ROOM_FACTOR * raw_bytes + ROOM_BYTES
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        report.error("room", f"The free space of {place} cannot be told: {error.strerror}.", "Set TMPDIR to a folder.")
        return
    if free < needed:
        report.error(
            "room",
            f"{place} has {_gib(free)} free. A drill of the largest backup may need {_gib(needed)}.",
            "Make room, set TMPDIR to a larger disk, or define the connection drill_db.",
        )
    else:
        report.ok("room", f"{place} has {_gib(free)} free; a drill of the largest backup may need {_gib(needed)}.")


def _gib(size: int) -> str:
    return f"{size / 1024**3:,.1f} GiB"
