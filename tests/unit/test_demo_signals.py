"""Ctrl-C while the demo starts a program: the demo knows of that program, and can stop it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.demo import processes
from include.demo.layout import Layout
from include.demo.state import State


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals that raise, as in the demo, also where the tests run in the background and ignore Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in processes.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", processes.STOPPING)
def test_a_program_that_was_just_started_is_in_the_state(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(root=tmp_path / "demo")
    layout.make()
    state, boot_id = State(layout), processes.boot_id

    def disturbed() -> str:
        """Called when the program runs and is noted nowhere yet."""
        monkeypatch.setattr(processes, "boot_id", boot_id)
        signal.raise_signal(number)
        return boot_id()

    monkeypatch.setattr(processes, "boot_id", disturbed)
    with pytest.raises(KeyboardInterrupt):
        state.start("sleep", ["sleep", "600"], {"PATH": os.environ["PATH"]})
    left = State.load(layout)
    assert [process.name for process in left.processes] == ["sleep"]
    (process,) = left.processes
    assert process.alive
    assert processes.stop({process: 5}) == []
    assert not process.alive


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with processes.undisturbed():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_signal_is_handled_when_the_block_ends() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), processes.undisturbed():
        signal.raise_signal(signal.SIGTERM)
        done.append("the rest of the block")
    assert done
