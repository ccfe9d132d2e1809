"""Makes a team's own Airflow project: DAG files, the SQL folder, and the example of the settings.

What is there stays, whoever wrote it: an upgrade of the package replaces nothing of a team's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.project import DAG_IDS, ENV_EXAMPLE, PROJECT_SQL

Outcome = Literal["written", "kept", "differs", "left out"]
"""written: it is new. kept: it is as the package would write it. differs: the team has another one, which stays.
left out: a file of the example's SQL, and the team has an SQL folder of its own."""
SQL = "include/sql/"
LAST = f"{SQL}active_clinics.sql"
"""The last file of the SQL folder that is written. Where it is, the folder is whole, and it is the team's: an extract
that is not in it belongs to the example's tables, and backups would fail because these do not exist."""


DAG_FILE = '''"""The Airflow DAG {dag_id}, from the package."""

from clinic_backups.dags import dag_of

dag = dag_of("{dag_id}")
'''
"""Airflow looks only at files that mention it and DAGs."""


@dataclass(frozen=True)
class ProjectFile:
    """One file of a project, by its path in the project's folder."""

    path: str
    outcome: Outcome


def make(folder: Path, *, check_only: bool = False) -> list[ProjectFile]:
    """Write the files that are not there yet. Returns all of them.

    :param check_only: write nothing.
    :raises SettingsError: the folder is the package's own repository, or a file.
    :raises PermanentError: a file cannot be written.
    """
    if PROJECT_SQL.is_relative_to(folder.resolve()):
        raise SettingsError(
            f"{folder} is the repository of clinic-backups itself, which is a project as it stands.",
            hint="Give the folder of your own Airflow project.",
        )
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder.", hint="Give the folder of your Airflow project.")
    has_sql = (folder / LAST).is_symlink() or (folder / LAST).exists()
    return [
        _file(folder, path, text, check_only=check_only, left_out=has_sql and path.startswith(SQL))
        for path, text in _wanted()
    ]


def _wanted() -> Iterator[tuple[str, bytes]]:
    for dag_id in DAG_IDS:
        yield f"dags/{dag_id}.py", DAG_FILE.format(dag_id=dag_id).encode()
    sources = {f"{SQL}{source.relative_to(PROJECT_SQL).as_posix()}": source for source in PROJECT_SQL.rglob("*")}
    for path in sorted(sources, key=lambda path: (path == LAST, path)):
        if sources[path].is_file():
            yield path, sources[path].read_bytes()
    yield ".env.example", ENV_EXAMPLE.read_bytes()


def _file(folder: Path, path: str, text: bytes, *, check_only: bool, left_out: bool) -> ProjectFile:
    target = folder / path
    try:
        if target.is_symlink() or target.exists():
            return ProjectFile(path, "kept" if target.is_file() and target.read_bytes() == text else "differs")
        if left_out:
            return ProjectFile(path, "left out")
        if not check_only:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Exclusively: another process, or a link, must not be written over.
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.write(text)
    except OSError as error:
        raise PermanentError(
            f"{target} cannot be written: {error.strerror}.",
            hint="Run it again afterwards: what is there stays.",
        ) from None
    return ProjectFile(path, "written")
