"""Looks at everything that backups and restores need, and names the situation and the next commands.

For the person who does not know what is broken. It stops at nothing, needs no secret key, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from clinic_backups.app.held import held
from clinic_backups.app.runbook import PAGE, Section
from clinic_backups.app.work import Parts
from clinic_backups.archive.encryption import parse_recipients, public_keys
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, PlaceMissing, SettingsError
from clinic_backups.base.text import one_line
from clinic_backups.catalog.board import Board, Counts
from clinic_backups.stores.marker import read_marker
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot

SightState = Literal["ok", "missing", "lost", "error"]


@dataclass(frozen=True)
class Sight:
    """One part of the installation as it is now.

    :ivar state: ``missing``: not there yet or not given here. ``lost``: it is there, and its content is not.
        ``error``: it does not answer, or is wrong.
    """

    part: str
    state: SightState
    said: str


@dataclass
class Diagnosis:
    """All parts, the situation in a sentence, and the next commands in their order.

    :ivar runbook: where the runbook treats the situation.
    """

    sights: list[Sight] = field(default_factory=list)
    situation: str = ""
    steps: list[str] = field(default_factory=list)
    runbook: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nothing has to be done."""
        return not self.steps


class Doctor:
    """Looks at each part once. An error of a part is noted, and does not stop the others."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._found = parts, Diagnosis()
        self._stored = 0
        self._elsewhere = ""
        """The further store that has most backups."""
        self._list_is_wrong = ""
        """The clinics' database answers, but not with a list of clinics that can all be backed up: the remedy."""
        self._counts: Counts | None = None

    def look(self) -> Diagnosis:
        """Look at all parts, then say what to do."""
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
        self._conclude()
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
        self._stored, said = held(store)
        if marker is None and not self._stored:
            return "missing", f"{store.url} answers and is empty: no marker and no backup."
        return "ok", said

    def _further(self) -> tuple[SightState, str]:
        said, failed, most = list[str](), False, 0
        for url in self._parts.bare_stores.urls[1:]:
            try:
                count, text = held(self._parts.bare_stores.at(url))
            except ClinicBackupsError as error:
                failed, count, text = True, 0, error.message
            said.append(text)
            if count > most:
                most, self._elsewhere = count, url
        return "error" if failed else "ok", " ".join(said)

    def _catalog(self) -> tuple[SightState, str]:
        # Only now: Alembic takes 0.2 s to import, and no other command needs it.
        from clinic_backups.catalog import migrate

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

    def _conclude(self) -> None:
        """The first situation that fits decides: what comes later needs what comes before."""
        at = {sight.part: sight.state for sight in self._found.sights}
        if at["SQL folder"] != "ok":
            self._say("There is no SQL folder for this schema.", "clinic-backups init --tenant schema.table")
        elif at["public keys"] != "ok":
            self._say(
                "There is no key to encrypt to.", "clinic-backups keygen identity.txt",
                "Set CLINIC_BACKUPS_RECIPIENTS to the line that it prints.",
            )  # fmt: skip
        elif self._is_store_away(at):
            self._of_lost_store()
        elif self._is_server_lost(at):
            self._of_lost_server(at)
        elif at["catalog"] == "lost":
            self._say(
                "The catalog is lost, and the store still has the backups.",
                "clinic-backups bucket", "clinic-backups catalog migrate", "clinic-backups catalog rebuild",
                "clinic-backups list", section=Section.CATALOG,
            )  # fmt: skip
        elif at["catalog"] == "missing":
            self._say(
                "The catalog is new, or older than this package.",
                "clinic-backups catalog migrate", "clinic-backups store init", "clinic-backups check",
            )  # fmt: skip
        elif at["catalog"] == "error":
            steps = [
                "Correct the connection backup_catalog, or the store's marker. Then run clinic-backups doctor again."
            ]
            if self._stored:
                steps.append("To restore meanwhile: clinic-backups bucket, then clinic-backups restore --archive KEY")
            self._say("The catalog does not answer, or does not know this store.", *steps, section=Section.CATALOG)
        elif at["clinics' database"] == "error":
            self._of_clinic_db()
        elif at["backups"] != "ok":
            self._of_backups()
        else:
            self._of_the_rest(at)

    def _of_the_rest(self, at: Mapping[str, SightState]) -> None:
        """What does not stop the backups."""
        if at["forgotten rows"] == "error":
            self._say(
                "Catalog and store do not have the same erasure requests, so forgotten rows may come back.",
                "clinic-backups catalog verify", "clinic-backups catalog verify --record",
                "clinic-backups catalog rebuild",
            )  # fmt: skip
        elif at["secret key"] == "error":
            self._say(
                "The secret key on this machine does not open new backups.",
                "Find the secret key that belongs to CLINIC_BACKUPS_RECIPIENTS.",
                "If it is lost, set CLINIC_BACKUPS_RECIPIENTS to a key that you have, and back up again.",
                section=Section.KEY,
            )
        else:
            self._say("All is well. `clinic-backups check --rows --rehearse` also proves it row by row.")
            self._found.runbook = f"{PAGE} has a section for each situation that no check can see."

    def _is_store_away(self, at: Mapping[str, SightState]) -> bool:
        """A store that is not there is new, unless the catalog expects one."""
        is_expected = at["catalog"] in ("ok", "error")
        return (
            at["store"] == "error" or not self._parts.settings.store_url or (at["store"] == "missing" and is_expected)
        )

    def _is_server_lost(self, at: Mapping[str, SightState]) -> bool:
        """The clinics are gone, or nothing on their server answers, and the store has backups to make it again."""
        is_silent = at["clinics' database"] == "error" and not self._list_is_wrong
        return self._stored > 0 and (at["clinics' database"] == "lost" or (is_silent and at["catalog"] == "error"))

    def _of_lost_store(self) -> None:
        correct = "Correct CLINIC_BACKUPS_STORE_URL and its connection. Then run clinic-backups doctor again."
        if not self._elsewhere:
            self._say(
                "The store does not answer, or is not set. Nothing can be backed up or restored without it.",
                correct, section=Section.BUCKET,
            )  # fmt: skip
            return
        self._say(
            f"The store does not answer, or is not set. Its backups are in {self._elsewhere}, too. Nothing can"
            " be backed up until that is mended.",
            correct,
            "To restore meanwhile, without a safety backup: clinic-backups bucket --clinic ID, then clinic-backups"
            " restore --clinic ID --archive KEY. clinic-backups recover reads that store by itself.",
            f"If the store is lost: make {self._elsewhere} the first store, as the runbook says.",
            section=Section.BUCKET,
        )

    def _of_lost_server(self, at: Mapping[str, SightState]) -> None:
        is_gone = at["clinics' database"] == "lost"
        look = () if is_gone else ("If the server is only stopped, start it. Then run clinic-backups doctor again.",)
        self._say(
            "The clinics' database answers, and its clinics are gone." if is_gone
            else "Neither the clinics' database nor the catalog answers. The backups are safe in the store.",
            *look,
            "Make an empty database, and define a connection to it, for instance AIRFLOW_CONN_NEW_SERVER.",
            "clinic-backups recover --target new_server --plan", "clinic-backups recover --target new_server",
            section=Section.SERVER,
        )  # fmt: skip

    def _of_clinic_db(self) -> None:
        if self._list_is_wrong:
            self._say(
                "The clinics' database answers, and its list of clinics is wrong.",
                self._list_is_wrong, "clinic-backups check", section=Section.BACKUP,
            )  # fmt: skip
        else:
            self._say(
                "The clinics' database does not answer. The backups are safe in the store.",
                "Correct the connection clinic_db, or start the server. Then run clinic-backups doctor again.",
                section=Section.SERVER,
            )

    def _of_backups(self) -> None:
        counts = self._counts
        if counts is not None and counts.never == counts.clinics:
            self._say("No clinic has a backup yet.", "clinic-backups check", "clinic-backups backup --all")
            return
        if counts is not None and counts.unproven and not counts.late + counts.never + counts.failed:
            self._say(
                "All backups are in time. Some are not proven to restore.",
                "clinic-backups certificate show", "clinic-backups drill --due",
                "docs/drills.md says what to do for each error.",
            )  # fmt: skip
            return
        self._say(
            "Some clinics' backups are late, failed or missing.",
            "clinic-backups list --state failed", "clinic-backups check", "clinic-backups backup --all",
            section=Section.BACKUP,
        )  # fmt: skip

    def _say(self, situation: str, *steps: str, section: Section | None = None) -> None:
        self._found.situation, self._found.steps = situation, list(steps)
        self._found.runbook = f"All steps, with what each prints: {section.place}" if section else ""
