"""What a request says that it is about: it is stored as it was made, and compared by numbers, names and types."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clinic_backups.base.forgotten import ForgottenRecord
from clinic_backups.base.meant_key import MEANT, MeantColumn, MeantKey, are_alike
from clinic_backups.base.table import Column, Table
from clinic_backups.restore.meant_columns import columns_in, is_gone, meant_among, was_made_again
from clinic_backups.stores.forgotten_requests import _Document
from clinic_backups.tenant.drift import Drift, parse

HERE = "71/5/app"
MEANT_ID = MeantKey(HERE, 10, (MeantColumn("id", "integer", 1),))


def table(*names: str, oid: int | None = 10, name: str = "s.p") -> Table:
    columns = tuple(
        Column(each.split()[0], each.partition(" ")[2] or "integer", True, None, "", None, number=number)
        for number, each in enumerate(names, 1)
    )
    return Table(name, columns, names[:1], (), oid)


def record(meant: MeantKey | None) -> ForgottenRecord:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    return ForgottenRecord(0, 7, "s.p", moment, "ana", "x", (b"\x01" * 32,), "person", "0" * 32, meant)


@pytest.mark.parametrize("meant", [None, MEANT_ID])
def test_a_request_comes_back_from_a_store_as_it_was_made(meant: MeantKey | None) -> None:
    """One of an older version has no such field, and its bytes stay the same."""
    document = record(meant).document()
    assert ("meant" in document) == (meant is not None)
    assert _Document.model_validate(document | {"mark": "0" * 64}).record().document() == document
    if meant is not None:
        assert MEANT.validate_python(meant.to_json()) == meant


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("integer", "integer", True), ("integer", "bigint", True), ("integer", "numeric(10,2)", True),
        ("text", "integer", True), ("character varying(20)", "uuid", True), ("public.citext", "text", True),
        ("integer", "uuid", False), ("date", "timestamp without time zone", False), ("date", "text", True),
        ("inet", "inet", True), ("inet", "text", False), ("s.mood", "s.mood", True), ("s.mood", "integer", False),
    ],
)  # fmt: skip
def test_types_are_alike_if_a_named_value_can_be_recognised(one: str, other: str, expected: bool) -> None:
    assert are_alike(one, other) is expected
    assert are_alike(other, one) is expected


@pytest.mark.parametrize(
    ("there", "database", "lines", "expected"),
    [
        (table("id", "c"), HERE, "", ("id",)),
        (table("gid", "c"), HERE, "", ("gid",)),
        (table("old_id", "id"), HERE, "s.p: id -> old_id\ns.p: legacy -> id", ("old_id",)),
        # Where the numbers count, they decide.
        (table("old_id", "id"), HERE, "", ("old_id",)),
        (table("old_id", "id"), HERE, "s.p: id -> gid", ("old_id",)),
        (table("c", "n"), HERE, "", ("c",)),
        # The numbers of another database mean nothing.
        (table("c", "id"), "72/5/app", "", ("id",)),
        (table("c", "gid"), None, "s.p: id -> gid", ("gid",)),
        (table("c", "gid"), None, "s.p: gid -> id", ("gid",)),
        # Another column got the name: its type decides, if it can.
        (table("old_id", "id uuid"), None, "s.p: id -> old_id", ("old_id",)),
        (table("old_id", "id"), None, "s.p: id -> old_id", None),
        (table("id", "legacy"), None, "s.p: id -> old_id\ns.p: legacy -> id", None),
        (table("c", "n"), None, "", None),
    ],
)
def test_columns_are_found_by_numbers_and_else_by_names_or_not_at_all(
    there: Table, database: str | None, lines: str, expected: tuple[str, ...] | None
) -> None:
    assert columns_in(MEANT_ID, there, database, parse(lines), {"s.p"}) == expected


def test_a_name_that_two_tables_had_means_the_one_of_the_request() -> None:
    reused = MeantKey(HERE, 20, MEANT_ID.columns, is_reused=True)
    old, new = table("id", oid=10, name="s.gente"), table("id", oid=20)
    both, renamed = {"s.gente": old, "s.p": new}, parse("s.p -> s.gente")
    assert meant_among(reused, both, HERE, "s.p", renamed) == ["s.p"]
    assert meant_among(reused, {"s.p": old}, HERE, "s.p", renamed) == [], "an older backup"
    assert meant_among(reused, {"s.p": old}, None, "s.p", renamed) == ["s.p"], "nobody knows, so it stays out"
    assert meant_among(reused, both, None, "s.p", renamed) == ["s.p"]
    assert columns_in(reused, new, HERE, Drift(), {"s.p"}) == ("id",)


@pytest.mark.parametrize(
    ("there", "database", "recorded", "lines", "expected"),
    [
        # The numbers tell, whatever the names and the lines say.
        ({"s.p": 20, "s.gente": 10}, HERE, "s.p", "", ["s.gente"]),
        ({"s.p": 20, "s.q": 10}, HERE, "s.p", "s.p -> s.x\ns.q -> s.p\ns.x -> s.q", ["s.q"]),
        # The table was made anew, or nobody knows more than the name.
        ({"s.p": 99}, HERE, "s.p", "", ["s.p"]),
        # The lines tell: the request was made before the table was renamed, or after it.
        ({"s.p": 20, "s.gente": 10}, None, "s.p", "s.p -> s.gente", ["s.gente"]),
        ({"s.p": 20, "s.gente": 10}, None, "s.gente", "s.p -> s.gente", ["s.gente"]),
        ({"s.p": 20, "s.b": 10}, None, "s.p", "s.p -> s.a\ns.a -> s.b", ["s.b"]),
        ({"s.p": 10}, None, "s.gente", "s.p -> s.gente", ["s.p"]),
        # Two tables changed their names, or both got one: nobody can tell.
        ({"s.p": 20, "s.q": 10}, None, "s.p", "s.p -> s.x\ns.q -> s.p\ns.x -> s.q", ["s.p", "s.q"]),
        ({"s.a": 20, "s.b": 10}, None, "s.c", "s.a -> s.c\ns.c -> s.d\ns.b -> s.c", ["s.a", "s.b"]),
    ],
)  # fmt: skip
def test_the_meant_table_is_found_by_numbers_and_else_by_lines_or_all_are_said(
    there: dict[str, int], database: str | None, recorded: str, lines: str, expected: list[str]
) -> None:
    namesakes = {name: table("id", oid=oid, name=name) for name, oid in there.items()}
    assert meant_among(MEANT_ID, namesakes, database, recorded, parse(lines)) == expected


@pytest.mark.parametrize(
    ("numbers", "database", "oid", "expected"),
    [
        ([1, 2], HERE, 10, False), ([2, 3], HERE, 10, True), ([2, 3], None, 10, False), ([2, 3], HERE, 11, False),
        ([None, 3], HERE, 10, False), ([], HERE, 10, False),
    ],
)  # fmt: skip
def test_only_numbers_prove_that_a_meant_column_was_dropped(
    numbers: list[int | None], database: str | None, oid: int, expected: bool
) -> None:
    columns = tuple(Column(f"c{each}", "integer", True, None, "", None, number=each) for each in numbers)
    assert is_gone(MEANT_ID, Table("s.p", columns, (), (), oid), database) is expected


def test_a_column_that_is_not_there_yet_was_not_dropped() -> None:
    """A server that went back in time makes later backups of an earlier state."""
    late = MeantKey(HERE, 10, (MeantColumn("id", "integer", 3),))
    assert not is_gone(late, table("c", "n"), HERE)
    assert not is_gone(MeantKey(HERE, 10, (*MEANT_ID.columns, *late.columns)), table("c", "n"), HERE)


def test_the_last_line_of_a_name_says_whether_the_table_was_made_again() -> None:
    assert was_made_again("s.p", parse("s.p -> s.p"))
    assert not was_made_again("s.p", parse("s.p -> s.gente"))
    assert not was_made_again("s.p", Drift())
