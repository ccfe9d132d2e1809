"""``clinic-backups forget``: rows that no restore may bring back, for erasure requests of single persons."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.base.forgotten import ForgottenRecord, ReasonClass, check_of
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import errors, print_json, print_table
from clinic_backups.cli.row_param import named_rows
from clinic_backups.maintenance.forgotten_places import Place, last_until, places_of
from clinic_backups.maintenance.holds import require_reason
from clinic_backups.restore.forgotten_keys import ReadKeys, read_forgotten
from clinic_backups.restore.named_tables import rows_of
from clinic_backups.tenant.declarations import spelled
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.tenant_db import Snapshot

COLUMNS = (
    ("number", True), ("clinic", True), ("table", False), ("forgotten", False), ("by", False), ("class", False),
    ("reason", False), ("backups that may hold it", True), ("until", False),
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("forget")(forget)


def forget(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Id of the clinic.")] = None,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="TABLE:KEY[,KEY…]", help="These rows; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason; it is kept. No names, no patients' data.")] = "",
    reason_class: Annotated[
        ReasonClass,
        typer.Option(
            "--class", help="person: the person asks. authority: an authority or a law. mistake: a wrong entry."
        ),
    ] = "person",
    moved: Annotated[
        bool, typer.Option("--moved", help="The rows are another clinic's now, and were this one's before.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List what was forgotten, when, by whom, why, and where it may still lie.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Record rows that no later restore may bring back, with all that belongs to them. It cannot be taken back.

    Catalog and stores keep a keyed hash instead of the key. Delete the rows in the application yourself: this command
    deletes nothing.
    """
    with_parts = parts()
    if listed:
        if rows or reason:
            raise SettingsError("--list was given with --rows or --reason.", hint="Give one or the other.")
        _list(with_parts, clinic, json=json)
        return
    keys = named_rows(rows or [])
    if clinic is None or not keys or not all(keys.values()):
        raise SettingsError(
            "No row is named." if not keys or not all(keys.values()) else "No clinic is named.",
            hint="For instance: --clinic 7 --rows public.usuarios_paciente:43 --reason TEXT. Or give --list.",
        )
    reason, by = require_reason(reason), f"{getpass.getuser()} (command line)"
    require_known_clinic(with_parts, clinic)
    known = {name for record in with_parts.catalog.find(clinic_id=clinic, state="completed") for name in record.rows}
    read = _read(with_parts, clinic, keys, known, is_moved=moved)
    drift = SqlFolder(with_parts.settings.sql_dir).drift()
    # A table may have another name in the backups. Parts that have one are not recorded with it, so they are named.
    names, parts_of = {later for name in known for later in drift.path(name)}, read.parts_of
    new = {name: {*parts_of.get(name, ())} & names for name in keys if name not in names}
    _require_known_tables(clinic, [name for name, there in new.items() if not there or there - known], names, parts_of)
    for note in read.notes:
        errors.print(f"[yellow]{escape(in_words(note))}[/]")
    numbers = with_parts.forgotten.add(
        clinic, read.keys, by=by, reason=reason, reason_class=reason_class, meant=read.meant
    )
    _write(with_parts, clinic)
    if json:
        print_json([each for each in _plain(with_parts, clinic) if each["number"] in numbers])
        return
    # One row may have several requests: for its key as it is written, as it is stored, and for parts of its table.
    count = sum(len({*each}) for each in keys.values())
    many = count > 1
    print(
        in_words(
            f"{count:,} {'rows' if many else 'row'} of clinic {clinic} will not come back in a restore, and"
            f" nothing that belongs to {'them' if many else 'it'}. Plans that were made before are no longer valid."
        )
    )
    print(
        "Delete the rows in the application, if that is not done. Kept backups hold them until they expire:"
        " `clinic-backups forget --list` says which and until when."
    )


def _write(with_parts: Parts, clinic: ClinicId) -> None:
    """Write the requests to the stores. They are in the catalog already, so a store that fails is only said."""
    try:
        failed = with_parts.forgotten_in_stores().write(with_parts.stores, clinic)
    except ClinicBackupsError as failure:
        failed = [("the stores", failure)]
    for where, error in failed:
        errors.print(
            f"[yellow]The request is recorded in the catalog, but it is not in {escape(where)} yet:[/]"
            f" {escape(in_words(error.message))}\nUntil it is, a recovery from there brings the row back. Correct this,"
            " then run `clinic-backups catalog verify --record`. The weekly check does it, too."
        )


