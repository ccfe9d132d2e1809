"""Downloads of archives: a link of the store, the file itself, or a backup with its chain.

The API server reads the catalog and signs links. It needs neither the secret key nor the right to write to a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from clinic_backups.archive.object_keys import SUFFIX
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.catalog.backup_list import HistoryEntry
from clinic_backups.catalog.exports import ExportRecord
from clinic_backups.stores.base import ObjectInfo, ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.web.caller import Caller
from clinic_backups.web.chain_download import Part, parts_of, tar, tar_size
from clinic_backups.web.problems import Conflict
from clinic_backups.web.recorder import Recorder

LINK_LASTS = timedelta(hours=1)


@dataclass(frozen=True)
class Link:
    """The link to a backup's archive, valid until ``expires_at``; ``None``: this server sends the file itself."""

    url: str | None
    expires_at: datetime
    filename: str


class Downloads:
    """Gives archives to people. Each download is recorded first.

    :param stores: opens the stores.
    """

    def __init__(self, recorder: Recorder, stores: Callable[[], Stores], now: Callable[[], datetime]) -> None:
        self._recorder, self._stores, self._now = recorder, stores, now

    def link(self, caller: Caller, backup: HistoryEntry) -> Link:
        """A link to a backup's archive for one hour. It is recorded before it is returned.

        :raises Conflict: the backup is not completed, or no store has it.
        """
        record = backup.record
        caller.require("download", record.clinic_id)
        store, _ = self._store_of(record)
        self._recorder.limit(caller)
        filename = record.archive_key.rpartition("/")[2]
        self._recorder.note(caller, "download", record.clinic_id, backup=backup, detail=store.url)
        expires_at = self._now() + LINK_LASTS
        if not store.signs_links:
            return Link(None, expires_at, filename)
        return Link(store.presign(record.archive_key, expires_in=LINK_LASTS, filename=filename), expires_at, filename)

    def content(self, caller: Caller, backup: HistoryEntry) -> tuple[Iterator[bytes], str, int]:
        """The archive itself, its file name and its size in bytes. Only for stores that cannot sign links.

        :raises Conflict: the store signs links; use :meth:`link`.
        """
        record = backup.record
        caller.require("download", record.clinic_id)
        store, info = self._store_of(record)
        if store.signs_links:
            raise Conflict(
                "This file is downloaded from the store itself.",
                hint="Ask the path descargar/ beside this one for the link.",
            )
        self._recorder.limit(caller)
        self._recorder.note(caller, "fetch", record.clinic_id, backup=backup, detail=store.url)
        return _content(store, record.archive_key), record.archive_key.rpartition("/")[2], info.size_bytes

    def whole(self, caller: Caller, backup: HistoryEntry) -> tuple[Iterator[bytes], str, int]:
        """A backup and its chain as one tar, its file name and its size in bytes. For every kind of store.

        :raises Conflict: the backup is not completed, or a part of it is in no store with the recorded size.
        """
        record = backup.record
        caller.require("download", record.clinic_id)
        require_completed(record)
        parts, stores = parts_of(record), self._stores()
        sources = {part.backup_id: self._source_of(part, stores) for part in parts}
        self._recorder.limit(caller)
        self._recorder.note(caller, "fetch", record.clinic_id, backup=backup, detail=f"{len(parts)} archives")
        name = f"{record.archive_key.rpartition('/')[2].removesuffix(SUFFIX)}_con_todo.tar"
        pieces = tar(
            record.backup_id, parts, lambda part: _content(sources[part.backup_id], part.archive.key), self._now()
        )
        return pieces, name, tar_size(record.backup_id, parts)

    def export(self, caller: Caller, record: ExportRecord) -> tuple[str | None, Iterator[bytes]]:
        """A link to an export for one hour, or its content if the store cannot sign links. It is recorded first.

        :raises Conflict: the file is not there any more.
        """
        caller.require("export", record.clinic_id)
        if not record.is_there(self._now()) or record.store_url is None or record.key is None:
            raise Conflict("This file cannot be downloaded any more.", hint="Ask for the data again.")
        store = self._stores().at(record.store_url)
        self._recorder.limit(caller)
        self._recorder.note(caller, "fetch_export", record.clinic_id, detail=f"{record.id}: {record.backup_id}")
        if not store.signs_links:
            return None, _content(store, record.key)
        return store.presign(record.key, expires_in=LINK_LASTS, filename=record.file_name or "export"), iter(())

    def _source_of(self, part: Part, stores: Stores) -> ObjectStore:
        """The first store that has an archive of that length."""

        def look(store: ObjectStore) -> ObjectInfo:
            info = store.stat(part.archive.key)
            if info.size_bytes != part.archive.size_bytes:
                raise Conflict(f"The archive of {part.backup_id} is damaged in {store.url}.", hint="Verify the backup.")
            return info

        return stores.first(look)[0]

    def _store_of(self, record: BackupRecord) -> tuple[ObjectStore, ObjectInfo]:
        """The first store that really has it, with the object's info."""
        require_completed(record)

        def look(store: ObjectStore) -> ObjectInfo:
            if store.url not in record.stores:
                raise Conflict(f"No store has backup {record.backup_id}.", hint="Choose another backup.")
            return store.stat(record.archive_key)

        return self._stores().first(look)


def require_completed(record: BackupRecord) -> None:
    """:raises Conflict: it is not completed."""
    if record.state != "completed":
        raise Conflict(f"Backup {record.backup_id} is {record.state}.", hint="Choose one that is completed.")


def _content(store: ObjectStore, key: str) -> Iterator[bytes]:
    with store.open(key) as stream:
        while data := stream.read(1024 * 1024):
            yield data
