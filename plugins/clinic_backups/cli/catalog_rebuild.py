"""``clinic-backups catalog rebuild``: records in the catalog what the stores hold."""

from __future__ import annotations

import getpass
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.archive.encryption import load_identities
from clinic_backups.archive.object_keys import ROOT, parse_key
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, StoreUnknown, TransientError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, print_error, print_json, print_table
from clinic_backups.maintenance.duplicate_ids import Opens
from clinic_backups.maintenance.rebuild import Rebuilt
from clinic_backups.maintenance.rebuild import rebuild as rebuild_from
from clinic_backups.maintenance.store_init import BY_REBUILD, StoreInit
from clinic_backups.restore.archives import Source
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import canonical
from clinic_backups.stores.identified import IdentifiedStore

LOOKED_AT = 1_000
"""The most objects that are looked at in a store without a backup."""
UNSIGNED = (
    "Envelopes are not signed. If somebody may have tampered with a store, check what was added"
    " (`clinic-backups list`) before the next retention."
)


def rebuild(
    store: Annotated[str | None, typer.Option(help="URL of one store; by default all stores of the settings.")] = None,
    connection: Annotated[
        str, typer.Option(help="Airflow connection for a store that is not in the settings.")
    ] = "backup_store",
    requests: Annotated[
        bool,
        typer.Option("--requests", help="Also take over erasure requests with a key that the catalog does not have."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Record all backups in the catalog that have an envelope in a store. Needs no key; may be repeated.

    A new catalog takes over the erasure requests of the lost one too. Only they need the secret key
    (CLINIC_BACKUPS_IDENTITY_FILE).

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
                _take_over_requests(with_parts, opened, reports[-1], strange=requests)
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


def _take_over_requests(with_parts: Parts, store: ObjectStore, report: Rebuilt, *, strange: bool) -> None:
    """The erasure requests. Without the secret key, those of a lost catalog cannot be taken over."""
    identities: tuple[Any, ...] = ()
    if with_parts.settings.identity_file is not None:
        with suppress(ClinicBackupsError):
            identities = load_identities(with_parts.settings.identity_file)
    done = with_parts.forgotten_in_stores().take_over(store, identities, strange=strange)
    report.requests = [each.record.to_json() for each in done.requests]
    report.known_requests = done.known
    report.conflicts += done.refused


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
    if report.requests:
        print(
            f"{len(report.requests)} erasure requests were added: the rows that they name do not come back in restores."
            " Check that you know them: `clinic-backups forget --list`."
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
