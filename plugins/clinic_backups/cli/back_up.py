"""What ``clinic-backups backup`` does: backs up clinics, several of them at the same time."""

from __future__ import annotations

import getpass
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.backup.choose_clinics import Selection
from clinic_backups.backup.clinics_at_once import Outcome, Section, outcome_of, outcomes_of
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, Interrupted
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.one_at_a_time import Turns
from clinic_backups.base.text import one_line
from clinic_backups.cli.output import Bars, errors, state_of


@dataclass(frozen=True)
class Failure:
    """A clinic that was not backed up, and the reason."""

    clinic: Clinic
    error: ClinicBackupsError

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the same keys as a record."""
        return {
            "clinic_id": self.clinic.id,
            "clinic_name": self.clinic.name,
            "state": "failed",
            "error": self.error.message,
            "hint": self.error.hint,
        }


class _Lines:
    """Prints lines to the error output, as :meth:`Section.show` wants it."""

    def warning(self, text: str) -> None:
        errors.print(escape(in_words(text)))


class BackingUp:
    """Backs up the chosen clinics. One clinic is read at a time, while others wait for the store or the catalog.

    :param quiet: show no bars, and print no line about what became of a clinic.
    """

    def __init__(self, parts: Parts, chosen: Selection, *, quiet: bool) -> None:
        self._parts, self._chosen, self._quiet = parts, chosen, quiet
        self._bars, self._turns = Bars(wanted=not quiet), Turns()
        self._running = set[ClinicBackup]()
        self._stopped: Interrupted | None = None

    def run(self) -> list[BackupRecord | Failure]:
        """The outcome of each clinic, in the order in which they were chosen.

        When a clinic has ended, its lines are printed together, and the last of them names it.
        """
        ended: dict[ClinicId, BackupRecord | Failure] = {}
        with self._parts.kept.keeping(), self._bars, closing(self._outcomes()) as outcomes:
            for outcome in outcomes:
                ended[outcome.clinic.id] = self._ended(outcome)
        return [ended[clinic.id] for clinic in self._chosen.clinics]

    def _outcomes(self) -> Generator[Outcome[BackupRecord]]:
        clinics = self._chosen.clinics
        at_once = min(self._parts.settings.clinics_at_once, len(clinics))
        if at_once > 1:
            return outcomes_of(clinics, self._back_up, at_once=at_once, stop=self._stop_all)
        # In this thread, because only the main thread of a program can be interrupted in a wait for the store.
        return self._one_after_the_other(clinics)

    def _one_after_the_other(self, clinics: Iterable[Clinic]) -> Generator[Outcome[BackupRecord]]:
        for clinic in clinics:
            yield outcome_of(self._back_up, clinic)

    def _ended(self, outcome: Outcome[BackupRecord]) -> BackupRecord | Failure:
        """:raises BaseException: an error that is no failure of one clinic."""
        clinic, record, error = outcome.clinic, outcome.result, outcome.error
        name = f"{one_line(str(clinic.id))} {one_line(clinic.name)}"
        outcome.section.show(_Lines())
        if record is not None:
            self._print(f"{state_of(record)}  {name}")
            return record
        if not isinstance(error, ClinicBackupsError):
            raise error or AssertionError("no outcome")
        self._print(f"[red]failed[/]     {name}")
        return Failure(clinic, error)

    def _print(self, line: str) -> None:
        if not self._quiet:
            errors.print(line)

    def _back_up(self, clinic: Clinic, section: Section) -> BackupRecord:
        chosen = self._chosen
        last = self._parts.catalog.latest(clinic.id) if self._bars.are_shown else None
        request = BackupRequest(clinic, requested_by=f"{getpass.getuser()} (command line)").with_options(chosen.options)
        name = f"{one_line(str(clinic.id))} {one_line(clinic.name)}"
        with self._bars.bar(name, last.rows_total if last else None) as on_progress:
            backup = self._parts.backup(on_progress=on_progress, on_unchecked=section.warning, turns=self._turns)
            self._running.add(backup)
            try:
                if self._stopped is not None:
                    raise self._stopped
                return backup.run(request)
            finally:
                self._running.discard(backup)

    def _stop_all(self) -> None:
        self._stopped = Interrupted("The command was stopped.", hint="Run it again.")
        for backup in list(self._running):
            backup.stop(self._stopped)
