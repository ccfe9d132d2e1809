"""The command ``clinic-backups``: everything without Airflow, from the same settings and ``AIRFLOW_CONN_*`` variables.

Exit codes: 0 done; 1 failed for good; 2 wrong call, setting or connection; 75 failed for now, a retry may help
(``EX_TEMPFAIL`` of sysexits.h); 130 stopped by a signal.
"""

from __future__ import annotations

import sys

from clinic_backups.cli import stopping


def main() -> None:
    """Run one command; our errors become a message with its hint and an exit code."""
    stopping.install()
    try:
        # Only now: importing it takes a second, in which the program may be stopped too.
        from clinic_backups.cli.app import run

        run()
    except KeyboardInterrupt:
        stopping.leave()
    except SystemExit:
        if stopping.received():
            stopping.leave()
        raise
    except BrokenPipeError:
        # Whoever read the output, `head` for instance, has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - its text may hold anything, also a patient's name
        from clinic_backups.base.errors import frames

        print(frames(error), file=sys.stderr)
        sys.exit(1)
