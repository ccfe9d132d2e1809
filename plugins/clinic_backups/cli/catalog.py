"""``clinic-backups catalog``: the catalog itself, and its comparison with the stores."""

from __future__ import annotations

from typing import Annotated

import typer

from clinic_backups.base.errors import PermanentError
from clinic_backups.cli.catalog_rebuild import rebuild
from clinic_backups.cli.catalog_verify import verify
from clinic_backups.cli.environment import parts
from clinic_backups.stores.configured import canonical


def register(app: typer.Typer) -> None:
    """Add the commands of this module, and ``verify`` and ``rebuild``, which have modules of their own."""
    catalog = typer.Typer(help="The catalog of backups.", no_args_is_help=True)
    catalog.command()(migrate)
    catalog.command()(verify)
    catalog.command()(rebuild)
    catalog.command("forget-store")(forget_store)
    app.add_typer(catalog, name="catalog")


def migrate() -> None:
    """Bring the catalog's schema to the newest version."""
    with_parts = parts()
    print(f"The catalog has version {with_parts.catalog.migrate()}.")
    if with_parts.settings.store_url:
        # Before there were further stores, the stores of backups were not recorded.
        with_parts.replicas().adopt(with_parts.stores.urls[0], with_parts.clock())


def forget_store(
    url: Annotated[str, typer.Argument(help="URL of the abandoned store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a store from the catalog, but not its objects. Backups that were only there become lost."""
    with_parts, store_url = parts(), canonical(url)
    if store_url in with_parts.stores.urls:
        raise PermanentError(
            f"{store_url} is a store of the settings.",
            hint="Remove it from the settings first, or replicas will be made again.",
        )
    if not yes:
        typer.confirm(f"Remove all replicas in {store_url} from the catalog?", abort=True, err=True)
    print(f"{with_parts.replicas().forget_store(store_url)} replicas in {store_url} were removed from the catalog.")