def _placed(with_parts: Parts, clinic: ClinicId | None) -> list[tuple[ForgottenRecord, list[Place]]]:
    """The requests, each with the backups that may still hold its row."""
    found: list[tuple[ForgottenRecord, list[Place]]] = []
    backups: dict[ClinicId, list[BackupRecord]] = {}
    drift = SqlFolder(with_parts.settings.sql_dir).drift()
    for each in with_parts.forgotten.find(clinic):
        if each.clinic_id not in backups:
            backups[each.clinic_id] = with_parts.catalog.find(clinic_id=each.clinic_id, state="completed")
        found.append((each, places_of(each, backups[each.clinic_id], drift)))
    return found


def _plain(with_parts: Parts, clinic: ClinicId | None) -> list[dict[str, Any]]:
    return [
        each.to_json() | {"may_lie_in": [place.to_json() for place in places]}
        for each, places in _placed(with_parts, clinic)
    ]


def _list(with_parts: Parts, clinic: ClinicId | None, *, json: bool) -> None:
    if json:
        print_json(_plain(with_parts, clinic))
        return
    placed = _placed(with_parts, clinic)
    print_table(
        "Rows that must not come back",
        COLUMNS,
        [(str(each.number), escape(str(each.clinic_id)), escape(spelled(each.table)),
          iso(each.at.replace(microsecond=0)), escape(each.by), each.reason_class, escape(one_line(each.reason)),
          f"{len(places):,}", _until(places)) for each, places in placed],
    )  # fmt: skip
    secrets = with_parts.forgotten.secrets()
    if placed:
        check = check_of(secrets[each.key_id].mark(each) for each, _ in placed)
        print(
            f"The check of this list is {check}. A recovery, or a restore without the catalog, shows the check of the"
            " list in the store: if both are equal, nobody has added or removed a request there."
        )
        print(
            "A backup that was made after a request holds the row only if the application still had it. `--json` names"
            " the backups and their stores."
        )


def _until(places: list[Place]) -> str:
    if not places:
        return "gone"
    end = last_until(places)
    if end is None:
        return "a hold ends" if any(place.is_held for place in places) else "not known"
    return iso(end.replace(microsecond=0))


def _require_known_tables(
    clinic: ClinicId, tables: list[str], known: Collection[str], parts_of: Mapping[str, Collection[str]]
) -> None:
    """:raises PermanentError: no backup has such a table, so nothing would ever be left out.

    :param parts_of: by table of the database, its partitions and heirs.
    """
    for name in tables:
        whole = next((table for table, names in parts_of.items() if name in names and table in known), None)
        whole = whole or next((part for part in parts_of.get(name, ()) if part in known), None)
        if name not in known and whole is not None:
            raise PermanentError(
                f"No backup of clinic {clinic} has a table {spelled(name)[:150]}: its rows are backed up as rows of"
                f" {spelled(whole)}.",
                hint=f"Nothing was recorded. Name the rows there: {rows_of(whole)}",
            )
        if name not in known:
            raise PermanentError(
                f"No backup of clinic {clinic} has a table {spelled(name)[:150]}.",
                hint="Nothing was recorded. Give the table with its schema, as `clinic-backups restore --plan` shows"
                " it. For instance: --rows public.usuarios_paciente:43",
            )


def _read(
    with_parts: Parts, clinic: ClinicId, keys: Mapping[str, Sequence[str]], known: Collection[str], *, is_moved: bool
) -> ReadKeys:
    """Ask the clinics' database what the keys are, because a request cannot be taken back.

    :param known: the tables that backups of the clinic have.
    :raises PermanentError: a table has no key, its rows are the clinics themselves, or a row is another clinic's.
    :raises SettingsError: a text cannot be a key of its table.
    """
    folder = SqlFolder(with_parts.settings.sql_dir)
    if folder.clinic_table in keys:
        raise PermanentError(
            f"The rows of {folder.clinic_table} are the clinics themselves: everything of the clinic would stay away"
            " from every restore.",
            hint="Nothing was recorded. If all of the clinic is to be erased, use `clinic-backups erase-clinic`.",
        )
    try:
        with Snapshot(with_parts.clinic_db, **with_parts.settings.timeouts) as snapshot:
            return read_forgotten(snapshot, folder, clinic, keys, known, is_moved=is_moved)
    except SettingsError:
        raise
    except ClinicBackupsError as error:
        if isinstance(error, PermanentError) and error.hint.startswith("Nothing was recorded."):
            raise
        why = (
            "Whether these texts can be keys was not checked, and the requests hold for the key that the table has in"
            f" each backup, because the clinics' database did not answer: {error.message}"
        )
        return ReadKeys({name: list(each) for name, each in keys.items()}, notes=[why])
