"""``python -m bench``: measure, write ``build/bench.json`` and print a table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from types import FrameType

from rich.console import Console
from rich.markup import escape

from bench import (
    beside,
    block_size,
    board,
    diff,
    far,
    far_store,
    fleet,
    gentle,
    guards,
    incremental,
    large_clinic,
    memory,
    point_in_time,
    recover,
    report,
    restore,
    rows,
    small_clinics,
)
from bench.figures import BenchError, Figure
from bench.world import Scale, world
from include.demo.layout import CHECKOUT, DemoError
from include.demo.postgres import PostgresError
from tests.servers import ServerError

RESULT = CHECKOUT / "build" / "bench.json"
GROUPS = {
    "large": large_clinic.figures, "restore": restore.figures, "small": small_clinics.figures,
    "guards": guards.figures, "memory": memory.figures, "incremental": incremental.figures,
    "far": far.figures, "far_store": far_store.figures, "fleet": fleet.figures, "fleet_s3": fleet.into_bucket,
    "beside": beside.figures, "gentle": gentle.figures, "blocks": block_size.figures, "board": board.figures,
    "rows": rows.figures, "recover": recover.figures, "diff": diff.figures,
    "pitr": point_in_time.figures,
}  # fmt: skip
DEFAULT_GROUPS = ("large", "restore", "small", "guards", "incremental", "board")
QUICK = Scale(rows=300_000, rounds=2, clinics=20, patients=10, quick=True)
FULL = Scale(rows=3_000_000, rounds=5, clinics=100, patients=20, quick=False)


def main() -> int:
    """Run the benchmarks; returns the exit code, which does not depend on how fast anything was."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in under three minutes")
    parser.add_argument("--rows", type=int, help="rows of the large clinic, about")
    parser.add_argument("--rounds", type=int, help="rounds of measurements of the large clinic")
    parser.add_argument("--clinics", type=int, help="small clinics through the scheduler")
    parser.add_argument("--patients", type=int, help="patients of each small clinic")
    parser.add_argument(
        "--nights", type=int, help="nights in the catalog of the group board, each with all its clinics"
    )
    parser.add_argument(
        "--only",
        choices=GROUPS,
        action="append",
        help="only these; not among the default: memory, far, far_store, fleet, beside, gentle, blocks, rows, recover,"
        " diff, pitr",
    )
    arguments = parser.parse_args()
    asked = {name: getattr(arguments, name) for name in ("rows", "rounds", "clinics", "patients", "nights")}
    scale = Scale(**(vars(QUICK if arguments.quick else FULL) | {k: v for k, v in asked.items() if v is not None}))
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console, began = Console(), time.monotonic()

    def say(text: str) -> None:
        seconds = f"[dim]{time.monotonic() - began:6.1f} s[/]"
        console.print(f"{seconds}  {escape(text)}", soft_wrap=True, highlight=False)

    figures: list[Figure] = []
    try:
        with world(scale, say) as servers:
            for name in arguments.only or DEFAULT_GROUPS:
                figures += GROUPS[name](servers)
            _ignore_interrupts()  # a second Ctrl-C must not leave servers behind
    except (BenchError, DemoError, PostgresError, ServerError) as error:
        console.print(f"[red]Failed:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted")
        return 130
    report.write(figures, scale, RESULT)
    report.show(figures, console)
    console.print(f"Written to {RESULT.relative_to(CHECKOUT)}", highlight=False)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    _ignore_interrupts()
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
