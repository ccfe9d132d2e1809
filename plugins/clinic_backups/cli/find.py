"""``clinic-backups find``: in which backups a record was, and when it changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import in_shell
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line, shown_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, print_json, print_table, require_terminal
from clinic_backups.cli.row_param import as_given, named_rows
from clinic_backups.differences.found_record import FoundRecord
from clinic_backups.differences.record_history import RecordHistory
from clinic_backups.differences.record_look import Sought
from clinic_backups.restore.request import moment_of
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.search_columns import FILE

COLUMNS = (("table", False), ("key", False), ("moment", False), ("", False), ("backup", False))
WORDS = {"there": "there", "changed": "changed", "gone": "gone", "back": "there again"}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("find")(find)


def find(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Id of the clinic.")],
    rows: Annotated[
        list[str] | None, typer.Option(metavar="TABLE:KEY[,KEY…]", help="These records; may be repeated.")
    ] = None,
    text: Annotated[str, typer.Option(help=f"Records with this text in a column that {FILE} names.")] = "",
    since: Annotated[str, typer.Option(help="Only backups from this time on.")] = "",
    until: Annotated[str, typer.Option(help="Only backups until this time.")] = "",
    values: Annotated[
        bool, typer.Option("--values", help="Also show the last known values. Only in a terminal.")
    ] = False,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, without values.")] = False,
) -> None:
    """Look for records of a clinic in its backups: in which they are, when they changed, and since when they are gone.

    Needs the secret key, and reads each archive once.
    """
    if values:
        require_terminal(as_json=json, otherwise="Leave it out.")
    with_parts = parts()
    keys = named_rows(rows or [])
    if not keys and not text.strip():
        raise SettingsError("Nothing is looked for.", hint="Give --rows TABLE:KEY, or --text TEXT.")
    require_known_clinic(with_parts, clinic)
    columns = SqlFolder(with_parts.settings.sql_dir).search_columns().tables if text.strip() else {}
    if text.strip() and not columns:
        raise SettingsError(
            f"No column is declared in which a text could be looked for: include/sql/{FILE} has no line.",
            hint="Add lines such as `public.usuarios_paciente.apellidos: Apellidos`, or give --rows TABLE:KEY.",
        )
    begin, end = (moment_of(each, with_parts.settings.zone) for each in (since, until))
    now = with_parts.clock()
    known = with_parts.catalog.find(clinic_id=clinic, state="completed", only_regular=True, until=now)
    backups = [
        each for each in reversed(known) if _is_within(each.data_time, begin, end)
    ]  # fmt: skip
    if not backups:
        raise PermanentError(
            f"Clinic {clinic} has no completed backup in that time.",
            hint=f"See clinic-backups list --clinic {in_shell(clinic)}",
        )
    steps = Steps()
    history = with_parts.record_history(identity, listener=steps.listener)
    with steps:
        found = history.find(
            backups, Sought(keys, text.strip(), {name: list(each) for name, each in columns.items()})
        )  # fmt: skip
    _warn(history, backups)
    if json:
        print_json([each.to_json() for each in found])
        return
    read = len(backups) - len(history.unread)
    print(f"{read:,} backups were looked through, from {backups[0].backup_id} to {backups[-1].backup_id}.")
    if not found:
        print("None of them has such a record.")
        raise typer.Exit(1)
    print_table("Records", COLUMNS, [line for each in found for line in _lines(each)])
    if values:
        _show_values(found)
    for record in found:
        if record.is_gone and record.is_plain and not record.is_forgotten:
            errors.print(
                f"To bring it back: clinic-backups restore --clinic {escape(in_shell(clinic))} --backup"
                f" {escape(record.last_in)} --rows {escape(one_line(as_given(record.table, record.shown_key)))}"
            )


def _warn(history: RecordHistory, backups: Sequence[BackupRecord]) -> None:
    """Say what is not known. :raises ClinicBackupsError: no backup could be read."""
    for note in history.notes:
        errors.print(f"[yellow]{escape(in_words(note))}[/]")
    for backup, error in history.unread:
        errors.print(f"[yellow]{escape(backup.backup_id)} was not looked through:[/] {escape(in_words(error.message))}")
    if len(history.unread) == len(backups):
        raise history.unread[0][1]


def _show_values(found: Iterable[FoundRecord]) -> None:
    for record in found:
        if record.is_forgotten:
            print(one_line(f"{spelled(record.table)} {record.shown_key}: forgotten, so its values are not shown."))
        for name, value in record.values.items():
            print(shown_line(f"{spelled(record.table)} {record.shown_key} {name}: {value!r}"))


def _is_within(moment: datetime, begin: datetime | None, end: datetime | None) -> bool:
    return (begin is None or begin <= moment) and (end is None or moment <= end)


def _lines(record: FoundRecord) -> list[list[str]]:
    mark = "forgotten, " if record.is_forgotten else ""
    return [
        [
            escape(spelled(record.table)), escape(one_line(record.shown_key)),
            iso(event.moment.replace(microsecond=0)),
            escape(mark + WORDS[event.what] + (f": {one_line(', '.join(event.columns))}" if event.columns else "")),
            escape(event.backup_id),
        ]
        for event in record.events
    ]  # fmt: skip
