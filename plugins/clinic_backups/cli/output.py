"""Output of the commands: tables and progress for people, JSON for machines, errors with their hints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from clinic_backups.backup.stream import OnProgress
from clinic_backups.backup.stream import Progress as BackupProgress
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import ClinicBackupsError, SettingsError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.load_settings import in_words, words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.restore.stores_read import StoresRead

FAILED, WRONG_CALL, TRY_AGAIN = 1, 2, 75
STYLES = {
    "completed": "green",
    "incomplete": "yellow",
    "failed": "red",
    "running": "yellow",
    "complete": "green",
    "unfinished": "yellow",
    "damaged": "red",
    "proven": "green",
    "chain broken": "red",
    "ok": "green",
    "missing": "yellow",
    "lost": "red",
    "warning": "yellow",
    "error": "red",
}

errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def exit_code(error: ClinicBackupsError) -> int:
    """The exit code for an error."""
    if isinstance(error, SettingsError):
        return WRONG_CALL
    return TRY_AGAIN if isinstance(error, TransientError) else FAILED


def print_error(error: ClinicBackupsError) -> None:
    """Print an error and its hint to the error output."""
    errors.print(f"[red]Error:[/] {escape(in_words(error.message))}")
    if error.hint:
        errors.print(f"HINT: {escape(in_words(error.hint))}")
    for note in getattr(error, "__notes__", ()):
        errors.print(escape(in_words(note)))


def print_json(value: object) -> None:
    """Print one JSON document."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def require_terminal(*, as_json: bool, otherwise: str) -> None:
    """For ``--values``, which shows patients' data: they do not go into files or logs.

    :param otherwise: what to do instead.
    """
    if as_json or not sys.stdout.isatty():
        raise SettingsError("--values shows patients' data, and only in a terminal.", hint=otherwise)


def print_table(title: str, columns: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]]) -> None:
    """Print a table. In a file it has its full width, because nobody can search for a key that is cut in two.

    :param columns: name, and whether the column holds figures.
    """
    table = Table(title=in_words(title))
    for name, figures in columns:
        table.add_column(words().text("en", name), justify="right" if figures else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        width = Console(width=10_000, emoji=False).measure(table).maximum
        console = Console(highlight=False, emoji=False, width=max(width, 80))
    console.print(table)


def state_of(record: BackupRecord) -> str:
    """The state for lists: incomplete if it has gaps, suspect until somebody accepts it."""
    state = styled("incomplete" if record.state == "completed" and record.gaps else record.state)
    return state if record.is_trusted else f"{state}, [yellow]suspect[/]"


def styled(word: str) -> str:
    """A state or level in its colour."""
    return f"[{STYLES.get(word, 'default')}]{escape(word)}[/]"


def print_future(records: Iterable[BackupRecord], now: datetime) -> None:
    """Print the backups that are dated in the future, to the error output."""
    for record in records:
        if record.state in ("completed", "lost") and record.is_of_future(now):
            errors.print(
                f"\n[yellow]Backup {escape(record.backup_id)} is dated in the future:[/] a clock was wrong. It does not"
                " count as the newest, and is restored only by its id."
            )


def print_gaps(record: BackupRecord) -> None:
    """Print the gaps of a backup to the error output."""
    if record.gaps:
        errors.print(f"\n[yellow]Backup {escape(record.backup_id)} is incomplete:[/]")
        for gap in record.gaps:
            errors.print(f"- {escape(in_words(one_line(gap.reason)))}")


def _reason(record: BackupRecord) -> str:
    if record.safety_of:
        return f"before the restore of {escape(record.safety_of)}"
    if record.read_from:
        return f"as of {iso(record.data_time.replace(microsecond=0))}, from {escape(one_line(record.read_from))}"
    return record.trigger


def backup_cells(record: BackupRecord) -> list[str]:
    """One record as a row of the table of backups."""
    size, raw = record.size_bytes, record.raw_bytes
    return [
        escape(record.backup_id),
        escape(one_line(record.clinic_name)),
        state_of(record),
        record.kind,
        _reason(record),
        iso(record.started_at.replace(microsecond=0)),
        f"{record.rows_total:,}" if record.state == "completed" else "",
        human_size(raw),
        human_size(size),
        f"{raw / size:.1f}" if raw and size else "",
        f"{record.seconds:.2f}" if record.seconds is not None else "",
    ]


BACKUP_COLUMNS = (
    ("backup", False), ("clinic", False), ("state", False), ("kind", False), ("trigger", False), ("started", False),
    ("rows", True), ("raw", True), ("stored", True), ("ratio", True), ("seconds", True),
)  # fmt: skip


def human_size(count: float | None) -> str:
    """Bytes in units of a thousand."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Bars:
    """Shows a bar on the error output for each clinic that is being read, if that is a terminal.

    :param wanted: whether anything is to be shown.
    """

    def __init__(self, *, wanted: bool) -> None:
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TextColumn("{task.fields[table]}", style="dim", markup=False), TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=errors, transient=True)
        self.are_shown = wanted and errors.is_terminal

    def __enter__(self) -> Self:
        if self.are_shown:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.are_shown:
            self._bars.stop()

    @contextmanager
    def bar(self, description: str, expected_rows: int | None) -> Iterator[OnProgress]:
        """One bar during the block. Several threads may have one each.

        :param expected_rows: the rows of the last backup; without one, tables are counted.
        """
        if not self.are_shown:
            yield lambda progress: None
            return
        bars, unit = self._bars, "rows" if expected_rows else "tables"
        task = bars.add_task(description, total=expected_rows, unit=unit, table="")

        def show(progress: BackupProgress) -> None:
            table = one_line(progress.table)
            if expected_rows:
                rows = progress.rows
                bars.update(task, completed=rows, total=max(expected_rows, rows), table=table)
            else:
                bars.update(
                    task, completed=progress.table_number - 1, total=progress.tables, table=one_line(progress.table)
                )

        try:
            yield show
        finally:
            bars.remove_task(task)


def show_stores(read: StoresRead, *, only_if_bad: bool = False) -> None:
    """Say which stores archives were read from, and which could not be used."""
    if only_if_bad and not read.problems:
        return
    for text in read.problems:
        errors.print(f"[yellow]{escape(one_line(text))}[/]")
    for text in read.said:
        errors.print(escape(one_line(text)))


class Steps:
    """Shows the steps of a restore during the block: a bar on a terminal, otherwise a line for each step."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if errors.is_terminal:
            columns = (
                SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
            )  # fmt: skip
            self._bar = Progress(*columns, console=errors, transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    @property
    def listener(self) -> Listener:
        """The listener for the work."""
        return Listener(self.step, self.read)

    def step(self, text: str) -> None:
        """Show the next step, whose duration is unknown."""
        shown = in_words(one_line(text))
        if self._bar is None:
            errors.print(f"[dim]… {escape(shown)}[/]")
        else:
            self._bar.reset(self._task, description=shown, total=None)

    def read(self, done: int, total: int) -> None:
        """Show how many bytes of the archive were read."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
