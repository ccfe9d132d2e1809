"""One statement in place of every clinic's extract, for comparing the rows of all clinics at once.

It is made only of an extract whose meaning for each clinic follows from its text: the clinics' statements differ in one
whole number, and the number stands where a column may stand. Everything else is compared for each clinic by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from jinja2 import nodes
from psycopg2 import sql

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.extract import ended, parsed
from clinic_backups.tenant.sql_tokens import Token, tokens

CLINICS = "clinica_del_respaldo"
"""The name of ``all_clinics.sql`` in such a statement."""
CLINIC = sql.Identifier(CLINICS)
_LARGEST_INT4 = 2**31 - 1
_LISTS = ("on", "rollup", "cube", "sets")
"""Words before the parentheses of DISTINCT ON and GROUP BY, in which a number alone is the position of a column."""
_HINT = (
    "Each backup compares its own clinic's rows, which takes longer. To compare all clinics before a run, write"
    " {{ clinic_id }} as a whole number in SQL: `code = {{ clinic_id }}::text` instead of `code = '{{ clinic_id }}'`,"
    " and CASE or OR instead of {% if %}."
)


def number_type(clinic_ids: Collection[int]) -> str:
    """The type that PostgreSQL gives to the clinics' numbers, or to the larger ones of them."""
    return "int8" if max(map(abs, clinic_ids), default=0) > _LARGEST_INT4 else "int4"


def of_type(clinic_ids: Collection[int], type_: str) -> frozenset[int]:
    """The clinics whose statement has a number of that type."""
    return frozenset(id_ for id_ in clinic_ids if number_type([id_]) == type_)


def for_every_clinic(text: str, *, name: str, type_: str = "int4") -> str:
    """The statement of all clinics: a template with the column ``id`` of :data:`CLINICS` in place of the number.

    :param name: the file, for the error.
    :param type_: see :func:`number_type`.
    :raises SettingsError: the statement of some clinic may mean something else.
    """
    parts = _parts(text)
    if parts is None:
        raise _refused(name, "it computes with clinic_id.")
    if reason := _other_meaning(parts):
        raise _refused(name, reason)
    return ended(f"({CLINICS}.id::{type_})".join(parts))


def _refused(name: str, reason: str) -> SettingsError:
    return SettingsError(f"{name} cannot be compared for all clinics at once: {reason}", hint=_HINT)


def _parts(text: str) -> list[str] | None:
    """The texts between the clinic's numbers; ``None`` if the template does more than to write it."""
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


def _other_meaning(parts: Sequence[str]) -> str | None:
    """Why the statement may mean something else with a column in place of the number. ``None``: it cannot."""
    whole, places = "0".join(parts), set(_places(parts))
    found = list(tokens(whole))
    if any(token.is_name and token.value == CLINICS for token in found):
        return f"it has a name {CLINICS}."
    for index, token in enumerate(found):
        if places.isdisjoint(range(token.start, token.end)):
            continue
        before = found[index - 1] if index else None
        if token.kind != "number" or token.end != token.start + 1 or _goes_on(before, token):
            return "{{ clinic_id }} is part of a text, a name or a longer number there."
        if _is_position(found, index):
            return "{{ clinic_id }} may be the position of a column there, as in GROUP BY 1."
    return None


def _places(parts: Sequence[str]) -> Iterator[int]:
    """Where the numbers are, of one digit each. One in a comment is in no token."""
    at = -1
    for part in parts[:-1]:
        at += len(part) + 1
        yield at


def _goes_on(before: Token | None, number: Token) -> bool:
    """Whether a fraction's digits follow, or, before a negative number, a comment."""
    return before is not None and before.is_(".", "-") and before.end == number.start


def _is_position(found: Sequence[Token], index: int) -> bool:
    """Whether a number may be the position of a column: alone in a list of GROUP BY, ORDER BY or DISTINCT ON."""
    before, after = found[index - 1 : index], found[index + 1 : index + 2]
    if not any(token.is_("(", ",", "by") for token in before) or any(
        token.kind == "sign" and not token.is_(")", ",", ";") for token in after
    ):
        return False
    depth = 0
    for place in range(index - 1, -1, -1):
        token = found[place]
        depth += token.is_(")", "]") - token.is_("(", "[")
        if depth < 0:
            opener = found[place - 1] if place else token
            # The arguments of a function, or IN (1, 2)
            return not opener.is_name or opener.is_(*_LISTS, "by")
        if depth == 0 and token.is_("by", "select"):
            return token.is_("by")
    return True
