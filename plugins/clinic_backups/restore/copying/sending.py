"""Changes a backup's rows on their way into a copy: forgotten ones are left out, and masked values replaced.

That happens in this process. So what is left out or masked never reaches the copy's database, not even a temporary
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clinic_backups.archive.manifest import Manifest
from clinic_backups.base.listening import Listener
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.restore import table_notes
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.copying.chosen_masks import chosen_masks, in_clear
from clinic_backups.restore.copying.intent import Intent
from clinic_backups.restore.copying.masking import Masking
from clinic_backups.restore.copying.original import Original
from clinic_backups.restore.heirs import requests_for
from clinic_backups.restore.leaving_out import reader_of
from clinic_backups.restore.left_out import LeftOut
from clinic_backups.restore.row_sets import RowSet
from clinic_backups.tenant.extract import SqlFolder


class Sending:
    """The changes for one copy.

    :raises SettingsError: a mask cannot be followed.
    :raises PermanentError: it cannot be told which rows must not come back.
    """

    def __init__(self, intent: Intent, manifest: Manifest, original: Original, folder: SqlFolder) -> None:
        tables = {name: content.table for name, content in manifest.tables.items()}
        drift = folder.drift()
        # What belongs to no clinic is in the backup of the shared data.
        outside = folder.not_backed_up() if intent.masks and not is_shared(manifest.clinic.id) else ()
        self._rules = chosen_masks(intent.masks, tables, original, drift, outside=outside)
        self._clear = {
            name: [*in_clear(table, self._rules.get(name, {}), original, drift)] if intent.masks else []
            for name, table in tables.items()
        }
        self._masking = Masking(tables, self._rules, original.mask_facts)
        self._contents = manifest.tables
        self._left_out = LeftOut(
            tables,
            requests_for(
                tables, intent.forgotten.tables, drift, database=manifest.database, moment=manifest.snapshot_at
            ),
            original.links,
        )
        self._sent = {name: RowSet() for name in {*self._rules, *self._left_out.concerned}}

    def look(self, read: Callable[[Wanted], object], listener: Listener) -> None:
        """Find the rows that must not come back. :param read: reads the archives."""
        if self._left_out.concerned:
            listener.step("looking for rows that must not come back")
            self._left_out.find(reader_of(self._contents, read))

    def changed(self, name: str, data: bytes, times: int) -> bytes:
        """A block as it is to be sent.

        :param times: how often the table has it.
        """
        if name not in self._sent:
            return data
        data = self._masking.changed(name, self._left_out.kept(name, data, times))
        self._sent[name].add(data, times)
        return data

    def sent(self, name: str) -> RowSet | None:
        """What was sent of a table; none if its rows are those of the backup."""
        return self._sent.get(name)

    def forgotten(self, name: str) -> int:
        """How many rows of a table were left out."""
        return self._left_out.counts[name]

    def notes(self, name: str) -> list[str]:
        """What is in the copy although somebody may think that it is not: in clear, or belonging to a row left out."""
        return [*self._clear[name], *self._left_out.past.get(name, ()), *self._not_followed(name)]

    def _not_followed(self, name: str) -> list[str]:
        return [
            table_notes.not_left_out(link.parent, link.columns)
            for link in self._left_out.not_followed
            if link.child == name and self._left_out.counts[link.parent]
        ]

    def masked(self, name: str) -> Mapping[str, str]:
        """The rule of each masked column of a table."""
        return self._rules.get(name, {})
