"""Faults that tests put into a database, into settings, and into the SQL folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.postgres_fixtures import DemoDatabase

Break = Callable[[DemoDatabase, Path], Mapping[str, str | None]]
"""Spoils something in the database or below the folder, and returns the environment variables to change."""


def statement(text: str) -> Break:
    """Run SQL."""

    def breaks(database: DemoDatabase, folder: Path) -> Mapping[str, str | None]:
        with database.session.transaction() as cursor:
            cursor.execute(text)
        return {}

    return breaks


def variable(**variables: str | None) -> Break:
    """Change environment variables; ``None`` takes one away."""
    return lambda database, folder: variables


@contextmanager
def stock_condition(sql: Path, condition: str) -> Iterator[None]:
    """The extract of the clinics' stock, in this SQL folder, has a further condition meanwhile."""
    extract = sql / "extract" / "inventario_inventario.sql"
    kept = extract.read_text()
    extract.write_text(f"{kept}   AND {condition}\n")
    try:
        yield
    finally:
        extract.write_text(kept)
