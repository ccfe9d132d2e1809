"""``clinic-backups backup``, ``list`` and ``show``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.backup.choose_clinics import select
from clinic_backups.base.backup_record import BackupRecord, State
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.shared_unit import is_shared
from clinic_backups.base.text import one_line
from clinic_backups.catalog.fleet_moments import FleetMoment, fleet_moments
from clinic_backups.cli.back_up import BackingUp, Failure
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import (
    BACKUP_COLUMNS,
    TRY_AGAIN,
    backup_cells,
    errors,
    exit_code,
    print_error,
    print_future,
    print_gaps,
    print_json,
    print_table,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
STATES: tuple[State, ...] = get_args(State)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(backup)
    app.command("list")(list_)
    app.command()(show)


def backup(
    clinic: Annotated[
        list[Any] | None,
        typer.Option(parser=clinic_arg, metavar="ID", help="Id of a clinic, active or not; may be repeated."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All active clinics, and the shared data.")] = False,
    shared: Annotated[
        bool | None,
        typer.Option(
            "--shared/--no-shared",
            help="The shared data: what belongs to no clinic, sequences and the definition of the database.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="auto, full, or incremental if possible.")] = "auto",
    notes: Annotated[str, typer.Option(help="One line that is stored with the backup; no patients' data.")] = "",
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Back up even if something would be missing, and mark it incomplete.")
    ] = False,
    json: Json = False,
) -> None:
    """Back up clinics now, several of them at the same time. One clinic's failure does not stop the others."""
    if (bool(clinic) or bool(shared)) == every and not (every and shared):
        raise SettingsError("No clinic is given.", hint="Give --clinic ID, once or more, --shared, or --all.")
    with_parts = parts()
    if every or len(clinic or ()) > 1:
        with_parts.open_all()
    found = with_parts.find_clinics()
    active, all_clinics = found.active, found.every
    conf: dict[str, Any] = {"clinic_ids": clinic} if clinic else {}
    conf |= {"kind": kind, "notes": notes, "allow_gaps": allow_gaps}
    if shared is not None and not (every and shared):
        conf["shared"] = shared
    chosen = select(
        conf, active=active, every=all_clinics, shared=with_parts.shared_clinic,
        by_default=with_parts.settings.shared or bool(shared),
    )  # fmt: skip
    with_parts.require_settings(chosen.clinics)
    with_parts.see(active, all_clinics)
    outcomes = BackingUp(with_parts, chosen, quiet=json).run()
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    replicate_now(with_parts, [outcome.clinic_id for outcome in outcomes if isinstance(outcome, BackupRecord)])
    if problem := with_parts.deliver().problem:
        errors.print(f"Mail waits for a later run: {escape(problem)}")
    if json:
        print_json([outcome.to_json() for outcome in outcomes])
    else:
        records = [outcome for outcome in outcomes if isinstance(outcome, BackupRecord)]
        if records:
            print_table("Backups", BACKUP_COLUMNS, [backup_cells(record) for record in records])
        for record in records:
            print_gaps(record)
        for failure in failures:
            named = "" if is_shared(failure.clinic.id) else escape(in_words(f"Clinic {failure.clinic.id} "))
            errors.print(f"\n{named}{escape(one_line(failure.clinic.name))}:")
            print_error(failure.error)
    unusable = [each.error for each in found.unusable] if every else []
    for error in unusable:
        print_error(error)
    if failures or unusable:
        codes = {exit_code(error) for error in (*(failure.error for failure in failures), *unusable)}
        raise typer.Exit(TRY_AGAIN if codes == {TRY_AGAIN} else min(codes))


