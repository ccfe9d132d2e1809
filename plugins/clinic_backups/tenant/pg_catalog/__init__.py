"""The SQL of the checks, one statement in each file: queries of PostgreSQL's own catalog, and comparisons of rows."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def catalog_query(name: str, **parts: str) -> str:
    """The text of ``<name>.sql`` in this folder.

    :param parts: for each ``{part}`` in it, the name of the file whose text stands there.
    """
    text = resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    for part, file in parts.items():
        text = text.replace(f"{{{part}}}", catalog_query(file))
    return text
