"""Runs ``clinic-backups`` in a process of its own that can be killed and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import CHECKOUT

LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Done:
    """How a command ended. ``code`` is negative after a signal."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    left: tuple[int, ...] = ()
    """Processes of its session that still run."""

    @property
    def said(self) -> str:
        """The end of what it printed."""
        return f"{self.err[-3000:]}{self.out[-1500:]}"

    def __str__(self) -> str:
        return f"clinic-backups {' '.join(self.words)}: code {self.code}"


class Command:
    """:param folder: for what it prints. :param environment: the whole environment of each command."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self.pid = 0
        self._forks = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"], cwd=CHECKOUT, text=True,
            env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._forks.stdin is not None
        self._forks.stdin.close()
        self._forks.wait(10)

    def run(self, *words: str, during: Callable[[], object] | None = None, clock: str | None = None) -> Done:
        """One command from start to end.

        :param during: called in another thread as soon as it has begun.
        :param clock: what ``faketime -f`` takes; then it is a program of its own and not forked.
        """
        began = time.monotonic()
        out, err = self._folder / "out", self._folder / "err"
        code = self._stepped(words, clock, out, err) if clock else self._forked(words, during, out, err)
        seconds = time.monotonic() - began
        left = session_of(self.pid)
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return Done(words, code, out.read_text(), err.read_text(), seconds, left)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the command that runs."""
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    def _forked(self, words: Sequence[str], during: Callable[[], object] | None, out: Path, err: Path) -> int:
        assert self._forks.stdin is not None
        job = {"words": words, "environment": self._environment, "out": str(out), "err": str(err)}
        self._forks.stdin.write(json.dumps(job) + "\n")
        self._forks.stdin.flush()
        self.pid = self._line()["pid"]
        beside = threading.Thread(target=during, daemon=True) if during else None
        limit = threading.Timer(LIMIT_SECONDS, self.kill)
        limit.start()
        if beside:
            beside.start()
        code = self._line()["code"]
        if beside:
            beside.join()
        limit.cancel()
        return code

    def _stepped(self, words: Sequence[str], clock: str, out: Path, err: Path) -> int:
        with out.open("w") as to, err.open("w") as errors:
            process = subprocess.Popen(
                ["faketime", "-m", "-f", clock, sys.executable, "-m", "clinic_backups.cli", *words], cwd=CHECKOUT,
                env={**self._environment, "PYTHONPATH": str(CHECKOUT / "plugins")}, stdin=subprocess.DEVNULL,
                stdout=to, stderr=errors, start_new_session=True,
            )  # fmt: skip
        self.pid = process.pid
        return process.wait(LIMIT_SECONDS)

    def _line(self) -> dict[str, int]:
        assert self._forks.stdout is not None
        line = self._forks.stdout.readline()
        if not line:
            raise RuntimeError(f"The process that forks the commands ended with {self._forks.wait()}.")
        answer: dict[str, int] = json.loads(line)
        return answer


def session_of(leader: int) -> tuple[int, ...]:
    """The processes that run and belong to the session of a command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == leader:
            continue
        with suppress(OSError, IndexError):
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(entry.name))
    return tuple(found)
