"""Queries of PostgreSQL's own catalog, one file each."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def catalog_query(name: str) -> str:
    """The text of ``<name>.sql`` in this folder."""
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
