"""Where the files of a project lie that the package brings: in a checkout beside it, and in a wheel within it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]
IS_CHECKOUT = (_CHECKOUT / "include" / "sql").is_dir() and (_CHECKOUT / "pyproject.toml").is_file()
"""Whether the package runs from its repository."""
_WHEEL = _PACKAGE / "project"

PROJECT_SQL = _CHECKOUT / "include" / "sql" if IS_CHECKOUT else _WHEEL / "sql"
PROJECT_EMAIL = _CHECKOUT / "include" / "email" if IS_CHECKOUT else _WHEEL / "email"
ENV_EXAMPLE = _CHECKOUT / ".env.example" if IS_CHECKOUT else _WHEEL / "env.example"
