"""What all work of one process shares: connections, catalog, stores, clinics and mail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from functools import cached_property

from clinic_backups.archive.bounds import Bound, bound_of
from clinic_backups.archive.encryption import parse_recipients
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError, TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import is_shared, shared_clinic
from clinic_backups.base.silence import Limits
from clinic_backups.catalog.backup_counts import BackupCounts
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.comparisons import Comparisons
from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.catalog.identities import Identities
from clinic_backups.catalog.outbox import Outbox, Recipient
from clinic_backups.catalog.proofs import Proofs
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.catalog.row_changes import RowChanges
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.notify.delivered import Delivered
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store
from clinic_backups.stores.identified import IdentifiedStore
from clinic_backups.tenant import people
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot

FindConnection = Callable[[str], Connection | None]


class Shared:
    """Makes each of these objects when it is first needed, from the settings and the connections.

    :param find: looks up a connection by its name; returns ``None`` if it is not defined.
    """

    def __init__(self, settings: Settings, find: FindConnection) -> None:
        self.settings = settings
        self._find, self._threads = find, 1
        self.has_catalog = True
        """False after :meth:`without_catalog`."""
        self.kept = KeptConnections()
        """Opens the connections of backups. Several backups in a row use the same ones within ``kept.keeping()``."""
        Limits.silence_seconds = settings.silence_seconds
        Limits.longest_seconds = settings.statement_timeout_seconds + settings.silence_seconds

    @cached_property
    def clinic_db(self) -> Connection:
        """The clinics' database. :raises SettingsError: the connection is not defined."""
        return self.connection("clinic_db")

    def connection(self, conn_id: str) -> Connection:
        """Any connection by its name. :raises SettingsError: it is not defined."""
        return self._required(conn_id, "=postgres://user:password@host:5432/database, or create it in Airflow.")

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
        self.has_catalog = False

    @property
    def store(self) -> ObjectStore:
        """The store that backups go to."""
        return self.stores.primary

    def open_store(self, url: str, conn_id: str) -> ObjectStore:
        """Open any store. If the connection is not defined, use the machine's own credentials."""
        return open_store(url, self._find(conn_id), **self.settings.store_options(url))

    def clinics(self) -> tuple[list[Clinic], list[Clinic]]:
        """The active clinics, and all of them, in id order."""
        found = self.find_clinics()
        return found.active, found.every

    def find_clinics(self) -> people.ClinicsFound:
        """The same, and the rows of the clinics' table whose key cannot be an id."""
        return people.clinics(
            self.clinic_db, SqlFolder(self.settings.sql_dir), trusted_owners=self.settings.trusted_owners
        )

    def database_bytes(self) -> int | None:
        """The size of the clinics' database; none if the role may not ask for it."""
        try:
            with Snapshot(self.clinic_db, **self.settings.timeouts) as snapshot:
                ((size,),) = snapshot.rows("SELECT pg_database_size(current_database())", None, "asking for the size")
        except PermanentError:
            return None
        return int(size)

    def admins(self, clinics: Sequence[ClinicId]) -> Generator[tuple[ClinicId, Sequence[Recipient]]]:
        """Each clinic with the recipients of the mails about it. See :func:`people.admins`."""
        settings = self.settings
        yield from ((clinic, []) for clinic in clinics if is_shared(clinic))
        found = people.admins(
            self.clinic_db, SqlFolder(settings.sql_dir), [each for each in clinics if not is_shared(each)],
            trusted_owners=settings.trusted_owners, kept=self.kept,
        )  # fmt: skip
        yield from ((clinic, [Recipient(*each) for each in recipients]) for clinic, recipients in found)

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

    @property
    def shared_clinic(self) -> Clinic:
        """The shared unit, with its name for the operator."""
        return shared_clinic(self.settings.operator_language)

    @property
    def proofs(self) -> Proofs:
        """The proofs of drills."""
        return Proofs(self.catalog.database)

    @property
    def forgotten(self) -> Forgotten:
        """Which rows must not come back."""
        return Forgotten(self.catalog.database)

    def see(self, active: Sequence[Clinic], every: Sequence[Clinic]) -> None:
        """Tell the catalog which clinics there are, and their own schedules and objectives."""
        settings = self.settings
        if settings.shared:
            active, every = (*active, self.shared_clinic), (*every, self.shared_clinic)
        hours = {clinic.id: own for clinic in every if (own := settings.rpo_hours_of(clinic)) is not None}
        schedules = {clinic.id: cron for clinic in every if (cron := settings.own_schedule_of(clinic)) is not None}
        self.known_clinics.see(active=active, every=every, objective_hours=hours, schedules=schedules)
        # Once a run, so that the page adds up few rows.
        BackupCounts(self.catalog.database).compact()

    @cached_property
    def announcer(self) -> Announcer:
        """Creates the notices about outcomes."""
        return Announcer(self.settings.notify_success, self.settings.clinic_notify_success)

    def deliver(self, *, clinics: Collection[ClinicId] | None = None, limit_seconds: float = 600) -> Delivered:
        """Send the mails that are due, about these clinics or all. See :meth:`Post.deliver`."""
        # Mail is imported and set up only when there is some.
        from clinic_backups.notify.sending import Post
        from clinic_backups.notify.templates import Templates

        settings = self.settings
        if clinics is not None and not self.outbox.has_work(clinics, self.clock()):
            return Delivered()
        post = Post(
            outbox=self.outbox,
            server=self._find("smtp_default"),
            templates=Templates(
                settings.email_dir,
                settings.zone,
                support_contact=settings.support_contact,
                words=settings.tenant_words,
            ),
            admins=self.admins,
            operators=settings.operator_emails,
            approvers=settings.approvers,
            operator_language=settings.operator_language,
            now=self.clock,
        )
        if clinics is None:
            post.expire()
        return post.deliver(clinics=clinics, limit_seconds=limit_seconds)

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

    def belongs_to(self, name: str, clinic_id: ClinicId) -> bool:
        """Whether the person with that name belongs to the clinic. A superadmin does not belong to any clinic."""
        return people.belongs_to(self.clinic_db, SqlFolder(self.settings.sql_dir), name, clinic_id)

    @cached_property
    def row_changes(self) -> RowChanges:
        """What changed between backups, as far as the catalog knows."""
        return RowChanges(self.catalog.database)

    def replicas(self) -> Replicas:
        """The replicas of backups in stores."""
        return Replicas(self.catalog.database)

    def known_bound(self, backup_id: str) -> Bound | None:
        """The bound of a backup, from its record."""
        record = self.catalog.get(backup_id)
        return bound_of(record) if record is not None else None
