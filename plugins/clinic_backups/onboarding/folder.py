"""Compares the files that init would write with those that the SQL folder has, and writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.extract import table_of

_MARK = "-- Written by clinic-backups init ({digest}). Once you change this file, init leaves it as it is.\n"
_MARKED = re.compile(r"-- Written by clinic-backups init \(([0-9a-f]{12})\)[^\n]*\n")
FileState = Literal["new", "changed", "same", "edited", "needless"]


@dataclass(frozen=True)
class PlannedFile:
    """One file of the SQL folder, and what init would do with it.

    :ivar name: relative to the folder.
    :ivar state: ``new``: it is written. ``changed``: init wrote it before, and writes it anew. ``same``: it is as
        init would write it. ``edited``: a person wrote or changed it, so it stays, and :attr:`text` is a proposal.
        ``needless``: init wrote it before, and removes it.
    """

    name: str
    text: str
    state: FileState


def plan(folder: Path, wanted: Mapping[str, str], once: Mapping[str, str]) -> list[PlannedFile]:
    """Compare with the folder.

    :param wanted: the text of each file that follows from the catalog, by its name.
    :param once: files that a person completes. They are written if they are missing, and not looked at otherwise.
    :raises SettingsError: a file cannot be read.
    """
    found = [_state(folder, name, marked(text)) for name, text in sorted(wanted.items())]
    found += [
        PlannedFile(name, text, "same" if (folder / name).exists() else "new") for name, text in sorted(once.items())
    ]
    for path in sorted([*folder.glob("extract/*.sql"), *folder.glob("parents/*.sql")]):
        name = str(path.relative_to(folder))
        if name not in wanted and is_ours(_read(path)):
            found.append(PlannedFile(name, "", "needless"))
    return found


def _state(folder: Path, name: str, text: str) -> PlannedFile:
    path = folder / name
    if not path.exists():
        return PlannedFile(name, text, "new")
    present = _read(path)
    if present == text:
        return PlannedFile(name, text, "same")
    return PlannedFile(name, text, "changed" if is_ours(present) else "edited")


def marked(text: str) -> str:
    """A text with the line that says that init wrote it."""
    return _MARK.format(digest=_digest(text)) + text


def is_ours(text: str) -> bool:
    """Whether init wrote this text, and nobody has changed it since."""
    mark = _MARKED.match(text)
    return mark is not None and mark[1] == _digest(text[mark.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read: {type(error).__name__}.", hint="Correct or remove the file."
        ) from None


def persons(folder: Path, subfolder: str) -> dict[str, str]:
    """The files of ``extract`` or ``parents`` that a person wrote or changed, by ``schema.table``."""
    texts = {table_of(path.name): _read(path) for path in sorted((folder / subfolder).glob("*.sql"))}
    return {table: text for table, text in texts.items() if not is_ours(text)}


def commented(folder: Path, subfolder: str, ending: str) -> frozenset[str]:
    """The tables for whose file init wrote a comment with this ending, in the line after its mark."""
    texts = {table_of(path.name): _read(path) for path in (folder / subfolder).glob("*.sql")}
    return frozenset(
        table for table, text in texts.items()
        if is_ours(text) and len(lines := text.split("\n", 2)) > 1 and lines[1].endswith(ending)
    )  # fmt: skip


def write(folder: Path, files: Iterable[PlannedFile], lines: Mapping[str, Iterable[str]]) -> None:
    """Write and remove the files, and append lines to others.

    :param lines: the lines to append, by the file's name.
    :raises SettingsError: the folder cannot be written.
    """
    try:
        for file in files:
            path = folder / file.name
            if file.state in ("new", "changed"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text, encoding="utf-8")
            elif file.state == "needless":
                path.unlink()
        for name, added in lines.items():
            if new := list(added):
                with (folder / name).open("a", encoding="utf-8") as opened:
                    opened.writelines(f"{line}\n" for line in new)
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be written: {error.strerror}.",
            hint="Set CLINIC_BACKUPS_SQL_DIR to a folder that you may write. Then run the command again.",
        ) from None
