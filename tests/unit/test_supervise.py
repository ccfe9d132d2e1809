"""The command that runs a CI run leaves no process behind, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPERVISE = Path(__file__).parents[2] / ".ci" / "supervise.py"
# A server in a session of its own, as PostgreSQL's; its number is printed before anything waits.
SERVER = "setsid sleep 300 & echo $!; "


def _run(script: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(SUPERVISE), "bash", "-c", SERVER + script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("script", "code"), [("true", 1), ("exit 3", 3)])
def test_what_a_command_leaves_is_named_and_ended(script: str, code: int) -> None:
    process, server = _run(script)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, _is_there(server)) == (code, False)
    assert f"Left behind: process {server}" in told


def test_a_run_that_is_stopped_leaves_nothing() -> None:
    process, server = _run("sleep 300")
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert (process.returncode, _is_there(server)) == (128 + signal.SIGTERM, False)
