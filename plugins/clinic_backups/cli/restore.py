"""``clinic-backups restore``: needs only the database, the store and the key; Airflow may be down."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.clock import machine_now
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, print_json, show_stores
from clinic_backups.cli.row_param import named_rows, named_tables
from clinic_backups.restore.archives import Source
from clinic_backups.restore.clinic_restore import ClinicRestore, refused
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.plan_text import as_lines, left_as_they_are, undo_command
from clinic_backups.restore.request import RestoreRequest, parse
from clinic_backups.restore.requests_in_stores import Forgetful, requests_in
from clinic_backups.stores import envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.marker import read_marker

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(restore)


def restore(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Id of the clinic.")],
    backup: Annotated[str | None, typer.Option(help="Id of the backup; by default the newest.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            help="The newest backup at or before this time. With --from-connection: the time it was recovered to."
        ),
    ] = None,
    from_connection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take the rows from this database of an earlier time: it is backed up first. See"
            " docs/point-in-time.md.",
        ),
    ] = None,
    archive: Annotated[str, typer.Option(help="Key or URL of the archive, to restore without the catalog.")] = "",
    mode: Annotated[
        str,
        typer.Option(help="exact; missing: only rows that are gone come back; live: changes after the plan stay."),
    ] = "exact",
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE:KEY[,KEY…]",
            help="Only these rows, rows that belong to them, and missing rows that they need; may be repeated.",
        ),
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="With --rows: leave out the rows that belong to them.")] = False,
    ignore_dropped: Annotated[bool, typer.Option(help="Leave out columns that are gone.")] = False,
    other_database: Annotated[
        bool,
        typer.Option("--other-database", help="Restore although this is not the database that backups are read from."),
    ] = False,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    notes: Annotated[str, typer.Option(help="One line that is stored with the restore; no patients' data.")] = "",
    json: Json = False,
) -> None:
    """Restore one clinic: show the plan, ask, back up the present state, apply exactly that plan or nothing."""
    with_parts = parts()
    for option, value in (("--backup", backup), ("--as-of", as_of), ("--from-connection", from_connection)):
        if value is not None and not value.strip():
            raise SettingsError(
                f"{option} is empty.",
                hint="Perhaps a shell variable is not set. Leave the option out for the newest backup.",
            )
    conf = {
        "clinic_id": clinic, "backup_id": backup or "", "as_of": as_of or "",
        "from_connection": from_connection or "",
        "mode": mode,
        "tables": named_tables(table), "rows": named_rows(rows or []), "only": only,
        "ignore_dropped": ignore_dropped, "other_database": other_database, "notes": notes,
    }  # fmt: skip
    by, zone = f"{getpass.getuser()} (command line)", with_parts.settings.zone
    request, _ = parse(conf, every=[], requested_by=by, run_id=None, zone=zone)
    if archive:
        if backup or as_of or from_connection:
            raise SettingsError(
                "--archive was given with --backup, --as-of or --from-connection.", hint="Give only one of them."
            )
        _without_catalog(with_parts, request, archive, identity, only_plan=plan, yes=yes, json=json)
        return
    steps = Steps()
    runner = with_parts.restores(identity, listener=steps.listener)
    with steps:
        made = runner.plan(request)
    _show_plan(made, json=json and plan)
    show_stores(with_parts.stores_read, only_if_bad=True)
    if plan:
        raise typer.Exit(1 if made.refusals else 0)
    if made.refusals:
        raise refused(made)
    proposed = runner.propose(request, made)
    approves, by = _approved(made, yes=yes), getpass.getuser()
    answered = with_parts.approvals.answer(
        proposed.id, "approved" if approves else "rejected", by=by, how="command"
    )  # fmt: skip
    if not approves:
        raise typer.Exit(1)
    with steps:
        record = runner.apply(answered)
    if problem := with_parts.deliver().problem:
        errors.print(f"Mail waits for a later run: {escape(problem)}")
    if json:
        print_json(record.to_json())
        return
    where = f" in {made.target.name}" if made.target else ""
    writes = f"{record.plan['writes']:,} rows were written."
    print(f"{in_words(f'Clinic {clinic}')} is restored from {made.backup_id}{where}: {writes}")
    for line in left_as_they_are(record):
        print(in_words(line))
    if record.safety_backup_id is not None:
        print(f"The state before was backed up as {record.safety_backup_id}.")
        print(f"To undo: {undo_command(record, request)}")


def _without_catalog(
    with_parts: Parts, request: RestoreRequest, archive: str, identity: Path | None, *, only_plan: bool, yes: bool,
    json: bool,
) -> None:  # fmt: skip
    """Restore from the store alone, without a record, a lock or a safety backup."""
    source = source_in_store(with_parts, archive, request.clinic_id)
    steps = Steps()
    forgotten = forgotten_in_stores(with_parts, identity, request.clinic_id)
    service: ClinicRestore = with_parts.clinic_restore(
        identity, forgotten=forgotten.of_clinic, listener=steps.listener
    )  # fmt: skip
    with steps:
        made = service.plan(source, request)
    _show_plan(made, json=json)
    show_stores(with_parts.stores_read, only_if_bad=True)
    say_requests(forgotten)
    if only_plan:
        raise typer.Exit(1 if made.refusals else 0)
    errors.print("Without the catalog there is no safety backup, and a backup may begin during the restore.")
    if made.refusals:
        raise refused(made)
    require_followed(forgotten)
    if not _approved(made, yes=yes):
        raise typer.Exit(1)
    with steps:
        done = service.apply(source, request, approved=made.digest, plan=made)
    restored = escape(in_words(f"Clinic {request.clinic_id} is restored"))
    errors.print(f"{restored} from {made.backup_id}: {done.writes:,} rows were written.")


def forgotten_in_stores(with_parts: Parts, identity: Path | None, clinic_id: ClinicId) -> Forgetful:
    """What must not come back, from the stores, because there is no catalog."""
    return requests_in(with_parts.stores, with_parts.archives(identity).identities, clinic_id)


def say_requests(forgotten: Forgetful) -> None:
    """Print which requests are followed, and which cannot be."""
    for text in (*forgotten.said, *forgotten.problems):
        errors.print(escape(in_words(one_line(text))))


def require_followed(forgotten: Forgetful) -> None:
    """:raises PermanentError: a request cannot be followed, so its row would come back."""
    if forgotten.problems:
        raise PermanentError(
            f"{len(forgotten.problems)} erasure requests in the store cannot be followed, so this restore may bring"
            " forgotten rows back.",
            hint="Nothing was changed. The lines above name these objects. Give the secret key of the installation, or"
            " look at the objects, and move those away that are not genuine.",
        )


def source_in_store(with_parts: Parts, archive: str, clinic_id: ClinicId) -> Source:
    """The backup with this key or URL, from its envelope. :raises PermanentError: it is of another clinic."""
    with_parts.without_catalog()
    key = _key(with_parts, archive)
    envelope = _envelope(with_parts, key)
    if envelope.clinic_id != clinic_id:
        raise PermanentError(
            f"{key} is a backup of clinic {envelope.clinic_id}, not of {clinic_id}.",
            hint=f"Give --clinic {in_shell(envelope.clinic_id)}, or another archive.",
        )
    return Source.of(envelope, with_parts.settings.unpack_ratio)


def _envelope(with_parts: Parts, key: str) -> Envelope:
    """The envelope from the first store with a good one. :raises ClinicBackupsError: none has it; the first error."""
    store, envelope = with_parts.stores.first(lambda store: envelopes.load(key, store, now=machine_now()))
    errors.print(f"Reading {escape(store.url)}, {_which(store)}")
    return envelope


def _which(store: ObjectStore) -> str:
    try:
        marker = read_marker(store)
    except ClinicBackupsError as error:
        return f"whose marker cannot be read: {escape(error.message)}"
    return f"which is store {marker.store_id}." if marker else "which has no marker."


def _key(with_parts: Parts, archive: str) -> str:
    """The object's key, from a key or from a whole URL."""
    if "://" not in archive:
        return archive
    urls = [f"{url}/" for url in with_parts.stores.urls]
    found = next((url for url in urls if archive.startswith(url)), None)
    if found is None:
        raise SettingsError(
            f"{archive!r} is in none of the stores {', '.join(urls)}.",
            hint="Set CLINIC_BACKUPS_STORE_URL to the archive's store.",
        )
    return archive.removeprefix(found)


def _show_plan(made: RestorePlan, *, json: bool) -> None:
    if json:
        print_json(made.to_json())
    else:
        for line in as_lines(made):
            errors.print(escape(in_words(line)))


def _approved(made: RestorePlan, *, yes: bool) -> bool:
    """Ask for approval of the plan. :raises SettingsError: nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError(
            "Nobody can approve the plan: there is no terminal.", hint="Look at it with --plan, then give --yes."
        )
    where = f" in {made.target.name}" if made.target else ""
    return bool(
        typer.confirm(f"{in_words(f'Write {made.writes:,} rows of clinic {made.clinic_id}')}{where}?", err=True)
    )
