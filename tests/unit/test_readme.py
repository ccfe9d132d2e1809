"""The README tells the truth where that can be checked."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from clinic_backups.base.settings import PROJECT_SQL, Settings
from clinic_backups.stores.kinds import KINDS

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()


def settings_table() -> str:
    """One line for each setting, from its field."""
    lines = ["| setting `CLINIC_BACKUPS_…` | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        assert default is not PydanticUndefined
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, Path):
            default = default.relative_to(CHECKOUT)
        shown = f"`{default}`" if default not in ("", (), {}, None) else ""
        lines.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_is_in_the_table_as_the_code_has_it() -> None:
    assert settings_table() in README


def test_every_file_kind_of_the_sql_folder_and_every_store_is_named() -> None:
    for path in PROJECT_SQL.glob("*.*"):
        assert f"`{path.name}`" in README
    for kind in KINDS.values():
        assert f"`{kind.scheme}://" in README
        assert f"`{kind.conn_type}`" in README or not kind.conn_type


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (CHECKOUT / target).exists(), target
