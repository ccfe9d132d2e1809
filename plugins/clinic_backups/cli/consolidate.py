"""``clinic-backups consolidate``: makes one full backup from an incremental and its chain, with store and key only."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from clinic_backups.base.plain import iso
from clinic_backups.cli.backups import replicate_now
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, human_size, print_json
from clinic_backups.maintenance.forgotten_places import places_of
from clinic_backups.tenant.extract import SqlFolder


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(consolidate)


def consolidate(
    backup_id: str,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a full backup from an incremental one and its chain, without reading the clinics' database."""
    with_parts, steps = parts(), Steps()
    consolidation = with_parts.consolidation(identity, listener=steps.listener)
    with steps:
        done = consolidation.run(backup_id, requested_by=f"{getpass.getuser()} (command line)")
    record = done.record
    replicate_now(with_parts, [record.clinic_id])
    if not done.verified:
        errors.print("It was not read back: this identity opens none of the public keys in the settings.")
    if json:
        print_json(record.to_json())
        return
    size = human_size(record.size_bytes)
    print(f"{record.backup_id} is a full backup with the content of {backup_id}: {record.rows_total:,} rows, {size}.")
    drift = SqlFolder(with_parts.settings.sql_dir).drift()
    if held := [each for each in with_parts.forgotten.find(record.clinic_id) if places_of(each, [record], drift)]:
        end = f"until {iso(record.expires_at.replace(microsecond=0))}" if record.expires_at else "as long as it is kept"
        print(
            f"It may hold rows of {len(held):,} erasure requests, as the backup before did, {end}. Restores leave them"
            " out. `clinic-backups forget --list` says where they may lie."
        )
    print(f"It needs no other backup. Retention can now delete {backup_id} and its chain, as the policy says.")
