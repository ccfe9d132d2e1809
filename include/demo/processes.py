"""Processes of the demo, identified by number and start time, because a number may belong to another process by now.

Linux only: sessions and start times are read from /proc/<pid>/stat, see proc_pid_stat(5).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which a person or the system ends the demo."""
_children: dict[int, subprocess.Popen[bytes]] = {}


class _Stat(NamedTuple):
    state: str
    session: int
    started_ticks: int


@dataclass(frozen=True)
class Process:
    """A program that leads its own session.

    :param started_ticks: when it started, in clock ticks since the machine booted; a time of day could shift.
    """

    name: str
    pid: int
    started_ticks: int
    boot_id: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self._is_ours(stat := _stat(self.pid)) and stat is not None and stat.state != "Z"

    def members(self) -> list[int]:
        """Every live process of its session: also the workers and tasks that it left behind when it died.

        While one of them lives, the system gives the session's number to nobody else; so if the leader is another
        process than ours, then nothing of ours is left.
        """
        leader = _stat(self.pid)
        if self.boot_id != boot_id() or (leader is not None and not self._is_ours(leader)):
            return []
        stats = ((int(entry.name), _stat(int(entry.name))) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [
            pid
            for pid, stat in stats
            if stat and stat.session == self.pid and stat.state != "Z" and stat.started_ticks >= self.started_ticks
        ]

    def _is_ours(self, stat: _Stat | None) -> bool:
        return stat is not None and stat.started_ticks == self.started_ticks and self.boot_id == boot_id()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that come inside are handled when the block ends: between the start of a program and the note about it.

    Otherwise a program that nobody knows of would go on. The program itself does not inherit any of this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    came = list[int]()

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.getsignal(number) for number in STOPPING}
    handled = [number for number, handler in before.items() if callable(handler)]
    for number in handled:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


def start(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Process:
    """Start a program in a session of its own, its output in a new log file."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    stat = _stat(child.pid)  # a child stays visible, as a zombie, until it is waited for
    assert stat is not None
    return Process(name, child.pid, stat.started_ticks, boot_id())


def wait(process: Process, *, limit_seconds: float) -> int | None:
    """The exit code of a program that this process started; None when it still runs at the limit."""
    try:
        return _children[process.pid].wait(limit_seconds)
    except subprocess.TimeoutExpired:
        return None


def stop(limits: Mapping[Process, float]) -> list[int]:
    """End programs and all that they started: politely first, by force what is left at the end of a program's limit.

    :param limits: the programs, each with the seconds that it is given.
    :returns: the numbers of the processes that survive even that; normally none.
    """
    for process in limits:
        if process.alive:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    pending = dict(limits)
    while pending and time.monotonic() < began + max(limits.values()) + 10:
        _reap()
        for process, limit in list(pending.items()):
            if process.alive and time.monotonic() < began + limit:
                continue
            members = process.members()
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not members:
                del pending[process]
        time.sleep(0.05)
    return [pid for process in pending for pid in process.members()]


def boot_id() -> str:
    """The kernel's id for this run of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything, also spaces and brackets
    return _Stat(state=fields[0], session=int(fields[3]), started_ticks=int(fields[19]))


def _reap() -> None:
    for child in _children.values():
        child.poll()
