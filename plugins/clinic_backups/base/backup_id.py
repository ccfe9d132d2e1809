"""A backup's id: its clinic and its start."""

from __future__ import annotations

from datetime import UTC, datetime

from clinic_backups.base.clinic_id import ClinicId, component_of, from_component


def backup_id_of(clinic_id: ClinicId, started_at: datetime) -> str:
    """A readable and unique id: one clinic has at most one backup a second."""
    return f"{component_of(clinic_id)}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def clinic_of(backup_id: str) -> ClinicId | None:
    """The clinic of that backup; none for an id of another form."""
    return from_component(backup_id.rpartition("-")[0])


def moment_of(backup_id: str) -> datetime | None:
    """The reverse of :func:`backup_id_of`: the start of that backup; none for an id of another form."""
    try:
        return datetime.strptime(backup_id.rpartition("-")[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
