"""A backup's id: its clinic and its start."""

from __future__ import annotations

from datetime import UTC, datetime


def backup_id_of(clinic_id: int, started_at: datetime) -> str:
    """A readable and unique id: one clinic has at most one backup a second."""
    return f"{clinic_id}-{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def moment_of(backup_id: str) -> datetime | None:
    """The reverse of :func:`backup_id_of`: the start of that backup; none for an id of another form."""
    try:
        return datetime.strptime(backup_id.rpartition("-")[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
