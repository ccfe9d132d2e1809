"""``clinic-backups bucket``: what the stores hold, without catalog and key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, human_size, print_json, print_table, styled
from clinic_backups.maintenance.store_contents import StoreContents, StoredBackup, read_contents
from clinic_backups.stores.forgotten_requests import StoredRequests, read_requests

_CLINICS = (
    ("clinic", False), ("name", False), ("complete", True), ("others", True), ("newest rows of", False),
    ("oldest", False), ("stored", True),
)  # fmt: skip
_BACKUPS = (
    ("backup", False), ("state", False), ("kind", False), ("rows of", False), ("rows", True), ("stored", True),
    ("archive", False),
)  # fmt: skip
_REQUESTS = (("clinic", False), ("table", False), ("forgotten", False), ("by", False), ("class", False))


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(bucket)


def bucket(
    store: Annotated[str | None, typer.Option(help="URL of one store; by default all stores of the settings.")] = None,
    connection: Annotated[
        str, typer.Option(help="Airflow connection for a store that is not in the settings.")
    ] = "backup_store",
    clinic: Annotated[
        Any, typer.Option(parser=clinic_arg, metavar="ID", help="Only this clinic, with each of its backups.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what a store holds, from the store alone: no catalog, no secret key and no database are needed.

    A backup is complete if all archives that it needs are there, in the sizes that its envelope says. `clinic-backups
    verify` reads them too. A store that cannot be read is named, and the others are listed. The exit code is then 1.
    """
    with_parts = parts()
    urls = (store,) if store else with_parts.bare_stores.urls
    steps, found, requests = Steps(), [], []
    failures = dict[str, ClinicBackupsError]()
    with steps:
        for url in urls:
            try:
                opened = with_parts.bare_store(url, connection)
                contents = read_contents(opened, machine_now(), steps.listener, clinic_id=clinic)
                requests.append(read_requests(opened, clinic))
                found.append(contents)
            except ClinicBackupsError as error:
                failures[url] = error
    if not found:
        raise next(iter(failures.values()))
    if json:
        away = [{"store": url, "error": each.message, "hint": each.hint} for url, each in failures.items()]
        print_json([*(_as_json(each, of) for each, of in zip(found, requests, strict=True)), *away])
        raise typer.Exit(1 if failures else 0)
    for each, of in zip(found, requests, strict=True):
        _show(each, each_backup=clinic is not None)
        _show_requests(of)
    complete = [backup for each in found for backup in each.backups if backup.state == "complete"]
    if complete:
        errors.print(
            "\nTo restore without the catalog: `clinic-backups restore --clinic ID --archive KEY`. To get the whole"
            " service back in an empty database: `clinic-backups recover`. To make the catalog anew:"
            " `clinic-backups catalog migrate`, then `clinic-backups catalog rebuild`."
        )
    for url, failed in failures.items():
        errors.print(f"[red]{escape(url)} cannot be read:[/] {escape(failed.message)}\nHINT: {escape(failed.hint)}")
    if failures:
        raise typer.Exit(1)


def _show(found: StoreContents, *, each_backup: bool) -> None:
    title = f"{found.store_url}: {len(found.backups):,} backups"
    if each_backup:
        print_table(title, _BACKUPS, [_backup(each) for each in found.backups])
    else:
        groups = [list(group) for _, group in groupby(found.backups, key=lambda each: each.clinic_id)]
        print_table(title, _CLINICS, [_clinic(group) for group in groups])
    for each in found.backups:
        if each.problem and (each_backup or each.state != "unfinished"):
            errors.print(f"[yellow]{escape(one_line(each.archive_key))}:[/] {escape(one_line(each.problem))}")
    if found.other_objects:
        errors.print(f"{found.other_objects:,} other objects are not of this package.")


def _clinic(backups: Sequence[StoredBackup]) -> list[str]:
    complete = [each for each in backups if each.state == "complete" and each.envelope is not None]
    moments = sorted(iso(at.replace(microsecond=0)) for each in complete if (at := each.data_at) is not None)
    # A safety backup may hold a damaged state, and one of a point in time the past.
    aside = {each.archive_key for each in complete if each.envelope is not None and not each.envelope.is_regular}
    newest = [
        iso(at.replace(microsecond=0))
        for each in complete
        if each.archive_key not in aside and (at := each.data_at) is not None
    ]
    name = next((each.envelope.clinic_name for each in backups if each.envelope is not None), "")
    return [
        escape(str(backups[0].clinic_id)), escape(one_line(name)), f"{len(complete):,}",
        f"{len(backups) - len(complete):,}", max(newest, default=""), moments[0] if moments else "",
        human_size(sum(each.size_bytes for each in backups)),
    ]  # fmt: skip


def _backup(each: StoredBackup) -> list[str]:
    of, at = each.envelope, each.data_at
    held = ", on hold" if each.is_held else ""
    before = f" (before the restore of {of.safety_of})" if of is not None and of.safety_of else ""
    if of is not None and of.read_from:
        before = f" (read from {one_line(of.read_from)})"
    return [
        escape(of.backup_id) if of else "", f"{styled(each.state)}{held}", (of.kind if of else "") + escape(before),
        iso(at.replace(microsecond=0)) if at else "", f"{sum(of.rows.values()):,}" if of else "",
        human_size(each.size_bytes), escape(one_line(each.archive_key)),
    ]  # fmt: skip


def _show_requests(found: StoredRequests) -> None:
    if found.requests:
        rows = [
            (escape(str(each.record.clinic_id)), escape(one_line(each.record.table)),
             iso(each.record.at.replace(microsecond=0)), escape(each.record.by), each.record.reason_class)
            for each in found.requests
        ]  # fmt: skip
        print_table(f"{found.store_url}: rows that must not come back", _REQUESTS, rows)
        errors.print("Whether these requests are genuine, only the secret key says: a recovery checks them.")
    for key, problem in found.problems:
        errors.print(f"[yellow]{escape(one_line(key))}:[/] {escape(problem)}")


def _as_json(found: StoreContents, requests: StoredRequests) -> dict[str, object]:
    return {
        "store": found.store_url,
        "backups": [each.to_json() for each in found.backups],
        "other_objects": found.other_objects,
        "requests": [each.record.to_json() | {"key": each.key} for each in requests.requests],
        "bad_requests": [{"key": key, "problem": problem} for key, problem in requests.problems],
    }
