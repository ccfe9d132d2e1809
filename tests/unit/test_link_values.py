"""Values of links are equal as PostgreSQL says, whatever their texts are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clinic_backups.base.table import Column
from clinic_backups.restore.link_values import Targets, equalities_of


def column(type_: str, base_type: str | None = None) -> Column:
    return Column("x", type_, True, None, "", None, base_type=base_type)


def targets(child: Column, parent: Column, gone: str, stay: Sequence[str] = ()) -> Targets:
    made = Targets(equalities_of([child], [parent]))
    assert made.add((gone.encode(),))
    for each in (gone, *stay):
        made.look((each.encode(),), made.like)
    made.settle()
    return made


@pytest.mark.parametrize(
    ("child", "parent", "gone", "same", "other"),
    [
        ("integer", "bigint", "43", "43", "430"),
        ("numeric(8,2)", "numeric", "43", "43.00", "430"),
        ("numeric", "integer", "430", "430.0", "43"),
        ("double precision", "bigint", "10000000000000000", "1e+16", "1e+15"),
        ("real", "double precision", "0.10000000149011612", "0.1", "0.2"),
        ("double precision", "double precision", "0", "-0", "1e-300"),
        ("double precision", "double precision", "NaN", "NaN", "Infinity"),
        ("real", "double precision", "1e+300", "1e+300", "Infinity"),
        ("public.citext", "public.citext", "Ana", "ANA", "Anna"),
        ("public.citext", "public.citext", "ΣΣ", "σς", "σ"),
        ("character(8)", "character(5)", "ab   ", "ab      ", "abc  "),
        ("text", "character(5)", "ab   ", "ab", "abc"),
        ("character varying(9)", "text", "Ana", "Ana", "Eva"),
        ("timestamp(3) without time zone", "date", "2024-01-05", "2024-01-05 00:00:00", "2024-01-05 00:00:01"),
        ("timestamp without time zone", "date", "0044-03-15 BC", "0044-03-15 00:00:00 BC", "0044-03-15 00:00:00"),
        ("timestamp with time zone", "date", "2024-01-05", "2024-01-05 00:00:00+00", "2024-01-05 04:00:00+00"),
        ("interval(3)", "interval", "1 mon", "29 days 24:00:00", "30 days 00:00:00.001"),
        ("interval", "interval", "1 year 2 mons -3 days -04:05:06.5", "417 days -04:05:06.5", "417 days 04:05:06.5"),
        ("time without time zone", "interval", "08:00:00", "08:00:00", "8 days"),
        ("interval", "interval", "infinity", "infinity", "-infinity"),
        ("cidr", "inet", "10.0.0.1", "10.0.0.1/32", "10.0.0.0/24"),
        ("cidr", "inet", "fe80::1", "fe80::1/128", "fe80::1/32"),
        ("uuid", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b"),
        ("numeric[]", "numeric[]", "{1,2.5}", "{1.0,2.50}", "{12.5}"),
        ("s.d", "s.d", "Ana", "ANA", "Eva"),
    ],
)
def test_equal_values_and_others(child: str, parent: str, gone: str, same: str, other: str) -> None:
    made = targets(column(child), column(parent), gone)
    assert made.has((same.encode(),))
    assert not made.has((other.encode(),))


def test_a_domain_is_compared_as_what_it_is_made_of() -> None:
    assert targets(column("s.d", "numeric"), column("numeric"), "43").has((b"43.00",))


@pytest.mark.parametrize("type_", ["text", "s.isbn", "jsonb"])
def test_a_row_that_stays_and_has_the_value_more_exactly_decides(type_: str) -> None:
    made = targets(column(type_), column(type_), "Ana", ["ANA", "Ána"])
    assert made.has((b"Ana",))
    assert not made.has((b"ANA",))
    assert not made.has(("ána".encode(),))


def test_a_collation_that_ignores_case_and_accents_is_not_in_the_backup() -> None:
    made = targets(column("text"), column("text"), "José Pérez", ["Eva"])
    assert made.has((b"JOSE PEREZ",))


def test_a_value_of_no_row_is_unclear_if_the_equality_is_not_known() -> None:
    made = targets(column("s.isbn"), column("s.isbn"), "978-0-393-04002-9", ["978-0-11-000222-4"])
    assert made.is_unclear((b"0-393-04002-X",))
    assert not made.is_unclear((b"978-0-11-000222-4",))
    assert not made.is_unclear((b"978-0-393-04002-9",))
    zones = targets(column("timestamp with time zone"), column("date"), "2024-01-05")
    assert zones.is_unclear((b"2024-01-05 04:00:00+00",))
    assert not targets(column("text"), column("text"), "a").is_unclear((b"b",))


def test_several_columns() -> None:
    made = Targets(equalities_of([column("integer"), column("text")], [column("numeric"), column("text")]))
    made.add((b"1.0", b"Ana"))
    for value in ((b"1.0", b"Ana"), (b"1.0", b"ANA"), (b"2", b"Ana")):
        made.look(value, made.like)
    made.settle()
    assert made.has((b"1", b"Ana"))
    assert made.has((b"1", b"anA"))
    assert not made.has((b"1", b"ANA"))
    assert not made.has((b"2", b"Ana"))
