"""Writes patients' data into a file that only the holders of the secret keys can open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clinic_backups.archive.encryption import ENCRYPTION, parse_recipients
from clinic_backups.base import unfinished
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.pipeline import ByteChannel, Cancelled
from clinic_backups.base.unfinished import uninterrupted


@contextmanager
def sealed_file(path: Path, recipients: Sequence[str]) -> Iterator[ByteChannel]:
    """Write to a new file, encrypted, which only this user may open. After an error there is no file.

    :param recipients: the public keys.
    :raises SettingsError: there is no public key, or one is wrong, or the file exists or cannot be made.
    :raises PermanentError: it cannot be written.
    """
    if not recipients:
        raise SettingsError(
            "There is no public key to encrypt the file to.",
            hint="Set CLINIC_BACKUPS_RECIPIENTS. `clinic-backups keygen` makes a pair of keys.",
        )
    parse_recipients(recipients)
    try:
        yield from _written(path, recipients)
        unfinished.finished(path)
    finally:
        unfinished.remove(path)


def _written(path: Path, recipients: Sequence[str]) -> Iterator[ByteChannel]:
    with uninterrupted():
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be made: {error.strerror}.", hint="Give the path of a file that does not exist yet."
            ) from None
        unfinished.note(path)
    channel, failures = ByteChannel(), list[BaseException]()

    def seal() -> None:
        target: _Target | None = None
        try:
            with os.fdopen(descriptor, "wb") as file:
                target = _Target(file)
                ENCRYPTION.run(channel, target, recipients)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:  # noqa: BLE001 - raised by the thread that writes
            failures.append((target and target.failure) or error)
            channel.cancel()

    thread = threading.Thread(target=seal, name="sealing", daemon=True)
    try:
        with uninterrupted():
            thread.start()
        with suppress(Cancelled):  # then the failure of the other thread says why
            yield channel
        channel.close()
        thread.join()
        if failures:
            raise _failed(path, failures[0]) from None
    except BaseException as error:
        channel.fail(error)
        if thread.is_alive():
            thread.join()
        raise


class _Target:
    """A file that keeps the error of a write: the encryption's library hides it in an error of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _failed(path: Path, error: BaseException) -> BaseException:
    if isinstance(error, OSError):
        return PermanentError(f"{path} cannot be written: {error.strerror}.", hint="Is the disk full?")
    return error
