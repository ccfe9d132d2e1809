"""Writes the two reference pages from the code: ``make docs``. A test fails where a page differs from the code."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from clinic_backups.base.settings import Settings
from clinic_backups.cli.commands import app

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs"


def settings() -> str:
    """One line for each setting, from its field."""
    lines = ["| setting `CLINIC_BACKUPS_…` | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if default is PydanticUndefined:
            raise ValueError(f"The setting {name} has no default.")
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, Path):
            default = default.relative_to(CHECKOUT)
        shown = f"`{default}`" if default not in ("", (), {}, None) else ""
        lines.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its options, as ``--help`` says it."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="clinic-backups")
    # The page has a title and an introduction of its own.
    text = text[text.index("**Commands**:") :].replace("**Commands**:", "## All commands", 1)
    text = re.sub(r"```console\n\$ (.+)\n```", r"    \1", text).replace("**Usage**:\n\n", "")
    text = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), text).replace("* `FILE...", "* `FILE")
    # Lines that say nothing beyond the usage, and the titles that then stand above nothing.
    text = re.sub(r"\* `--help`: Show this message and exit\.\n", "", text)
    text = re.sub(r"\* `\w+ <\w+>`: +\[required\]\n", "", text)
    text = re.sub(r"\*\*(?:Options|Arguments)\*\*:\n\n(?=\n|#|\*\*|$)", "", text)
    text = re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"
    return re.sub(r"^\* `([a-z][a-z-]*)`: .*$", _Links(text), text, flags=re.MULTILINE)


class _Links:
    """A link and the whole first sentence for each line of a list of commands; typer cuts the sentence short."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._says = dict(re.findall(r"^#+ `clinic-backups (.+)`\n\n(.+)$", text, flags=re.MULTILINE))

    def __call__(self, line: re.Match[str]) -> str:
        before = re.findall(r"^#+ `clinic-backups (.+)`$", self._text[: line.start()], flags=re.MULTILINE)
        name = " ".join([*before[-1:], line[1]])
        return f"* [`{line[1]}`](#clinic-backups-{name.replace(' ', '-')}): {self._says[name]}"


def between(name: str, text: str, page: str) -> str:
    """The page with that text between its two marks. :raises ValueError: the page lacks them."""
    begin, end = f"<!-- {name}: made by `make docs` -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, also, after = rest.partition(end)
    if not (found and also):
        raise ValueError(f"The page lacks the marks {begin.strip()} and {end}.")
    return f"{before}{begin}{text}{end}{after}"


def pages() -> dict[Path, str]:
    """The text that each page should have."""
    found = {}
    for name, text in (("settings", settings()), ("commands", commands())):
        path = DOCS / f"{name}.md"
        found[path] = between(name, text, path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(CHECKOUT)}")
