"""``clinic-backups catalog``: the catalog itself, and its comparison with the stores."""

from __future__ import annotations

import getpass
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.clinic_id import in_order
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, StoreUnknown, TransientError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts, require_known_clinic
from clinic_backups.cli.output import Steps, errors, human_size, print_error, print_json, print_table
from clinic_backups.maintenance.discrepancies import BAD, KINDS, Discrepancy
from clinic_backups.maintenance.duplicate_ids import Opens
from clinic_backups.maintenance.rebuild import Rebuilt, again
from clinic_backups.maintenance.rebuild import rebuild as rebuild_from
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.maintenance.store_init import BY_REBUILD, StoreInit
from clinic_backups.restore.archives import Source
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import canonical
from clinic_backups.stores.identified import IdentifiedStore

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LOOKED_AT = 1_000
"""The most objects that are looked at in a store without a backup."""
UNSIGNED = (
    "Envelopes are not signed. If somebody may have tampered with a store, check what was added"
    " (`clinic-backups list`) before the next retention."
)
catalog = typer.Typer(help="The catalog of backups.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(catalog, name="catalog")


@catalog.command()
def migrate() -> None:
    """Bring the catalog's schema to the newest version."""
    with_parts = parts()
    print(f"The catalog has version {with_parts.catalog.migrate()}.")
    if with_parts.settings.store_url:
        # Before there were further stores, the stores of backups were not recorded.
        with_parts.replicas().adopt(with_parts.stores.urls[0], with_parts.clock())


@catalog.command()
def verify(
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of one store; by default all.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Read every archive and compare its SHA-256.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Record in the catalog what is lost or found.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Remove remains of unfinished uploads that are older than a day.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare the catalog with the stores in both directions. Without --record and --sweep nothing is changed.

    Without --read an archive counts as intact if the store's own checksum or ETag, which no writer can set, is the
    recorded one. If only its size could be compared, the archive is reported as "not compared".

    Exit code 1 if a backup is missing, damaged or in no store, or if a backup of an erased clinic is there; 75 if
    something could not be checked or corrected.
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


@catalog.command()
def rebuild(
    store: Annotated[str | None, typer.Option(help="URL of one store; by default all stores of the settings.")] = None,
    connection: Annotated[
        str, typer.Option(help="Airflow connection for a store that is not in the settings.")
    ] = "backup_store",
    json: Json = False,
) -> None:
    """Record all backups in the catalog that have an envelope in a store. Needs no key; may be repeated.

    The catalog's schema must exist: run `clinic-backups catalog migrate` first. Exit code 1 if an object did not fit,
    or if a store has neither a marker nor a backup; 75 if a store was down, or another process worked on a clinic.
    """
    with_parts = parts()
    with_parts.catalog.require_newest()
    reports: list[Rebuilt] = []
    failed: list[ClinicBackupsError] = []
    opens = _opener(with_parts)
    with Steps() as steps:
        for url in with_parts.stores.urls if store is None else (canonical(store),):
            try:
                opened, store_id = _opened(with_parts, url, connection)
                reports.append(
                    rebuild_from(
                        opened, with_parts.catalog, with_parts.clock(), steps.listener, store_id=store_id,
                        others=_others(with_parts, url), opens=opens,
                    )
                )  # fmt: skip
                if reports[-1].is_empty:
                    failed.append(_nothing(opened))
            except ClinicBackupsError as error:
                failed.append(error)
    if json:
        print_json([report.to_json() for report in reports])
    else:
        for report in reports:
            _show_rebuilt(report)
        if any(report.adopted for report in reports):
            print(UNSIGNED)
    _fail_after(reports, failed)


@catalog.command("forget-store")
def forget_store(
    url: Annotated[str, typer.Argument(help="URL of the abandoned store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a store from the catalog, but not its objects. Backups that were only there become lost."""
    with_parts, store_url = parts(), canonical(url)
    if store_url in with_parts.stores.urls:
        raise PermanentError(
            f"{store_url} is a store of the settings.",
            hint="Remove it from the settings first, or replicas will be made again.",
        )
    if not yes:
        typer.confirm(f"Remove all replicas in {store_url} from the catalog?", abort=True, err=True)
    print(f"{with_parts.replicas().forget_store(store_url)} replicas in {store_url} were removed from the catalog.")


def _opened(with_parts: Parts, url: str, connection: str) -> tuple[ObjectStore, str | None]:
    """The store and its id. If the catalog does not know it, its marker is trusted, because the catalog was lost.

    :raises StoreAway: the catalog knows the store, but it is not there.
    :raises PermanentError: the catalog knows the same store under another URL.
    """
    store = with_parts.bare_store(url, connection)
    known = with_parts.identities.of(store.url)
    if known is None or not known.confirmed:
        StoreInit(with_parts.catalog, with_parts.clock, f"{getpass.getuser()} {BY_REBUILD}").adopt_marker(store)
    identified = IdentifiedStore(store, with_parts.identities.expected(store.url))
    try:
        return identified, identified.identified()
    except StoreUnknown:
        return store, None


def _others(with_parts: Parts, url: str) -> list[ObjectStore]:
    """The further stores of the settings that can be opened. They are only read."""
    found: list[ObjectStore] = []
    if with_parts.settings.store_url:
        for other in with_parts.bare_stores.urls:
            with suppress(ClinicBackupsError):
                if other != url:
                    found.append(with_parts.bare_stores.at(other))
    return found


def _opener(with_parts: Parts) -> Opens | None:
    """Reads an archive with the secret key; none without a usable key, which a rebuild does not need."""
    if with_parts.settings.identity_file is None:
        return None
    try:
        archives = with_parts.archives()
    except ClinicBackupsError:
        return None
    return lambda store, envelope: archives.read_in(store, Source.of(envelope, with_parts.settings.unpack_ratio))


def _show_rebuilt(report: Rebuilt) -> None:
    if report.is_empty:
        print(f"{report.store_url} has no marker and holds no backup.")
    elif report.store_id is None:
        print(f"{report.store_url} has no marker: run `clinic-backups store init` before the next backup.")
    else:
        print(f"{report.store_url} is store {report.store_id}.")
    print(
        f"{report.store_url}: {report.adopted} backups were added, {report.held} were put on hold; {report.known} were"
        f" already known. {report.other_objects} other objects were left alone."
    )
    if report.busy:
        busy = ", ".join(map(str, report.busy))
        print(in_words(f"Skipped, because another process works on them: clinics {busy}."))
    rows = [(escape(key), escape(in_words(one_line(problem)))) for key, problem in report.conflicts]
    rows += [(escape(key), "not a backup: archive or envelope is missing") for key in report.incomplete]
    if rows:
        print_table("Does not fit", (("object", False), ("why", False)), rows)


def _nothing(store: ObjectStore) -> PermanentError:
    hint = (
        "Check that the store is mounted, and check URL, endpoint and connection: an empty mount point"
        " gives the same answer. Only if it is a new store: `clinic-backups store init`."
    )
    if other := _likely(store):
        hint = f"The right URL may be {other}. {hint}"
    return PermanentError(f"{store.url} has no marker and holds no backup. Nothing was rebuilt from it.", hint=hint)


def _likely(store: ObjectStore) -> str:
    """The likely URL of the store, if the given one is some folders too deep or too high; otherwise empty."""
    parent, _, name = store.url.rstrip("/").rpartition("/")
    try:
        for info in islice(store.list(), LOOKED_AT):
            below, found, rest = info.key.rpartition(ROOT)
            if found and parse_key(found + rest):
                return f"{store.url.rstrip('/')}/{below.rstrip('/')}"
            if f"{name}/" == ROOT and parse_key(ROOT + info.key):
                return parent
            if f"{parent.rpartition('/')[2]}/" == ROOT and parse_key(f"{ROOT}{name}/{info.key}"):
                return parent.rpartition("/")[0]
    except ClinicBackupsError:
        pass  # the hint then has no likely URL
    return ""


def _fail_after(reports: list[Rebuilt], failed: list[ClinicBackupsError]) -> None:
    """Raise the worst error, after everything was printed."""
    # Permanent errors come last, so that the command fails with one of them.
    failed = sorted(failed, key=lambda error: not isinstance(error, TransientError))
    conflicts = sum(len(report.conflicts) for report in reports)
    for failure in failed if conflicts else failed[:-1]:
        print_error(failure)
    if conflicts:
        raise PermanentError(
            f"{conflicts} objects do not fit the catalog, or are not backups.",
            hint="The report names each with the reason. Everything else was taken over.",
        )
    if failed:
        raise failed[-1]
    if busy := sum(len(report.busy) for report in reports):
        raise TransientError(f"{busy} clinics were skipped: another process works on them.", hint="Run it again later.")


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
    return PermanentError(" ".join(said), hint=" ".join(hints))


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
