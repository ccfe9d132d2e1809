"""The commands print names as they are: rich reads ``:b:`` as an emoji and ``[red]`` as a colour."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.cli.output import print_error, print_table

NAME = "s.a:b: 1 to insert :smile:"
ROOT = Path(__file__).parents[2]


def calls(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where something of rich is made, and with which options."""
    for folder in ("plugins", "include"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                    yield (
                        f"{file.name}:{node.lineno}",
                        {each.arg or "": ast.unparse(each.value) for each in node.keywords},
                    )


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"Of {NAME}", [("table", False)], [[NAME]])
    assert capsys.readouterr().out.count(":smile:") == 2
    print_error(SettingsError(NAME, hint=NAME))
    assert capsys.readouterr().err.count(NAME) == 2


def test_nothing_of_rich_reads_emoji_in_names() -> None:
    consoles = dict(calls("Console"))
    assert consoles
    assert [where for where, options in consoles.items() if options.get("emoji") != "False"] == []
    columns = dict(calls("TextColumn"))
    assert columns
    assert [where for where, options in columns.items() if options.get("markup") != "False"] == []
