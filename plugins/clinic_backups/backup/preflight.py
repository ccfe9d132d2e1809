"""The preflight: finds what would make backups fail or be incomplete, before the first one starts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from clinic_backups.backup.database_checks import DatabaseChecks, OnCompared
from clinic_backups.backup.row_report import RowReport
from clinic_backups.backup.server_checks import check_encoding
from clinic_backups.backup.setting_checks import check_settings
from clinic_backups.backup.store_checks import check_stores
from clinic_backups.base.clock import DatabaseClock
from clinic_backups.base.connections import Connection
from clinic_backups.base.findings import Finding, Report
from clinic_backups.base.listening import nobody
from clinic_backups.base.settings import Settings
from clinic_backups.stores.configured import Stores
from clinic_backups.tenant.standby import check_standby
from clinic_backups.tenant.tenant_db import Snapshot


def run(
    *,
    settings: Settings,
    clinic_db: Callable[[], Connection],
    stores: Callable[[], Stores],
    catalog_version: Callable[[], object],
    now: Callable[[], datetime],
    clock: Callable[[], DatabaseClock] | None = None,
    count_rows: bool = True,
    on_compared: OnCompared = nobody,
    require_classes: bool = False,
    rows: RowReport | None = None,
    beat: Callable[[], object] = nobody,
    turn: Callable[[], int] = int,
) -> list[Finding]:
    """Run all checks, and return all findings in the order of the checks.

    The only thing written is one small object below ``preflight/`` in the store, which is deleted again.

    :param clinic_db: returns the connection to the clinics' database. An error that it raises is a finding.
    :param stores: returns the stores. An error that it raises is a finding.
    :param catalog_version: raises an error if the catalog does not answer or is not at its newest migration.
    :param now: the time for computing terms, locks and the like from the settings.
    :param clock: returns the catalog's clock. Without it no clocks are compared.
    :param count_rows: also compare the rows of all clinics with the extracts.
    :param require_classes: a table that nobody has classified is an error. Otherwise it is noted: it must not keep the
        clinics from being backed up tonight.
    :param rows: gets what is known of each table's rows, if they are compared.
    :param beat: see :func:`clinic_backups.tenant.standby.check_standby`.
    :param turn: returns the number of this run among those that compare rows; 0 by default.
    :param on_compared: called with what was compared without a finding, if rows were compared.
    """
    report = Report()
    check_settings(settings, report, now())
    with report.check("store"):
        check_stores(stores(), settings, report)
    one_clock: DatabaseClock | None = None
    number = 0
    with report.check("catalog"):
        catalog_version()
        report.ok("catalog", "The catalog is at its newest migration.")
        one_clock = clock() if clock is not None else None
        number = turn()
    if one_clock is not None:
        with report.check("clock"):
            one_clock.require_same()
            report.ok("clock", "This machine's clock agrees with the catalog's.")
    with report.check("database"), Snapshot(clinic_db(), **settings.timeouts) as snapshot:
        database = DatabaseChecks(snapshot, settings, report, on_compared)
        if one_clock is not None:
            with report.check("clock"):
                one_clock.require_same_as("The clinics' database", snapshot.time)
        check_standby(snapshot, settings.standby_lag_seconds, report, beat)
        check_encoding(snapshot, report)
        with report.check("extracts"):
            database.check_key()
        if report.has_errors("extracts"):
            return list(dict.fromkeys(report.findings))  # no query can name a clinic
        with report.check("owners"):
            database.check_owners()
        if report.has_errors("owners"):
            return list(dict.fromkeys(report.findings))  # nothing of theirs is read
        database.check_clinics()
        with report.check("extracts"):
            database.check_extracts()
            database.check_locks()
        with report.check("coverage"), snapshot.savepoint():
            database.check_coverage(require_classes=require_classes)
        database.check_shared()
        database.check_drift()
        database.check_search_columns()
        database.check_masks()
        with report.check("indexes"), snapshot.savepoint():
            database.check_indexes()
        if count_rows:
            database.check_rows(rows, number)
    return list(dict.fromkeys(report.findings))
