"""``clinic-backups forget``: rows that no restore may bring back, for erasure requests of single persons."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from clinic_backups.app import Parts
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import print_json, print_table
from clinic_backups.cli.row_param import named_rows
from clinic_backups.maintenance.holds import require_reason

COLUMNS = (("number", True), ("clinic", True), ("table", False), ("forgotten", False), ("by", False), ("reason", False))


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("forget")(forget)


def forget(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Id of the clinic.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="TABLE:KEY[,KEY…]", help="These rows; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason; it is kept. No names, no patients' data.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="List what was forgotten, when, by whom and why.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Record rows that no later restore may bring back, with all that belongs to them. It cannot be taken back.

    Needs only the catalog, which keeps a keyed hash instead of the key. Delete the rows in the application yourself:
    this command deletes nothing.
    """
    with_parts = parts()
    if listed:
        if rows or reason:
            raise SettingsError("--list was given with --rows or --reason.", hint="Give one or the other.")
        _list(with_parts, clinic, json=json)
        return
    keys = named_rows(rows or [])
    if clinic is None or not keys:
        raise SettingsError(
            "No row is named." if not keys else "No clinic is named.",
            hint="For instance: --clinic 7 --rows public.usuarios_paciente:43 --reason TEXT. Or give --list.",
        )
    reason, by = require_reason(reason), f"{getpass.getuser()} (command line)"
    require_known_clinic(with_parts, clinic)
    _require_known_tables(with_parts, clinic, list(keys))
    numbers = with_parts.forgotten.add(clinic, keys, by=by, reason=reason)
    if json:
        print_json([each.to_json() for each in with_parts.forgotten.find(clinic) if each.number in numbers])
        return
    many = len(numbers) > 1
    print(
        in_words(
            f"{len(numbers):,} {'rows' if many else 'row'} of clinic {clinic} will not come back in a restore, and"
            f" nothing that belongs to {'them' if many else 'it'}. Plans that were made before are no longer valid."
        )
    )
    print("Delete the rows in the application, if that is not done. Kept backups hold them until they expire.")


def _list(with_parts: Parts, clinic: ClinicId | None, *, json: bool) -> None:
    found = with_parts.forgotten.find(clinic)
    if json:
        print_json([each.to_json() for each in found])
        return
    print_table(
        "Rows that must not come back",
        COLUMNS,
        [(str(each.number), str(each.clinic_id), each.table, iso(each.at.replace(microsecond=0)), each.by,
          one_line(each.reason)) for each in found],
    )  # fmt: skip


def _require_known_tables(with_parts: Parts, clinic: ClinicId, tables: list[str]) -> None:
    """:raises PermanentError: no backup has such a table, so nothing would ever be left out."""
    known = {name for record in with_parts.catalog.find(clinic_id=clinic, state="completed") for name in record.rows}
    for name in tables:
        if name not in known:
            raise PermanentError(
                f"No backup of clinic {clinic} has a table {one_line(name)[:120]}.",
                hint="Nothing was recorded. Give the table with its schema, as `clinic-backups restore --plan` shows"
                " it. For instance: --rows public.usuarios_paciente:43",
            )
