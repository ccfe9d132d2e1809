"""Builds the objects of one process from its settings and connections, each when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

from clinic_backups.archive.bounds import Bound, bound_of
from clinic_backups.archive.codec import Codec
from clinic_backups.archive.encryption import Encryption, load_identities, parse_recipients, public_keys
from clinic_backups.backup import preflight
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.backup.backup_outcomes import Outcomes
from clinic_backups.backup.stream import OnProgress
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import DatabaseClock, machine_now
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound, SettingsError, TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.listening import Listener, nobody
from clinic_backups.base.replica import ReplicaProblem
from clinic_backups.base.settings import Settings
from clinic_backups.base.silence import Limits
from clinic_backups.base.turns import Turns
from clinic_backups.catalog.approvals import Approvals
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.comparisons import Comparisons
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.outbox import Outbox, Recipient
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance.holds import Holds
from clinic_backups.maintenance.replication import Replicator
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.verification import CheckedReplica, Verifier
from clinic_backups.notify.approval_mails import ApprovalMails
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.notify.delivered import Delivered
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.restore import trial
from clinic_backups.restore.archives import Archives, OnBadReplica, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.consolidation import Consolidation
from clinic_backups.restore.copy_runner import CopyRunner
from clinic_backups.restore.into_schema import IntoRestore
from clinic_backups.restore.runner import RestoreRunner
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store
from clinic_backups.stores.identified import IdentifiedStore
from clinic_backups.tenant import people
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.gate import OnUnchecked

FindConnection = Callable[[str], Connection | None]


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
    on_unnoted: Callable[[ClinicBackupsError], object]
    on_unchecked: OnUnchecked
    turns: Turns


class Parts:
    """The objects that commands and tasks use.

    :param find: looks up a connection by its name; returns ``None`` if it is not defined.
    """

    def __init__(self, settings: Settings, find: FindConnection) -> None:
        self.settings = settings
        self._find, self._threads = find, 1
        self.kept = KeptConnections()
        """Opens the connections of backups. Several backups in a row use the same ones within ``kept.keeping()``."""
        Limits.silence_seconds = settings.silence_seconds
        Limits.longest_seconds = settings.statement_timeout_seconds + settings.silence_seconds

    @cached_property
    def clinic_db(self) -> Connection:
        """The clinics' database. :raises SettingsError: the connection is not defined."""
        return self._required("clinic_db", "=postgres://user:password@host:5432/database, or create it in Airflow.")

    def _required(self, conn_id: str, how: str) -> Connection:
        """:param how: the hint's text after the variable's name."""
        found = self._find(conn_id)
        if found is None:
            hint = f"Set AIRFLOW_CONN_{conn_id.upper()}{how}"
            raise SettingsError(f"Connection '{conn_id}' is not defined.", hint=hint)
        return found

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog of this process."""
        settings = self.settings
        return Catalog(
            self.catalog_connection,
            clock_difference_seconds=settings.clock_difference_seconds,
            kept=self.kept,
            connections=self._threads,
        )

    @property
    def clock(self) -> DatabaseClock:
        """The catalog's clock."""
        return self.catalog.clock

    @property
    def catalog_connection(self) -> Connection:
        """The connection to the catalog: by default that of the clinics' own database."""
        return self._find("backup_catalog") or self.clinic_db

    @cached_property
    def stores(self) -> Stores:
        """The stores of the settings. :raises SettingsError: no store is set, or a URL is wrong."""
        return self._stores(self.identified_store)

    def _stores(self, opened: Callable[[str, str], ObjectStore]) -> Stores:
        return Stores(self.settings.require_store_url(), self.settings.replica_stores, opened)

    @cached_property
    def bare_stores(self) -> Stores:
        """The same without checking markers: for `store init`, and for reading without a catalog."""
        return self._stores(self.open_store)

    def bare_store(self, url: str, conn_id: str) -> ObjectStore:
        """A store of the settings, or any other one over ``conn_id``, without checking its marker."""
        if self.settings.store_url and url in self.bare_stores.urls:
            return self.bare_stores.at(url)
        return self.open_store(url, conn_id)

    def identified_store(self, url: str, conn_id: str) -> ObjectStore:
        """A store whose marker is checked before and after each operation."""
        store = self.open_store(url, conn_id)
        return IdentifiedStore(store, self.identities.expected(store.url))

    @cached_property
    def identities(self) -> Identities:
        """The ids of the stores, by URL."""
        return Identities(self.catalog.database)

    def without_catalog(self) -> None:
        """From now on accept any store, because there is no catalog with the stores' ids."""
        self.stores = self.bare_stores

    @property
    def store(self) -> ObjectStore:
        """The store that backups go to."""
        return self.stores.primary

    def open_store(self, url: str, conn_id: str) -> ObjectStore:
        """Open any store. If the connection is not defined, use the machine's own credentials."""
        return open_store(url, self._find(conn_id), **self.settings.store_options(url))

    def clinics(self) -> tuple[list[Clinic], list[Clinic]]:
        """The active clinics, and all of them, in id order."""
        return people.clinics(self.clinic_db, SqlFolder(self.settings.sql_dir))

    def admins(self, clinic_id: int) -> list[Recipient]:
        """The recipients of the mails about one clinic."""
        found = people.admins(self.clinic_db, SqlFolder(self.settings.sql_dir), clinic_id)
        return [Recipient(address, name) for address, name in found]

    @cached_property
    def outbox(self) -> Outbox:
        """The outbox of mails."""
        return Outbox(self.catalog.database)

    @cached_property
    def known_clinics(self) -> Clinics:
        """The clinics that the catalog knows."""
        return Clinics(self.catalog.database)

    @property
    def comparisons(self) -> Comparisons:
        """What the preflights of runs compared."""
        return Comparisons(self.catalog.database)

    def see(self, active: Sequence[Clinic], every: Sequence[Clinic]) -> None:
        """Tell the catalog which clinics there are, and their own schedules and objectives."""
        settings = self.settings
        hours = {clinic.id: own for clinic in every if (own := settings.rpo_hours_of(clinic)) is not None}
        schedules = {clinic.id: cron for clinic in every if (cron := settings.own_schedule_of(clinic)) is not None}
        self.known_clinics.see(active=active, every=every, objective_hours=hours, schedules=schedules)

    @cached_property
    def announcer(self) -> Announcer:
        """Creates the notices about outcomes."""
        return Announcer(self.settings.notify_success, self.settings.clinic_notify_success)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Closes records."""
        return Outcomes(self.catalog, lambda: self.store, self.announcer, self.clock)

    def deliver(self, *, clinic_id: int | None = None, limit_seconds: float = 600) -> Delivered:
        """Send the mails that are due, of one clinic or all. See :meth:`Post.deliver`."""
        # Mail is imported and set up only when there is some.
        from clinic_backups.notify.sending import Post
        from clinic_backups.notify.templates import Templates

        settings = self.settings
        if clinic_id is not None and not self.outbox.has_work(clinic_id, self.clock()):
            return Delivered()
        post = Post(
            outbox=self.outbox,
            server=self._find("smtp_default"),
            templates=Templates(settings.email_dir, settings.zone, support_contact=settings.support_contact),
            admins=self.admins,
            operators=settings.operator_emails,
            approvers=settings.approvers,
            operator_language=settings.operator_language,
            now=self.clock,
        )
        if clinic_id is None:
            post.expire()
        return post.deliver(clinic_id=clinic_id, limit_seconds=limit_seconds)

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

    def require_settings(self, clinics: Iterable[Clinic]) -> None:
        """Fail before the first clinic if a setting, a key or the catalog's version would fail every clinic.

        :raises SettingsError, PermanentError: with the remedy.
        :raises ClocksDiffer: this machine's clock is not the catalog's.
        """
        for recipients in {self.settings.recipients_of(clinic.id) for clinic in clinics}:
            parse_recipients(recipients)
        self.catalog.require_newest()
        self.clock.require_same()
        # A store that is down may come back. If it does not, each clinic's backup reports it.
        with suppress(TransientError):
            self.store.identified()

    @cached_property
    def restore_db(self) -> Connection:
        """The connection for writing to the clinics' database. :raises SettingsError: it is not defined."""
        return self._required("restore_db", " to a role that may read and write the clinics' tables.")

    @cached_property
    def copy_target(self) -> Connection:
        """The database for restores into a new schema: ``restore_target`` if defined, otherwise the clinics' own."""
        return self._find("restore_target") or self.restore_db

    def archives(self, identity_file: Path | None = None, **options: Unpack[Reading]) -> Archives:
        """Reads backups. :raises SettingsError: there is no identity file, or it cannot be used."""
        file = identity_file or self.settings.identity_file
        if file is None:
            raise SettingsError(
                "No identity file is given. Without the secret key no backup can be opened.",
                hint="Set CLINIC_BACKUPS_IDENTITY_FILE, or give --identity FILE.",
            )
        return Archives(self.stores, load_identities(file), unpack_ratio=self.settings.unpack_ratio, **options)

    def clinic_restore(
        self,
        identity_file: Path | None = None,
        *,
        database: Connection | None = None,
        **options: Unpack[Reading],
    ) -> ClinicRestore:
        """Plans and applies restores. :raises SettingsError: see :meth:`archives`."""
        archives = self.archives(identity_file, **options)
        return ClinicRestore(
            settings=self.settings, restore_db=database or self.restore_db, clinic_db=self._find("clinic_db"),
            archives=archives, listener=archives.listener,
        )  # fmt: skip

    def restores(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> RestoreRunner:
        """Runs restores and keeps their records."""
        restore = self.clinic_restore(
            identity_file, on_bad_replica=self._note_bad_replica, bound_of=self.known_bound, **listening
        )
        return RestoreRunner(
            restore=restore, catalog=self.catalog, restore_db=self.restore_db, safety=self.safety(identity_file),
            approvals=self.approvals, now=self.clock,
        )  # fmt: skip

    @cached_property
    def approvals(self) -> Approvals:
        """The approvals of restores."""
        return Approvals(self.catalog.database, self.settings.approval_hours, self.settings.approvers)

    def belongs_to(self, name: str, clinic_id: int) -> bool:
        """Whether the person with that name belongs to the clinic. A superadmin does not belong to any clinic."""
        return people.belongs_to(self.clinic_db, SqlFolder(self.settings.sql_dir), name, clinic_id)

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

    def consolidation(self, identity_file: Path | None = None, **listening: Unpack[Listening]) -> Consolidation:
        """Makes full backups from incremental ones, without using the clinics' database."""
        archives = self.archives(
            identity_file, on_bad_replica=self._note_bad_replica, bound_of=self.known_bound, **listening
        )
        return Consolidation(
            settings=self.settings, catalog=self.catalog, archives=archives, store=self.store, announcer=self.announcer,
            **listening,
        )  # fmt: skip

    def copier(self, identity_file: Path | None = None, **options: Unpack[Reading]) -> IntoRestore:
        """Restores clinics into new schemas."""
        return IntoRestore(self.clinic_restore(identity_file, database=self.copy_target, **options))

    def safety(self, identity_file: Path | None = None) -> SafetyBackup:
        """Makes safety backups, over the restore's own connection.

        If the settings have no recipients, a safety backup is encrypted to the keys that open the backup itself.
        """
        settings, file = self.settings, identity_file or self.settings.identity_file
        if not settings.recipients and file is not None:
            settings = settings.model_copy(update={"recipients": public_keys(file)})
        # The restore's own mail names the safety backup.
        backup = self.backup(announcer=Announcer("never"), clinic_db=self.restore_db, settings=settings)
        return SafetyBackup(settings=settings, backup=backup, restore_db=self.restore_db)

    def cleaner(self) -> Cleaner:
        """Applies the retention policy and continues erasures."""
        return Cleaner(settings=self.settings, catalog=self.catalog, stores=self.stores, now=self.clock)

    def replicator(self, on_replica: Callable[[BackupRecord, str], object] = nobody) -> Replicator:
        """Makes the replicas that stores lack."""
        return Replicator(catalog=self.catalog, stores=self.stores, now=self.clock, on_replica=on_replica)

    def holds(self) -> Holds:
        """Sets and ends holds."""
        return Holds(self.catalog, self.stores, self.clock)

    def erasures(self) -> Erasures:
        """The erasures of clinics that left."""
        return Erasures(self.catalog.database)

    def store_check(self, **listening: Unpack[Listening]) -> StoreCheck:
        """Compares the stores with the catalog."""
        return StoreCheck(catalog=self.catalog, now=self.clock, **listening)

    def verifier(
        self, *, on_replica: Callable[[CheckedReplica], object] = nobody, **listening: Unpack[Listening]
    ) -> Verifier:
        """Reads every replica of one backup."""
        check = self.store_check(**listening)
        return Verifier(catalog=self.catalog, stores=self.stores, check=check, now=self.clock, on_replica=on_replica)

    def replicas(self) -> Replicas:
        """The replicas of backups in stores."""
        return Replicas(self.catalog.database)

    def known_bound(self, backup_id: str) -> Bound | None:
        """The bound of a backup, from its record."""
        record = self.catalog.get(backup_id)
        return bound_of(record) if record is not None else None

    def _note_bad_replica(self, source: Source, url: str, error: ClinicBackupsError) -> None:
        """Record a bad replica that a restore found."""
        record = self.catalog.get(source.backup_id)
        if record is None or url not in record.stores:
            return
        if isinstance(error, (ObjectNotFound, IntegrityError)):
            problem: ReplicaProblem = "missing" if isinstance(error, ObjectNotFound) else "damaged"
            self.replicas().lose(record, url, problem, self.clock(), LossAlarm(self.clock))

    def preflight(
        self, *, count_rows: bool = True, try_restores: bool = False, on_compared: preflight.OnCompared = nobody
    ) -> list[preflight.Finding]:
        """Check everything that a backup needs.

        :param try_restores: also write one row of each table with the restoring role, and roll it back.
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
            beat=lambda: self.catalog.beat(),
        )
        if try_restores:
            found += trial.findings(self.settings, self._find("restore_db"))
        return found
