"""The templates in ``include/sql``: what they consist of, and how a clinic's id is put into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from jinja2 import StrictUndefined, Template, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clinic_backups.tenant.sql_tokens import Token, tokens

IN_COMMENTS = "clinic_id"
"""What comments show in place of an id that is not a number."""


def parsed(text: str) -> nodes.Template:
    """What a template consists of."""
    return _environment().parse(text)


@lru_cache(maxsize=1024)
def template(text: str) -> Template:
    """A template that can be rendered."""
    return _environment().from_string(text)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def parts_of(text: str) -> list[str] | None:
    """The texts between the clinic's ids; ``None`` if the template does more than to write the id."""
    parts = [""]
    for output in parsed(text).body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                parts[-1] += node.data
            elif isinstance(node, nodes.Name) and node.name == "clinic_id":
                parts.append("")
            else:
                return None
    return parts


def places(parts: Sequence[str]) -> Iterator[int]:
    """Where the ids are, of one digit each. One in a comment is in no token."""
    at = -1
    for part in parts[:-1]:
        at += len(part) + 1
        yield at


def is_part(token: Token, before: Token | None) -> bool:
    """Whether the digit in place of an id is a part of a text, a name, or a longer number.

    A fraction's digits follow, or, before a negative number, a comment.
    """
    goes_on = before is not None and before.is_(".", "-") and before.end == token.start
    return token.kind != "number" or token.end != token.start + 1 or goes_on


@lru_cache(maxsize=1024)
def written_alone(text: str) -> tuple[tuple[str, ...], tuple[bool, ...]] | None:
    """The texts between the ids, and whether each id is a value of its own, or else in a comment.

    ``None``: one is a part of a text, a name or a number, or the template computes with it. There a text of somebody
    else could end the text around it and go on as SQL.
    """
    parts = parts_of(text)
    if parts is None:
        return None
    values, before = set[int](), None
    at = set(places(parts))
    for token in tokens("0".join(parts)):
        if not at.isdisjoint(range(token.start, token.end)):
            if is_part(token, before):
                return None
            values.add(token.start)
        before = token
    return tuple(parts), tuple(place in values for place in places(parts))
