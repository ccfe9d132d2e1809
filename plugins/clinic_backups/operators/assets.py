"""Airflow's assets of this package: one of the fleet and, if wanted, one of each clinic. Other DAGs follow them.

    from clinic_backups.operators.assets import FLEET, of_clinic

    @dag(schedule=FLEET)            # after each run whose backups are all complete
    @dag(schedule=of_clinic(7))     # after each backup of clinic 7

See docs/monitoring/README.md and docs/decisions/0039.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.base.plain import iso
from clinic_backups.base.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

GROUP = "clinic_backups"
FLEET = Asset(name="clinic_backups", uri="x-clinic-backups://fleet", group=GROUP)
# Aliases, because a task with an asset among its outlets updates it whenever it succeeds, even if nothing was due.
OF_FLEET = AssetAlias("clinic_backups_of_fleet", group=GROUP)
OF_CLINICS = AssetAlias("clinic_backups_of_clinics", group=GROUP)


def of_clinic(clinic_id: ClinicId) -> Asset:
    """The asset of one clinic, or of the shared data (``~shared``)."""
    part = component_of(clinic_id)
    return Asset(name=f"clinic_backups/{part}", uri=f"x-clinic-backups://clinics/{part}", group=GROUP)


def outlets_of_run(settings: Settings) -> list[AssetAlias]:
    """The outlets of the task that ends a run."""
    return [OF_FLEET] if settings.assets != "none" else []


def outlets_of_backups(settings: Settings) -> list[AssetAlias]:
    """The outlets of the tasks that back up."""
    return [OF_CLINICS] if settings.assets == "each" else []


def update_clinics(context: Context, outlets: Sequence[Any], records: Collection[BackupRecord]) -> None:
    """Each clinic's asset gets its event when the task has succeeded."""
    if OF_CLINICS in outlets:
        for record in records:
            context["outlet_events"][OF_CLINICS].add(of_clinic(record.clinic_id), extra=_extra(record))


def update_fleet(context: Context, outlets: Sequence[Any], records: Collection[BackupRecord], *, whole: bool) -> None:
    """The fleet's asset gets its event when the task has succeeded.

    :param whole: the run backed up all clinics.
    """
    if OF_FLEET in outlets and records:
        sums: Mapping[str, Any] = {
            "backups": len(records),
            "is_whole": whole,
            "oldest_data_time": iso(min(record.data_time for record in records)),
            "rows": sum(record.rows_total for record in records),
            "bytes": sum(record.size_bytes or 0 for record in records),
            "suspect": sum(not record.is_trusted for record in records),
            "incomplete": sum(bool(record.gaps) for record in records),
        }
        context["outlet_events"][OF_FLEET].add(FLEET, extra=dict(sums))


def _extra(record: BackupRecord) -> dict[str, Any]:
    """What everybody may know who may see Airflow's assets: no key of an archive, no name, no table."""
    return {
        "backup_id": record.backup_id,
        "kind": record.kind,
        "data_time": iso(record.data_time),
        "rows": record.rows_total,
        "bytes": record.size_bytes or 0,
        "is_suspect": not record.is_trusted,
        "is_incomplete": bool(record.gaps),
    }
