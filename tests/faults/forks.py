"""Forks the command's processes from this one, so that its imports are not repeated each time.

Reads jobs as lines of JSON, one at a time. Prints the child's number when it has begun, and its status when it ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any


def _child(job: dict[str, Any]) -> None:
    os.setsid()
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, (name, flags) in enumerate([(os.devnull, os.O_RDONLY), (job["out"], write), (job["err"], write)]):
        os.dup2(os.open(name, flags, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = ["clinic-backups", *job["words"]]
    from clinic_backups.cli import main

    main()


def _serve() -> None:
    import boto3  # noqa: F401

    from clinic_backups.archive import envelope_checks
    from clinic_backups.cli import commands  # noqa: F401
    from clinic_backups.notify import sending, templates  # noqa: F401
    from clinic_backups.stores import file, s3  # noqa: F401

    # World.age makes backups older, and cannot give them other ids.
    envelope_checks.APART = timedelta(days=1000)
    warnings.simplefilter("ignore")
    gc.freeze()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                _child(job)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # noqa: BLE001 - printed, and it ends the process
                sys.excepthook(*sys.exc_info())
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began it ends it
    _serve()
