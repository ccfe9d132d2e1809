"""Which definitions of a database are kept, and when two extracts count as the same."""

from __future__ import annotations

import pytest

from clinic_backups.tenant.schema_memory import SchemaMemory, shape_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT * FROM t WHERE clinic_id = 3", "SELECT * FROM t WHERE clinic_id = 12", True),
        ("SELECT * FROM t WHERE clinic_id=3 OR 3 IN (a,b)", "SELECT * FROM t WHERE clinic_id=4 OR 4 IN (a,b)", True),
        ("SELECT * FROM clinica_3", "SELECT * FROM clinica_4", False),
        ('SELECT * FROM c."3"', 'SELECT * FROM c."4"', False),
        ('SELECT * FROM "la 3 de c"', 'SELECT * FROM "la 4 de c"', False),
        ("SELECT * FROM f('tabla 3')", "SELECT * FROM f('tabla 4')", False),
        ("SELECT * FROM f($$tabla 3$$)", "SELECT * FROM f($$tabla 4$$)", False),
        (r"SELECT * FROM f(E'a\' 3')", r"SELECT * FROM f(E'a\' 4')", False),
        ("SELECT * FROM t -- it's 3\n WHERE a = 3", "SELECT * FROM t -- it's 3\n WHERE a = 4", True),
        ("SELECT * FROM t WHERE a = 3", "SELECT * FROM t WHERE a = 99999999999", False),
        ("SELECT * FROM t WHERE a = 3", "SELECT * FROM t WHERE a = 3.5", False),
    ],
)
def test_extracts_that_differ_in_numbers_alone_are_the_same(one: str, other: str, same: bool) -> None:
    assert (shape_of({"t": one}) == shape_of({"t": other})) is same


def test_only_what_is_of_the_same_version_is_given() -> None:
    memory = SchemaMemory(places=2)
    memory.keep("a", ("server", "1"), "answer")
    assert memory.get("a", ("server", "1")) == "answer"
    assert memory.get("a", ("server", "2")) is None
    assert memory.get("a", None) is None
    memory.keep("a", None, "of no version")
    assert memory.get("a", ("server", "1")) == "answer"
    memory.keep("b", ("server", "1"), 1)
    memory.keep("c", ("server", "1"), 2)
    assert memory.any("a") is None, "the oldest is forgotten"
