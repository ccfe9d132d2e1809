"""``clinic-backups doctor``: what is there, what is wrong, and the next commands."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from clinic_backups.app.doctor import Doctor
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import print_json, print_table, styled


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Look at settings, store, catalog, databases, keys and the newest backups, and print the next commands.

    Writes nothing, and needs no secret key. Exits with 1 if something has to be done.
    """
    found = Doctor(parts()).look()
    if json:
        print_json(asdict(found))
    else:
        rows = [(sight.part, styled(sight.state), escape(sight.said)) for sight in found.sights]
        print_table("Doctor", (("part", False), ("state", False), ("found", False)), rows)
        print(f"\n{found.situation}")
        for number, step in enumerate(found.steps, start=1):
            print(f"  {number}. {step}")
        if found.runbook:
            print(found.runbook)
    if not found.is_well:
        raise typer.Exit(1)
