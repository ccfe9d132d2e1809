"""Changes a backup's rows on their way into a copy: forgotten ones are left out, and masked values replaced.

That happens in this process. So what is left out or masked never reaches the copy's database, not even a temporary
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clinic_backups.archive.manifest import Manifest
from clinic_backups.base.listening import Listener
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.copying.chosen_masks import chosen_masks
from clinic_backups.restore.copying.intent import Intent
from clinic_backups.restore.copying.masking import Masking
from clinic_backups.restore.copying.original import Original
from clinic_backups.restore.left_out import LeftOut, under_names_of
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
        outside = folder.not_backed_up() if intent.masks else ()
        self._rules = chosen_masks(intent.masks, tables, original, drift, outside=outside)
        self._masking = Masking(tables, self._rules, original.mask_facts)
        self._left_out = LeftOut(manifest.tables, under_names_of(tables, intent.forgotten.tables, drift))
        self._sent = {name: RowSet() for name in {*self._rules, *self._left_out.concerned}}

    def look(self, read: Callable[[Wanted], object], listener: Listener) -> None:
        """Find the rows that must not come back. :param read: reads the archives."""
        if self._left_out.concerned:
            listener.step("looking for rows that must not come back")
            self._left_out.find(read)

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

    def masked(self, name: str) -> Mapping[str, str]:
        """The rule of each masked column of a table."""
        return self._rules.get(name, {})
