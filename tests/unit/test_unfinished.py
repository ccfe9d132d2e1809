"""A signal at any instruction leaves no file with patients' data: not under its name, and no temporary one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pyrage
import pytest

from clinic_backups.archive import sealed_file as sealed
from clinic_backups.base import unfinished
from clinic_backups.base.errors import SettingsError
from clinic_backups.cli import stopping
from clinic_backups.export import place as placing

TEXT = b"a patient's name"
LOOKED_AT = {sealed.__file__, placing.__file__, unfinished.__file__}


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command's handler, for this test alone."""
    monkeypatch.setattr(stopping, "_received", [])
    before = signal.signal(signal.SIGINT, stopping._on_signal)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(work: Callable[[], object], at: int) -> tuple[bool, bool]:
    """Run it, with a signal at one of its instructions. Returns whether the signal came, and whether it ended."""
    seen, came = 0, False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen, came
        if frame.f_code.co_filename not in LOOKED_AT:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not came:
            seen += 1
            if seen > at:
                came = True
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return came, False
    finally:
        sys.settrace(None)
    return came, True


def key() -> str:
    return str(pyrage.x25519.Identity.generate().to_public())


def seal(path: Path) -> None:
    with sealed.sealed_file(path, [KEY]) as file:
        file.write(TEXT)


def export(path: Path, **how: Any) -> None:
    with placing.new_place(path, **how) as place:
        (place / "t.csv" if place.is_dir() else place).write_bytes(TEXT)


KEY = key()
WORK: dict[str, Callable[[Path], None]] = {
    "a sealed file": seal,
    "a file": lambda path: export(path, is_folder=False),
    "a folder": lambda path: export(path, is_folder=True),
    "an encrypted file": lambda path: export(path, is_folder=False, recipients=[KEY]),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_signal_at_any_instruction_leaves_nothing_or_the_whole(
    handled: None, tmp_path: Path, work: Callable[[Path], None]
) -> None:
    for at in range(10_000):
        stopping._received.clear()
        folder = tmp_path / str(at)
        folder.mkdir()
        came, ended = interrupted(lambda folder=folder: work(folder / "out"), at)  # type: ignore[misc]
        unfinished.remove_all()  # as the command does when it leaves
        left = [path.name for path in folder.iterdir()]
        assert left in ([], ["out"]), at
        if left:
            out = folder / "out"
            size = sum(path.stat().st_size for path in out.iterdir()) if out.is_dir() else out.stat().st_size
            assert size >= len(TEXT), at
        if not came:
            assert ended
            assert left == ["out"]
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_file_that_was_there_before_stays(tmp_path: Path, work: Callable[[Path], None]) -> None:
    (tmp_path / "out").write_bytes(b"somebody's")
    with pytest.raises(SettingsError):
        work(tmp_path / "out")
    unfinished.remove_all()
    assert (tmp_path / "out").read_bytes() == b"somebody's"


def test_the_end_of_the_process_removes_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace period nothing is unwound any more."""
    monkeypatch.setattr("os._exit", lambda code: None)
    with suppress(OSError), sealed.sealed_file(tmp_path / "out", [KEY]) as file:
        file.write(TEXT)
        stopping._end_now()
        assert not (tmp_path / "out").exists()