def list_(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only backups of this clinic.")] = None,
    state: Annotated[str | None, typer.Option(help=f"Only backups in this state: {', '.join(STATES)}.")] = None,
    run: Annotated[str | None, typer.Option(help="Only backups of this Airflow run.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show this many, the newest first; 50 by default, all with --run.")
    ] = None,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="For each of the last nights: are the shared data and all clinics there?")
    ] = False,
    nights: Annotated[int, typer.Option(min=1, max=400, help="With --fleet: look back so many days.")] = 14,
    json: Json = False,
) -> None:
    """List backups, the newest first."""
    if fleet:
        if clinic is not None or state is not None or run is not None:
            raise SettingsError(
                "--fleet is about all clinics.", hint="Leave out --clinic, --state and --run, or leave out --fleet."
            )
        _list_fleet(nights, json=json)
        return
    wanted: State | None = None
    if state is not None:
        wanted = next((known for known in STATES if known == state), None)
        if wanted is None:
            raise SettingsError(f"--state: {state!r} is unknown.", hint=f"Use one of {', '.join(STATES)}.")
    if limit is None and run is None:
        limit = 50
    known = parts().catalog
    found = known.find(clinic_id=clinic, state=wanted, run_id=run, limit=limit)
    if json:
        print_json([record.to_json() for record in found])
    else:
        print_table("Backups", BACKUP_COLUMNS, [backup_cells(record) for record in found])
        print_future(found, known.clock())


def _list_fleet(nights: int, *, json: bool) -> None:
    with_parts = parts()
    catalog, zone = with_parts.catalog, with_parts.settings.zone
    found = fleet_moments(catalog.database, zone, catalog.clock(), nights)
    if json:
        print_json([moment.to_json() for moment in found])
        return
    columns = (("day", False), ("whole", False), ("shared data", False), ("clinics", True), ("from", False),
               ("apart", True), ("missing", False))  # fmt: skip
    print_table(f"The last {nights} days, in {zone.key}", columns, [_fleet_cells(moment, zone) for moment in found])
    if any(not moment.is_whole for moment in found):
        print("A day that is not whole can be recovered only in part. Clinics without a backup have an older one.")


def _fleet_cells(moment: FleetMoment, zone: ZoneInfo) -> tuple[str, ...]:
    more = ", …" if moment.expected - moment.clinics > len(moment.missing) else ""
    return (
        moment.day.isoformat(),
        "[green]yes[/]" if moment.is_whole else "[red]no[/]",
        moment.shared_id or "[red]missing[/]",
        f"{moment.clinics:,} of {moment.expected:,}",
        f"{moment.first_at.astimezone(zone):%H:%M:%S}",
        str(timedelta(seconds=round(moment.apart.total_seconds()))),
        escape(", ".join(map(str, moment.missing)) + more),
    )


def show(backup_id: str, json: Json = False) -> None:
    """Show one backup: its stores and contents, and the error if it failed."""
    known = parts().catalog
    record = known.require(backup_id)
    if json:
        print_json(record.to_json())
        return
    plain = record.to_json()
    rows = plain.pop("rows")
    for name in ("key", "error", "hint", "gaps", "deletion"):
        plain.pop(name)
    print_table(
        f"Backup {escape(record.backup_id)}",
        (("", False), ("", False)),
        [(name, escape(_text(value))) for name, value in plain.items() if value not in (None, "", [])],
    )
    if rows:
        print_table("Rows", (("table", False), ("rows", True)), [(escape(t), f"{n:,}") for t, n in rows.items()])
    print_gaps(record)
    print_future([record], known.clock())
    for proof in record.deletion:
        known_as = f" (store {proof['store_id']})" if proof["store_id"] else ""
        print(f"Deleted from {proof['store_url']}{known_as}, which had no object of it at {proof['at']}.")
    if record.error:
        print_error(ClinicBackupsError(*record.error.split("\n"), hint=record.hint or ""))


def replicate_now(with_parts: Parts, clinic_ids: list[ClinicId]) -> None:
    """Replicate to the further stores. A replica that failed is made later; the backups are complete without it."""
    if len(with_parts.stores.urls) == 1:
        return
    replicator = with_parts.replicator(
        on_replica=lambda record, url: errors.print(f"[dim]… replicating {record.backup_id} to {escape(url)}[/]")
    )
    for clinic_id in clinic_ids:
        done = replicator.run(clinic_id)
        for replica, error in done.problems:
            errors.print(f"{replica.backup_id} is not in {escape(replica.store_url)} yet: {escape(error.message)}")


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
