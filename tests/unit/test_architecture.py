"""docs/architecture.md names only what exists."""

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


def test_the_files_of_both_runs_exist() -> None:
    named = re.findall(r"`([a-z_/]+\.py)`", section("How a backup runs") + section("How a restore runs"))
    assert len(named) > 20
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_folder_is_a_layer() -> None:
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `([^`]+)` \|", section("Layers"), re.MULTILINE)) == folders | modules
