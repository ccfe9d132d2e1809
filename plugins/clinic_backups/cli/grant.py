"""``clinic-backups grant``: the rights that the clinics' application needs to read the view ``respaldo``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clinic_backups.catalog.respaldo_rights import RespaldoRights
from clinic_backups.cli.environment import parts

grant = typer.Typer(help="Rights of the clinics' application.", no_args_is_help=True)
MODEL = """\
-- The model of the application is `managed = False`, and finds the view by one of these:
--   db_table = '"clinic_backups"."respaldo"'     with the quotes; the role's search_path stays as it is
--   db_table = "respaldo"                        with clinic_backups in the role's search_path: --search-path
--   db_table = the name of a view of the same    made by --synonym SCHEMA.NAME"""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(grant, name="grant")


# Without this, Typer would fold the single command, and `grant respaldo` would become `grant`.
@grant.callback()
def rights() -> None:
    """Rights of the clinics' application."""


@grant.command()
def respaldo(
    to: Annotated[str, typer.Option("--to", help="The role that the application connects with.")],
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Run the statements as the role of backup_catalog; otherwise they are printed."),
    ] = False,
    synonym: Annotated[
        str | None, typer.Option(help="SCHEMA.NAME of a view of the same rows, if the model has another db_table.")
    ] = None,
    search_path: Annotated[
        bool,
        typer.Option("--search-path", help="Add the schema to the end of the role's search_path in this database."),
    ] = False,
) -> None:
    """Let a role read the backups through the view clinic_backups.respaldo.

    Deletes and updates that Django makes for on_delete succeed and change nothing. All other changes are refused.
    Locks that are taken through the view do not reach the catalog's tables.
    """
    wanted, catalog = RespaldoRights(to, synonym, search_path), parts().catalog
    catalog.require_newest()
    if apply:
        statements = wanted.apply(catalog.database)
    else:
        with catalog.database.transaction("asking for the database's name") as db:
            statements = wanted.statements(db)
    print(MODEL)
    for statement in statements:
        print(f"{statement};")
    if search_path and not any(statement.startswith("ALTER ROLE") for statement in statements):
        print(f"-- The search_path of {json.dumps(to)} already contains clinic_backups.")
    if apply:
        print("-- Done.")
