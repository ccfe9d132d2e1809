"""Starts measured processes: their time, and the most memory that each of them had.

Peaks are VmHWM of ``/proc/<pid>/status`` (proc_pid_status(5)), which starts again with each program. ``ru_maxrss``
would start with the memory of the process that forked it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.figures import BenchError, Run
from include.demo.environment import KEPT
from include.demo.layout import CHECKOUT

POLL_SECONDS = 0.005


def peak_rss_bytes(pid: int | str = "self") -> int:
    """The most memory that a process has had so far; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def server_cpu_seconds(pid: int) -> float:
    """The CPU time of a server and its processes so far, including processes that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == pid:
                ticks += sum(map(int, fields[11:15]))  # utime, stime and those of ended children: proc_pid_stat(5)
            elif int(fields[1]) == pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pipe(
    commands: Sequence[Sequence[str]], *, input_: str, environment: Mapping[str, str], output: Path | None = None
) -> Run:
    """Run ``a | b | c > output`` and measure it. :raises BenchError: one of them failed."""
    began = time.monotonic()
    with (output or Path("/dev/null")).open("wb") as target, _ended() as processes:
        source: int | IO[bytes] | None = subprocess.PIPE
        for command in commands:
            last = command is commands[-1]
            process = subprocess.Popen(
                command, stdin=source, stdout=target if last else subprocess.PIPE, stderr=subprocess.PIPE,
                env=dict(environment),
            )  # fmt: skip
            if processes and processes[-1].stdout:
                processes[-1].stdout.close()  # the next program alone holds its end now
            processes.append(process)
            source = process.stdout
        peaks, _ = _watch(processes, input_)
        return Run(time.monotonic() - began, sum(peaks))


def python(module: str, job: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Run ``python -m module`` with the job as JSON in its standard input: passwords are in no list of processes.

    It prints ``{"seconds": …, "peak_rss_bytes": …, …}``; those two are the run, the rest is returned besides.
    """
    began = time.monotonic()
    with _ended() as processes:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=CHECKOUT,
                env={name: value for name, value in os.environ.items() if name in KEPT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        (peak,), printed = _watch(processes, json.dumps(job))
        took = time.monotonic() - began
    answer = json.loads(printed)
    return Run(answer.pop("seconds"), max(peak, answer.pop("peak_rss_bytes")), took), answer


@contextmanager
def _ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are added to the list are ended with the block, whatever happens in it."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()


def _watch(processes: Sequence[subprocess.Popen[bytes]], input_: str) -> tuple[list[int], bytes]:
    """Feed the first process, wait for all of them; returns each one's peak, and what the last one printed."""
    outputs: dict[int, bytes] = {}

    def feed(stream: IO[bytes]) -> None:
        with suppress(BrokenPipeError), stream:  # a program that has failed says why itself
            stream.write(input_.encode())

    def drain(stream: IO[bytes]) -> None:
        outputs[id(stream)] = stream.read()

    first, last = processes[0], processes[-1]
    assert first.stdin is not None
    threads = [threading.Thread(target=feed, args=(first.stdin,), daemon=True)]
    for stream in (last.stdout, *(process.stderr for process in processes)):
        if stream is not None:
            threads.append(threading.Thread(target=drain, args=(stream,), daemon=True))
    for thread in threads:
        thread.start()
    peaks = [0] * len(processes)
    while any(process.poll() is None for process in processes):
        peaks = [max(peak, peak_rss_bytes(process.pid)) for peak, process in zip(peaks, processes, strict=True)]
        time.sleep(POLL_SECONDS)
    for thread in threads:
        thread.join(10)
    # One that was killed by a signal, with a negative code, was often killed by the end of another one.
    for process in sorted(processes, key=lambda process: process.returncode, reverse=True):
        if process.returncode:
            said = outputs.get(id(process.stderr), b"").decode("utf-8", "replace").strip()
            raise BenchError(f"A measured program failed with exit code {process.returncode}. It says:\n{said}")
    return peaks, outputs.get(id(last.stdout), b"")
