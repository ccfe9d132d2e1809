"""The state of the demo in a file, so that the next command finds it even if the last one died."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from include.demo import processes
from include.demo.environment import Endpoints
from include.demo.layout import DemoError, Layout, write_private
from include.demo.processes import Process

TAIL_LINES = 30


@dataclass
class State:
    """The running servers. Every change is written at once.

    :param stays_up: whether they stay when the command that started them ends.
    """

    layout: Layout
    endpoints: Endpoints | None = None
    stays_up: bool = False
    processes: list[Process] = field(default_factory=list)

    @classmethod
    def load(cls, layout: Layout) -> State:
        """The state that the last command left; empty if it ended cleanly."""
        if not layout.state.exists():
            return cls(layout)
        kept = json.loads(layout.state.read_text())
        endpoints = Endpoints(**kept["endpoints"]) if kept["endpoints"] else None
        return cls(layout, endpoints, kept["stays_up"], [Process(**item) for item in kept["processes"]])

    def save(self) -> None:
        """Write the file."""
        write_private(self.layout.state, json.dumps(asdict(self) | {"layout": None}, indent=2))

    def forget(self) -> None:
        """Record that nothing is running."""
        self.endpoints, self.stays_up, self.processes = None, False, []
        self.layout.state.unlink(missing_ok=True)

    @property
    def up(self) -> bool:
        """Whether ``up`` started servers that all still run."""
        return self.stays_up and bool(self.processes) and all(process.alive for process in self.processes)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
    ) -> Process:
        """Start a program and remember it. :param folder: where it works, by default Airflow's."""
        with processes.undisturbed():
            process = processes.start(name, command, environment, folder or self.layout.airflow, self.log(name))
            self.processes.append(process)
            self.save()
        return process

    def finish(self, process: Process, *, limit_seconds: float) -> None:
        """Wait for a program that ends by itself, and forget it. :raises DemoError: it failed or took too long."""
        code = processes.wait(process, limit_seconds=limit_seconds)
        if code is None:
            raise self.failure(process.name, f"did not end within {limit_seconds:.0f} s")
        if code != 0:
            raise self.failure(process.name, f"failed with exit code {code}")
        self.processes.remove(process)
        self.save()

    def require_alive(self) -> None:
        """:raises DemoError: a server has ended; with the end of its log."""
        for process in self.processes:
            if not process.alive:
                raise self.failure(process.name, "has ended")

    def stop(self, limits: Mapping[Process, float]) -> None:
        """End these and all that they started, see ``processes.stop``. :raises DemoError: one cannot be ended."""
        left = processes.stop(limits)
        if left:
            raise DemoError(f"These processes do not end: {', '.join(map(str, left))}.")
        self.processes = [process for process in self.processes if process not in limits]
        self.save()

    def log(self, name: str) -> Path:
        """The log file of a program."""
        own = self.layout.workers / name
        return (own if own.is_dir() else self.layout.logs) / f"{name}.log"

    def failure(self, name: str, what: str) -> DemoError:
        """An error that shows the end of a program's log."""
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:] if log.exists() else []
        return DemoError("\n".join([f"{name} {what}. The end of {log}:", *("  " + line for line in lines)]))


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Only one command at a time starts and stops things. :raises DemoError: another one is at it."""
    with layout.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                f"Another demo command is at work in {layout.root}.\nHINT: wait for it, or end it with Ctrl-C."
            ) from None
        yield
