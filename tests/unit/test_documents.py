"""The fields of stored JSON: what each accepts, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter

from clinic_backups.archive.manifest_checks import table_of
from clinic_backups.base import documents
from clinic_backups.base.table import Table
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import RestoreRequest

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (documents.Text, ["", "a\nb", "ñ", "😀" * 5_000], ["a\0", "\ud800", 7, None, b"a", ["a"]]),
        (documents.Name, ["a", "x" * 1_000], ["", "x" * 1_001, "a\0", "\udfff", 7]),
        (documents.Code, ["", "x" * 100_000], ["x" * 100_001, "\0"]),
        (documents.Definition, ["x" * 2**20], ["x" * (2**20 + 1), [1]]),
        (documents.Count, [0, 2**63 - 1], [True, -1, 2**63, 10**40, 1.0, "1", None]),
        (documents.ColumnNumber, [1, 2**15 - 1], [0, 2**15, True]),
        (documents.Oid, [1, 2**32 - 1], [0, 2**32, "7"]),
        (documents.Flag, [True, False], [0, 1, "yes", None]),
        (documents.Names, [("a",)], [{"a": 1}, "a", [""], ["a"] * 1_701, None]),
        (documents.Sha256, ["0" * 64], ["0" * 63, "A" * 64, "0" * 64 + "\n", None]),
        (documents.Md5, ["f" * 32], ["f" * 31, "F" * 32, "f" * 32 + "\n"]),
    ],
    ids=["text", "name", "code", "definition", "count", "column", "oid", "flag", "names", "sha256", "md5"],
)
def test_a_field_takes_what_the_catalog_can_hold_and_turns_nothing_into_another_type(
    kind: Any, good: list[Any], bad: list[Any]
) -> None:
    field = TypeAdapter(kind)
    assert [field.validate_python(value) for value in good] == good
    for value in bad:
        with pytest.raises(ValueError):
            field.validate_python(value)


def test_a_time_has_an_offset_and_lies_in_the_years_of_the_catalog() -> None:
    field: TypeAdapter[datetime] = TypeAdapter(documents.Time)
    for text in ("2026-01-01T00:00:00Z", "2026-01-01T05:00:00+05:00", "2025-12-31T20:00:00-04:00"):
        assert field.validate_python(text) == MOMENT
    for value in (
        "1999-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "today",
        "1767225600",
        7,
        None,
    ):
        with pytest.raises(ValueError):
            field.validate_python(value)


def test_a_line_is_measured_as_it_is_shown() -> None:
    field = TypeAdapter(documents.Line)
    assert field.validate_python("a" + " \n" * 600 + "\x1bb\u202e\ud800") == "a b"
    with pytest.raises(ValueError):
        field.validate_python("x" * 501)


def test_what_later_versions_add_is_left_aside_and_what_earlier_ones_lack_has_its_default() -> None:
    column = {"name": "a", "type": "text", "not_null": True, "default": None, "identity": "", "generated": None}
    table = {"name": "s.t", "columns": [column | {"later": 1}], "primary_key": ["a"], "foreign_keys": [], "later": [{}]}
    found = table_of(table)
    assert isinstance(found, Table)
    assert (found.oid, found.columns[0].definition, found.columns[0].number) == (None, None, None)
    plan = RestorePlan(1, "Una", "1-x", MOMENT, "exact", (), (), "digest")
    old = {name: value for name, value in plan.to_json().items() if name not in ("notes", "parts", "moment", "target")}
    assert RestorePlan.from_json(old | {"later": 1}) == plan
    request = RestoreRequest(clinic_id=1, as_of=MOMENT, tables=("s.t",))
    assert RestoreRequest.from_json(request.to_json() | {"later": 1}) == request


@pytest.mark.parametrize("missing", ["name", "columns", "primary_key", "foreign_keys"])
def test_what_a_table_must_have_is_missed(missing: str) -> None:
    table = {"name": "s.t", "columns": [], "primary_key": [], "foreign_keys": []}
    assert table_of(table).name == "s.t"
    del table[missing]
    with pytest.raises(ValueError):
        table_of(table)


def test_an_error_holds_no_value_of_the_document() -> None:
    with pytest.raises(ValueError) as caught:
        RestorePlan.from_json({"tables": "ana.perez", "refusals": "ana.perez"})
    assert "ana.perez" not in str(caught.value)
