"""The two states that a person names: a backup, a moment, ``now``, or a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.differences.compare import compare
from clinic_backups.differences.found import RowDifference, TableDifference
from clinic_backups.differences.hidden_rows import HiddenRows
from clinic_backups.differences.sides import BackupSide, DatabaseSide, Known, Side
from clinic_backups.restore.archives import Archives
from clinic_backups.restore.find_backup import source_of
from clinic_backups.restore.links_now import LinksNow, nobody_knows
from clinic_backups.restore.named_tables import require_known
from clinic_backups.restore.unit_sql import unit_sql
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.strangers import require_no_strangers
from clinic_backups.tenant.tenant_db import Snapshot

NOW = "now"


@dataclass(frozen=True)
class State:
    """One state of a clinic.

    :param backup: a backup; none if it is the state of a database.
    :param connection: otherwise that database.
    """

    backup: BackupRecord | None = None
    connection: Connection | None = None

    @property
    def said(self) -> str:
        """A description for people."""
        if self.backup is not None:
            return f"{self.backup.backup_id} ({iso(self.backup.data_time.replace(microsecond=0))})"
        assert self.connection is not None  # noqa: S101 - one of the two is there
        return f"{self.connection.conn_id} now"


@dataclass(frozen=True)
class Difference:
    """What differs between two states of a clinic, by table."""

    clinic_id: ClinicId
    first: str
    second: str
    tables: tuple[TableDifference, ...] = field(default=())
    notes: tuple[str, ...] = ()
    """What of the rows was not given, as sentences."""

    @property
    def rows(self) -> int:
        """How many rows differ in all tables."""
        return sum(table.rows for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "clinic_id": self.clinic_id, "first": self.first, "second": self.second, "rows": self.rows,
            "tables": [table.to_json() for table in self.tables], "notes": list(self.notes),
        }  # fmt: skip


class States:
    """Finds and compares states.

    :param backup_of: the backup with an id, none if there is no such backup.
    :param backup_at: the newest good backup of the clinic at or before a time. Without one it raises.
    :param connection_of: a connection by its name. Without one it raises.
    :param moment_of: reads a time. It raises if the text is not a time.
    :param archives: reads backups; called only if one is compared.
    :param listed: the digests of a backup's blocks by table, as far as the catalog knows them.
    :param forgotten: says which rows of a clinic must not come back. Their values are not given.
    :param drift: the tables that were renamed. It is asked only if there are such rows.
    :param links: the links of now, likewise.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        backup_of: Callable[[str], BackupRecord | None],
        backup_at: Callable[[ClinicId, datetime], BackupRecord],
        connection_of: Callable[[str], Connection],
        moment_of: Callable[[str], datetime | None],
        archives: Callable[[], Archives],
        listed: Callable[[BackupRecord], Known],
        forgotten: Callable[[ClinicId], ForgottenOfClinic],
        drift: Callable[[], Drift] = Drift,
        links: LinksNow = nobody_knows,
        listener: Listener = NOBODY,
    ) -> None:
        self._forgotten, self._drift, self._links = forgotten, drift, links
        self._settings, self._listener = settings, listener
        self._backup_of, self._backup_at, self._connection_of = backup_of, backup_at, connection_of
        self._moment_of, self._archives, self._listed = moment_of, archives, listed

    def named(self, *texts: str, clinic_id: ClinicId | None) -> tuple[ClinicId, list[State]]:
        """The states, and the clinic that they are of.

        :param clinic_id: none: the clinic of the backups among them.
        :raises SettingsError: a text is nothing of these, the clinic is not known, or a backup is of another one.
        """
        backups = {text: found for text in texts if text != NOW and (found := self._backup_of(text)) is not None}
        clinics = {found.clinic_id for found in backups.values()} | ({clinic_id} if clinic_id is not None else set())
        if len(clinics) != 1:
            raise SettingsError(
                "These backups are of several clinics." if clinics else "It is not said which clinic is meant.",
                hint="Give --clinic ID, and backups of that clinic alone.",
            )
        (clinic_id,) = clinics
        return clinic_id, [State(backups[text]) if text in backups else self._other(text, clinic_id) for text in texts]

    def _other(self, text: str, clinic_id: ClinicId) -> State:
        if text == NOW:
            return State(connection=self._connection_of("clinic_db"))
        try:
            moment = self._moment_of(text)
        except SettingsError:
            try:
                return State(connection=self._connection_of(text))
            except SettingsError:
                raise SettingsError(
                    f"{text[:80]!r} is no backup, no time and no connection.",
                    hint="Give a backup's id, a time such as 2026-11-24T02:00, `now`, or the name of a connection.",
                ) from None
        if moment is None:
            raise SettingsError("A state is empty.", hint="Give a backup, a time, `now`, or a connection.")
        return State(self._backup_at(clinic_id, moment))

    def compare(
        self,
        clinic_id: ClinicId,
        first: State,
        second: State,
        tables: Sequence[str] = (),
        *,
        on_row: Callable[[RowDifference], object] | None = None,
    ) -> Difference:
        """Compare two states row by row. :raises SettingsError: neither has one of the tables."""
        # A database is read once as the second side, and twice as the first one.
        turned = first.connection is not None and second.connection is None
        with ExitStack() as open_sides:
            one: Side
            other: Side
            if first.backup is not None and second.backup is not None:
                one, other = BackupSide.both(self._archives(), first.backup, second.backup, self._listed)
            else:
                one, other = (open_sides.enter_context(self._side(state, clinic_id)) for state in (first, second))
            require_known(tables, {*one.tables, *other.tables})
            hidden, tell = HiddenRows(), None
            if on_row is not None:
                hidden = HiddenRows.of(clinic_id, (one, other), self._forgotten, self._drift, tables, self._links)
                tell = _telling(hidden, on_row, turned=turned)
            sides = (other, one) if turned else (one, other)
            found = compare(
                *sides, tables, on_row=tell, on_pass=lambda number: self._listener.step(f"comparing, pass {number}")
            )
        found = [each.turned for each in found] if turned else found
        return Difference(clinic_id, first.said, second.said, tuple(found), tuple(hidden.notes))

    @contextmanager
    def _side(self, state: State, clinic_id: ClinicId) -> Iterator[Side]:
        if state.backup is not None:
            yield BackupSide.fetched(self._archives(), source_of(state.backup))
            return
        assert state.connection is not None  # noqa: S101 - one of the two is there
        folder, queries = unit_sql(state.connection, self._settings, clinic_id)
        timeouts = self._settings.timeouts
        # Locked: otherwise a table that is written anew meanwhile would seem to be empty.
        with Snapshot(state.connection, reads=queries, **timeouts) as snapshot:
            require_no_strangers(snapshot, folder, queries, "The comparison")
            yield DatabaseSide(
                snapshot, queries, frozenset(folder.parents()), lambda name: self._listener.step(f"reading {name}")
            )
            snapshot.prove()


def _telling(
    hidden: HiddenRows, on_row: Callable[[RowDifference], object], *, turned: bool
) -> Callable[[RowDifference], object]:
    return lambda row: on_row(hidden.shown(row.turned if turned else row))
