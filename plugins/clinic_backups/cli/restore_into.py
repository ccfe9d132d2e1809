"""``clinic-backups restore-into``: restores one backup into a new schema, to look at it or to move it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Reading
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, print_json, print_table
from clinic_backups.cli.restore import Json, forgotten_in_stores, require_followed, say_requests, source_in_store
from clinic_backups.cli.row_param import named_tables
from clinic_backups.restore.copying.into_report import IntoReport
from clinic_backups.restore.find_backup import choose_backup, source_of
from clinic_backups.restore.request import parse, require_schema_name
from clinic_backups.tenant.declarations import spelled


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("restore-into")(restore_into)


def restore_into(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Id of the clinic.")],
    schema: Annotated[str, typer.Option(help="Name of the new schema; it must not exist.")],
    backup: Annotated[str, typer.Option(help="Id of the backup; by default the newest.")] = "",
    as_of: Annotated[str, typer.Option(help="The newest backup at or before this time.")] = "",
    archive: Annotated[str, typer.Option(help="Key or URL of the archive, to restore without the catalog.")] = "",
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    masked: Annotated[
        bool | None,
        typer.Option(
            "--masked/--no-masks",
            help="Mask the columns of include/sql/masks.txt, or leave them in clear. Default: they are masked.",
        ),
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Json = False,
) -> None:
    """Restore one backup into a new schema of the database restore_target, otherwise restore_db. Nothing else changes.

    The application can run on the copy: it has types, sequences, defaults, constraints and indexes of its own. What
    could not be made is listed.
    """
    require_schema_name(schema)
    with_parts = parts()
    conf = {"clinic_id": clinic, "backup_id": backup, "as_of": as_of, "tables": named_tables(table)}
    by, zone = f"{getpass.getuser()} (command line)", with_parts.settings.zone
    request, _ = parse(conf, every=[], requested_by=by, run_id=None, zone=zone)
    if archive and (backup or as_of):
        raise SettingsError("--archive was given with --backup or --as-of.", hint="Give only one of the three.")
    forgotten = None
    if archive:
        source = source_in_store(with_parts, archive, clinic)
        requests = forgotten_in_stores(with_parts, identity, clinic)
        say_requests(requests)
        require_followed(requests)
        forgotten = requests.of_clinic
    else:
        source = source_of(choose_backup(with_parts.catalog, request))
    with Steps() as steps:
        reading = Reading(listener=steps.listener)
        if not archive:
            reading["bound_of"] = with_parts.known_bound
        copier = with_parts.copier(identity, forgotten=forgotten, **reading)
        report = copier.run(source, schema, request.tables, masked=masked)
    if json:
        print_json(report.to_json())
    else:
        _show(report)
    errors.print("This copy holds patients' data. When nobody needs it any more:")
    errors.print(f"  DROP SCHEMA {schema} CASCADE;")


def _show(report: IntoReport) -> None:
    moment = iso(report.snapshot_at.replace(microsecond=0))
    print_table(
        escape(
            f"Clinic {report.clinic_id} {one_line(report.clinic_name)!r} as of {moment} in schema {report.schema}:"
            f" {report.rows:,} rows"
        ),
        (("table", False), ("was", False), ("rows", True)),
        ((escape(one_line(made.name)), escape(spelled(made.table)), f"{made.rows:,}") for made in report.tables),
    )
    for line in report.said():
        print(in_words(line))
