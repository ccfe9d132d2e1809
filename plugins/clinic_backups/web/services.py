"""The objects of the pages and the API, built when first needed, so that a wrong setting does not stop Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any

from fastapi import Depends, Request

from clinic_backups.base import load_settings
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import DatabaseClock, Now
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.settings import Settings
from clinic_backups.base.tenant_word import TenantWords
from clinic_backups.catalog.approvals import Approvals
from clinic_backups.catalog.audit import Audit
from clinic_backups.catalog.backup_list import History, HistoryEntry
from clinic_backups.catalog.board import Board, Counts
from clinic_backups.catalog.catalog_database import time_of
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.exports import Exports
from clinic_backups.catalog.proofs import Proofs
from clinic_backups.catalog.replicas import Backlog, Replicas
from clinic_backups.catalog.restores import Restores
from clinic_backups.catalog.row_changes import RowChanges
from clinic_backups.operators.airflow_app import AirflowParts
from clinic_backups.web import banners
from clinic_backups.web.access import Access
from clinic_backups.web.actions import Actions
from clinic_backups.web.banners import Banner
from clinic_backups.web.caller import Caller
from clinic_backups.web.databases import WebDatabase
from clinic_backups.web.downloads import Downloads
from clinic_backups.web.metrics import Service
from clinic_backups.web.problems import NotVisible
from clinic_backups.web.recorder import Recorder
from clinic_backups.web.runs import WATCHED, Runs
from clinic_backups.web.seen_runs import SeenRuns


class Services:
    """The API server's objects, one set for its whole life. :raises SettingsError: a setting is wrong, at each use."""

    def __init__(self, now: Now | None = None) -> None:
        self.now = now or DatabaseClock(self._ask_time)

    def _ask_time(self) -> datetime:
        with self.database.statement("asking for the time") as db:
            return time_of(db)

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load_settings.load()

    @cached_property
    def database(self) -> WebDatabase:
        """The catalog's database."""
        return WebDatabase(_catalog_connection, "The backups' catalog")

    @cached_property
    def access(self) -> Access:
        """Finds out the rights of people."""
        clinics = WebDatabase(lambda: AirflowParts().clinic_db, "The clinics' database", own_path=False)
        return Access(lambda: clinics, self.settings.sql_dir)

    @cached_property
    def board(self) -> Board:
        """Reads the board."""
        return Board(self.database)

    @cached_property
    def history(self) -> History:
        """The backups of a clinic."""
        return History(self.database)

    @cached_property
    def audit(self) -> Audit:
        """The audit list."""
        return Audit(self.database)

    @cached_property
    def row_changes(self) -> RowChanges:
        """What changed between backups, as far as the catalog knows."""
        return RowChanges(self.database)

    @cached_property
    def proofs(self) -> Proofs:
        """The proofs of drills."""
        return Proofs(self.database)

    @cached_property
    def exports(self) -> Exports:
        """The files that people asked for."""
        return Exports(self.database)

    @cached_property
    def approvals(self) -> Approvals:
        """The approvals of restores."""
        return Approvals(self.database, self.settings.approval_hours)

    def banners(self) -> list[Banner]:
        """The banners for the operator."""
        return [
            *banners.of_airflow(Runs(), self.settings),
            *banners.of_clinics(lambda: AirflowParts().clinics()[0], Clinics(self.database).active_ids()),
            *banners.of_approvals(self.approvals.waiting()),
        ]

    def figures(self, counts: Counts) -> Service:
        """What whoever runs the system is told. What nobody can say at the moment is left out."""
        urls, backlogs = self._backlogs()
        alerts = [banner.kind for banner in self.banners()]
        return Service(counts, alerts, Runs().newest_ended(WATCHED), urls, backlogs, self.proofs.newest_at())

    def _backlogs(self) -> tuple[Sequence[str], Sequence[Backlog]]:
        """The stores, and what some of them lack. One alone lacks nothing: a backup is complete once it is there."""
        try:
            urls = AirflowParts().stores.urls
            return urls, Replicas(self.database).backlog(urls) if len(urls) > 1 else []
        except ClinicBackupsError:
            return (), ()

    def objectives(self) -> dict[str, Any]:
        """What the board measures the clinics by, now."""
        settings = self.settings
        return {
            "now": self.now(), "objective_hours": settings.rpo_hours, "prove_within_days": settings.prove_within_days,
        }  # fmt: skip

    @cached_property
    def seen_runs(self) -> SeenRuns:
        """The runs that people see."""
        return SeenRuns(Runs(), self.approvals, Restores(self.database))

    @cached_property
    def actions(self) -> Actions:
        """The actions of people."""
        return Actions(
            database=self.database,
            recorder=self.recorder,
            runs=Runs(),
            seen=self.seen_runs,
            exists=self._exists,
            now=self.now,
        )

    @cached_property
    def downloads(self) -> Downloads:
        """The downloads of archives."""
        # Opened again for each link, so that a changed connection of the store needs no restart.
        return Downloads(self.recorder, lambda: AirflowParts().stores, self.now)

    @cached_property
    def recorder(self) -> Recorder:
        """Records what people do."""
        return Recorder(self.audit, per_hour=self.settings.actions_per_hour, now=self.now)

    def _exists(self, clinic_id: ClinicId) -> bool:
        """Whether the clinic exists. A new clinic may not be in the catalog yet."""
        known = self.board.clinic(clinic_id, **self.objectives())
        return known is not None or any(clinic.id == clinic_id for clinic in AirflowParts().clinics()[1])


async def services_of(request: Request) -> Services:
    """The services of the application that got the request."""
    services: Services = request.app.state.services
    return services


def words_of(request: Request) -> TenantWords:
    """What a clinic is called in the answer to that request. It is also known while other settings are wrong."""
    services: Services = request.app.state.services
    try:
        return services.settings.tenant_words
    except SettingsError:
        return load_settings.words()


ServicesDep = Annotated[Services, Depends(services_of)]


def _catalog_connection() -> Connection:
    return AirflowParts().catalog_connection


def entry_of(services: Services, caller: Caller, number: int) -> HistoryEntry:
    """A backup that this person may see. :raises NotVisible: there is none."""
    entry = services.history.by_number(number, caller.viewer.visible)
    if entry is None:
        raise NotVisible(f"Backup {number}")
    return entry
