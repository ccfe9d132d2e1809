"""``clinic-backups retention``, ``hold``, ``release`` and ``accept``."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.errors import TransientError
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, print_json, print_table
from clinic_backups.maintenance.retention_result import Cleaned

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(retention)
    app.command()(hold)
    app.command()(release)
    app.command()(accept)


def retention(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which backups would be deleted, and why the others stay.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete the backups that the policy does not keep. The last good backup of a clinic is never deleted."""
    with_parts = parts()
    require_known_clinic(with_parts, clinic)
    cleaner = with_parts.cleaner()
    results: list[Cleaned] = []
    with Steps() as steps:
        for result in cleaner.run(clinic_id=clinic, dry_run=dry_run):
            results.append(result)
            steps.step(f"clinic {result.clinic_id}: {result.deleted} deleted, {result.kept} stay")
    if not dry_run and clinic is None:
        cleaner.forget_old()
    rows = [
        (decision.backup.backup_id, "keep" if decision.keep else "delete", decision.reason)
        for result in results
        for decision in result.decisions
    ]
    if json:
        print_json([{"backup_id": backup, "decision": decision, "reason": why} for backup, decision, why in rows])
    else:
        title = "Retention, dry run" if dry_run else "Retention"
        print_table(
            title, (("backup", False), ("decision", False), ("reason", False)), [map(escape, row) for row in rows]
        )
        if not dry_run:
            print(f"{sum(result.deleted for result in results)} backups were deleted.")
    for loss in (loss for result in results for loss in result.losses):
        errors.print(f"{loss.backup_id} is {loss.problem} in {escape(loss.store_url)}.")
    problems = [result for result in results if result.problem]
    for result in problems:
        errors.print(f"Clinic {escape(str(result.clinic_id))}: {escape(result.problem)}\nHINT: {escape(result.hint)}")
    if problems:
        raise TransientError(
            f"{len(problems)} clinics were not cleaned.", hint="Run it again. It continues where it stopped."
        )


def hold(
    backup_id: str,
    reason: Annotated[str, typer.Option(help="The reason, for instance a lawsuit's number; no patients' data.")],
) -> None:
    """Keep a backup until it is released, whatever the policy says. If it is already on hold, this is refused."""
    held = parts().holds().hold(backup_id, reason, f"{getpass.getuser()} (command line)")
    print(f"{held.backup_id} is on hold: {held.hold_reason}")


def accept(
    backup_id: str,
    reason: Annotated[str, typer.Option(help="Why the backup is right although suspect; no patients' data.")],
) -> None:
    """Accept a suspect backup: it counts as good again, and later backups may be built on it."""
    accepted = parts().holds().accept(backup_id, reason, f"{getpass.getuser()} (command line)")
    print(f"{accepted.backup_id} is accepted. It was suspect: {one_line(accepted.suspect or '')}")


def release(backup_id: str) -> None:
    """End a hold: from now on the policy decides again."""
    released = parts().holds().release(backup_id, f"{getpass.getuser()} (command line)")
    until = f" It was promised until {iso(released.expires_at)}." if released.expires_at else ""
    print(f"{released.backup_id} is released.{until}")
