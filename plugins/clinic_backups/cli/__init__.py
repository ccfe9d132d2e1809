"""The command ``clinic-backups``: everything without Airflow, from the same settings and ``AIRFLOW_CONN_*`` variables.

Exit codes: 0 done; 1 failed for good; 2 wrong call, setting or connection; 75 failed for now, a retry may help
(``EX_TEMPFAIL`` of sysexits.h); 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from clinic_backups.cli import (
    backups,
    catalog,
    consolidate,
    copies,
    erasure,
    mail,
    restore,
    restore_into,
    retention,
    setup,
)
from clinic_backups.cli.output import exit_code, print_error
from clinic_backups.errors import ClinicBackupsError, frames

app = typer.Typer(
    name="clinic-backups",
    help="Back up the clinics of a shared PostgreSQL database, one by one.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables could show a password.
    pretty_exceptions_enable=False,
)
backups.register(app)
setup.register(app)
catalog.register(app)
consolidate.register(app)
copies.register(app)
erasure.register(app)
mail.register(app)
restore.register(app)
retention.register(app)
restore_into.register(app)


def main() -> None:
    """Run one command; our errors become a message with its hint and an exit code."""
    try:
        app()
    except ClinicBackupsError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # Whoever read the output, `head` for instance, has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - its text may hold anything, also a patient's name
        print(frames(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
