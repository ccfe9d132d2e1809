"""The commands, put together."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.version import program_version
from clinic_backups.catalog.migrate import newest
from clinic_backups.cli import (
    backups,
    bucket,
    catalog,
    certificate,
    consolidate,
    diff,
    doctor,
    drill,
    erasure,
    export,
    find,
    forget,
    grant,
    init,
    init_project,
    mail,
    recover,
    replicate,
    restore,
    restore_into,
    retention,
    setup,
    store,
)
from clinic_backups.cli.output import exit_code, print_error

app = typer.Typer(
    name="clinic-backups",
    help="Back up the clinics of a shared PostgreSQL database, one by one.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables could show a password.
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"clinic-backups {program_version()}, catalog version {newest()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Print the versions and end."),
    ] = False,
) -> None:
    """Back up the clinics of a shared PostgreSQL database, one by one."""


backups.register(app)
bucket.register(app)
setup.register(app)
catalog.register(app)
certificate.register(app)
consolidate.register(app)
diff.register(app)
doctor.register(app)
drill.register(app)
replicate.register(app)
erasure.register(app)
export.register(app)
find.register(app)
forget.register(app)
grant.register(app)
init.register(app)
init_project.register(app)
mail.register(app)
recover.register(app)
restore.register(app)
retention.register(app)
store.register(app)
restore_into.register(app)


def run() -> None:
    """Run one command. Exits with its code."""
    try:
        app()
    except ClinicBackupsError as error:
        print_error(error)
        sys.exit(exit_code(error))
