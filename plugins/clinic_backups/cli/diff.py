"""``clinic-backups diff``: what changed between two states of a clinic."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.app import Parts
from clinic_backups.archive.sealed_file import sealed_file
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import in_words
from clinic_backups.base.text import one_line, shown_line
from clinic_backups.catalog.row_changes import TableChange
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import Steps, errors, print_json, print_table, require_terminal
from clinic_backups.cli.row_param import named_tables
from clinic_backups.differences.found import RowDifference, TableDifference
from clinic_backups.differences.states import Difference, State
from clinic_backups.tenant.declarations import spelled

COLUMNS = (
    ("table", False), ("added", True), ("removed", True), ("changed", True), ("columns that differ", False),
)  # fmt: skip
ESTIMATED = (("table", False), ("rows before", True), ("rows after", True), ("new or changed, at most", True))
SHOWN_COLUMNS, MOST_SHOWN = 6, 1_000


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("diff")(diff)


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A backup's id, a time, `now`, or a connection's name.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same. The changes are those from A to B.")] = "now",
    clinic: Annotated[Any, typer.Option(parser=clinic_arg, metavar="ID", help="Needed if no backup is named.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    values: Annotated[bool, typer.Option("--values", help="Also show the rows' values. Only in a terminal.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the rows with their values into this file, encrypted to the public keys."),
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="File with the secret key.")] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Of two backups: what the catalog knows, about how many rows.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, without values.")] = False,
) -> None:
    """Compare two states of a clinic: how many rows were added, removed and changed in each table.

    Needs the secret key if one of them is a backup. Values are patients' data: they are shown in a terminal, or go into
    an encrypted file, one JSON object a line.
    """
    if values:
        require_terminal(as_json=json, otherwise="Give --output FILE for an encrypted file.")
    with_parts = parts()
    steps = Steps()
    states = with_parts.states(identity, listener=steps.listener)
    clinic_id, (one, other) = states.named(first, second, clinic_id=clinic)
    if without_key:
        _estimate(with_parts, one, other, json=json)
        return
    with ExitStack() as closing:
        tell: list[Callable[[RowDifference], object]] = []
        if output is not None:
            file = closing.enter_context(sealed_file(output, with_parts.settings.recipients))
            tell.append(lambda row: file.write(f"{json_text.dumps(row.to_json(), ensure_ascii=False)}\n".encode()))
        shown = list[RowDifference]()
        if values:
            tell.append(lambda row: shown.append(row) if len(shown) < MOST_SHOWN else None)
        closing.enter_context(steps)
        found = states.compare(
            clinic_id,
            one,
            other,
            named_tables(table),
            on_row=(lambda row: [each(row) for each in tell]) if tell else None,
        )
    if json:
        print_json(found.to_json())
        return
    _show(found)
    for row in shown:
        print(shown_line(json_text.dumps(row.to_json(), ensure_ascii=False)))
    if values and found.rows > len(shown):
        errors.print(f"Only {len(shown):,} rows are shown. --output FILE writes all of them, encrypted.")
    if output is not None:
        errors.print(f"The rows are in {escape(str(output))}. Open it with: age --decrypt --identity KEY FILE")


def _estimate(with_parts: Parts, one: State, other: State, *, json: bool) -> None:
    if one.backup is None or other.backup is None:
        raise SettingsError(
            "Without the secret key only two backups can be compared.",
            hint="Give the ids of two backups, or two times.",
        )
    found = [each for each in with_parts.row_changes.between(one.backup, other.backup) if each.is_worth_saying]
    if json:
        print_json([each.to_json() for each in found])
        return
    title = in_words(f"Clinic {one.backup.clinic_id}: from {one.said} to {other.said}")
    if not found:
        print(f"{title}: nothing differs.")
        return
    print_table(escape(title), ESTIMATED, map(_estimated_cells, found))
    print(
        "New or changed rows are counted by blocks of about 128 rows. Rows that are again as in an earlier backup are"
        " not counted. With the secret key `diff` counts the rows."
    )


def _estimated_cells(change: TableChange) -> list[str]:
    counts = ("" if count is None else f"{count:,}" for count in (change.before, change.after))
    return [escape(spelled(change.table)), *counts, "not known" if change.at_most is None else f"{change.at_most:,}"]


def _show(found: Difference) -> None:
    lines = [table for table in found.tables if table.is_worth_saying]
    title = in_words(f"Clinic {found.clinic_id}: from {found.first} to {found.second}")
    if not lines:
        print(f"{title}: nothing differs.")
        return
    print_table(escape(title), COLUMNS, map(_cells, lines))
    for table in lines:
        for note in notes_of(table):
            print(one_line(f"{spelled(table.table)}: {note}"))
    print(f"{found.rows:,} rows differ.")
    for note in found.notes:
        print(note)


def _cells(table: TableDifference) -> list[str]:
    names = [f"{name} ({count:,})" for name, count in table.columns.most_common(SHOWN_COLUMNS)]
    more = ["…"] if len(table.columns) > SHOWN_COLUMNS else []
    figures = (f"{count:,}" for count in (table.added, table.removed, table.changed))
    return [escape(spelled(table.table)), *figures, escape(one_line(", ".join([*names, *more])))]


def notes_of(table: TableDifference) -> list[str]:
    """Sentences about what the figures alone do not say."""
    return [
        *(["only the first state has this table."] if table.only_first else []),
        *(["only the second state has this table."] if table.only_second else []),
        *([f"columns that are gone, and were not compared: {', '.join(table.dropped)}."] if table.dropped else []),
        *([f"columns that are new, and were not compared: {', '.join(table.new)}."] if table.new else []),
        *(
            [f"columns whose type is another one, so values may be written otherwise: {_retyped(table)}."]
            if table.retyped
            else []
        ),
        *(
            ["it has no primary key on both sides, so a changed row counts as removed and added."]
            if not table.is_keyed and table.rows
            else []
        ),
        *(["other clinics refer to these rows, too."] if table.is_parent and table.rows else []),
    ]


def _retyped(table: TableDifference) -> str:
    return ", ".join(f"{name} ({before}, {after})" for name, before, after in table.retyped)
