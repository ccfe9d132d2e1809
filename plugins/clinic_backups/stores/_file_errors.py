"""Explains a file system's errors: the store's error for each, and the remedy."""

from __future__ import annotations

import errno
import os

from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError, TransientError

_TRANSIENT_ERRNOS = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT})
_HINTS = {
    errno.EACCES: "Give this user write permission there.",
    errno.EDQUOT: "Free some space, or raise the quota.",
    errno.ENAMETOOLONG: "Use a shorter key.",
    errno.ENOTDIR: "A part of the key is an object already; use another key.",
    errno.ENOSPC: "Free some space on that disk.",
    errno.EPERM: "The file system must support hard links.",
    errno.EROFS: "Mount the disk writable.",
}


def explained(error: OSError, where: str, *, reading: bool) -> ClinicBackupsError:
    """The store's error. :param where: the object's URL."""
    number = error.errno or 0
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and reading:
        return ObjectNotFound(f"There is no object {where}.", hint="List the store to see what it has.")
    message = f"{where}: {os.strerror(number)}."
    if number in _TRANSIENT_ERRNOS:
        return TransientError(message, hint="Check the disk; then try again.")
    return PermanentError(message, hint=_HINTS.get(number, "Check the folder and its disk."))
