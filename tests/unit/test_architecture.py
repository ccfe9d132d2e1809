"""docs/architecture.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import clinic_backups

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = Path(clinic_backups.__file__).parent


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_recipes_files_exist() -> None:
    paths = re.findall(r"`((?:include|plugins|dags|tests)/[^`]+)`", section("To add …"))
    assert len(paths) > 25
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []


def test_the_ways_files_exist() -> None:
    named = re.findall(r"`([a-z_/]+\.py)`", section("The way of a backup") + section("The way of a restore"))
    assert len(named) > 20
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_folder_has_its_floor() -> None:
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `([^`]+)` \|", section("The floors"), re.MULTILINE)) == folders | modules
