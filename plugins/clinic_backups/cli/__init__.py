"""The command ``clinic-backups``: everything without Airflow, from the same settings and ``AIRFLOW_CONN_*`` variables.

Exit codes: 0 done; 1 failed for good; 2 wrong call, setting or connection; 75 failed for now, a retry may help
(``EX_TEMPFAIL`` of sysexits.h); 130 stopped by a signal.
"""

from __future__ import annotations

import sys

from clinic_backups.cli import stopping


def main() -> None:
    """Run one command. Errors of this package become a message with a hint, and an exit code."""
    code: str | int | None = None
    try:
        stopping.install()
        code = _exit_code()
        stopping.finished()
    except KeyboardInterrupt:
        stopping.leave()
    sys.exit(code)


def _exit_code() -> str | int | None:
    try:
        # Imported only now, after the signal handlers are installed, because the import takes a second.
        from clinic_backups.cli.commands import run

        run()
    except SystemExit as ended:
        if stopping.received():
            stopping.leave()
        return ended.code
    except BrokenPipeError:
        # The reader of the output, for instance `head`, has closed it.
        sys.stderr.close()
    except Exception as error:  # noqa: BLE001 - its text may hold anything, also a patient's name
        if stopping.is_of_signal(error):
            stopping.leave()
        from clinic_backups.base.errors import frames

        print(frames(error), file=sys.stderr)
        return 1
    return None
