"""Which stores archives were read from, and which could not be used, for whoever started the work."""

from __future__ import annotations

from threading import Lock
from typing import Any

from clinic_backups.base.errors import ClinicBackupsError


class StoresRead:
    """Notes of each archive the store that had a good replica, and of each store its first error.

    Several threads may note.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._good: dict[str, set[str]] = {}
        self._bad: dict[str, dict[str, str]] = {}

    def good(self, backup_id: str, url: str) -> None:
        """An archive was read there, and was right."""
        with self._lock:
            self._good.setdefault(url, set()).add(backup_id)

    def bad(self, backup_id: str, url: str, error: ClinicBackupsError) -> None:
        """An archive could not be read there, or was another one."""
        with self._lock:
            self._bad.setdefault(url, {}).setdefault(backup_id, error.message)

    @property
    def problems(self) -> list[str]:
        """One sentence for each store that could not be used, with its first error."""
        return [
            f"{url} was not used for {_archives(len(failed))}. The first error: {next(iter(failed.values()))}"
            for url, failed in self._bad.items()
        ]

    @property
    def said(self) -> list[str]:
        """What was read where, as sentences."""
        return [
            f"{_archives(len(ids))} {'was' if len(ids) == 1 else 'were'} read from {url}."
            for url, ids in self._good.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: by store, the archives that were read there, and the errors."""
        return {
            "read_from": {url: sorted(ids) for url, ids in self._good.items()},
            "bad_replicas": [f"{url}: {text}" for url, failed in self._bad.items() for text in failed.values()],
        }


def _archives(count: int) -> str:
    return f"{count:,} archive{'' if count == 1 else 's'}"
