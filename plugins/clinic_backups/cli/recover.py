"""``clinic-backups recover``: the whole service into an empty database, from the stores and the secret key alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.archive.encryption import public_keys
from clinic_backups.base.clock import machine_now
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.newest import NewestBackup, newest_good
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, human_size, print_json, print_table, show_stores
from clinic_backups.recovery.choice import Chooser, Doubt, Plan
from clinic_backups.recovery.recovery import Recovery
from clinic_backups.recovery.report import Report
from clinic_backups.restore.request import moment_of
from clinic_backups.restore.requests_in_stores import Forgetful, in_catalog, requests_in

MAX_JOBS = 8
_UNITS = (
    ("unit", False), ("name", False), ("backup", False), ("kind", False), ("rows of", False), ("rows", True),
    ("stored", True),
)  # fmt: skip
_DONE = (("unit", False), ("name", False), ("backup", False), ("rows of", False), ("rows", True), ("state", False))
_UNKNOWN_WRITER = (
    "No catalog confirms the archives. Encryption does not prove who wrote one: whoever has the public key and may"
    " write to the store can make one. The definition of the database runs SQL as the target's role."
)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(recover)


def recover(
    target: Annotated[str, typer.Option(help="Name of the connection to an empty database: AIRFLOW_CONN_<NAME>.")] = "",
    as_of: Annotated[
        str | None, typer.Option(help="For each clinic, the newest backup at or before this time.")
    ] = None,
    clinic: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this clinic and the shared data; may be repeated."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="How much is done at once; by default the cores, at most 8.")
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    definition: Annotated[
        Path | None, typer.Option(help="File of `pg_dump --schema-only -Fc`, if the backup has no definition.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without what is missing or damaged; take older backups.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only show which backups would be taken.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recover the whole service into an empty database: definitions, shared data and all clinics, each proven.

    Only the store and the secret key are needed, and no catalog. If it is interrupted, run it again: it goes on. It
    exits with 0 only if everything is proven, or different for a reason that it names.
    """
    with_parts = parts()
    if as_of is not None and not as_of.strip():
        # As from a variable of the shell that is not set: the newest backups are not what was meant.
        raise SettingsError("--as-of is empty.", hint="Give a time, or leave --as-of out for the newest backups.")
    until = moment_of(as_of, with_parts.settings.zone)
    clinics = [clinic_arg(text) for text in clinic or ()]
    doubt, accepts, belief = _belief(with_parts)
    forgotten = _forgotten(with_parts, identity)
    file = identity or with_parts.settings.identity_file
    steps = Steps()
    archives = with_parts.archives(identity)
    keys = public_keys(file) if file is not None else ()
    chooser = Chooser(with_parts.stores, machine_now(), keys=keys, doubt=doubt, accepts=accepts)
    # Before the stores: a backup that ends while they are listed is not missed there.
    known = newest_good(with_parts.catalog.database, until or machine_now()) if with_parts.has_catalog else []
    with steps:
        chooser.read(steps.listener)
    if plan and not target:
        made = chooser.plan(until or machine_now(), clinics)
        _complete(made, chooser, known, clinics, belief)
        _show_plan(made, forgotten, json=json)
        raise typer.Exit(1 if made.missing() or forgotten.problems else 0)
    if not target:
        raise SettingsError("--target is missing.", hint="Name the connection to an empty database, or give --plan.")
    recovery = Recovery(
        with_parts.connection(target), archives, jobs=jobs or min(os.cpu_count() or 1, MAX_JOBS),
        tools=with_parts.settings.postgres_bin, definition=definition, sql_dir=with_parts.settings.sql_dir,
        unpack_ratio=with_parts.settings.unpack_ratio, listener=steps.listener, forgotten=forgotten,
    )  # fmt: skip
    with recovery:
        begun = recovery.begun
        before = moment_of(begun.as_of, with_parts.settings.zone) if begun else None
        # An interrupted run goes on with its own moment: newer backups may have come since.
        kept = begun.backups if begun and until in (None, before) else {}
        made = chooser.plan(until or before or machine_now(), clinics, kept, recovery.loaded())
        _complete(made, chooser, known, clinics, belief)
        if plan or not json:
            _show_plan(made, forgotten, json=json)
        if plan:
            raise typer.Exit(1 if made.missing() or forgotten.problems else 0)
        with steps:
            report = recovery.run(made, chooser, only=clinics, allow_missing=allow_missing)
        if json:
            print_json(report.to_json() | with_parts.stores_read.to_json())
        else:
            _show(report)
            show_stores(with_parts.stores_read)
        sys.stdout.flush()
        recovery.finish()
    raise typer.Exit(0 if report.is_whole else 1)


def _complete(made: Plan, chooser: Chooser, known: Iterable[NewestBackup], clinics: Any, belief: str) -> None:
    """What a plan says besides the backups. :param known: see :meth:`Chooser.compare`."""
    chooser.compare(made, known, clinics)
    made.belief, made.sources = belief, chooser.read_from(made)


