"""README and docs agree with the code where that can be checked."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.stores.kinds import KINDS
from include import docs

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / name for name in ("README.md", "README.es.md", "CONTRIBUTING.md")]
PAGES += sorted((CHECKOUT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^ {4,}|`)clinic-backups ([^`\n#]*)", flags=re.M)


def test_the_reference_pages_are_as_the_code_says() -> None:
    for path, text in docs.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs from the code: run `make docs`"


def test_every_setting_and_every_command_is_in_the_reference() -> None:
    settings, commands = (docs.DOCS / "settings.md").read_text(), (docs.DOCS / "commands.md").read_text()
    assert "| `STORE_URL` |  |" in settings and "| `KEEP_DAYS` | `30` |" in settings
    for name in ("backup", "restore", "catalog verify", "catalog forget-store", "grant respaldo", "store init"):
        assert f"# `clinic-backups {name}`\n" in commands
    assert "--help" not in docs.commands() and "..." not in re.sub(r"^ {4}.*$", "", docs.commands(), flags=re.M)


def test_every_file_kind_of_the_sql_folder_and_every_store_is_named() -> None:
    sql, settings = (docs.DOCS / "sql.md").read_text(), (docs.DOCS / "settings.md").read_text()
    for path in PROJECT_SQL.glob("*.*"):
        assert f"`{path.name}`" in sql
    for kind in KINDS.values():
        assert f"`{kind.scheme}://" in settings
        assert f"`{kind.conn_type}`" in settings or not kind.conn_type


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return {
        re.sub(r"[^\w -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in lines
        if re.match(r"#+ ", line)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(CHECKOUT), target
        assert not heading or heading in headings(found), target


@cache
def options_of_commands() -> dict[str, set[str]]:
    sections = re.findall(r"^#+ `clinic-backups ([a-z -]+)`\n(.*?)(?=^#|\Z)", docs.commands(), flags=re.M | re.S)
    return {name: set(re.findall(r"--[a-z-]+", text)) for name, text in sections}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    options = options_of_commands()
    for call in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = re.findall(r"[^\s\[\]|]+", call.partition("   ")[0])
        named = [name for name in options if words[: len(name.split())] == name.split()]
        assert named or words[:1] in ([], ["--help"], ["[OPTIONS]"]), call
        used = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert not named or used <= options[max(named, key=len)], call


def test_the_two_readmes_say_the_same() -> None:
    english, spanish = (page.read_text(encoding="utf-8") for page in PAGES[:2])
    for pattern in (r"^## ", r"^- \*\*", r"^!\[", r"^\| ", r"^    make "):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, spanish, re.M)), pattern
    other = {"README.es.md", "README.md"}
    assert set(LINK.findall(english)) - other == set(LINK.findall(spanish)) - other
    assert len(english.splitlines()) <= 90
