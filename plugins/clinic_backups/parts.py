"""The parts of one process, made from its settings and connections when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from clinic_backups import preflight
from clinic_backups.backup import ClinicBackup
from clinic_backups.catalog.records import Catalog
from clinic_backups.connections import Connection
from clinic_backups.encryption import parse_recipients
from clinic_backups.errors import SettingsError
from clinic_backups.extract import SqlFolder
from clinic_backups.model import Clinic
from clinic_backups.settings import Settings
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.connect import open_store
from clinic_backups.tenant_db import Snapshot

FindConnection = Callable[[str], Connection | None]


class Parts:
    """What the commands and the tasks work with.

    :param find: looks a connection up by its name; ``None`` where nobody has defined it.
    """

    def __init__(self, settings: Settings, find: FindConnection) -> None:
        self.settings = settings
        self._find = find

    @cached_property
    def clinic_db(self) -> Connection:
        """The clinics' database. :raises SettingsError: the connection is not defined."""
        found = self._find("clinic_db")
        if found is None:
            raise SettingsError(
                "Connection 'clinic_db' is not defined.",
                hint="Set AIRFLOW_CONN_CLINIC_DB=postgres://user:password@host:5432/database, or create it in Airflow.",
            )
        return found

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog, by default in the clinics' own database."""
        return Catalog(self._find("backup_catalog") or self.clinic_db)

    @cached_property
    def store(self) -> ObjectStore:
        """The store of the settings; without a connection, with the credentials that the machine itself has."""
        return open_store(
            self.settings.require_store_url(),
            self._find("backup_store"),
            encryption=self.settings.encryption_at_store,
        )

    def clinics(self) -> tuple[list[Clinic], list[Clinic]]:
        """The active clinics, and all of them, in id order."""
        folder = SqlFolder(self.settings.sql_dir)
        with Snapshot(self.clinic_db) as snapshot:
            return snapshot.clinics(folder, "active_clinics.sql"), snapshot.clinics(folder, "all_clinics.sql")

    def backup(self, **stages: Any) -> ClinicBackup:
        """A :class:`ClinicBackup` of these parts; ``stages`` are its further arguments."""
        return ClinicBackup(
            settings=self.settings, clinic_db=self.clinic_db, store=self.store, catalog=self.catalog, **stages
        )

    def require_settings(self, clinics: Iterable[Clinic]) -> None:
        """Fail before the first clinic where a setting, a key or the catalog's version would fail each of them.

        :raises SettingsError, PermanentError: with the remedy.
        """
        for recipients in {self.settings.recipients_of(clinic.id) for clinic in clinics}:
            parse_recipients(recipients)
        self.catalog.require_newest()
        _ = self.store  # opened, which checks its URL and connection and sends nothing yet

    def preflight(self, *, count_rows: bool = True) -> list[preflight.Finding]:
        """Check everything that a backup needs."""
        return preflight.run(
            settings=self.settings,
            clinic_db=lambda: self.clinic_db,
            store=lambda: self.store,
            catalog_version=lambda: self.catalog.require_newest(),
            count_rows=count_rows,
        )
