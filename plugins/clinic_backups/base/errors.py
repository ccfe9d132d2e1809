"""All errors of this package. Each says what failed, where, and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from clinic_backups.base.text import one_line, shown_line


class ClinicBackupsError(Exception):
    """Root of all errors raised on purpose.

    A message may hold names from a database, which an attacker may have chosen. So each of its lines becomes one line
    of visible text.

    :param message: what failed and where; never a secret, never a value of a patient's row.
    :param lines: further lines of the message.
    :param hint: what to do about it.
    """

    def __init__(self, message: str, *lines: str, hint: str = "") -> None:
        self.message = "\n".join(map(shown_line, (message, *lines)))
        super().__init__(self.message)
        self.hint = one_line(hint)

    @property
    def lines(self) -> list[str]:
        """The lines of the message, for an error that repeats them."""
        return self.message.split("\n")

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


def to_record(error: BaseException) -> tuple[str, str | None]:
    """Text and hint of a failure for the catalog. The text of a foreign error is left out: it may hold patient data."""
    if isinstance(error, ClinicBackupsError):
        return error.message, error.hint
    if not isinstance(error, Exception):  # KeyboardInterrupt or SystemExit
        return f"Interrupted: {type(error).__name__}", None
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"Unexpected error: {name}.", "Report it with the traceback from the task's log."


def frames(error: BaseException) -> str:
    """The traceback of an unexpected error, without the texts of the error and its causes."""
    return f"{to_record(error)[0]}\n{''.join(traceback.format_tb(error.__traceback__))}"


@contextmanager
def afterwards(clean_up: Callable[[], object]) -> Iterator[None]:
    """Clean up after the block. If the block and the cleaning up both fail, the block's error is raised."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            clean_up()
        raise
    clean_up()


class TransientError(ClinicBackupsError):
    """An error that may pass by itself: a retry can succeed."""


class Interrupted(TransientError):
    """The process was stopped or died. Clinic, database and store are in order."""


class PermanentError(ClinicBackupsError):
    """An error that stays until somebody changes something: a retry would fail in the same way."""


class SettingsError(PermanentError):
    """A setting, a connection or a conf value is missing or wrong."""


class StoreUnknown(SettingsError):
    """The catalog has no id for a store's URL, because nobody has initialised the store."""


class StoreAway(TransientError):
    """The store that the catalog knows does not answer under its URL: it is not mounted, or it is another store."""


class PlaceMissing(PermanentError):
    """The folder or bucket of a store does not exist, so nothing is known about any object."""


class ObjectNotFound(PermanentError):
    """The store has no object with that key."""


class ObjectExists(PermanentError):
    """The store already has an object with that key. Objects are written once and never replaced."""


class ObjectLocked(PermanentError):
    """The store refuses to delete the object: its lock, or a legal hold of the provider, is still valid."""


class IntegrityError(PermanentError):
    """The stored object differs from what was sent, or an archive is damaged."""
