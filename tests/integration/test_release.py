"""``make release`` in a copy of the checkout: what it builds, and what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from include import release
from include.demo.layout import CHECKOUT

VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
READY = f"## {VERSION}, 2026-12-01\n\n### When upgrading\nRun `clinic-backups catalog migrate`.\n"


class Copy:
    """A repository of its own with the checkout's files as they are now, and a changelog of a release."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, check=True,
            capture_output=True, text=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, listed):
            if (CHECKOUT / name).is_file() and not name.startswith(("tests/", "bench/", "docs/images/")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, folder / name)
        self.write("CHANGELOG.md", f"# Changes\n\n{READY}")
        self.run("git", "init", "-q", "-b", "main")
        self.commit()
        self.ready = (folder / ".git/refs/heads/main").read_text().strip()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        self.run("git", *author, "commit", "-q", "--allow-empty", "-m", "x")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, env=os.environ | self.git, check=True, text=True)

    def release(self, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
        """Without docker, unless it is in ``path``."""
        programs = f"{Path(shutil.which('git') or 'git').parent}:{path}"
        return subprocess.run(
            [sys.executable, "-m", "include.release"], cwd=self.folder, capture_output=True, text=True, timeout=200,
            env=os.environ | self.git | {"PATH": programs}, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(copied: Copy) -> Copy:
    copied.run("git", "reset", "-q", "--hard", copied.ready)
    return copied


def test_wheel_and_sdist_are_built_and_the_image_is_said_to_be_left_out(copy: Copy) -> None:
    done = copy.release()
    assert done.returncode == 0, done.stderr
    built = sorted(path.name for path in (copy.folder / "dist").iterdir())
    assert built == [f"clinic_backups-{VERSION}-py3-none-any.whl", f"clinic_backups-{VERSION}.tar.gz"]
    for name in built:
        assert re.search(rf"^  [0-9a-f]{{64}}  dist/{re.escape(name)}$", done.stdout, re.MULTILINE)
    assert "The image was left out: docker does not run here." in done.stdout
    assert f"To mark it: git tag -a v{VERSION}" in done.stdout
    with zipfile.ZipFile(copy.folder / "dist" / built[0]) as wheel:
        assert "clinic_backups/project/sql/active_clinics.sql" in wheel.namelist()
    assert copy.run("git", "diff", "--quiet").returncode == 0


def test_with_docker_the_image_is_built_and_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for docker, which writes down what it is told: no docker runs where this was made."""
    docker, told = tmp_path / "docker", tmp_path / "told"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ "$1" != run ] || echo "clinic-backups $SAYS"\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setenv("SAYS", "1.2.3")
    assert release.image("1.2.3") == "The image clinic-backups:1.2.3 is built."
    assert told.read_text().splitlines() == [
        "info", f"build -t clinic-backups:1.2.3 {CHECKOUT}",
        "run --rm --network none clinic-backups:1.2.3 clinic-backups --version",
    ]  # fmt: skip
    with pytest.raises(release.Refused, match=r"does not say that it is version 1\.2\.4"):
        release.image("1.2.4")


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        ("# Changes\n\n## Unreleased\n- x\n", f"has no section for version {VERSION}."),
        (f"# Changes\n\n## {VERSION}, 2026-12-01\n- x\n", "does not say what to do when upgrading"),
        (f"# Changes\n\n## Unreleased\n- x\n\n{READY}", "has lines under Unreleased"),
    ],
)
def test_a_changelog_that_is_not_ready_is_refused(copy: Copy, changelog: str, said: str) -> None:
    copy.write("CHANGELOG.md", changelog)
    copy.commit()
    done = copy.release()
    assert (done.returncode, said in done.stderr, "HINT: " in done.stderr) == (1, True, True), done.stderr


def test_what_is_not_committed_is_refused_and_named(copy: Copy) -> None:
    copy.write("note.txt", "x")
    done = copy.release()
    (copy.folder / "note.txt").unlink()
    assert done.returncode == 1
    assert "1 files are not committed, the first is note.txt." in done.stderr


@pytest.mark.parametrize("inside_of_another", [False, True])
def test_files_that_are_no_repository_of_their_own_are_refused(
    copy: Copy, tmp_path: Path, inside_of_another: bool
) -> None:
    """An unpacked sdist has no commit; one in another repository would be released with the state of that one."""
    unpacked = tmp_path / "unpacked"
    shutil.copytree(copy.folder, unpacked, ignore=shutil.ignore_patterns(".git", "dist", "build"))
    if inside_of_another:
        subprocess.run(["git", "init", "-q", tmp_path], env=os.environ | copy.git, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "include.release"], cwd=unpacked, capture_output=True, text=True, timeout=200,
        env=os.environ | copy.git, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"{unpacked} is not a git repository of its own.")


def test_a_version_that_has_its_tag_elsewhere_and_another_one_in_compose_are_refused(copy: Copy) -> None:
    copy.run("git", "tag", f"v{VERSION}")
    copy.commit()
    done = copy.release()
    copy.run("git", "tag", "-d", f"v{VERSION}")
    assert (done.returncode, f"The tag v{VERSION} is at another commit." in done.stderr) == (1, True)
    compose = copy.folder / "docker-compose.yaml"
    compose.write_text(compose.read_text().replace(f"clinic-backups:{VERSION}", "clinic-backups:9.9"))
    copy.commit()
    done = copy.release()
    assert (done.returncode, "docker-compose.yaml names another version." in done.stderr) == (1, True)


def test_a_wheel_with_a_file_of_ours_alone_is_refused(copy: Copy) -> None:
    (copy.folder / "plugins" / "clinic_backups" / "tests").mkdir()
    copy.write("plugins/clinic_backups/tests/__init__.py", "")
    copy.commit()
    done = copy.release()
    assert (done.returncode, "which is not for others" in done.stderr) == (1, True), done.stderr


def test_every_place_that_names_the_version_names_the_same() -> None:
    assert f"image: clinic-backups:{VERSION}\n" in (CHECKOUT / "docker-compose.yaml").read_text()
