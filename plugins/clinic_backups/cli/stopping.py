"""SIGTERM, SIGHUP and Ctrl-C end every command within seconds, also while it waits for a database or a store."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from clinic_backups.base import unfinished

EXIT_CODE = 130
GRACE_SECONDS = 20
"""Longest time for aborting an upload and updating the catalog. After that the process ends as in a crash."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_received: list[str] = []
_finished = threading.Event()


def install() -> None:
    """From now on a signal raises ``KeyboardInterrupt`` in the main thread, and ends the waits of all threads."""
    for number in SIGNALS:
        # A command that was started with nohup or in the background must continue.
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    atexit.register(_ignore)
    # Python runs signal handlers only between its own instructions, and none runs while libpq waits.
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_wake, args=(read_end,), name="signals", daemon=True).start()


def received() -> bool:
    """Whether the program is being stopped."""
    return bool(_received)


def is_of_signal(error: BaseException) -> bool:
    """Whether a signal caused an error: Python wraps what is raised while it makes a class into a RuntimeError."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, KeyboardInterrupt):
        below = below.__cause__ or below.__context__
    return below is not None and received()


def finished() -> None:
    """The command has done its work: from now on a signal changes neither the exit code nor what was printed."""
    _finished.set()


def leave() -> None:
    """End the program with one sentence. No unfinished file of it stays."""
    unfinished.remove_all()
    name = _received[0] if _received else "an interrupt"
    print(f"Stopped by {name}. Unfinished work does not count: run the command again.", file=sys.stderr)
    waiting = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    if not waiting:
        # A signal within exec() of a string, for instance while a dataclass is created, sets a flag in Python. If the
        # module was started with -m, the flag turns the exit code into that of SIGINT. Another exec() clears it.
        exec("")  # noqa: S102
        sys.exit(EXIT_CODE)
    _end_now()


def _ignore() -> None:
    """Python gives up its own handlers while it ends, and a signal would then count instead of the exit code.

    At that time all threads have ended, so nothing is left that a signal would have to stop.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _received.append(signal.Signals(number).name)
    if len(_received) == 1 and not _finished.is_set():
        unfinished.interrupt()


def _wake(read_end: int) -> None:
    while data := os.read(read_end, 16):
        if not {*data} & {int(number) for number in SIGNALS}:
            continue
        with suppress(ImportError):
            from clinic_backups.base.silence import WATCH

            WATCH.stop_waiting()
        time.sleep(GRACE_SECONDS)
        print("Stopped by a signal. Unfinished work does not count: run the command again.", file=sys.stderr)
        _end_now()


def _end_now() -> None:
    """End the process without waiting for blocked threads."""
    unfinished.remove_all()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_CODE)
