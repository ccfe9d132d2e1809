"""``clinic-backups erase-clinic`` and ``erasures``: for clinics that left."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.clock import require_same_clock
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError, TransientError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.retention_rules import Decision
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.catalog.erasures import Erasure
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import errors, human_size, print_json, print_table
from clinic_backups.maintenance.holds import require_reason

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("erase-clinic")(erase_clinic)
    app.command()(erasures)


def erase_clinic(
    clinic: Annotated[Any, typer.Argument(parser=clinic_arg, metavar="ID", help="Id of the clinic.")],
    reason: Annotated[str, typer.Option(help="The reason, for instance the contract's number; it is kept.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ignore_unknown_holds: Annotated[
        bool,
        typer.Option("--ignore-unknown-holds", help="Ignore hold notes in the stores that the catalog did not write."),
    ] = False,
    json: Json = False,
) -> None:
    """Delete all backups of a clinic that left, in all stores, with every version of them.

    Backups on hold or locked stay, and the weekly retention continues until nothing is left. Only one line with counts
    and dates remains. The clinic's rows in the application's database are not touched.
    """
    reason = require_reason(reason)
    with_parts = parts()
    if is_shared(clinic):
        raise SettingsError(
            "The shared data belong to no clinic that could leave.",
            hint="Retention deletes their expired backups. Name the clinic that left.",
        )
    active, _ = with_parts.clinics()
    if any(found.id == clinic for found in active):
        raise PermanentError(
            f"Clinic {clinic} is active and would be backed up again tonight.",
            hint="Deactivate it in the application first.",
        )
    _show_unknown_holds(with_parts, clinic, ignored=ignore_unknown_holds)
    _require_confirmation(with_parts, clinic, yes=yes)
    require_same_clock(with_parts.clock)
    by = f"{getpass.getuser()} (command line)"
    with_parts.erasures().request(
        clinic, reason=reason, by=by, at=with_parts.clock(), ignore_unknown_holds=ignore_unknown_holds
    )  # fmt: skip
    (cleaned,) = with_parts.cleaner().run(clinic_id=clinic)
    if cleaned.erasure is None:
        raise TransientError(
            f"The erasure is recorded but not begun: {cleaned.problem}", hint="The weekly retention will do it."
        )
    if json:
        print_json(cleaned.erasure.to_json())
    else:
        _show([cleaned.erasure])
        _show_rest(with_parts, [decision for decision in cleaned.decisions if decision.keep])
    if cleaned.problem:
        raise TransientError(cleaned.problem, hint=f"{cleaned.hint} The weekly retention continues the erasure.")


def erasures(json: Json = False) -> None:
    """List the clinics that were erased, or are being erased."""
    found = parts().erasures().find()
    if json:
        print_json([erasure.to_json() for erasure in found])
    else:
        _show(found)


def _show_rest(with_parts: Parts, kept: list[Decision]) -> None:
    """Print the remaining backups and the secret keys that open them. Without these keys nobody can read them."""
    for decision in kept:
        errors.print(f"{decision.backup.backup_id} stays: {escape(decision.reason)}")
    keys = dict.fromkeys(key for decision in kept for key in decision.backup.recipients)
    if not keys:
        return
    errors.print(f"The secret key of any of these opens the remaining backups: {escape(', '.join(keys))}.")
    clinic_id, settings = kept[0].backup.clinic_id, with_parts.settings
    others = {key for other, own in settings.clinic_recipients.items() if other != clinic_id for key in own}
    others |= {*settings.recipients, *with_parts.catalog.recipients_of_others(clinic_id)}
    if shared := [key for key in keys if key in others]:
        errors.print(in_words(f"Other clinics' backups need {escape(', '.join(shared))}. Do not destroy it."))
    else:
        errors.print(
            in_words(
                "No other clinic's backup needs them. If they are destroyed, nobody can read the remaining backups."
            )
        )


def _show_unknown_holds(with_parts: Parts, clinic: ClinicId, *, ignored: bool) -> None:
    """Print unknown hold notes.

    Anybody who may write to a store can put one there, so the user decides if it counts.
    """
    found = 0
    try:
        for record, where, hold in with_parts.cleaner().unknown_holds(clinic):
            found += 1
            errors.print(f"{record.backup_id}, {escape(where)}: on hold: {escape(hold.said)}")
    except ClinicBackupsError as error:
        # The erasure is recorded anyway. It deletes nothing while a store does not answer.
        errors.print(f"Not all stores could be asked for hold notes: {escape(error.message)}")
    if found and ignored:
        errors.print("These notes are ignored: their backups are deleted.")
    elif found:
        errors.print("The backups of these notes stay. If nobody needs them: --ignore-unknown-holds.")


def _require_confirmation(with_parts: Parts, clinic: ClinicId, *, yes: bool) -> None:
    records = with_parts.catalog.find(clinic_id=clinic)
    there = [record for record in records if record.state in ("completed", "lost", "deleting")]
    said = in_words(f"{len(there)} backups of clinic {clinic} are to be deleted for good, {_size(there)}.")
    errors.print(escape(said))
    for record in there:
        if record.hold_reason:
            errors.print(f"{record.backup_id} is on hold and stays: {escape(record.hold_reason)}")
        elif record.locked_until and record.locked_until > with_parts.clock():
            errors.print(
                f"{record.backup_id} stays if a store keeps it locked, until {iso(record.locked_until)} at most"
            )
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError("Nobody can confirm this: there is no terminal.", hint="Give --yes.")
    if typer.prompt(in_words("Write the clinic's id once more to delete them"), err=True) != str(clinic):
        raise ClinicBackupsError(f"That is not the id {clinic}. Nothing was deleted.")


def _size(records: list[BackupRecord]) -> str:
    return human_size(sum(record.size_bytes or 0 for record in records)) + " in each store"


def _show(found: list[Erasure]) -> None:
    columns = (
        ("clinic", True), ("asked for", False), ("by", False), ("reason", False), ("deleted", True), ("size", True),
        ("first", False), ("last", False), ("left", True), ("done", False),
    )  # fmt: skip
    rows = [
        (
            escape(str(erasure.clinic_id)), _moment(erasure.requested_at), escape(erasure.requested_by),
            escape(erasure.reason),
            str(erasure.backups), human_size(erasure.size_bytes), _moment(erasure.first_backup_at),
            _moment(erasure.last_backup_at), str(erasure.remaining), _moment(erasure.finished_at),
        )
        for erasure in found
    ]  # fmt: skip
    print_table("Erasures", columns, rows)
    for erasure in found:
        for item in erasure.evidence:
            known_as = f" (store {item['store_id']})" if item["store_id"] else ""
            clinic = in_words(f"Clinic {erasure.clinic_id}")
            print(
                f"{clinic} in {item['store_url']}{known_as}: {item['deleted']} objects deleted,"
                f" {item['left']} left, listed at {item['listed_at']}."
            )


def _moment(moment: datetime | None) -> str:
    return iso(moment.replace(microsecond=0)) if moment else ""
