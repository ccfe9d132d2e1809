"""``clinic-backups init-project``: the files of a team's own Airflow project."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from clinic_backups.cli.output import errors, print_json
from clinic_backups.onboarding import project


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("init-project")(init_project)


def init_project(
    folder: Annotated[Path, typer.Argument(help="The folder of your Airflow project.")],
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Write nothing. Exit 1 if a file is missing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write dags/, include/sql and .env.example into your own Airflow project. What is there stays as it is.

    Where include/sql/active_clinics.sql is, nothing is added to include/sql: it is for your own tables.
    Then set CLINIC_BACKUPS_SQL_DIR to the project's include/sql, and run `clinic-backups init` for your own schema.
    """
    files = project.make(folder, check_only=check_only)
    counted = Counter(file.outcome for file in files)
    missing = check_only and counted["written"] > 0
    if json:
        print_json([{"path": file.path, "outcome": _outcome(file, check_only=check_only)} for file in files])
        raise typer.Exit(1 if missing else 0)
    for file in files:
        if file.outcome not in ("kept", "left out"):
            errors.print(f"{_outcome(file, check_only=check_only):<8} {escape(file.path)}")
    if counted["differs"]:
        errors.print("Files that differ are yours, or of an earlier version: nothing was changed in them.")
        errors.print("To get the package's, move them away and run this again.")
    if counted["left out"]:
        errors.print(f"{counted['left out']} files of the example were left out: include/sql is yours already.")
    done = "are missing" if check_only else "were written"
    print(f"{counted['written']} files {done}, {counted['kept'] + counted['differs']} were there.")
    if not check_only:
        print(f"Next: set CLINIC_BACKUPS_SQL_DIR to {folder.resolve() / 'include' / 'sql'}, and read docs/install.md.")
    raise typer.Exit(1 if missing else 0)


def _outcome(file: project.ProjectFile, *, check_only: bool) -> str:
    return "missing" if check_only and file.outcome == "written" else file.outcome
