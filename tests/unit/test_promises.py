"""Each promise of the README has its sentences and tests in docs/promises.md, and the named tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
TABLE = (CHECKOUT / "docs" / "promises.md").read_text()
NODE = re.compile(r"`([a-z_/]+\.py)::(\w+)`")


def promises(text: str = README, title: str = "What is promised") -> list[str]:
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^- \*\*(.+?)\*\*", section, flags=re.M)


def rows() -> dict[str, list[tuple[str, str]]]:
    lines = [line.split(" | ") for line in TABLE.splitlines() if line.startswith("| ")][2:]
    return {cells[0].removeprefix("| "): NODE.findall(cells[1]) for cells in lines}


def test_every_promise_has_tests_and_no_other_line_is_there() -> None:
    assert len(promises()) >= 10
    assert list(rows()) == promises() == promises(TABLE, "In full")
    assert all(rows().values())


@pytest.mark.parametrize(("file", "name"), sorted({node for nodes in rows().values() for node in nodes}))
def test_every_test_that_is_named_for_a_promise_is_there(file: str, name: str) -> None:
    tree = ast.parse((CHECKOUT / "tests" / file).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert found, f"tests/{file} has no {name}"
