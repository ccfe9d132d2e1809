"""Keys that a person wrote, read without a server. ``integration/test_named_keys.py`` compares it with the server."""

from __future__ import annotations

import pytest

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.key_text import MOST_WAYS, as_written, ways_of
from clinic_backups.base.span import justified
from clinic_backups.base.table import Column
from clinic_backups.restore.named_keys import KeyColumns, PythonKeys


@pytest.mark.parametrize(
    ("key", "columns", "expected"),
    [
        ("a/b", 1, [("a/b",)]),
        ("1/2", 2, [("1", "2")]),
        ("1/10.0.0.0/8", 2, [("1", "10.0.0.0/8"), ("1/10.0.0.0", "8")]),
        ("/", 2, [("", "")]),
    ],
)
def test_ways_to_take_a_key_apart(key: str, columns: int, expected: list[tuple[str, ...]]) -> None:
    assert list(ways_of(key, columns)) == expected


@pytest.mark.parametrize(("key", "columns"), [("1", 2), ("1/2", 3), ("/" * MOST_WAYS, 5)])
def test_a_key_with_too_few_parts_or_far_too_many(key: str, columns: int) -> None:
    with pytest.raises(ValueError, match="another number of parts"):
        list(ways_of(key, columns))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("24:00:00", "1 day"), ("1 mon -1 days", "29 days"), ("-1 years", "-1 years"), ("360 days", "1 year"),
        ("00:00:00", "00:00:00"), ("-01:00:00.5", "-01:00:00.5"), ("1 day -00:00:01", "23:59:59"),
    ],
)  # fmt: skip
def test_equal_intervals_have_one_text(given: str, expected: str) -> None:
    assert justified(given) == expected


@pytest.mark.parametrize("type_", ["text", "jsonb", "s.state", "integer[]", "money"])
def test_what_only_the_server_reads_stays_as_it_is(type_: str) -> None:
    assert as_written(type_, " x ") == " x "
    with pytest.raises(ValueError, match="no text"):
        as_written(type_, "a\0b")


def test_an_error_says_how_a_key_with_a_comma_is_written() -> None:
    key = KeyColumns("s.p", (Column("id", "integer", True, None, "", None),))
    with pytest.raises(SettingsError) as caught:
        PythonKeys(key).read(["{1"])
    assert "'{1' is no value of id (integer)" in str(caught.value)
    assert """'s.p:["{1,2}"]'""" in str(caught.value)