def _belief(with_parts: Parts) -> tuple[Doubt, Callable[[Envelope], bool], str]:
    """Which envelopes are believed, which suspect ones were accepted, and a sentence about it.

    With a catalog, only those that it knows.
    """
    why = "It has no tables."
    try:
        has_catalog = with_parts.catalog.is_there()
    except ClinicBackupsError as error:
        has_catalog, why = False, error.message  # it is not defined, or lost with the server
    if not has_catalog:
        with_parts.without_catalog()
        return (lambda envelope: ""), (lambda envelope: False), f"{_UNKNOWN_WRITER} ({why})"
    with_parts.catalog.require_newest()
    known = with_parts.catalog.get

    def doubt(envelope: Envelope) -> str:
        record = known(envelope.backup_id)
        if record is None:
            return "the catalog does not know it."
        if record.state not in ("completed", "lost"):
            return f"the catalog says that it is {record.state}."
        known_archive = (record.archive_key, record.sha256, record.size_bytes, record.clinic_id)
        archive = envelope.archive
        if known_archive != (archive.key, archive.sha256, archive.size_bytes, envelope.clinic_id):
            return "the catalog says something else of its archive."
        return ""

    def accepts(envelope: Envelope) -> bool:
        record = known(envelope.backup_id)
        return record is not None and record.is_trusted

    return doubt, accepts, "Only archives that the catalog knows are taken."


def _forgotten(with_parts: Parts, identity: Path | None) -> Forgetful:
    """What must not come back: from the catalog if it is there, else from the stores. After :func:`_belief`."""
    if with_parts.has_catalog:
        return in_catalog(with_parts.forgotten.find(), with_parts.forgotten.secrets(), with_parts.stores)
    return requests_in(with_parts.stores, with_parts.archives(identity).identities)


def _show_plan(plan: Plan, forgotten: Forgetful, *, json: bool) -> None:
    if json:
        print_json(plan.to_json() | {"forgotten": list(forgotten.said), "forgotten_problems": list(forgotten.problems)})
        return
    rows = []
    for choice in plan.choices:
        of, at = choice.envelope, choice.data_at
        rows.append(
            [
                escape(str(choice.unit)), escape(choice.name), escape(of.backup_id) if of else "[red]none[/]",
                of.kind if of else "", iso(at.replace(microsecond=0)) if at else "",
                f"{sum(of.rows.values()):,}" if of else "", human_size(of.archive.size_bytes) if of else "",
            ]
        )  # fmt: skip
    print_table(f"As of {iso(plan.as_of.replace(microsecond=0))}", _UNITS, rows)
    for choice in plan.choices:
        for text in (*choice.notes, *choice.damage):
            errors.print(f"[yellow]{escape(str(choice.unit))}:[/] {escape(in_words(one_line(text)))}")
    for text in plan.stores:
        errors.print(f"[yellow]{escape(one_line(text))}[/]")
    for text in plan.sources:
        errors.print(escape(text))
    errors.print(f"The moments of the backups are {_span(plan.apart_seconds)} apart.")
    errors.print(escape(plan.belief))
    for text in forgotten.said:
        errors.print(escape(in_words(text)))
    for text in forgotten.problems:
        errors.print(f"[yellow]{escape(in_words(one_line(text)))}[/]")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _show(report: Report) -> None:
    units = [
        [
            escape(str(unit.choice.unit)), escape(unit.choice.name),
            escape(unit.choice.envelope.backup_id if unit.choice.envelope else ""),
            iso(at.replace(microsecond=0)) if (at := unit.choice.data_at) else "", f"{unit.rows:,}",
            f"[{'red' if unit.problems else 'green'}]{unit.state}[/]",
        ]
        for unit in report.units
    ]  # fmt: skip
    print_table(f"Recovered into {report.database}", _DONE, units)
    tables = [[escape(name), f"{rows:,}", escape(report.empty.get(name, ""))] for name, rows in report.tables.items()]
    print_table("Tables", (("table", False), ("rows", True), ("empty on purpose", False)), tables)
    seconds = [[escape(name), f"{value:.2f}"] for name, value in report.steps.items()]
    print_table("Steps", (("step", False), ("seconds", True)), seconds)
    moved: dict[str, int] = {}
    for each in report.replaced:
        if each.differing:
            moved[each.table] = moved.get(each.table, 0) + each.differing
    for name, count in moved.items():
        errors.print(f"{escape(name)}: {count:,} rows had other values in older backups. The newest one counts.")
    for unit in report.units:
        for text in (*unit.explained, *unit.problems):
            errors.print(f"[yellow]{escape(str(unit.choice.unit))}:[/] {escape(in_words(one_line(text)))}")
    for text in (*report.missing, *report.problems):
        errors.print(f"[red]{escape(in_words(one_line(text)))}[/]")
    for what, alike in groupby(report.left, key=lambda each: (each.what, each.is_problem)):
        errors.print(f"[{'red' if what[1] else 'yellow'}]{escape(in_words(one_line(what[0])))}[/]")
        for left in alike:
            _print_sql(left.sql)
    left_out = sum(sum(unit.left_out.values()) for unit in report.units)
    if left_out:
        errors.print(f"{left_out:,} rows were left out, because they are forgotten.")
    proven = sum(unit.state == "proven" for unit in report.units)
    errors.print(f"{proven} of {len(report.units)} units are proven, block by block.")
    if not report.is_whole:
        errors.print("[red]Not everything is proven or explained.[/] See above.")


def _print_sql(statements: str) -> None:
    for line in statements.splitlines():
        errors.print(f"    {escape(one_line(line))}")
