"""``python -m tests.faults --steps N --seed S``: random faults, until one is found or the steps are done."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "plugins")]


def main() -> int:
    """Returns the exit code: 0, or 1 after a violation, 2 where something is missing."""
    from tests.faults.campaign import Campaign, describe
    from tests.faults.oracle import Oracle, Violation
    from tests.faults.world import missing_programs, servers, world

    words = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    words.add_argument("--steps", type=int, default=200, help="how many operations")
    words.add_argument("--seed", type=int, default=None, help="the same choices again; times differ")
    words.add_argument("--primary", choices=("s3", "file"), default=None, help="the store that is not the further one")
    given = words.parse_args()
    if missing := missing_programs():
        print(f"The oracle needs {', '.join(missing)}.\nHINT: apt-get install age zstd tar", file=sys.stderr)
        return 2
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    primary = given.primary or ("s3", "file")[seed % 2]
    clock = shutil.which("faketime") is not None
    folder = Path(tempfile.mkdtemp(prefix="clinic-backups-faults-"))
    began = time.monotonic()
    print(f"seed {seed}, {given.steps} steps, primary store {primary}" + ("" if clock else ", no faketime"), flush=True)
    try:
        with servers(folder) as (template, server), world(folder / "world", template, server, primary, "f") as made:
            oracle = Oracle(made)
            campaign = Campaign(made, oracle, seed, lambda line: print(line, flush=True), clock=clock)
            try:
                campaign.run(given.steps)
            except Violation as violation:
                print(f"\nVIOLATION, {violation}\nKept: {describe(made)}", flush=True)
                return 1
            print(f"{given.steps} steps without a violation, {campaign.fired} faults at a request or COMMIT,"
                  f" {oracle.checked} backups opened, {time.monotonic() - began:.0f} s")  # fmt: skip
    except BaseException:
        traceback.print_exc()
        print(f"Kept: {folder}")
        raise
    else:
        shutil.rmtree(folder)
        return 0
    finally:
        print(f"seed {seed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
