"""Reports the progress of long work, to a bar in a terminal or a task's log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clinic_backups.base.text import one_line


def nobody(*told: object) -> None:
    """The default of every callback: nobody listens."""


@dataclass(frozen=True)
class Listener:
    """Functions that are called during the work.

    :param step: gets the name of the step that begins, as a line for people, without patient data.
    :param read: gets the bytes read so far and the size of the archive; called from any thread.
    """

    step: Callable[[str], object] = nobody
    read: Callable[[int, int], object] = nobody

    def __post_init__(self) -> None:
        tell = self.step
        # Names of a database may be an attacker's.
        object.__setattr__(self, "step", lambda text: tell(one_line(text)))


NOBODY = Listener()
