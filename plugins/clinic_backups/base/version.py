"""The version of this package, which pyproject.toml alone states."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from clinic_backups.base.project import CHECKOUT


@cache
def program_version() -> str:
    """That of the installed package. In a checkout that is not installed, the one of its pyproject.toml."""
    try:
        return version("clinic-backups")
    except PackageNotFoundError:
        return _of_checkout()


def _of_checkout() -> str:
    try:
        return str(tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, KeyError, ValueError):
        return "unknown"
