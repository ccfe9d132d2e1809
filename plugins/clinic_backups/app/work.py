"""Makes the objects that do the work: backups, restores, retention and checks, over what the process shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

from clinic_backups.app.shared import Shared
from clinic_backups.archive.bounds import Bound
from clinic_backups.archive.codec import Codec
from clinic_backups.archive.encryption import Encryption, load_identities, public_keys
from clinic_backups.backup import preflight
from clinic_backups.backup.backup import ClinicBackup, Stage
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.backup.database_checks import OnCompared
from clinic_backups.backup.row_report import RowReport
from clinic_backups.backup.shared_checks import closed_findings
from clinic_backups.backup.stream import OnProgress
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import machine_now
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound, SettingsError
from clinic_backups.base.findings import Finding
from clinic_backups.base.listening import NOBODY, Listener, nobody
from clinic_backups.base.one_at_a_time import Turns
from clinic_backups.base.replica import ReplicaProblem
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.approvals import Approvals
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.record_history import RecordHistory
from clinic_backups.differences.states import States
from clinic_backups.drill.night import Drills, OnProof
from clinic_backups.drill.order import Turn, choose
from clinic_backups.export.delivery import ExportRunner
from clinic_backups.export.export import Export
from clinic_backups.maintenance.forgotten_in_stores import ForgottenInStores
from clinic_backups.maintenance.holds import Holds
from clinic_backups.maintenance.replication import Replicator
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.verification import CheckedReplica, Verifier
from clinic_backups.notify.approval_mails import ApprovalMails
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.restore import side_checks, trial
from clinic_backups.restore.archives import Archives, OnBadReplica, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.consolidation import Consolidation
from clinic_backups.restore.copy_runner import CopyRunner
from clinic_backups.restore.find_backup import choose_backup, require_completed
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.keys_now import keys_now, tables_now
from clinic_backups.restore.links_now import LinksNow, links_now
from clinic_backups.restore.point_in_time import PointInTime
from clinic_backups.restore.rehearse_clinics import rehearse
from clinic_backups.restore.request import LONGEST_BACKUP_ID, RestoreRequest, moment_of
from clinic_backups.restore.runner import RestoreRunner
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.restore.stores_read import StoresRead
from clinic_backups.tenant.data_time import AskTime
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.gate import OnUnchecked


class Listening(TypedDict, total=False):
    """Callbacks for the progress of long work."""

    listener: Listener


class Reading(Listening, total=False):
    """Further arguments of :class:`Archives`: known sizes of backups, and a callback for bad replicas."""

    on_bad_replica: OnBadReplica
    bound_of: Callable[[str], Bound | None]


class Stages(TypedDict, total=False):
    """Further arguments of :class:`ClinicBackup`, besides settings, store and catalog."""

    settings: Settings
    clinic_db: Connection
    extract: SqlExtract
    compress: Codec
    encrypt: Encryption
    announcer: Announcer
    on_progress: OnProgress
    on_stage: Callable[[Stage, BackupRecord], object]
    on_unnoted: Callable[[ClinicBackupsError], object]
    on_unchecked: OnUnchecked
    ask_time: AskTime
    turns: Turns


class Parts(Shared):
    """The objects that commands and tasks use."""

    @cached_property
    def outcomes(self) -> Outcomes:
        """Closes records."""
        return Outcomes(self.catalog, lambda: self.store, self.announcer, self.clock)

    def open_all(self) -> None:
        """Find the connections and open the stores that :meth:`backup` uses, before several threads do so.

        Call this before anything else. A further store that cannot be opened is left to whoever needs it.
        """
        self._threads = self.settings.clinics_at_once
        _ = self.clinic_db, self.catalog, self.store, self.announcer, self.outcomes, self.identities
        for url in self.stores.urls:
            with suppress(ClinicBackupsError):
                self.stores.at(url)

    def backup(self, **stages: Unpack[Stages]) -> ClinicBackup:
        """A :class:`ClinicBackup` of these parts. ``stages`` may replace some of them."""
        stages.setdefault("settings", self.settings)
        stages.setdefault("announcer", self.announcer)
        if "clinic_db" not in stages:
            stages["clinic_db"] = self.clinic_db
        return ClinicBackup(store=self.store, catalog=self.catalog, kept=self.kept, **stages)

    def archives(self, identity_file: Path | None = None, **options: Unpack[Reading]) -> Archives:
        """Reads backups. :raises SettingsError: there is no identity file, or it cannot be used."""
        file = identity_file or self.settings.identity_file
        if file is None:
            raise self._without_identity()
        ratio, notes = self.settings.unpack_ratio, self.stores_read
        return Archives(self.stores, load_identities(file), unpack_ratio=ratio, notes=notes, **options)

    @cached_property
    def stores_read(self) -> StoresRead:
        """Which stores archives were read from."""
        return StoresRead()

    def _without_identity(self) -> SettingsError:
        return SettingsError(
            "No identity file is given. Without the secret key no backup can be opened.",
            hint="Set CLINIC_BACKUPS_IDENTITY_FILE, or give --identity FILE.",
        )

    def _noting_archives(self, identity_file: Path | None, **listening: Unpack[Listening]) -> Archives:
        """As :meth:`archives`. The catalog says how large each archive is, and notes which replicas are bad."""
        return self.archives(
            identity_file, on_bad_replica=self._note_bad_replica, bound_of=self.known_bound, **listening
        )

    def clinic_restore(
        self,
        identity_file: Path | None = None,
        *,
        database: Connection | None = None,
        forgotten: Callable[[ClinicId], ForgottenOfClinic] | None = None,
        **options: Unpack[Reading],
    ) -> ClinicRestore:
        """Plans and applies restores. :raises SettingsError: see :meth:`archives`.

        :param forgotten: says which rows must not come back; by default the catalog says it.
        """
        archives = self.archives(identity_file, **options)
        return ClinicRestore(
            settings=self.settings, restore_db=database or self.restore_db, clinic_db=self._find("clinic_db"),
            archives=archives, listener=archives.listener,
            forgotten=forgotten or self.forgotten.of_clinic,
            unknown_requests=self._unknown_requests if forgotten is None else None,
        )  # fmt: skip

    def rehearse_losses(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> list[Finding]:
        """Lose and restore the smallest and the largest clinic, and roll it back. See :func:`rehearse`."""
        return rehearse(self.clinic_restore(identity_file, **listening), self.catalog.extremes(self.clock()))

    def restores(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> RestoreRunner:
        """Runs restores and keeps their records."""
        restore = self.clinic_restore(
            identity_file, on_bad_replica=self._note_bad_replica, bound_of=self.known_bound, **listening
        )
        return RestoreRunner(
            restore=restore, catalog=self.catalog, restore_db=self.restore_db, safety=self.safety(identity_file),
            approvals=self.approvals, now=self.clock,
            of_point_in_time=self.point_in_time(identity_file, listener=restore.listener).take,
        )  # fmt: skip

    def point_in_time(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> PointInTime:
        """Backs up clinics from databases of an earlier time."""
        settings = self._with_recipients(identity_file)
        if (folder := settings.point_in_time_sql_dir) is not None:
            settings = settings.model_copy(update={"sql_dir": folder})

        def backup(connection: Connection, ask_time: AskTime) -> ClinicBackup:
            # The mails of the restore name the backup.
            return self.backup(
                announcer=Announcer("never"), clinic_db=connection, settings=settings, ask_time=ask_time
            )  # fmt: skip

        productive = [self.restore_db, *(found for name in ("clinic_db",) if (found := self._find(name)))]
        return PointInTime(
            settings=settings, backup=backup, connection_of=self.connection, productive=productive, **listening
        )

    @cached_property
    def approvals(self) -> Approvals:
        """The approvals of restores."""
        return Approvals(self.catalog.database, self.settings.approval_hours, self.settings.approvers)

    def approval_mails(self, url: str) -> ApprovalMails:
        """Creates the mails about waiting plans and answers. :param url: Airflow's address; empty if unknown."""
        return ApprovalMails(self.catalog, self.outbox, self.belongs_to, url, self.clock)

    def copies_to_approve(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> CopyRunner:
        """Restores into new schemas, with an approval."""
        return CopyRunner(
            copier=self.copier(identity_file, bound_of=self.known_bound, **listening),
            catalog=self.catalog,
            approvals=self.approvals,
        )

    def exports_to_approve(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> ExportRunner:
        """Writes exports into the store, with an approval. :raises SettingsError: see :meth:`archives`."""
        archives = self._noting_archives(identity_file, **listening)
        return ExportRunner(
            settings=self.settings, export=self._export_of(archives), catalog=self.catalog, approvals=self.approvals,
            identities=archives.identities, store=lambda: self.store, now=self.clock,
        )  # fmt: skip

    def states(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> States:
        """Compares states of a clinic: backups, moments, and databases."""

        def backup_of(text: str) -> BackupRecord | None:
            found = self.catalog.get(text) if len(text) <= LONGEST_BACKUP_ID and text.isprintable() else None
            if found is not None:
                require_completed(found)
            return found

        return States(
            self.settings,
            backup_of=backup_of,
            backup_at=lambda clinic_id, moment: choose_backup(
                self.catalog, RestoreRequest(clinic_id=clinic_id, as_of=moment)
            ),
            connection_of=self.connection,
            moment_of=lambda text: moment_of(text, self.settings.zone),
            archives=lambda: self._noting_archives(identity_file, **listening),
            listed=self.row_changes.listed,
            forgotten=self.forgotten.of_clinic,
            drift=self._drift,
            links=self._links_now,
            **listening,
        )

    def record_history(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> RecordHistory:
        """Looks for records in backups. :raises SettingsError: see :meth:`archives`."""
        archives = self._noting_archives(identity_file, **listening)
        return RecordHistory(
            archives, forgotten=self.forgotten.of_clinic, drift=self._drift, links=self._links_now,
            server=keys_now(lambda: self.connection("clinic_db"), self.settings),
            tables=tables_now(lambda: self.connection("clinic_db"), self.settings),
        )  # fmt: skip

    @property
    def _links_now(self) -> LinksNow:
        """The links in the clinics' database, which need not be there."""
        return links_now(lambda: self.connection("clinic_db"), self.settings)

    def _drift(self) -> Drift:
        """What migrations changed since older backups."""
        return SqlFolder(self.settings.sql_dir).drift()

    def export(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> Export:
        """Writes backups as files that people open. :raises SettingsError: see :meth:`archives`."""
        return self._export_of(self._noting_archives(identity_file, **listening))

    def _export_of(self, archives: Archives) -> Export:
        return Export(
            archives,
            self.settings.operator_language,
            forgotten=self._forgotten_of,
            drift=self._drift,
            links=self._links_now,
        )

    def consolidation(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> Consolidation:
        """Makes full backups from incremental ones, without using the clinics' database."""
        archives = self._noting_archives(identity_file, **listening)
        return Consolidation(
            settings=self.settings, catalog=self.catalog, archives=archives, store=self.store, announcer=self.announcer,
            **listening,
        )  # fmt: skip

    def copier(
        self, identity_file: Path | None = None, *,
        forgotten: Callable[[ClinicId], ForgottenOfClinic] | None = None, **options: Unpack[Reading],
    ) -> IntoRestore:  # fmt: skip
        """Restores clinics into new schemas. :param forgotten: see :meth:`clinic_restore`."""
        return IntoRestore(
            self.clinic_restore(identity_file, database=self.copy_target, forgotten=forgotten, **options)
        )

    def due_drills(self) -> list[Turn]:
        """The units whose turn it is to be drilled, in order."""
        settings, now = self.settings, self.clock()
        return choose(
            self.proofs.candidates(now), now, within_days=settings.prove_within_days,
            budget_seconds=settings.drill_minutes * 60,
        )  # fmt: skip

    def drills(
        self, identity_file: Path | None = None, *, listener: Listener = NOBODY, on_proof: OnProof = nobody
    ) -> Drills:  # fmt: skip
        """Restores newest backups into a throw-away PostgreSQL. :raises SettingsError: see :meth:`archives`."""

        def archives(note: OnBadReplica) -> Archives:
            def bad(source: Source, url: str, error: ClinicBackupsError) -> None:
                note(source, url, error)
                self._note_bad_replica(source, url, error)

            return self.archives(identity_file, on_bad_replica=bad, bound_of=self.known_bound)

        _ = self.archives(identity_file)  # without the key it fails before a server is made
        productive = [self._find(name) for name in ("clinic_db", "restore_db", "restore_target", "backup_catalog")]
        return Drills(
            settings=self.settings, catalog=self.catalog, archives=archives, drill_db=self._find("drill_db"),
            productive=[each for each in productive if each is not None], listener=listener, on_proof=on_proof,
        )  # fmt: skip

    def safety(self, identity_file: Path | None = None) -> SafetyBackup:
        """Makes safety backups, over the restore's own connection.

        If the settings have no recipients, a safety backup is encrypted to the keys that open the backup itself.
        """
        settings = self._with_recipients(identity_file)
        # The restore's own mail names the safety backup.
        backup = self.backup(announcer=Announcer("never"), clinic_db=self.restore_db, settings=settings)
        return SafetyBackup(settings=settings, backup=backup, restore_db=self.restore_db, store=self.store)

    def _with_recipients(self, identity_file: Path | None) -> Settings:
        """The settings; without recipients in them, those of the keys that open the backups."""
        settings, file = self.settings, identity_file or self.settings.identity_file
        if settings.recipients or file is None:
            return settings
        return settings.model_copy(update={"recipients": public_keys(file)})

    def cleaner(self) -> Cleaner:
        """Applies the retention policy and continues erasures."""
        return Cleaner(settings=self.settings, catalog=self.catalog, stores=self.stores, now=self.clock)

    def replicator(self, on_replica: Callable[[BackupRecord, str], object] = nobody) -> Replicator:
        """Makes the replicas that stores lack."""
        return Replicator(catalog=self.catalog, stores=self.stores, now=self.clock, on_replica=on_replica)

    def _forgotten_of(self, clinic_id: ClinicId) -> ForgottenOfClinic:
        """What must not come back, with what an export says of it."""
        return replace(self.forgotten.of_clinic(clinic_id), notes=self._unknown_requests(clinic_id))

    def _unknown_requests(self, clinic_id: ClinicId) -> tuple[str, ...]:
        return self.forgotten_in_stores().notes(clinic_id, self.stores)

    def forgotten_in_stores(self) -> ForgottenInStores:
        """Keeps the erasure requests in the stores too."""
        return ForgottenInStores(self.forgotten, self.settings.recipients)

    def holds(self) -> Holds:
        """Sets and ends holds."""
        return Holds(self.catalog, self.stores, self.clock)

    def erasures(self) -> Erasures:
        """The erasures of clinics that left."""
        return Erasures(self.catalog.database)

    def store_check(self, **listening: Unpack[Listening]) -> StoreCheck:
        """Compares the stores with the catalog."""
        return StoreCheck(
            catalog=self.catalog, now=self.clock, recipients=self.settings.recipients, **listening
        )  # fmt: skip

    def verifier(
        self, *, on_replica: Callable[[CheckedReplica], object] = nobody, **listening: Unpack[Listening]
    ) -> Verifier:
        """Reads every replica of one backup."""
        check = self.store_check(**listening)
        return Verifier(catalog=self.catalog, stores=self.stores, check=check, now=self.clock, on_replica=on_replica)

    def _note_bad_replica(self, source: Source, url: str, error: ClinicBackupsError) -> None:
        """Record a bad replica that a restore found."""
        record = self.catalog.get(source.backup_id)
        if record is None or url not in record.stores:
            return
        if isinstance(error, (ObjectNotFound, IntegrityError)):
            problem: ReplicaProblem = "missing" if isinstance(error, ObjectNotFound) else "damaged"
            self.replicas().lose(record, url, problem, self.clock(), LossAlarm(self.clock))

    def preflight(
        self,
        *,
        count_rows: bool = True,
        try_restores: bool = False,
        on_compared: OnCompared = nobody,
        rows: RowReport | None = None,
        run_id: str = "",
    ) -> list[Finding]:
        """Check everything that a backup needs.

        :param try_restores: a person asks: also write one row of each table with the restoring role, and roll it back.
            A table that nobody has classified is then an error.
        :param rows: see :func:`clinic_backups.backup.preflight.run`.
        :param run_id: the run that will note what was compared.
        """
        found = preflight.run(
            settings=self.settings,
            clinic_db=lambda: self.clinic_db,
            stores=lambda: self.stores,
            catalog_version=lambda: self.catalog.require_newest(),
            clock=lambda: self.clock,
            now=machine_now,
            count_rows=count_rows,
            on_compared=on_compared,
            require_classes=try_restores,
            rows=rows,
            beat=lambda: self.catalog.beat(),
            turn=lambda: self.comparisons.turn(run_id),
        )
        with suppress(ClinicBackupsError):  # what is wrong with the catalog was found before
            found += closed_findings(self.known_clinics.closed_without_backup())
        if try_restores:
            found += trial.findings(self.settings, self._find("restore_db"))
        return found

    def restore_preflight(self, identity_file: Path | None = None, **asked: Unpack[side_checks.Asked]) -> list[Finding]:
        """Check everything that a restore and a drill need. See :func:`clinic_backups.restore.side_checks.run`."""
        side = side_checks.Side(
            settings=self.settings, identity_file=identity_file or self.settings.identity_file,
            no_identity=self._without_identity(), stores=lambda: self.stores, catalog=lambda: self.catalog,
            find=self._find,
        )  # fmt: skip
        return side_checks.run(side, **asked)
