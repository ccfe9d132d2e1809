"""In which backups a record was, and when it changed.

Backups are looked through from the oldest to the newest. Each block is read once, from the first backup that needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from clinic_backups.archive.blocks import Block
from clinic_backups.archive.csv_rows import fields_of, texts_of
from clinic_backups.archive.reader import TableContent
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import (
    ClinicBackupsError,
    IntegrityError,
    ObjectNotFound,
    PermanentError,
    SettingsError,
    TransientError,
)
from clinic_backups.base.table import Table
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.found_record import Event, FoundRecord, event_of
from clinic_backups.differences.record_look import Look, LookPlace, Seen, Sought
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.columns.shape import has_plain_key
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.keys_now import KeysNow, TablesNow, no_server, no_tables
from clinic_backups.restore.leaving_out import looked_for
from clinic_backups.restore.links_now import NOT_ASKED, LinksNow, nobody_knows
from clinic_backups.restore.missing_blocks import MissingBlocks
from clinic_backups.restore.named_tables import parts_of, require_known
from clinic_backups.tenant.drift import Drift

_Place = tuple[str, tuple[str, ...]]
_Found = tuple[_Place, tuple[Table, bytes]]
_NamedKey = tuple[str, str]


class RecordHistory:
    """Looks through backups.

    :param archives: reads them.
    :param forgotten: says which rows of a clinic must not come back.
    :param drift: the tables that were renamed. A backup may have a table under another name.
    :param links: the links of now. They are asked for only if there are such rows.
    :param server: reads the keys that somebody named, if the database answers.
    :param tables: describes tables as they are now. It is asked if somebody names one that no backup has.
    :ivar notes: what is not known of such rows, as sentences.
    :ivar unread: the backups that could not be read, with the errors. They say nothing about any record.
    """

    def __init__(
        self, archives: Archives, *, forgotten: Callable[[ClinicId], ForgottenOfClinic],
        drift: Callable[[], Drift] = Drift, links: LinksNow = nobody_knows, server: KeysNow = no_server,
        tables: TablesNow = no_tables,
    ) -> None:  # fmt: skip
        self._archives, self._forgotten, self._drift, self._links = archives, forgotten, drift, links
        self._server, self._now = server, tables
        self.notes: list[str] = []
        self.unread: list[tuple[BackupRecord, ClinicBackupsError]] = []
        self._seen: dict[tuple[str, LookPlace, bytes], Seen] = {}
        self._tables = set[str]()
        self._described: dict[str, Table] = {}
        self._other_heirs: dict[str, set[str]] = {}
        """By named table, its heirs with a key of their own: a key of that table does not name their rows."""
        self._misfits: dict[_NamedKey, SettingsError] = {}
        self._fitting = set[_NamedKey]()
        self._named: dict[_NamedKey, tuple[str, ...]] = {}
        """Under which key a named record is shown. Another backup may have an equal key with another text."""

    def find(self, backups: Sequence[BackupRecord], sought: Sought) -> list[FoundRecord]:
        """All records that fit in at least one of the backups, by table and key.

        :param backups: the oldest first.
        """
        sought = sought.joined(self._drift())
        looked = self._look_through(backups, sought)
        if misfits := [error for key, error in self._misfits.items() if key not in self._fitting]:
            raise misfits[0]  # in no backup it can be a key
        if sought.text and any(rows.keys() != looked[0].rows.keys() for _, _, rows, _ in looked):
            # A record that lacks the text in a backup need not be gone: its values may have been corrected.
            records = dict[str, set[tuple[str, ...]]]()
            for name, key in (place for _, _, rows, _ in looked for place in rows):
                records.setdefault(name, set()).add(key)
            self._seen.clear()  # of these blocks only the rows with the text were kept
            looked = self._look_through(backups, replace(sought, records=records))
        found: dict[tuple[str, tuple[str, ...]], FoundRecord] = {}
        known: dict[tuple[str, tuple[str, ...]], tuple[Table, bytes] | None] = {}
        last: dict[_Place, bytes] = {}
        named = {(name, key) for (name, _), key in self._named.items()}
        for backup, tables, here, unclear in looked:
            for place, (table, row) in here.items():
                record = found.setdefault(place, _record(place, table, is_named=place in named))
                event = event_of(backup, known.get(place), place in known, table, row)
                if event is not None:
                    record.events.append(event)
                known[place], last[place], record.last_in = (table, row), row, backup.backup_id
                record.values = texts_of(table, row)
            for place, before in known.items():
                # A table that this backup does not have, or has under another name, says nothing about its rows.
                if place not in here and before is not None and place[0] in tables and place not in unclear:
                    found[place].events.append(Event("gone", backup.backup_id, backup.data_time))
                    known[place] = None
        if backups and len(self.unread) < len(backups):
            path = self._drift().path
            every = {later for name in self._tables for later in path(name)}
            require_known(
                sought.keys.keys(), every, lambda: parts_of(self._described, self._now({*sought.keys, *every}))
            )
            self._note_heirs(sought)
            self._require_clear({each for looked_in in looked for each in looked_in.unclear}, found)
        self._mark({each.backup_id: each for each in backups}, found, last)
        return [found[place] for place in sorted(found)]

    def _look_through(self, backups: Sequence[BackupRecord], sought: Sought) -> list[_Looked]:
        """For each backup that can be read, what it says."""
        looked = []
        self.unread = []
        for backup in backups:
            try:
                looked.append(self._rows_in(backup, sought))
            except (ObjectNotFound, IntegrityError, TransientError) as error:
                self.unread.append((backup, error))
        return looked

    def _require_clear(self, unclear: Set[_Place], found: Mapping[_Place, FoundRecord]) -> None:
        """Say of which records it is not known whether they are gone.

        :raises PermanentError: of none of the records more is known.
        """
        if not unclear:
            return
        tables = ", ".join(sorted({name for name, _ in unclear}))
        said = (
            f"Whether some backups have the named rows of {tables} cannot be told without the clinics' database: only"
            " PostgreSQL knows which values of such keys are equal."
        )
        if not found:
            raise PermanentError(
                said, hint="Run this where clinic_db answers, or write the keys exactly as PostgreSQL shows them."
            )
        self.notes.append(said)

    def _mark(
        self, backups: Mapping[str, BackupRecord], found: Mapping[_Place, FoundRecord], last: Mapping[_Place, bytes]
    ) -> None:  # fmt: skip
        """Mark the records that must not come back, and take their values away."""
        for backup_id in {record.last_in for record in found.values()}:
            backup = backups[backup_id]
            forgotten = self._forgotten(backup.clinic_id)
            if not forgotten.tables:
                return
            fetched = self._archives.fetch(source_of(backup))
            drift, links = self._drift(), self._links(backup.clinic_id)
            if links is None and NOT_ASKED not in self.notes:
                self.notes.append(NOT_ASKED)
            names = {
                table: [name for name in fetched.manifest.tables if drift.is_same_table(name, table)]
                for table, _ in found
            }
            here = {name for each in names.values() for name in each}
            left_out = looked_for(self._archives, fetched, forgotten, drift, tables=here, links=links or ())
            self.notes += [said for said in (left_out.past_notes if left_out else ()) if said not in self.notes]
            for place, record in found.items() if left_out is not None else ():
                if left_out is None or record.last_in != backup_id:
                    continue
                concerned = [name for name in names[place[0]] if name in left_out.concerned]
                if any(left_out.stays_out(name, fields_of(last[place])) for name in concerned):
                    record.is_forgotten, record.values = True, {}

    def _rows_in(self, backup: BackupRecord, sought: Sought) -> _Looked:
        """Which of the tables the backup has, and the records in it."""
        fetched = self._archives.fetch(source_of(backup))
        drift = self._drift()
        asked_as = {
            name: next((each for each in sorted(sought.tables) if drift.is_same_table(name, each)), None)
            for name in fetched.manifest.tables
        }
        wanted_as = {
            name: name if name in sought.tables else asked for name, asked in asked_as.items() if asked is not None
        }
        self._described |= {name: content.table for name, content in fetched.manifest.tables.items()}
        sought = self._with_heirs(sought, wanted_as, fetched.manifest.tables, drift)
        contents = {name: fetched.manifest.tables[name] for name in wanted_as}
        self._tables |= {*fetched.manifest.tables, *wanted_as.values()}
        looks = {
            name: Look(content.table, wanted_as[name], sought, self._server(wanted_as[name], content.table))
            for name, content in contents.items()
        }
        for name, look in looks.items():
            self._misfits |= {(wanted_as[name], key): error for key, error in look.misfits.items()}
            self._fitting |= {(wanted_as[name], key) for key in look.named}
        missing = {
            name: Counter(
                block.digest for block in content.blocks if (name, looks[name].place, block.digest) not in self._seen
            )
            for name, content in contents.items()
        }

        def use(table: str, block: Block, data: bytes, times: int) -> None:
            look = looks[table]
            self._seen[table, look.place, block.digest] = look.found(data)

        wanted = MissingBlocks({name: content.blocks for name, content in contents.items()}, missing, use)
        self._archives.read(fetched, wanted)
        wanted.require_all()
        rows, unclear, seen_named = dict[_Place, tuple[Table, bytes]](), set[_NamedKey](), set[_NamedKey]()
        for name, content in contents.items():
            asked = wanted_as[name]
            for block in content.blocks:
                seen = self._seen[name, looks[name].place, block.digest]
                unclear |= {(asked, each) for each in seen.unclear}
                for key, row, named in seen.rows:
                    if named is not None:
                        seen_named.add((asked, named))
                        key = self._named.setdefault((asked, named), key)
                    rows[asked, key] = (content.table, row)
        left = {(name, self._named.get((name, key), (key,))) for name, key in unclear - seen_named}
        return _Looked(backup, set(wanted_as.values()), rows, left)

    def _with_heirs(
        self, sought: Sought, wanted_as: dict[str, str], contents: Mapping[str, TableContent], drift: Drift
    ) -> Sought:
        """With a table's keys also its heirs': whoever names a row may have seen it in that table.

        :param wanted_as: by the backup's tables, as which somebody asked for them. Heirs are added.
        """
        keys = {name: list(each) for name, each in sought.keys.items()}
        for name, asked in [*wanted_as.items()]:
            table, named = contents[name].table, sought.keys.get(asked, ())
            for part in table.parts or () if named else ():
                if part.name not in contents:
                    continue
                if contents[part.name].table.primary_key != table.primary_key:
                    self._other_heirs.setdefault(asked, set()).add(part.name)
                    continue
                heir = wanted_as.setdefault(part.name, drift.path(part.name)[-1])
                keys[heir] = [*dict.fromkeys((*keys.get(heir, ()), *named))]
        return replace(sought, keys=keys)

    def _note_heirs(self, sought: Sought) -> None:
        """Of keys that no backup has: say in which heirs they were not looked for."""
        for asked, heirs in self._other_heirs.items():
            if any((asked, key) not in self._named for key in sought.keys.get(asked, ())):
                names = ", ".join(sorted(heirs))
                self.notes.append(
                    f"Not every named row of {asked} was found. The rows of {names} are rows of {asked} too, but have"
                    " another key: if it may be one of them, name it there, by that key."
                )


class _Looked(NamedTuple):
    """What one backup says.

    :param tables: which of the tables it has.
    :param unclear: named records of which nobody can tell whether it has them.
    """

    backup: BackupRecord
    tables: set[str]
    rows: dict[_Place, tuple[Table, bytes]]
    unclear: set[_Place]


def _record(place: _Place, table: Table, *, is_named: bool) -> FoundRecord:
    # A key that whoever asks has named may be shown.
    return FoundRecord(*place, is_plain=has_plain_key(table) or is_named, is_named=is_named)
