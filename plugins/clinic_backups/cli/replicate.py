"""``clinic-backups replicate`` and ``verify``: the replicas of backups."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.errors import SettingsError, TransientError
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, human_size, print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(replicate)
    app.command()(verify)


def replicate(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic.")] = None,
    json: Json = False,
) -> None:
    """Make the replicas that stores lack: in further stores, and those that the primary store lost.

    Erasure requests are replicated, too.
    """
    with_parts = parts()
    if len(with_parts.stores.urls) == 1:
        raise SettingsError(
            "There is only one store.", hint="Add others to CLINIC_BACKUPS_REPLICA_STORES, see docs/stores.md."
        )
    require_known_clinic(with_parts, clinic)
    with Steps() as steps:
        replicator = with_parts.replicator(on_replica=lambda record, url: steps.step(f"{record.backup_id} to {url}"))
        done = replicator.run(clinic, patient=True)
        steps.step("erasure requests")
        unwritten = with_parts.forgotten_in_stores().write(with_parts.stores, clinic)
    if json:
        print_json([
            {"backup_id": each.backup_id, "store_url": each.store_url, "size_bytes": each.size_bytes,
             "error": each.error.message if each.error else None} for each in done.replicas
        ])  # fmt: skip
    else:
        columns = (("backup", False), ("store", False), ("stored", True), ("problem", False))
        rows = [
            (each.backup_id, escape(each.store_url), "" if each.error else human_size(each.size_bytes),
             escape(each.error.message) if each.error else "") for each in done.replicas
        ]  # fmt: skip
        print_table("Replicas", columns, rows)
    for loss in done.losses:
        errors.print(f"{loss.backup_id} is {loss.problem} in {escape(loss.store_url)}.")
    for url, error in unwritten:
        errors.print(f"[yellow]{escape(url)} lacks erasure requests:[/] {escape(error.message)}")
    if unwritten and not done.problems:
        raise TransientError(f"{len(unwritten)} stores lack erasure requests.", hint=unwritten[0][1].hint)
    if done.problems:
        _, first = done.problems[0]
        raise TransientError(f"{len(done.problems)} replicas could not be made.", hint=first.hint or "Try again.")


def verify(backup_id: str, json: Json = False) -> None:
    """Read every replica of a backup and of its chain; record what is lost, damaged or back. Needs no key.

    Exit code 1 if a replica is missing or damaged, 75 if something could not be checked.
    """
    with Steps() as steps:
        done = parts().verifier(listener=steps.listener).run(backup_id)
    if json:
        print_json([
            {"backup_id": each.backup_id, "store_url": each.store_url, "size_bytes": each.size_bytes,
             "condition": each.condition, "is_news": each.is_news, "error": each.error.message if each.error else None}
            for each in done.replicas
        ])  # fmt: skip
    else:
        columns = (("backup", False), ("store", False), ("size", True), ("is", False), ("recorded", False))
        rows = [
            (each.backup_id, escape(each.store_url), human_size(each.size_bytes), each.condition or "not known",
             "now" if each.is_news else "") for each in done.replicas
        ]  # fmt: skip
        print_table("Replicas", columns, rows)
    done.require_intact()
