"""``python -m tests.install``: README's and docs/install.md's commands with each Python of 3.11 to 3.13 that is found.

The commands are read from the pages. Each Python gets a clone of the last commit and fresh virtual environments below a
temporary folder. ``TESTS_PYTHONS`` names further Pythons, separated as in PATH.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
SECTIONS = ("As an installed package", "In an existing Airflow")
README_STEPS = ("demo", "demo-restore", "demo-disaster")
"""Of README's block. `demo-distributed` needs Redis, and a test of its own runs it."""


def main() -> int:
    """Run them; returns 0 when every command of every Python did what its page says."""
    parser = argparse.ArgumentParser(prog="python -m tests.install", description=__doc__)
    parser.add_argument("--only", action="append", help="only this version of Python; may be repeated")
    parser.add_argument("--pages", action="append", choices=("readme", "install"), help="only this page")
    arguments = parser.parse_args()
    wrong = False
    for version in arguments.only or VERSIONS:
        python = next(_candidates(version), None)
        if python is None:
            print(f"Python {version}: missing")
            wrong |= bool(arguments.only)
            continue
        for page in arguments.pages or ("install", "readme"):
            for name, script in scripts(page):
                with tempfile.TemporaryDirectory() as place:
                    began = time.monotonic()
                    done = follow(script, python, Path(place))
                outcome = "passed" if done.returncode == 0 else f"FAILED\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
                print(f"Python {version}, {name}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
                wrong |= done.returncode != 0
    return int(wrong)


def scripts(page: str) -> Iterator[tuple[str, str]]:
    """Each section's commands, as the page has them."""
    if page == "readme":
        block = re.findall(r"^    (make (\S+).*)$", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.M)
        lines = [line for line, target in block if target in README_STEPS]
        if len(lines) != len(README_STEPS):
            raise ValueError("README.md does not name the steps of the demo.")
        yield "README", "\n".join(lines)
        return
    text = (CHECKOUT / "docs" / "install.md").read_text(encoding="utf-8")
    for section in SECTIONS:
        body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", body, re.M | re.S))
        if "clinic-backups " not in commands:
            raise ValueError(f"docs/install.md has no commands below {section}.")
        yield section, commands


def follow(script: str, python: Path, place: Path, *, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the commands in a fresh clone, with a fresh virtual environment on the search path.

    :param packages: a folder with packages that count as installed already, to save time.
    """
    checkout, environment = place / "checkout", place / "venv"
    if packages is None:
        subprocess.run(["git", "clone", "--quiet", CHECKOUT, checkout], check=True)
    else:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).is_file():
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, checkout / name)
    subprocess.run([python, "-m", "venv", environment], check=True)
    if packages is not None:
        (site,) = environment.glob("lib/python3*/site-packages")
        # Python 3.11 puts an old one there, in whose place the lock's would be installed.
        for old in site.glob("setuptools*"):
            shutil.rmtree(old)
        (site / "packages.pth").write_text(f"{packages}\n")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables |= {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHON": str(python)}
    # Also the Airflow that the command may ask is a new one.
    variables["AIRFLOW_HOME"] = str(place / "airflow")
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=checkout, env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _candidates(version: str) -> Iterator[Path]:
    """Programs that are this version and can make virtual environments."""
    named = [*filter(None, os.environ.get("TESTS_PYTHONS", "").split(os.pathsep)), shutil.which(f"python{version}")]
    for place in [*filter(None, named), *_of_pyenv(version), _of_uv(version)]:
        code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
        if place and _output(str(place), "-c", code) == version:
            yield Path(place)


def _of_pyenv(version: str) -> list[str]:
    found = [each.strip() for each in _output("pyenv", "versions", "--bare").splitlines()]
    return [f"{_output('pyenv', 'prefix', each)}/bin/python" for each in found if each.startswith(f"{version}.")]


def _of_uv(version: str) -> str:
    return _output(sys.executable, "-m", "uv", "python", "find", version, "--no-python-downloads", "--system")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
