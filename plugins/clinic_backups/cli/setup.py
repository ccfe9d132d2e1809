"""``clinic-backups check`` and ``keygen``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.backup.database_checks import COUNT_TIMEOUT_SECONDS
from clinic_backups.backup.row_report import RowReport
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.findings import require
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, print_json, print_table, styled
from clinic_backups.cli.row_table import rows_as_json, show_rows


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(check)
    app.command()(keygen)


def check(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    count: Annotated[bool, typer.Option(help="Count the rows that belong to no clinic; reads every table.")] = True,
    rows: Annotated[
        bool,
        typer.Option("--rows", help="Show where all rows of each table are, and one key of each problem with rows."),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Delete all rows of the clinic with the fewest rows, and of the clinic with the most. Restore them"
            " from the newest backups, prove them, and roll everything back. Needs the secret key. Meanwhile these rows"
            " are locked.",
        ),
    ] = False,
    restore: Annotated[
        bool,
        typer.Option(
            "--restore",
            help="Check the restore side instead, where the secret key is: it opens the newest archives, and the"
            " connection restore_db, the catalog, the store, PostgreSQL's programs and the disk are what restores and"
            " drills need. Nothing is restored.",
        ),
    ] = False,
    clinic: Annotated[
        Any, typer.Option(parser=clinic_arg, metavar="ID", help="With --restore: only this clinic's backups.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="File with the secret key, for --rehearse and --restore.")
    ] = None,
) -> None:
    """Check settings, store, catalog, extracts and coverage, as every run does, and whether tables can be restored.

    With the connection restore_db, one row of each table is written as a test and rolled back.
    """
    if rows and not count:
        raise SettingsError("--rows counts the rows, and --no-count does not.", hint="Give one of the two.")
    if restore and (rows or rehearse):
        raise SettingsError("--restore goes with neither --rows nor --rehearse.", hint="Run the command twice.")
    if clinic is not None and not restore:
        raise SettingsError("--clinic goes with --restore only.", hint="Leave it out: a check is of all clinics.")
    report = RowReport(COUNT_TIMEOUT_SECONDS) if rows else None
    with_parts = parts()
    if restore:
        require_known_clinic(with_parts, clinic)
        findings = with_parts.restore_preflight(identity, clinic_id=clinic, write=True)
    else:
        findings = with_parts.preflight(count_rows=count, try_restores=True, rows=report)
    if rehearse:
        steps = Steps()
        with steps:
            findings += with_parts.rehearse_losses(identity, listener=steps.listener)
    if json:
        found = [finding.to_json() for finding in findings]
        print_json(found if report is None else {"findings": found, **rows_as_json(report)})
    else:
        if report is not None:
            show_rows(report)
        lines = [
            (found.check, styled(found.level), escape(in_words(_with_hint(found.message, found.hint))))
            for found in findings
        ]
        print_table(
            "Restore side" if restore else "Preflight", (("check", False), ("level", False), ("found", False)), lines
        )
    require(findings, again="clinic-backups check --restore" if restore else "clinic-backups check")


def keygen(
    file: Annotated[Path, typer.Argument(help="New file for the secret key; only you can read it.")],
) -> None:
    """Make a key pair: backups are encrypted to the public key and opened with the secret key."""
    identity, recipient = generate_identity()
    text = f"# created: {iso(datetime.now(UTC).replace(microsecond=0))}\n# public key: {recipient}\n{identity}\n"
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(text)
    except FileExistsError:
        raise SettingsError(
            f"{file} exists already and is not overwritten, because without its key its backups are lost.",
            hint="Choose another name.",
        ) from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}.", hint="Choose another place.") from None
    errors.print(
        f"The secret key is in {escape(str(file))}. Keep copies of it where the workers cannot read it: without"
    )
    errors.print("it no backup can be opened. Set CLINIC_BACKUPS_RECIPIENTS to the public key:")
    print(recipient)


def _with_hint(message: str, hint: str) -> str:
    return f"{message}\nHINT: {hint}" if hint else message
