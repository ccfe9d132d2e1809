"""Who is told how far a long work is: a bar in a terminal, a task's log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nobody(*told: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Listener:
    """What is called while the work goes on.

    :param step: told what begins now, as a line for people; no values of a patient.
    :param read: told how many bytes of how many of an archive are read, from any thread.
    """

    step: Callable[[str], object] = _nobody
    read: Callable[[int, int], object] = _nobody


NOBODY = Listener()
