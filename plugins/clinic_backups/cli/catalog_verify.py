"""``clinic-backups catalog verify``: compares the catalog with the stores, and shows what differs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.clinic_id import in_order
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.load_settings import in_words
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, human_size, print_error, print_json, print_table
from clinic_backups.maintenance.discrepancies import BAD, KINDS, Discrepancy
from clinic_backups.maintenance.rebuild import again
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.stores.configured import canonical


def verify(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of one store; by default all.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Read every archive and compare its SHA-256.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Record in the catalog what is lost or found.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Remove remains of unfinished uploads that are older than a day.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the catalog with the stores in both directions. Without --record and --sweep nothing is changed.

    Without --read an archive counts as intact if the store's own checksum or ETag, which no writer can set, is the
    recorded one. If only its size could be compared, the archive is reported as "not compared".

    Exit code 1 if a backup is missing, damaged or in no store, if a backup of an erased clinic is there, or if a store
    has erasure requests that the catalog did not make; 75 if something could not be checked or corrected.
    """
    with_parts = parts()
    require_known_clinic(with_parts, clinic)
    urls = with_parts.stores.urls if store is None else (canonical(store),)
    inventories: list[Inventory] = []
    failed: list[ClinicBackupsError] = []
    with Steps() as steps:
        check = with_parts.store_check(listener=steps.listener)
        for url in urls:
            try:
                task = Task(record=record, sweep=sweep, read=read)
                inventories.append(check.run(with_parts.stores.at(url), task, clinic_id=clinic))
            except ClinicBackupsError as error:
                failed.append(error)
    if json:
        print_json([_plain(inventory) for inventory in inventories])
    else:
        for inventory in inventories:
            _show(inventory)
    for failure in failed:
        print_error(failure)
    if wrong := [item for each in inventories for item in each.wrong]:
        raise _wrong(wrong)
    if failed:
        raise TransientError(f"{len(failed)} of {len(urls)} stores were not checked.", hint="Try again.")
    if problems := sum(len(each.problems) for each in inventories):
        raise TransientError(f"{problems} things could not be checked or corrected.", hint="See above; try again.")


def _wrong(items: list[Discrepancy]) -> PermanentError:
    bad = sum(item.kind in BAD for item in items)
    said, hints = [], []
    if bad:
        said.append(f"{bad} archives are missing or damaged, or are in no known store.")
    if any(item.kind in BAD and item.kind != "lost" for item in items):
        hints.append(
            "--record records this. Then `clinic-backups replicate` makes the replicas that another store has."
        )
    if any(item.kind == "lost" for item in items):
        hints.append(
            "A lost backup stays lost until its archive is back, or retention or an erasure deletes its record."
            " Back the clinic up again: `clinic-backups backup --clinic ID --kind full`."
        )
    if erased := in_order(
        {item.clinic_id for item in items if item.kind == "erased backup" and item.clinic_id is not None}
    ):
        said.append(f"Backups of erased clinics are there again: clinics {', '.join(map(str, erased))}.")
        hints.append("Perhaps an old copy of the store was put back. " + " ".join(f"{again(each)}." for each in erased))
    _of_requests(items, said, hints)
    return PermanentError(" ".join(said), hint=" ".join(hints))


def _of_requests(items: list[Discrepancy], said: list[str], hints: list[str]) -> None:
    if unknown := sum(item.kind == "unknown request" for item in items):
        said.append(f"{unknown} erasure requests in a store are not in the catalog, so restores bring their rows back.")
        hints.append("`clinic-backups catalog rebuild` takes them over.")
    if strange := sum(item.kind == "strange request" for item in items):
        said.append(f"{strange} erasure requests in a store have a key that the catalog does not have.")
        hints.append(
            "`clinic-backups bucket` shows them. `clinic-backups catalog rebuild` takes those of a lost catalog over."
        )
    if false := sum(item.kind == "false request" for item in items):
        said.append(f"{false} objects in a store look like erasure requests, and this catalog did not make them so.")
        hints.append("Find out who may write to the store. Then delete these objects.")


def _plain(inventory: Inventory) -> dict[str, Any]:
    return {
        "store_url": inventory.store_url,
        "objects": inventory.objects,
        "strangers": inventory.other_objects,
        "archives": inventory.archives,
        "discrepancies": [found.to_json() for found in inventory.discrepancies],
        "lost": [found.to_json() for found in inventory.lost],
        "problems": [{"what": what, "error": error.message, "hint": error.hint} for what, error in inventory.problems],
    }


def _lost(inventory: Inventory) -> str:
    return f"; {len(inventory.lost)} backups were already recorded as lost" if inventory.lost else ""


def _show(inventory: Inventory) -> None:
    print(
        f"{inventory.store_url}: {inventory.objects} objects of backups; {inventory.other_objects} other objects were"
        f" left alone; {len(inventory.discrepancies) or 'no'} discrepancies{_lost(inventory)}."
    )
    print(f"Intact archives: {sum(condition == 'intact' for condition in inventory.archives.values())}.")
    if left := len(inventory.not_compared):
        print(f"Not compared: {left} archives. Only their size was checked; `catalog verify --read` reads them.")
    told = [*inventory.discrepancies, *inventory.lost]
    if told:
        columns = (("kind", False), ("object", False), ("size", True), ("done", False), ("means", False))
        print_table(
            "Discrepancies",
            columns,
            [
                (found.kind, escape(found.key), human_size(found.size_bytes), found.action, in_words(KINDS[found.kind]))
                for found in told
            ],
        )
    for found in told:
        if found.kind == "hold note" and found.action == "recorded":
            print(
                f"{found.backup_id} is on hold now, by a note in {inventory.store_url} that the catalog did not write."
                f" Its other stores get the note too. If nobody needs the hold: `clinic-backups release"
                f" {found.backup_id}`."
            )
        if found.needed_by:
            print(f"{found.backup_id} is needed by {', '.join(found.needed_by)}. They cannot be restored from here.")
    for what, error in inventory.problems:
        errors.print(f"{escape(what)}: {escape(in_words(error.message))}\nHINT: {escape(in_words(error.hint))}")
