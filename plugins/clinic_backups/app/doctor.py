"""Looks at everything that backups and restores need, and names the situation and the next commands.

For the person who does not know what is broken. It stops at nothing, needs no secret key, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from clinic_backups.app.held import absent, held
from clinic_backups.app.situations import Diagnosis, Sight, SightState, Situations
from clinic_backups.app.work import Parts
from clinic_backups.archive.encryption import parse_recipients, public_keys
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, PlaceMissing, SettingsError
from clinic_backups.base.text import one_line
from clinic_backups.catalog import migrate
from clinic_backups.catalog.board import Board, Counts
from clinic_backups.catalog.newest import NewestBackup, newest_good
from clinic_backups.stores.marker import read_marker
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot


class Doctor:
    """Looks at each part once. An error of a part is noted, and does not stop the others."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._found = parts, Diagnosis()
        self._held: dict[str, frozenset[str]] = {}
        """The archives in each store that answers."""
        self._newest: list[NewestBackup] = []
        self._elsewhere = ""
        """The further store that has most backups."""
        self._list_is_wrong = ""
        """The clinics' database answers, but not with a list of clinics that can all be backed up: the remedy."""
        self._counts: Counts | None = None

    @property
    def _stored(self) -> int:
        """How many backups the first store has."""
        return len(self._held.get(self._parts.bare_stores.primary.url, ())) if self._parts.settings.store_url else 0

    def look(self) -> Diagnosis:
        """Look at all parts, then say what to do."""
        # Before the stores: a backup that ends meanwhile is not missed there.
        with suppress(ClinicBackupsError):
            self._newest = newest_good(self._parts.catalog.database, self._now())
        self._see("SQL folder", self._folder)
        self._see("public keys", self._recipients)
        self._see("store", self._store)
        if self._parts.settings.store_url and self._parts.settings.replica_stores:
            self._see("further stores", self._further)
        self._see("catalog", self._catalog)
        self._see("clinics' database", self._clinic_db)
        self._see("secret key", self._identity)
        self._see("restore_db", self._restore_db)
        self._see("backups", self._backups)
        self._see("forgotten rows", self._forgotten)
        parts = {sight.part: sight.state for sight in self._found.sights}
        settings = self._parts.settings
        Situations(
            self._found, parts, has_store=bool(settings.store_url), stored=self._stored, elsewhere=self._elsewhere,
            list_is_wrong=self._list_is_wrong, counts=self._counts,
        ).conclude()  # fmt: skip
        return self._found

    def _see(self, part: str, look: Callable[[], tuple[SightState, str]]) -> None:
        try:
            state, said = look()
        except ClinicBackupsError as error:
            state, said = "error", f"{error.message} {error.hint}".strip()
        self._found.sights.append(Sight(part, state, one_line(said)))

    def _state(self, part: str) -> SightState:
        return next(sight.state for sight in self._found.sights if sight.part == part)

    def _folder(self) -> tuple[SightState, str]:
        folder = SqlFolder(self._parts.settings.sql_dir)
        if not (folder.path / "clinic_table.txt").exists():
            return "missing", f"{folder.path} does not name the table of the clinics: it has no clinic_table.txt."
        return "ok", f"{folder.path}: {len(folder.queries())} tables, the clinics are in {folder.clinic_table}."

    def _recipients(self) -> tuple[SightState, str]:
        recipients = self._parts.settings.recipients
        if not recipients:
            return "missing", "CLINIC_BACKUPS_RECIPIENTS is not set: nothing can be encrypted."
        parse_recipients(recipients)
        return "ok", f"Backups are encrypted to {len(recipients)} public keys."

    def _store(self) -> tuple[SightState, str]:
        if not self._parts.settings.store_url:
            return "missing", "CLINIC_BACKUPS_STORE_URL is not set."
        store = self._parts.bare_stores.primary
        try:
            marker = read_marker(store)
        except PlaceMissing as error:
            return "missing", error.message
        self._held[store.url], said = held(store)
        if marker is None and not self._stored:
            return "missing", f"{store.url} answers and is empty: no marker and no backup."
        return "ok", said

    def _further(self) -> tuple[SightState, str]:
        said, failed, most = list[str](), False, 0
        for url in self._parts.bare_stores.urls[1:]:
            try:
                self._held[url], text = held(self._parts.bare_stores.at(url))
            except ClinicBackupsError as error:
                failed, text = True, error.message
            said.append(text)
            if (count := len(self._held.get(url, ()))) > most:
                most, self._elsewhere = count, url
        return "error" if failed else "ok", " ".join(said)

    def _catalog(self) -> tuple[SightState, str]:
        with self._parts.catalog.database.transaction("looking at the catalog") as db:
            version = migrate.current(db)
        if version is None:
            return "lost" if self._stored else "missing", "The catalog's schema clinic_backups does not exist."
        if version != migrate.newest():
            return "missing", f"The catalog has version {version}, and this package needs {migrate.newest()}."
        known = self._parts.identities.find()
        if not known:
            return "missing", "The catalog knows no store yet."
        self._parts.store.identified()
        return "ok", f"The catalog is at its newest version and knows {len(known)} stores."

    def _clinic_db(self) -> tuple[SightState, str]:
        folder = SqlFolder(self._parts.settings.sql_dir)
        with Snapshot(self._parts.clinic_db) as snapshot:
            if folder.clinic_table not in snapshot.relations():
                return "lost", f"It answers, and has no table {folder.clinic_table}."
        try:
            found = self._parts.find_clinics()
        except PermanentError as error:
            self._list_is_wrong = error.hint
            raise
        active, every = found.active, found.every
        if found.unusable:
            first, *others = found.unusable
            self._list_is_wrong = first.error.hint
            more = f" clinic-backups check names {len(others):,} more." if others else ""
            return "error", f"{first.error.message}{more}"
        if not every:
            return "lost", f"It answers, and {folder.clinic_table} has no clinic."
        return "ok", f"{len(active):,} active clinics, {len(every):,} in all."

    def _identity(self) -> tuple[SightState, str]:
        file = self._parts.settings.identity_file
        if file is None:
            return "missing", "CLINIC_BACKUPS_IDENTITY_FILE is not set here. Only restores need it."
        keys, recipients = public_keys(file), self._parts.settings.recipients
        if recipients and not set(keys) & {recipient.strip() for recipient in recipients}:
            return (
                "error",
                f"The secret key in {file} belongs to none of the public keys, so it does not open new backups.",
            )
        return "ok", f"{file} holds {len(keys)} keys."

    def _restore_db(self) -> tuple[SightState, str]:
        try:
            connection = self._parts.restore_db
        except SettingsError:
            return "missing", "The connection restore_db is not defined here. Only restores need it."
        with Snapshot(connection) as snapshot:
            ((database,),) = snapshot.rows("SELECT current_database()", None, "asking for the database")
        return "ok", f"It leads to the database {database}."

    def _backups(self) -> tuple[SightState, str]:
        if self._state("catalog") != "ok":
            return "missing", "Not known without the catalog."
        settings, now = self._parts.settings, self._now()
        board = Board(self._parts.catalog.database)
        counts = board.counts(
            visible=None, now=now, objective_hours=settings.rpo_hours, prove_within_days=settings.prove_within_days
        )
        self._counts = counts
        if not counts.clinics:  # no run has told the catalog which clinics there are
            return "missing", "The catalog knows no clinic yet."
        if said := absent(self._newest, self._held, self._parts.bare_stores.urls):
            return "lost", " ".join(said)
        timely = counts.ok + counts.unproven
        text = f"{timely:,} clinics are in time, {counts.late:,} late, {counts.never:,} without any backup."
        failed = f" The newest backup of {counts.failed:,} clinics failed." if counts.failed else ""
        unproven = f" The last drill of {counts.unproven:,} of them failed or is too old." if counts.unproven else ""
        is_wrong = counts.late + counts.never + counts.failed + counts.unproven
        return "error" if is_wrong else "ok", text + unproven + failed

    def _forgotten(self) -> tuple[SightState, str]:
        if self._state("catalog") != "ok":
            return "missing", "Not known without the catalog."
        found = list(self._parts.forgotten_in_stores().compare(self._parts.store))
        lacking = sum(each.kind in ("no request", "damaged request") for each in found)
        strange = len(found) - lacking
        if strange:
            return "error", f"The store has {strange:,} erasure requests that the catalog did not make."
        if lacking:
            return "error", f"The store lacks {lacking:,} objects of the catalog's erasure requests."
        number = len(self._parts.forgotten.find())
        return "ok", f"{number:,} erasure requests; catalog and store have the same."

    def _now(self) -> datetime:
        try:
            return self._parts.clock()
        except ClinicBackupsError:
            return machine_now()
