"""What a copy will mask and leave out. An approval includes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from clinic_backups.base.errors import SettingsError
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.masks import FILE, Masks

NOT_ASKED = (
    "Without the catalog it cannot be known which rows were forgotten: the copy holds them if the backup has them."
)
IN_CLEAR = f"Nothing is masked, although include/sql/{FILE} has lines: somebody said so."
NO_MASKS = f"Nothing is masked: include/sql/{FILE} has no lines."


@dataclass(frozen=True)
class Intent:
    """What is wanted of one copy.

    :param masks: the masks that are applied.
    :param forgotten: which rows must not come back.
    :param notes: what somebody who approves or uses the copy has to know.
    """

    masks: Masks
    forgotten: ForgottenOfClinic = field(repr=False)
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, str]:
        """What an approval includes."""
        masks = json.dumps(self.masks.tables, sort_keys=True) if self.masks else ""
        return {name: said for name, said in (("masks", masks), ("forgotten", self.forgotten.digest)) if said}


def intent_of(folder: SqlFolder, masked: bool | None, forgotten: ForgottenOfClinic | None) -> Intent:
    """See :class:`Intent`.

    :param masked: what somebody has said; none: the copy is masked if there are masks.
    :param forgotten: none without a catalog.
    :raises SettingsError: a masked copy is wanted, but the SQL folder has no masks; or its file cannot be read.
    """
    masks = folder.masks()
    if masked and not masks:
        raise SettingsError(
            f"A masked copy is wanted, and {folder.path / FILE} has no lines.",
            hint="Write a line for each column that is to be masked: `schema.table.column: rule`, see docs/sql.md.",
        )
    is_masked = bool(masks) if masked is None else masked
    notes = [] if is_masked else [IN_CLEAR if masks else NO_MASKS]
    if is_masked:
        columns = "1 column" if masks.columns == 1 else f"{masks.columns} columns"
        notes.append(f"Masked as include/sql/{FILE} says. It names {columns}.")
    if forgotten is None:
        notes.append(NOT_ASKED)
    elif forgotten.tables:
        notes.append("Rows of this clinic must not come back. They are left out, with all that belongs to them.")
    notes += forgotten.notes if forgotten is not None else ()
    return Intent(masks if is_masked else Masks(), forgotten or ForgottenOfClinic({}), tuple(notes))
