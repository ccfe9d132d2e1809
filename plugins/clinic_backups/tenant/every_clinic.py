"""One statement in place of every clinic's extract, for comparing the rows of all clinics at once.

It is made only of an extract whose meaning for each clinic follows from its text: the clinics' statements differ in one
whole number, and the number stands where a column may stand. Everything else is compared for each clinic by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import sql

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.clinic_key import NUMBER, ClinicKey
from clinic_backups.tenant.extract import ended
from clinic_backups.tenant.sql_tokens import Token, tokens
from clinic_backups.tenant.templates import is_part, parts_of, places

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


def number_type(clinic_ids: Collection[ClinicId], key: ClinicKey = NUMBER) -> str:
    """The type of the clinics' ids: that of a key, or the one that PostgreSQL gives to the larger ones of numbers."""
    if key.type != "integer":
        return key.type
    return "int8" if any(abs(id_) > _LARGEST_INT4 for id_ in clinic_ids if isinstance(id_, int)) else "int4"


def of_type(clinic_ids: Collection[ClinicId], type_: str) -> frozenset[ClinicId]:
    """The clinics whose statement has an id of that type."""
    if type_ not in ("int4", "int8"):
        return frozenset(clinic_ids)
    return frozenset(id_ for id_ in clinic_ids if isinstance(id_, int) and number_type([id_]) == type_)


def for_every_clinic(text: str, *, name: str, type_: str = "int4") -> str:
    """The statement of all clinics: a template with the column ``id`` of :data:`CLINICS` in place of the number.

    :param name: the file, for the error.
    :param type_: see :func:`number_type`.
    :raises SettingsError: the statement of some clinic may mean something else.
    """
    parts = parts_of(text)
    if parts is None:
        raise _refused(name, "it computes with clinic_id.")
    if reason := _other_meaning(parts):
        raise _refused(name, reason)
    return ended(f"({CLINICS}.id::{type_})".join(parts))


def _refused(name: str, reason: str) -> SettingsError:
    return SettingsError(f"{name} cannot be compared for all clinics at once: {reason}", hint=_HINT)


def _other_meaning(parts: Sequence[str]) -> str | None:
    """Why the statement may mean something else with a column in place of the number. ``None``: it cannot."""
    whole, at = "0".join(parts), set(places(parts))
    found = list(tokens(whole))
    if any(token.is_name and token.value == CLINICS for token in found):
        return f"it has a name {CLINICS}."
    for index, token in enumerate(found):
        if at.isdisjoint(range(token.start, token.end)):
            continue
        before = found[index - 1] if index else None
        if is_part(token, before):
            return "{{ clinic_id }} is part of a text, a name or a longer number there."
        if _is_position(found, index):
            return "{{ clinic_id }} may be the position of a column there, as in GROUP BY 1."
    return None


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
