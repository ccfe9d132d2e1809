"""``clinic-backups export``: a backup as files that a person can open."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line
from clinic_backups.catalog.exports import Exports, Format
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, print_json
from clinic_backups.cli.row_param import named_tables
from clinic_backups.export.export import FOLDERS, Done
from clinic_backups.restore.find_backup import choose_backup, notes_of, require_completed
from clinic_backups.restore.request import RestoreRequest, moment_of


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("export")(export)


def export(
    output_format: Annotated[Format, typer.Option("--format", help="csv and json: a folder; else a file.")],
    output: Annotated[Path, typer.Option(help="The new folder or file. It must not exist yet.")],
    backup: Annotated[str, typer.Option(metavar="ID", help="Id of the backup.")] = "",
    clinic: Annotated[
        Any, typer.Option(parser=clinic_arg, metavar="ID", help="Instead: this clinic's last backup.")
    ] = None,
    as_of: Annotated[str, typer.Option(help="With --clinic: its last backup at or before this time.")] = "",
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    encrypt_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPIENT", help="Encrypt to this public key (age); may be repeated. A folder becomes a tar."
        ),
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON: the rows of each table, and where they are.")
    ] = False,
) -> None:
    """Write a backup as files that a person can open, with a readme of tables and columns.

    Needs the secret key. The files hold patients' data: only your user can open them. Forgotten rows are left out.
    """
    with_parts = parts()
    chosen = _chosen(with_parts, backup, clinic, as_of)
    for note in notes_of(chosen):
        errors.print(f"[yellow]{escape(in_words(note))}[/]")
    steps = Steps()
    work = with_parts.export(identity, listener=steps.listener)
    exports = Exports(with_parts.catalog.database)
    noted = exports.begin(
        clinic_id=chosen.clinic_id, backup_id=chosen.backup_id, format=output_format,
        protection="keys" if encrypt_to else "none", requested_by=f"{getpass.getuser()} (command line)",
    )  # fmt: skip
    with steps:
        done = work.run(
            chosen,
            output_format,
            output.absolute(),
            tables=named_tables(table),
            recipients=encrypt_to or [],
        )
    exports.finish(noted.id, rows=sum(done.rows.values()))
    if json:
        print_json({
            "backup_id": chosen.backup_id, "output": str(output), "rows": dict(done.rows),
            "places": done.placed.places, "long_texts": done.placed.long_texts,
            "forgotten_rows": dict(done.left_out),
        })  # fmt: skip
        return
    _say(chosen, output, done)
    if encrypt_to:
        then = " | tar -x" if output_format in FOLDERS else " > FILE"
        errors.print(f"Open it with: age --decrypt --identity KEY {escape(str(output))}{then}")


def _chosen(with_parts: Parts, backup_id: str, clinic: Any, as_of: str) -> BackupRecord:
    if backup_id and as_of:
        raise SettingsError("--backup and --as-of both say which backup.", hint="Give one of them.")
    if not backup_id and clinic is None:
        raise SettingsError("No backup is named.", hint="Give --backup ID, or --clinic ID and perhaps --as-of TIME.")
    if clinic is None:
        found = with_parts.catalog.require(backup_id)
        require_completed(found)
        return found
    moment = moment_of(as_of, with_parts.settings.zone)
    return choose_backup(
        with_parts.catalog, RestoreRequest(clinic_id=clinic, backup_id=backup_id or None, as_of=moment)
    )


def _say(backup: BackupRecord, output: Path, done: Done) -> None:
    print(f"{backup.backup_id}: {sum(done.rows.values()):,} rows of {len(done.rows):,} tables are in {output}.")
    for name, places in done.placed.places.items():
        if len(places) > 1:
            print(one_line(f"{name} has more rows than an Excel sheet: they are in {', '.join(places)}."))
    for note in done.notes:
        print(note)
    if done.placed.long_texts:
        print(f"{done.placed.long_texts:,} texts are too long for a cell. They are in the sheet Long texts.")
