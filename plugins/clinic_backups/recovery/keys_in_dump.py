"""The foreign keys that a definition makes, read from its statements: the tables are loaded before they have them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from clinic_backups.restore.table_rules import CASCADE, NO_ACTION, Reference

NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
"""An identifier as PostgreSQL writes it."""
NAMES = f"{NAME}(?:, {NAME})*"
_KEY = re.compile(
    rf"^ALTER TABLE (?:ONLY )?(?P<child>{NAME}\.{NAME})\s+ADD CONSTRAINT (?P<name>{NAME})"
    rf" FOREIGN KEY \((?P<columns>{NAMES})\) REFERENCES (?P<parent>{NAME}\.{NAME})\((?P<keys>{NAMES})\)(?P<rest>.*)",
    re.MULTILINE,
)


def foreign_keys_in(statements: Iterable[str]) -> list[Reference]:
    """The foreign keys that these statements of pg_dump make."""
    return [
        Reference(
            names_in(found["name"])[0], ".".join(names_in(found["child"])), names_in(found["columns"]),
            ".".join(names_in(found["parent"])), names_in(found["keys"]), (),
            on_delete=CASCADE if " ON DELETE CASCADE" in found["rest"] else NO_ACTION,
            match_full=" MATCH FULL" in found["rest"],
        )
        for statement in statements
        for found in _KEY.finditer(statement)
    ]  # fmt: skip


def names_in(text: str) -> tuple[str, ...]:
    """The identifiers in a text of them, without quotes."""
    return tuple(each[1:-1].replace('""', '"') if each.startswith('"') else each for each in re.findall(NAME, text))
