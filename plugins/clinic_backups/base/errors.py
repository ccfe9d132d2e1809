"""The one family of errors: every one says what failed, where, and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class ClinicBackupsError(Exception):
    """Root of all errors raised on purpose.

    :param message: what failed and where; never a secret, never a value of a patient's row.
    :param hint: what to do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


def to_record(error: BaseException) -> tuple[str, str | None]:
    """Text and hint that the catalog keeps of a failure. A foreign error's text may hold anything, also a patient's."""
    if isinstance(error, ClinicBackupsError):
        return error.message, error.hint
    if not isinstance(error, Exception):  # KeyboardInterrupt, SystemExit: somebody ended the process
        return f"Interrupted: {type(error).__name__}", None
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"Unexpected error: {name}.", "The task's log has its traceback. Report it with that."


def frames(error: BaseException) -> str:
    """Where an unexpected error came from: the traceback without any error's text, and without its causes' texts."""
    return f"{to_record(error)[0]}\n{''.join(traceback.format_tb(error.__traceback__))}"


@contextmanager
def afterwards(clean_up: Callable[[], object]) -> Iterator[None]:
    """Clean up after the block. An error of the block is raised, also where the cleaning up fails because of it."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            clean_up()
        raise
    clean_up()


class TransientError(ClinicBackupsError):
    """May pass by itself: the same call is worth a retry."""


class Interrupted(TransientError):
    """The process was told to stop, or died; nothing is wrong with the clinic, the database or the store."""


class PermanentError(ClinicBackupsError):
    """Stays until somebody changes something: a retry would fail the same way."""


class SettingsError(PermanentError):
    """A setting, a connection or a conf value is missing or wrong."""


class StoreUnknown(SettingsError):
    """The catalog has no id for a store's URL: nobody has initialised it."""


class StoreAway(TransientError):
    """What answers under a store's URL is not the store that the catalog knows: not mounted, or another one."""


class PlaceMissing(PermanentError):
    """The folder or the bucket of a store is not there: nothing can be said of any object."""


class ObjectNotFound(PermanentError):
    """The store has no object under that key."""


class ObjectExists(PermanentError):
    """The store already has an object under that key; objects are written once and never replaced."""


class ObjectLocked(PermanentError):
    """The store keeps the object from being deleted: its lock, or a legal hold of the provider, still lasts."""


class IntegrityError(PermanentError):
    """What the store holds is not what was sent, or an archive is damaged."""
