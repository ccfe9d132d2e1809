"""Records and times as plain JSON types."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def plain(record: DataclassInstance) -> dict[str, Any]:
    """A dataclass as plain JSON types, its times as :func:`iso` writes them."""
    return {key: iso(value) if isinstance(value, datetime) else value for key, value in asdict(record).items()}


def iso(moment: datetime) -> str:
    """UTC in ISO 8601 with ``Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
