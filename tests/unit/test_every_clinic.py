"""One statement for all clinics is made only of an extract in which the clinic is a number."""

from __future__ import annotations

import re

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.tenant.every_clinic import for_every_clinic, number_type, of_type

COLUMN = "(clinica_del_respaldo.id::int4)"
ALIKE = [
    "SELECT t.* FROM a.b AS t WHERE c = {{ clinic_id }}",
    "SELECT t.* FROM a.b AS t WHERE c={{clinic_id}};  -- of clinic {{ clinic_id }}\n",
    "{# a comment #}SELECT {{ clinic_id }} + {{ clinic_id }}",
    "/* it's {{ clinic_id }} */ SELECT t.* FROM a.b AS t WHERE c IN ({{ clinic_id }}) AND code = {{ clinic_id }}::text",
    "SELECT DISTINCT ON (a) t.* FROM b AS t JOIN c ON {{ clinic_id }} = x WHERE c IN (1, {{ clinic_id }}) ORDER BY 1",
    "SELECT t.* FROM b AS t JOIN c ON f(1, {{ clinic_id }}) WHERE EXISTS (SELECT a, {{ clinic_id }} GROUP BY 1)",
    "SELECT 'it''s', \"c\", $$d$$ WHERE c = {{ clinic_id }} ORDER BY 1",
]
UNLIKE = {
    "'{{ clinic_id }}'": "part of a text", "E'\\'{{ clinic_id }}'": "part of a text", "$${{ clinic_id }}$$": "part of",
    "$x{{ clinic_id }}$ $x$": "part of", '"{{ clinic_id }}"': "part of", "a{{ clinic_id }}": "part of",
    "{{ clinic_id }}a": "part of", "1{{ clinic_id }}": "part of", ".{{ clinic_id }}": "part of",
    "{{ clinic_id }}.5": "part of", "a -{{ clinic_id }}": "part of", "x = 'open {{ clinic_id }}": "part of",
    "{{ clinic_id | int }}": "computes", "{{ -clinic_id }}": "computes", "{{ 5 }}": "computes",
    "{% if clinic_id %}a{% endif %}": "computes", "{% set x = clinic_id %}{{ x }}": "computes",
    "{{ range }}": "computes", "GROUP BY {{ clinic_id }}": "position", "ORDER BY a, {{ clinic_id }} DESC": "position",
    "DISTINCT ON ({{ clinic_id }}) a": "position", "GROUP BY ROLLUP (a, ({{ clinic_id }}))": "position",
    "ORDER BY {{ clinic_id }}": "position", "FROM (SELECT a ORDER BY f(a, 1), {{ clinic_id }})": "position",
    "clinica_del_respaldo.a = {{ clinic_id }}": "has a name",
}  # fmt: skip


@pytest.mark.parametrize("text", ALIKE)
def test_a_number_becomes_a_column(text: str) -> None:
    made = for_every_clinic(text, name="x")
    assert COLUMN in made
    assert "{{" not in made
    assert not made.endswith(";")


@pytest.mark.parametrize(("text", "reason"), UNLIKE.items())
def test_everything_else_is_refused_with_a_remedy(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=re.escape("extract/a.b cannot be compared for all clinics")) as caught:
        for_every_clinic(text, name="extract/a.b")
    assert reason in caught.value.message
    assert "write {{ clinic_id }} as a whole number" in caught.value.hint


@pytest.mark.parametrize(
    ("ids", "type_", "alike"),
    [
        ([], "int4", []),
        ([1, -2], "int4", [1, -2]),
        ([1, 2**31], "int8", [2**31]),
        ([2**40, 2**41], "int8", [2**40, 2**41]),
    ],
)
def test_clinics_whose_numbers_have_another_type_are_not_compared(ids: list[int], type_: str, alike: list[int]) -> None:
    assert number_type(ids) == type_
    assert of_type(ids, type_) == frozenset(alike)
