"""docs/install.md: the commands of its first steps, in a fresh environment that has the locked packages already.

``make test-install`` installs the packages too, with each Python that is found.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from tests.install import SECTIONS, follow, scripts


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_of_the_page_is_there(section: str, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    # All but this package and pip: the environment has its own pip.
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "clinic_backups" not in path.name and not path.name.startswith("pip") and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    script = dict(scripts("install"))[section]
    lines = script.splitlines(keepends=True)
    # This one takes minutes, and `make test-install` runs it.
    kept = [line for line in lines if "--require-hashes" not in line]
    assert len(lines) - len(kept) == 1
    done = follow("".join(kept), Path(sys.executable), tmp_path, packages=packages)
    assert done.returncode == 0, done.stdout + done.stderr
    command = tmp_path / "venv" / "bin" / "clinic-backups"
    assert command.exists()
    if section == SECTIONS[0]:
        assert list((tmp_path / "my-airflow" / "dags").glob("*.py"))


def test_the_readmes_first_commands_are_those_that_make_has() -> None:
    targets = Path(__file__).parents[2].joinpath("Makefile").read_text()
    for line in dict(scripts("readme"))["README"].splitlines():
        assert f"\n{line.split()[1]}: " in targets
