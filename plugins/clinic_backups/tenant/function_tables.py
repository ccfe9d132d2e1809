"""The relations that functions may read, by the names in their texts.

PostgreSQL does not know what a function's text reads before it runs. A lock that a function took is gone again if it
was taken inside a block whose exception was caught, so the locks at the end do not show all that was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.sql_tokens import Mentions, tokens

CAST = "::"
"""Stands for functions of casts, which a query may call without naming them."""


def named_in_functions(cursor: Any, queries: Iterable[str], relations: Collection[int]) -> list[int]:
    """The relations that have a name in the text of a function that the queries may call, directly or through others.

    :param relations: those that the queries read. Views and computed columns among them call functions too.
    """
    cursor.execute(catalog_query("called_texts"))
    functions: list[tuple[str, str, list[str]]] = cursor.fetchall()
    if not functions:
        return []
    cursor.execute(catalog_query("view_texts"), {"relations": list(relations)})
    words = {CAST}.union(*map(_words, queries), *(_words(text) for (text,) in cursor.fetchall() if text))
    named, waiting = set[str](), functions
    while True:
        called = [each for each in waiting if not words.isdisjoint((each[0], *each[2]))]
        if not called:
            break
        waiting = [each for each in waiting if each not in called]
        found = set[str]().union(*(_words(text) for _, text, _ in called))
        named, words = named | found, words | found
    if not named:
        return []
    cursor.execute(catalog_query("named_relations"), {"names": sorted(named)})
    return list(cursor.fetchone()[0] or ())


def _words(text: str) -> set[str]:
    """The names and operators in a text, and in the texts that it may run."""
    mentions = Mentions.of(text, *(token.value for token in tokens(text) if token.kind == "text"))
    return {*mentions.words, *mentions.signs}
