"""Chooses between a full and an incremental backup, from the records, the catalog's blocks and the store."""

from __future__ import annotations

from collections.abc import Mapping

from clinic_backups.archive.chain import ChainChoice, choose
from clinic_backups.archive.known_blocks import KnownBlocks, UnusableBlocks
from clinic_backups.backup.parents import Parents
from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.clock import Now
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.before_backup import BeforeBackup
from clinic_backups.catalog.block_lists import known_blocks
from clinic_backups.catalog.records import Catalog
from clinic_backups.stores.base import ObjectStore


class Chooser:
    """Chooses the kind of each backup, and the chain that an incremental one is built on."""

    def __init__(self, settings: Settings, catalog: Catalog, store: ObjectStore, now: Now) -> None:
        self._settings, self._catalog, self._store, self._now = settings, catalog, store, now
        self._parents = Parents(store, catalog, now)

    def decide(
        self, wanted: WantedKind, before: BeforeBackup, recipients: tuple[str, ...]
    ) -> tuple[ChainChoice, KnownBlocks | None]:
        """Choose full or incremental, from the records, the catalog's blocks and the store.

        It assumes that the tables are unchanged. Afterwards the store is known to be the right one. Its URL may lead to
        an empty mount point.
        """
        choice = self.choose(wanted, before, recipients, None)
        if not choice.chain:
            if wanted == "full":
                self._store.identified()
            else:
                self._parents.require_store(before.completed)
        elif problem := self._problem(choice, before.etags):
            choice = ChainChoice(problem)
        return self._known(choice) if choice.chain else (choice, None)

    def choose(
        self, wanted: WantedKind, before: BeforeBackup, recipients: tuple[str, ...], digest: str | None
    ) -> ChainChoice:
        """Choose from the records alone. :param digest: of the tables; ``None``: they are taken to be unchanged."""
        return choose(
            wanted,
            before.completed,
            self._settings,
            self._now(),
            recipients=recipients,
            schema_digest=digest,
            not_before=before.erased_until,
        )

    def _known(self, choice: ChainChoice) -> tuple[ChainChoice, KnownBlocks | None]:
        """The blocks of a chain. Without one of their lists a full backup is chosen."""
        # A full backup's own archive holds all blocks, so its record has their fingerprint.
        full = {each.backup_id: each.fingerprint for each in choice.chain if each.kind == "full" and each.fingerprint}
        try:
            known = known_blocks(self._catalog.database, [each.backup_id for each in choice.chain], full)
        except UnusableBlocks as error:
            return ChainChoice(f"the catalog has no list of the blocks of {error}"), None
        return choice, known

    def _problem(self, choice: ChainChoice, seen: Mapping[str, str]) -> str:
        """Why no backup can be built on a chain; empty if one can.

        An unreadable archive does not stop a full backup.
        """
        try:
            return self._parents.problem(choice.chain, seen)
        except PermanentError as error:
            self._store.identified()  # raises if the store is missing, and not only the archive
            return f"an archive of its chain cannot be read: {error.message}"
