"""``clinic-backups consolidate``: an incremental and its chain as one full backup, from the store and the key alone."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from clinic_backups.cli.backups import copy_now
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, human_size, print_json


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(consolidate)


def consolidate(
    backup_id: str,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a full backup out of an incremental one and what it is built on; the clinics' database is not read."""
    with_parts, steps = parts(), Steps()
    consolidation = with_parts.consolidation(identity, listener=steps.listener)
    with steps:
        done = consolidation.run(backup_id, requested_by=f"{getpass.getuser()} (command line)")
    record = done.record
    copy_now(with_parts, [record.clinic_id])
    if not done.verified:
        errors.print("It was not read back: this identity opens none of the public keys that the settings name now.")
    if json:
        print_json(record.to_json())
        return
    size = human_size(record.size_bytes)
    print(f"{record.backup_id} is a full backup with the content of {backup_id}: {record.rows_total:,} rows, {size}.")
    print(f"It needs no other: retention can let {backup_id} and what that is built on go now, as the policy says.")
