"""``make demo-distributed`` as a person runs it: it decides by its exit code, and nothing is left running."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.demo.distributed.stack import DISTRIBUTED
from tests.missing import needs

CHECKOUT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "include.demo", "distributed"]
pytestmark = [needs("redis-server"), pytest.mark.timeout(900)]


def running() -> list[str]:
    """The commands of all processes that work in the demo's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(DISTRIBUTED) in words or DISTRIBUTED in (folder := Path(process.cwd()), *folder.parents):
                found.append(words)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert running() == []


def started() -> subprocess.Popen[str]:
    """The demo, which hears Ctrl-C even if whoever runs the tests does not."""
    return subprocess.Popen(
        COMMAND, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_killed_worker_a_restore_and_what_a_backup_worker_cannot_do() -> None:
    """First it is ended by Ctrl-C. One test, because the demo has one folder and tests run beside each other."""
    with started() as demo:
        assert demo.stdout is not None
        said = list[str]()
        for line in demo.stdout:
            said.append(line)
            if "Starting Airflow" in line:
                demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 130, said
    assert "Nothing of the demo is running" in said[-2], said
    assert running() == []
    with started() as demo:
        told, _ = demo.communicate(timeout=840)
    assert demo.returncode == 0, told
    lines = told.splitlines()
    assert sum(" success: 6 backups, one of each clinic" in line for line in lines) == 2
    for said_once in (
        "backup-worker-2: refused. Error: No identity file is given.",
        "restore-worker: can.",
        "are what they were before the script",
        "Everything was as it should be.",
        "Nothing of the demo is running",
    ):
        assert any(said_once in line for line in lines), said_once
