"""Builds a release and checks it: ``make release``. It changes nothing but dist/, and sends nothing anywhere.

The version is that of pyproject.toml. CHANGELOG.md needs a section for it, with what to do when upgrading.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DIST = CHECKOUT / "dist"
UPGRADING = "### When upgrading"
MUST_HAVE = (
    "clinic_backups/airflow_plugin.py", "clinic_backups/dags/clinic_backup.py", "clinic_backups/project/env.example",
    "clinic_backups/project/sql/active_clinics.sql", "clinic_backups/project/email/es/success.jinja",
    "clinic_backups/web/templates/board.html", "clinic_backups/tenant/pg_catalog/__init__.py",
)  # fmt: skip
MUST_NOT_HAVE = re.compile(r"(^|/)(tests|bench|demo|\.env|__pycache__)(/|$)|\.(pem|key|pyc)$|identity\.txt$")


class Refused(Exception):
    """The release is not built. The text says why, and what to do."""


def main(say: Callable[[str], object] = print) -> int:
    """Returns the exit code."""
    try:
        version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        check_checkout(version)
        say(f"Building version {version}")
        wheel, sdist = build()
        check_wheel(wheel, version)
        check_sdist(sdist, version)
        for path in (wheel, sdist):
            say(f"  {hashlib.sha256(path.read_bytes()).hexdigest()}  dist/{path.name}")
        say(image(version))
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    say(f"To mark it: git tag -a v{version} -m {version}")
    return 0


def check_checkout(version: str) -> None:
    """:raises Refused: it is not what a release may be built from."""
    # Quietly: git says the same in other words.
    top = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.strip()
    if not top or Path(top).resolve() != CHECKOUT:
        raise Refused(
            f"{CHECKOUT} is not a git repository of its own.\nHINT: clone the repository, and run make release there."
        )
    changed = _output("git", "status", "--porcelain").splitlines()
    if changed:
        raise Refused(
            f"{len(changed)} files are not committed, the first is {changed[0][3:]}.\nHINT: commit or remove them, then"
            " make release."
        )
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\s,]+)[^\n]*\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    if version not in sections:
        raise Refused(
            f"CHANGELOG.md has no section for version {version}.\nHINT: give the section Unreleased this heading, with"
            f" today's date: ## {version}, YYYY-MM-DD"
        )
    if UPGRADING not in sections[version]:
        raise Refused(
            f"The section {version} of CHANGELOG.md does not say what to do when upgrading.\nHINT: add {UPGRADING!r},"
            " and write the steps below it. If an upgrade needs no step, write that."
        )
    if sections.get("Unreleased", "").strip():
        raise Refused(
            f"CHANGELOG.md has lines under Unreleased.\nHINT: move them to version {version}, or raise the version in"
            " pyproject.toml."
        )
    image_line = f"image: clinic-backups:{version}\n"
    if image_line not in (CHECKOUT / "docker-compose.yaml").read_text(encoding="utf-8"):
        raise Refused(f"docker-compose.yaml names another version.\nHINT: write {image_line.strip()}")
    tagged = _output("git", "tag", "--list", f"v{version}").strip()
    if tagged and _output("git", "rev-list", "-n1", tagged) != _output("git", "rev-parse", "HEAD"):
        raise Refused(f"The tag {tagged} is at another commit.\nHINT: raise the version in pyproject.toml.")


def build() -> tuple[Path, Path]:
    """Make the sdist, and the wheel from the sdist, so that the sdist is known to be whole."""
    with tempfile.TemporaryDirectory() as folder:
        # setuptools is in the lock: nothing that is not locked is fetched.
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--no-build-isolation", "--python", sys.executable]
        done = subprocess.run([*command, "-o", folder, CHECKOUT], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"The package cannot be built:\n{done.stderr}")
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        built = [Path(shutil.move(path, DIST)) for path in Path(folder).iterdir() if path.name != ".gitignore"]
    (wheel,) = (path for path in built if path.suffix == ".whl")
    (sdist,) = (path for path in built if path.name.endswith(".tar.gz"))
    return wheel, sdist


def check_wheel(wheel: Path, version: str) -> None:
    """:raises Refused: it lacks something, has something that is not for others, or does not start."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if archive.testzip() is not None:
            raise Refused(f"{wheel.name} is damaged.")
    if missing := [name for name in MUST_HAVE if name not in names]:
        raise Refused(f"{wheel.name} lacks {missing[0]}.\nHINT: see package-data in pyproject.toml, and setup.py.")
    _check_names(wheel, names)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "site"
        install = ["-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
        subprocess.run([sys.executable, *install], check=True)
        code = f"import sys; sys.path.insert(0, {str(target)!r}); from clinic_backups.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, "--version"], cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode or version not in done.stdout:
        raise Refused(f"The installed wheel does not say that it is version {version}:\n{done.stdout}{done.stderr}")


def check_sdist(sdist: Path, version: str) -> None:
    """:raises Refused: it lacks something, or has something that is not for others."""
    with tarfile.open(sdist) as archive:
        names = [name.removeprefix(f"clinic_backups-{version}/") for name in archive.getnames()]
    for name in ("CHANGELOG.md", "include/sql/active_clinics.sql", ".env.example", "setup.py", "requirements.txt"):
        if name not in names:
            raise Refused(f"{sdist.name} lacks {name}.\nHINT: see MANIFEST.in.")
    _check_names(sdist, names)


def image(version: str) -> str:
    """Build the image where docker works; returns what became of it."""
    tag = f"clinic-backups:{version}"
    if not _succeeds("docker", "info"):
        return f"The image was left out: docker does not run here. Where it does: docker build -t {tag} ."
    done = subprocess.run(["docker", "build", "-t", tag, CHECKOUT], check=False)
    if done.returncode:
        raise Refused(f"The image {tag} could not be built: see above.")
    said = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", tag, "clinic-backups", "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if said.returncode or version not in said.stdout:
        raise Refused(f"The image {tag} does not say that it is version {version}:\n{said.stdout}{said.stderr}")
    return f"The image {tag} is built."


def _check_names(built: Path, names: list[str]) -> None:
    if strange := [name for name in names if MUST_NOT_HAVE.search(name)]:
        raise Refused(
            f"{built.name} has {strange[0]}, which is not for others.\nHINT: see MANIFEST.in and pyproject.toml."
        )


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    sys.exit(main())
