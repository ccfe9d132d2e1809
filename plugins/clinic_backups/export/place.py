"""The place of an export: new, readable by this user alone, and either whole or not there."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from clinic_backups.archive.sealed_file import sealed_file
from clinic_backups.base import unfinished
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.unfinished import uninterrupted

COPY_BYTES = 1024 * 1024
ZIP = ".zip"


@contextmanager
def new_place(
    output: Path, *, is_folder: bool, recipients: Sequence[str] = (), password: str | None = None
) -> Iterator[Path]:
    """A path to write to, a folder or a file in a working folder beside ``output``. It becomes ``output`` at the end.

    :param recipients: if there are any, ``output`` is one encrypted file: of the file, or of a tar of the folder.
    :param password: ``output``, whose name ends with ``.zip``, is a zip that needs it to be opened.
    :raises SettingsError: ``output`` exists, or cannot be made.
    """
    if password is not None:
        inner = output.with_name(output.name.removesuffix(ZIP))
        with new_place(output, is_folder=False) as packed, _working_place(inner, is_folder=is_folder) as place:
            yield place
            _zip(place, packed, password)
        return
    if recipients:
        with sealed_file(output, recipients) as sealed, _working_place(output, is_folder=is_folder) as place:
            yield place
            if is_folder:
                with tarfile.open(fileobj=cast(IO[bytes], sealed), mode="w|") as tar:
                    tar.add(place, arcname="export", filter=_nameless)
            else:
                with place.open("rb") as file:
                    shutil.copyfileobj(file, sealed, COPY_BYTES)
        return
    try:
        _claim(output, is_folder=is_folder)
        with _working_place(output, is_folder=is_folder) as place:
            yield place
            if not is_folder:
                place.chmod(0o600)
            place.rename(output)  # over what was claimed, which is empty
            unfinished.finished(output)
    finally:
        unfinished.remove(output)


def _zip(place: Path, packed: Path, password: str) -> None:
    """AES-256, as WinZip describes it (https://www.winzip.com/en/support/aes-encryption/): 7-Zip and others open it.

    Names and sizes of the files in it can be read without the password.
    """
    # Imported here, because only exports for people need it.
    import pyzipper

    with pyzipper.AESZipFile(packed, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(password.encode())
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            archive.write(file, file.relative_to(place.parent))


def _nameless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who made the export is nobody's business."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _claim(output: Path, *, is_folder: bool) -> None:
    with uninterrupted():
        try:
            if is_folder:
                output.mkdir(0o700)
            else:
                os.close(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise SettingsError(
                f"{output} cannot be made: {error.strerror}.",
                hint="Give the path of something that does not exist yet, in a folder that exists.",
            ) from None
        unfinished.note(output)


@contextmanager
def _working_place(output: Path, *, is_folder: bool) -> Iterator[Path]:
    """In a folder on the same disk that only this user may open. It is gone afterwards."""
    work: Path | None = None
    try:
        with uninterrupted():
            work = Path(tempfile.mkdtemp(prefix=".export-", dir=output.parent))
            unfinished.note(work)
        place = work / output.name
        if is_folder:
            place.mkdir(0o700)
        yield place
    finally:
        if work is not None:
            unfinished.remove(work)
