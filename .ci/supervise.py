"""Runs a command and fails when it leaves a process behind; ends what it left. Usage: supervise.py <command…>

Whoever stops it (SIGTERM, as a CI server does when a run is cancelled) stops the command and all its servers.

As a child subreaper this process becomes the parent of every orphan among its descendants, also of servers that took
a session of their own: see PR_SET_CHILD_SUBREAPER in prctl(2). Whoever is its child at the end was left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10  # a server that was told to stop may still be at it


def main() -> int:
    """The command's exit code; 1 if that is 0 but processes are left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    signal.signal(signal.SIGTERM, _stopped)
    code = _run(sys.argv[1:])
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := _children()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        print(f"Left behind: process {pid}: {words}", file=sys.stderr)
    deadline = time.monotonic() + GRACE_SECONDS
    while (pids := _children()) and time.monotonic() < deadline:  # ending one may hand us its children
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return code or (1 if left else 0)


def _run(command: list[str]) -> int:
    """The command's exit code. Orphans that end meanwhile are collected at once, as process 1 would.

    Left as zombies they would count as running: `pg_ctl` waits for a killed server until it is collected.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except _Stopped:
            process.terminate()
            return 128 + signal.SIGTERM
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode


class _Stopped(Exception):
    pass


def _stopped(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Stopped


def _children() -> list[int]:
    """Live children of this process; those that have ended are waited for first."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main())
