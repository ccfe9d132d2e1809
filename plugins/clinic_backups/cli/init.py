"""``clinic-backups init``: the SQL folder for a schema that the package has never seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.markup import escape

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.project import IS_CHECKOUT, PROJECT_SQL
from clinic_backups.base.text import one_line
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import errors, print_json, print_table
from clinic_backups.onboarding import init as onboarding
from clinic_backups.onboarding import polymorphic
from clinic_backups.onboarding.classes import MEANING
from clinic_backups.onboarding.folder import FileState
from clinic_backups.onboarding.init import InitPlan, Wanted
from clinic_backups.tenant.declarations import FILE, spelled
from clinic_backups.tenant.tenant_db import Snapshot

_DONE: Mapping[FileState, str] = {"new": "written", "changed": "written anew", "needless": "removed"}
_OPEN: Mapping[FileState, str] = {"new": "missing", "changed": "not up to date", "needless": "not needed any more"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(init)


def init(
    tenant: Annotated[
        str | None,
        typer.Option(help="The table whose rows are the tenants, as schema.table. Needed the first time."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Its column that identifies a tenant. Default: the primary key.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its column with the tenant's name for people.")] = None,
    active: Annotated[
        str, typer.Option(help="The tenants that the schedule backs up, as a condition in SQL: 'deleted_at IS NULL'.")
    ] = "",
    parent: Annotated[
        list[str] | None,
        typer.Option(help="A parent table, although a column of it names a tenant. May be repeated."),
    ] = None,
    check_only: Annotated[
        bool,
        typer.Option("--check-only", help="Write nothing. Exit 1 if a table is not classified, or a file is missing."),
    ] = False,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="Print what init would write instead of each file that a person wrote.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Write the SQL folder for any schema: an extract for each table of tenants, by PostgreSQL's catalog alone.

    Reads no row. Never overwrites a file that a person wrote or changed. Run it again after a migration: it shows what
    is new. Needs the connection clinic_db, and writes to the folder of CLINIC_BACKUPS_SQL_DIR.
    """
    with_parts = parts()
    folder = with_parts.settings.sql_dir
    if folder == PROJECT_SQL and not IS_CHECKOUT and not check_only:
        raise SettingsError(
            "CLINIC_BACKUPS_SQL_DIR is not set, so the SQL would be written into the installed package, and lost with"
            " the next version.",
            hint="Nothing was written. Make a folder with `clinic-backups init-project FOLDER`, and set"
            " CLINIC_BACKUPS_SQL_DIR to its include/sql.",
        )
    with Snapshot(with_parts.clinic_db) as snapshot:
        found = onboarding.plan(snapshot, folder, Wanted(tenant, key, name, active, tuple(parent or ())))
    if not check_only:
        onboarding.apply(folder, found)
    if json:
        print_json(_as_json(found))
    else:
        _show(found, str(folder), is_written=not check_only)
        if proposals:
            for file in found.files:
                if file.state == "edited":
                    print(f"\n-- {one_line(file.name)}\n{file.text}")
    if check_only and not found.is_settled:
        raise PermanentError(
            "The SQL folder does not cover this schema.",
            hint="Run `clinic-backups init` without --check-only, and add the lines that it proposes.",
        )


def _as_json(found: InitPlan) -> dict[str, object]:
    return {
        "tenant_table": found.tenant.table,
        "key": found.tenant.key,
        "key_type": found.tenant.type,
        "tables": [
            {"table": each.table, "class": each.table_class, "reason": each.reason, "by": each.by}
            for each in found.choices
        ],
        "files": [{"file": file.name, "state": file.state} for file in found.files],
        "lines": list(found.lines),
        "settled": found.is_settled,
    }


def _show(found: InitPlan, folder: str, *, is_written: bool) -> None:
    rows = [
        (escape(spelled(each.table)), each.table_class, escape(one_line(each.reason)), each.by)
        for each in found.choices
    ]
    print_table("Tables", (("table", False), ("class", False), ("reason", False), ("said by", False)), rows)
    counts = Counter(each.table_class for each in found.choices)
    for name, meaning in MEANING.items():
        if counts[name]:
            errors.print(f"{counts[name]:>5} {name}: {meaning}")
    words = _DONE if is_written else _OPEN
    states = Counter(file.state for file in found.files)
    for state, word in words.items():
        names = [file.name for file in found.files if file.state == state]
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            errors.print(f"{states[state]:>5} files {word} in {escape(folder)}: {escape(shown)}")
    if states["edited"]:
        errors.print(
            f"{states['edited']:>5} files stay as a person wrote them; --proposals prints what init would write"
        )
    if found.lines and not is_written:
        errors.print(f"\nThese lines are missing in {FILE}:")
        print("\n".join(found.lines))
    if found.unknown:
        errors.print(
            f"\n[yellow]Nobody has said whose rows these {len(found.unknown)} tables hold.[/] Until somebody does,"
            f" `clinic-backups check` fails. Write an extract, or a line in {FILE} with the reason. If a pair of"
            f" columns leads to tenants, write it into {polymorphic.FILE} and run init again."
        )
        for each in found.unknown:
            print(f"{FILE}: {spelled(each.table)}: shared, …")
            for line in found.pairs.get(each.table, ()):
                print(f"{polymorphic.FILE}: {line}")
    elif is_written:
        errors.print("\nNext: run grants.sql with psql, then `clinic-backups check`.")
