"""Masked values fit their columns, stay apart where they must, and leave all other values as they are."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from clinic_backups.archive.csv_rows import fields_of, raw_fields_of, row_of, value_of, written
from clinic_backups.base.errors import IntegrityError
from clinic_backups.base.table import Column, Table
from clinic_backups.restore.copying.masking import Masking
from clinic_backups.restore.copying.other_numbers import other_number
from clinic_backups.tenant.mask_rules import MaskFacts

TEXTS = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def masking(rule: Any, type_: str, *, unique: bool = False) -> Masking:
    columns = [
        Column(name, text, False, None, "", None) for name, text in (("id", "text"), ("v", type_), ("w", "text"))
    ]
    table = Table("public.t", tuple(columns), (), ())
    facts = MaskFacts({"public.t": frozenset({"v"} if unique else ())})
    return Masking({table.name: table}, {table.name: {"v": rule}}, facts)


def masked(found: Masking, value: str | None) -> str | None:
    row = row_of([b"1", written(value.encode() if value is not None else None), b"2"])
    made = fields_of(found.changed("public.t", row))[1]
    return made.decode() if made is not None else None


@given(some.lists(some.one_of(some.none(), TEXTS), min_size=3, max_size=3), some.sampled_from(["null", "hash", "text"]))
def test_only_the_masked_column_changes(values: list[str | None], rule: Any) -> None:
    row = row_of([written(None if value is None else value.encode()) for value in values])
    before, after = fields_of(row), fields_of(masking(rule, "text").changed("public.t", row))
    assert (after[0], after[2], len(after)) == (before[0], before[2], 3)
    assert (after[1] is None) == (before[1] is None or rule == "null")


@given(some.lists(some.one_of(some.none(), TEXTS), min_size=1, max_size=5))
def test_rows_are_taken_apart_and_put_together(values: list[str | None]) -> None:
    given_values = [None if value is None else value.encode() for value in values]
    row = row_of([written(value) for value in given_values])
    assert fields_of(row) == given_values
    assert [value_of(raw) for raw in raw_fields_of(row)] == given_values
    assert row_of(raw_fields_of(row)) == row or given_values == [b"\\."]


@pytest.mark.parametrize(
    ("rule", "type_"),
    [("hash", "text"), ("hash", "character varying(12)"), ("hash", "uuid"), ("name", "character varying(12)"),
     ("name", "character varying(20)"), ("name", "text"), ("email", "character varying(28)"),
     ("hash", "character(14)")],
)  # fmt: skip
def test_a_unique_column_stays_unique_and_long_enough(rule: Any, type_: str) -> None:
    found = masking(rule, type_, unique=True)
    values = [f"{n:08x}-0000-0000-0000-000000000000" if type_ == "uuid" else f"v{n}" for n in range(5_000)]
    values += ["v1 ", " v1", "V1"] if type_ in ("text", "character varying(20)") else []
    masks = [masked(found, value) for value in values]
    assert len(set(masks)) == len(values)
    length = int(type_.partition("(")[2].rstrip(")") or 1_000)
    assert all(mask is not None and 0 < len(mask) <= length for mask in masks)
    assert masks[:3] == [masked(found, value) for value in values[:3]]
    assert not set(values) & set(masks)


@pytest.mark.parametrize(("low", "high"), [(1, 9), (10, 99), (100, 999), (10_000, 32_767), (10_000, 32_768)])
def test_every_number_gets_another_place(low: int, high: int) -> None:
    values = [str(number).encode() for number in range(low, high + 1)]
    made = [other_number(value, b"key", high if high > 9_999 else None) for value in values]
    assert sorted(map(int, made)) == list(range(low, high + 1))
    assert made != [other_number(value, b"another", high if high > 9_999 else None) for value in values]
    assert sum(one == other for one, other in zip(made, values, strict=True)) < len(values) / 3


@given(some.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**30), max_value=10**30))
def test_a_number_keeps_its_sign_its_length_and_its_places(number: Decimal) -> None:
    text = f"{number:f}"
    made = masked(masking("number", "numeric(40,3)"), text) or ""
    shape = re.compile(r"[0-9]")
    assert shape.sub("0", made) == shape.sub("0", text)
    assert (Decimal(made) == 0) == (number == 0)
    digits = [len(each.lstrip("-0.").replace(".", "")) for each in (text, made)]
    assert digits[0] == digits[1]


@pytest.mark.parametrize(("type_", "bits"), [("smallint", 15), ("integer", 31), ("bigint", 63)])
def test_a_masked_number_still_fits_its_type(type_: str, bits: int) -> None:
    found = masking("number", type_, unique=True)
    values = [*range(2**bits - 300, 2**bits), *range(-(2**bits), -(2**bits) + 300), 0, 1, -1, 43]
    made = [int(masked(found, str(value)) or "") for value in values]
    assert len(set(made)) == len(values)
    assert all(-(2**bits) <= number < 2**bits for number in made)
    assert all((one < 0) == (other < 0) for one, other in zip(made, values, strict=True))


def test_what_is_no_number_stays_or_is_refused() -> None:
    found = masking("number", "numeric")
    assert [masked(found, text) for text in ("NaN", "-Infinity", "0.00")] == ["NaN", "-Infinity", "0.00"]
    long = "7" * 5_000
    assert len(masked(found, long) or "") == len(long) and masked(found, long) != long
    with pytest.raises(IntegrityError, match="not one that PostgreSQL writes") as caught:
        masked(found, "12e4")
    assert "12" not in str(caught.value)


def test_equal_values_of_types_that_compare_otherwise() -> None:
    citext, padded = masking("hash", "public.citext"), masking("hash", "character(20)")
    assert masked(citext, "Ana") == masked(citext, "ANA") != masked(citext, "Eva")
    assert masked(padded, "ab".ljust(20)) == masked(padded, "ab")
    assert len(masked(padded, "ab") or "") == 20


def test_short_columns_and_empty_texts() -> None:
    for rule in ("name", "hash", "phone", "text"):
        for length in (1, 5, 40):
            found = masking(rule, f"character varying({length})")
            assert 0 < len(masked(found, "valor") or "") <= max(length, 5)
            assert masked(found, "") == ""
            assert masked(found, None) is None


def test_rows_that_no_table_has() -> None:
    found = masking("hash", "text")
    for row in (b"1,2\n", b'1,"2"x,3\n', b"1,2,3,4\n"):
        with pytest.raises(IntegrityError, match="does not have the columns") as caught:
            found.changed("public.t", row)
        assert "2" not in caught.value.message
