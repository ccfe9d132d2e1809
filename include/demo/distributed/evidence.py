"""What can be seen from outside of what the workers' processes do: which files they open, and what they leave."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

EVERY_SECONDS = 0.5
OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")


class OpenFiles:
    """Notes which files are open in processes, twice a second, until the block ends.

    :param processes: the numbers of a worker's processes, by the worker's name.
    """

    def __init__(self, processes: Callable[[], dict[str, list[int]]]) -> None:
        self.written: dict[str, set[Path]] = {}
        self.read: dict[str, set[Path]] = {}
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="open files", daemon=True)

    def __enter__(self) -> OpenFiles:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            for name, pids in self._processes().items():
                for pid in pids:
                    for path, writes in _open_in(pid):
                        (self.written if writes else self.read).setdefault(name, set()).add(path)


def _open_in(pid: int) -> Iterator[tuple[Path, bool]]:
    """The files on a disk that a process has open, and whether it may write to them."""
    # A process may end, and a file be closed, at any moment.
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if not stat.S_ISREG(Path(entry.path).stat().st_mode):
                    continue
                path = Path(str(Path(entry.path).readlink()).removesuffix(" (deleted)"))
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                flags = next(int(line.split()[1], 8) for line in info.splitlines() if line.startswith("flags:"))
                yield path, flags & os.O_ACCMODE != os.O_RDONLY


def outside(paths: Iterable[Path], *folders: Path) -> list[Path]:
    """Those that lie in none of the folders."""
    return sorted(path for path in paths if not any(path.is_relative_to(folder) for folder in folders))


def left_by(uids: Collection[int], own: Path) -> list[Path]:
    """Files of these users in the folders to which everybody may write. :param own: is not looked at."""
    return [path for root in OPEN_TO_ALL for path in _files_of(uids, root, own)]


def _files_of(uids: Collection[int], folder: str, own: Path) -> Iterator[Path]:
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid in uids and not own.is_relative_to(entry.path):
                    yield Path(entry.path)
                # Elsewhere they can have made nothing.
                if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
                    yield from _files_of(uids, entry.path, own)


def containing(folder: Path, words: Collection[bytes]) -> tuple[list[Path], int]:
    """The files below a folder in which one of these words stands, and how many files were read."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if _has(path.read_bytes(), words)], len(files)


def _has(content: bytes, words: Collection[bytes]) -> bool:
    return any(word in content for word in words)
