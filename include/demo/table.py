"""The demo's result: what the catalog says about the backups of one run."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clinic_backups.base.clinic_id import order_of
from include.demo.layout import DemoError

COMPLETED = "completed"


def read(text: str) -> list[dict[str, Any]]:
    """The backups in what ``clinic-backups list --json`` printed. :raises DemoError: it is no list of objects."""
    try:
        backups = json.loads(text)
    except ValueError as error:
        raise DemoError(f"`clinic-backups list --json` printed no JSON: {text[:200]!r}") from error
    if not isinstance(backups, list) or not all(isinstance(backup, dict) for backup in backups):
        raise DemoError(f"`clinic-backups list --json` printed no list of objects: {text[:200]!r}")
    return backups


def show(backups: list[dict[str, Any]], console: Console) -> None:
    """Print the table, and below it each failure with its error and hint."""
    backups = sorted(backups, key=lambda backup: order_of(backup.get("clinic_id") or 0))
    table = _table(backups, with_key=True)
    width = Console(width=10_000, emoji=False).measure(table).maximum
    if width <= console.width or not console.is_terminal:
        # Into a file or a CI log the table goes as wide as it is: a key that is cut in two cannot be searched for.
        Console(file=console.file, emoji=False, width=max(width, console.width)).print(table)
    else:
        console.print(_table(backups, with_key=False))
        for backup in backups:
            if backup.get("key"):
                console.print(f"{escape(_name(backup))}: {escape(str(backup['key']))}", highlight=False, soft_wrap=True)
    for backup in backups:
        if backup.get("state") != COMPLETED:
            _show_failure(backup, console)


def all_completed(backups: list[dict[str, Any]]) -> bool:
    """Whether there are backups and every one of them is whole."""
    return bool(backups) and all(backup.get("state") == COMPLETED for backup in backups)


def _table(backups: list[dict[str, Any]], *, with_key: bool) -> Table:
    table = Table(title="Backups of this run")
    for name in ("clinic", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "raw", "stored", "ratio", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    if with_key:
        table.add_column("object key", no_wrap=True)
    for backup in backups:
        table.add_row(*_cells(backup)[: len(table.columns)])
    return table


def _show_failure(backup: dict[str, Any], console: Console) -> None:
    reason = escape(str(backup.get("error") or "the catalog has no reason"))
    console.print(f"[red]Failed:[/] {escape(_name(backup))}: {reason}", highlight=False, soft_wrap=True)
    if backup.get("hint"):
        console.print(f"  HINT: {escape(str(backup['hint']))}", highlight=False, soft_wrap=True)


def _cells(backup: dict[str, Any]) -> tuple[str, ...]:
    raw, stored, seconds = (backup.get(name) for name in ("raw_bytes", "size_bytes", "seconds"))
    style = "green" if backup.get("state") == COMPLETED else "red"
    return (
        escape(_name(backup)),
        f"[{style}]{escape(str(backup.get('state')))}[/]",
        "" if backup.get("rows_total") is None else f"{backup['rows_total']:,}",
        _size(raw),
        _size(stored),
        f"{raw / stored:.1f}" if raw and stored else "",
        "" if seconds is None else f"{seconds:.2f}",
        escape(str(backup.get("key") or "")),
    )


def _name(backup: dict[str, Any]) -> str:
    return str(backup.get("clinic_name") or f"clinic {backup.get('clinic_id')}")


def _size(count: float | None) -> str:
    if count is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
