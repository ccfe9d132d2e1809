"""``clinic-backups drill``: restore newest backups into a throw-away database, and prove them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.shared_unit import SHARED_ID, named
from clinic_backups.catalog.proofs import ProofRecord
from clinic_backups.cli.certificate import COLUMNS, cells
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, print_json, print_table, show_stores
from clinic_backups.drill.unit import Drilled


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(drill)


def drill(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Only the shared data.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Those whose turn it is tonight, as the DAG does.")] = False,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Restore the newest backup of a clinic into a throw-away PostgreSQL, read it again, and record the proof.

    It never touches the clinics' database, and needs the secret key. Exit code 1 if a backup is not proven. The
    operator gets a mail, too.
    """
    if sum((clinic is not None, shared, due)) != 1:
        raise SettingsError("Give one of --clinic ID, --shared and --due.", hint="--due is what the nightly DAG does.")
    with_parts = parts()
    steps, done = Steps(), list[ProofRecord]()
    require_known_clinic(with_parts, clinic)
    amounts = dict[str, Any]()

    def note(proof: ProofRecord, drilled: Drilled) -> None:
        done.append(proof)
        amounts[proof.backup_id] = dict(drilled.amounts)

    # Before anything else: without the key it fails.
    drills = with_parts.drills(identity, listener=steps.listener, on_proof=note)
    units = [turn.candidate.clinic_id for turn in with_parts.due_drills()] if due else [SHARED_ID if shared else clinic]
    with steps:
        try:
            if units:
                drills.run(units)
        finally:
            with_parts.deliver()
    if json:
        print_json([proof.to_json() | {"sums": amounts[proof.backup_id]} for proof in done])
    else:
        print_table("Drills", COLUMNS, [cells(proof) for proof in done])
    show_stores(with_parts.stores_read, only_if_bad=True)
    failed = [proof for proof in done if not proof.is_good]
    for proof in failed:
        errors.print(f"[red]{escape(named(proof.clinic_id))}:[/] {escape(proof.error or '')}")
        errors.print(f"HINT: {escape(proof.hint or '')}")
    if failed:
        raise PermanentError(
            f"{len(failed)} of {len(done)} backups are not proven.",
            hint="docs/drills.md says what to do for each error.",
        )
