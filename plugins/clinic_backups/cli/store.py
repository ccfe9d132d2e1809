"""``clinic-backups store``: the identities of the stores."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.plain import iso
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import errors, print_error, print_json, print_table
from clinic_backups.maintenance.store_init import Initialised, StoreInit
from clinic_backups.stores.configured import canonical

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
store = typer.Typer(help="The stores' identities.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(store, name="store")


@store.command("init")
def init(
    store: Annotated[
        str | None, typer.Option(help="URL or connection of one store; by default all stores of the settings.")
    ] = None,
    connection: Annotated[
        str, typer.Option(help="Airflow connection for a store that is not in the settings.")
    ] = "backup_store",
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Accept a store with another marker, or one that lacks backups of the catalog.",
        ),
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Accept an empty store although this catalog was rebuilt.")
    ] = False,
    json: Json = False,
) -> None:
    """Give each store its identity once: a marker in the store, whose id the catalog records.

    A store that holds backups of this catalog is adopted. In a store without its marker, nothing is written, deleted or
    reported missing. May be repeated.
    """
    with_parts = parts()
    with_parts.catalog.require_newest()
    initialise = StoreInit(with_parts.catalog, with_parts.clock, f"{getpass.getuser()} (command line)")
    done: list[Initialised] = []
    failed: list[ClinicBackupsError] = []
    for url in _urls(with_parts, store):
        try:
            done.append(initialise.run(with_parts.bare_store(url, connection), take_over=take_over, new=new))
        except ClinicBackupsError as error:
            failed.append(error)
    if json:
        print_json([each.to_json() for each in done])
    elif done:
        columns = (("store", False), ("id", False), ("made", False), ("now", False))
        rows = [(escape(each.identity.store_url), each.identity.store_id, _moment(each), each.outcome) for each in done]
        print_table("Stores", columns, rows)
    for each in done:
        if each.outcome == "made":
            errors.print(
                f"{escape(each.identity.store_url)} was empty: no marker and no backup. That is right for a new store."
                " If backups should be there, it is the wrong place or not mounted: mount it, or correct the URL; then"
                " `clinic-backups store init --take-over` and `clinic-backups catalog rebuild`."
            )
    for other in failed[1:]:
        print_error(other)
    if failed:
        raise failed[0]


@store.command("list")
def list_(json: Json = False) -> None:
    """List the stores in the catalog, with the ids that their markers must have."""
    found = parts().identities.find()
    if json:
        print_json([identity.to_json() for identity in found])
        return
    columns = (("store", False), ("id", False), ("recorded", False), ("by", False))
    rows = [
        (escape(each.store_url), each.store_id, iso(each.recorded_at.replace(microsecond=0)), escape(each.recorded_by))
        for each in found
    ]
    print_table("Stores", columns, rows)


def _urls(with_parts: Parts, wanted: str | None) -> tuple[str, ...]:
    if wanted is None:
        return with_parts.bare_stores.urls
    if "://" in wanted:
        return (canonical(wanted),)
    named = with_parts.bare_stores.connections
    if wanted not in named:
        raise SettingsError(
            f"--store: {wanted!r} is neither a URL nor a connection of the settings' stores.",
            hint=f"Use one of {', '.join(named)}.",
        )
    return (named[wanted],)


def _moment(done: Initialised) -> str:
    return iso(done.identity.made_at.replace(microsecond=0))
