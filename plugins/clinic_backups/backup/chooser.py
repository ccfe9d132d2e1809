"""Chooses between a full and an incremental backup, from the records, the catalog's blocks and the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from clinic_backups.archive.chain import ChainChoice, choose
from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.backup.parents import Parents
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.clock import Now
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.erasures import Erasures
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectStore


class Chooser:
    """Chooses the kind of each backup, and the chain that an incremental one is built on."""

    def __init__(self, settings: Settings, catalog: Catalog, store: ObjectStore, now: Now) -> None:
        self._settings, self._catalog, self._store, self._now = settings, catalog, store, now
        self._parents = Parents(store, catalog, now)

    def decide(
        self, record: BackupRecord, wanted: WantedKind, backups: Sequence[BackupRecord], recipients: tuple[str, ...]
    ) -> tuple[ChainChoice, KnownBlocks | None]:
        """Choose full or incremental, from the records, the catalog's blocks and the store.

        It assumes that the tables are unchanged.
        """
        choice, known = self.choose(record, wanted, backups, recipients, None), None
        if not choice.chain and wanted != "full":
            self._parents.require_store(backups)
        if choice.chain and (problem := self._problem(choice)):
            choice = ChainChoice(problem)
        if choice.chain:
            known = KnownBlocks([parent.backup_id for parent in choice.chain])
            try:
                for parent in choice.chain:
                    # A full backup's own archive holds all blocks, so its record has their fingerprint.
                    fingerprint = parent.fingerprint if parent.kind == "full" else None
                    with closing(self._catalog.blocks(parent.backup_id)) as pieces:
                        known.add(pieces, fingerprint)
            except UnusableBlocks:
                choice, known = ChainChoice(f"the catalog has no list of the blocks of {parent.backup_id}"), None
        return choice, known

    def choose(
        self,
        record: BackupRecord,
        wanted: WantedKind,
        backups: Sequence[BackupRecord],
        recipients: tuple[str, ...],
        digest: str | None,
    ) -> ChainChoice:
        """Choose from the records alone. :param digest: of the tables; ``None``: they are taken to be unchanged."""
        erasure = Erasures(self._catalog.database).open_of(record.clinic_id)
        return choose(
            wanted,
            backups,
            self._settings,
            self._now(),
            recipients=recipients,
            schema_digest=digest,
            not_before=erasure.requested_at if erasure else None,
        )

    def _problem(self, choice: ChainChoice) -> str:
        """Why no backup can be built on a chain; empty if one can.

        An unreadable archive does not stop a full backup.
        """
        try:
            return self._parents.problem(choice.chain)
        except PermanentError as error:
            self._store.identified()  # raises if the store is missing, and not only the archive
            return f"an archive of its chain cannot be read: {error.message}"
