"""Files and folders that hold patients' data and are not finished: none stays behind when a signal ends the program.

A signal raises ``KeyboardInterrupt`` between any two instructions, also between the making of a file and the block that
would remove it. So making and removing are done as one, and what is there is known to whoever ends the process.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_places = dict[Path, None]()
_state = {"depth": 0, "postponed": 0}


def interrupt() -> None:
    """Raise ``KeyboardInterrupt``, or let :func:`uninterrupted` do it at its end. For the handler of a signal.

    Python runs it in the main thread.
    """
    if _state["depth"]:
        _state["postponed"] = 1
        return
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal counts only at the end of the block, which has to be short."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is raised there
        return
    _state["depth"] += 1
    try:
        yield
    finally:
        _state["depth"] -= 1
        if not _state["depth"] and _state["postponed"]:
            _state["postponed"] = 0
            raise KeyboardInterrupt


def note(place: Path) -> None:
    """This file or folder was made just now and is not finished. Call it in the block in which it was made."""
    _places[place] = None


def finished(place: Path) -> None:
    """It is finished, or gone."""
    _places.pop(place, None)


def remove(place: Path) -> None:
    """Remove it, if it was made here and is not finished. A file that was there before stays."""
    with uninterrupted():
        if place in _places:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                with suppress(OSError):
                    place.unlink()
            _places.pop(place, None)


def remove_all() -> None:
    """Remove what is left, because the process ends."""
    for place in list(_places):
        remove(place)
