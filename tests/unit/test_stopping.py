"""A signal after a command has done its work changes nothing of how it ends, until the process is gone."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# What is left at the end is removed after Python has given up its signal handlers.
LATE = """
import os, sys
from clinic_backups.cli import stopping

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})

stopping.install()
stopping.finished()
late = Late()
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_python_ends_keeps_the_exit_code(number: signal.Signals, code: int) -> None:
    program = LATE.format(number=int(number), code=code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
