"""How single rows are named, in a conf and in a command."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter, ValidationError

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.text import one_line
from clinic_backups.cli.row_param import as_given, named_rows, named_tables
from clinic_backups.restore.named_tables import require_known
from clinic_backups.restore.request import RestoreRequest, digest_of_rows, parse
from clinic_backups.tenant.declarations import spelled
from clinic_backups.web.forms import TableName

PATIENTS = "public.usuarios_paciente"


def asked(**conf: Any) -> RestoreRequest:
    given = {"clinic_id": 7, **conf}
    return parse(given, every=[Clinic(7, "Siete")], requested_by="x", run_id=None, zone=ZoneInfo("UTC"))[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([f"{PATIENTS}:43"], {PATIENTS: ["43"]}),
        ([f"{PATIENTS}:43,44", f"{PATIENTS}:9"], {PATIENTS: ["43", "44", "9"]}),
        (["public.a:1", "public.b:x:y"], {"public.a": ["1"], "public.b": ["x:y"]}),
        (['public.a:["x,y", 3]'], {"public.a": ["x,y", "3"]}),
        (['public.a: ["x"]'], {"public.a": ["x"]}),
        (['public."a.b":1', "public.a.b:2"], {"public.a.b": ["1", "2"]}),
        (
            ["public.a:[0.1234567890123456789, 1.50, 1e400, NaN]"],
            {"public.a": ["0.1234567890123456789", "1.50", "1e400", "NaN"]},
        ),
        (["public.a:[true, false]"], {"public.a": ["true", "false"]}),
        (['public.a:["", "a\\nb", "None"]'], {"public.a": ["", "a\nb", "None"]}),
        (['public."a:b":43'], {"public.a:b": ["43"]}),
        (['"public"."a:b":x:y'], {"public.a:b": ["x:y"]}),
        (['public."a""b":4', '"Ab":5'], {'public.a"b': ["4"], "Ab": ["5"]}),
        (['public.a:"x":y'], {"public.a": ['"x":y']}),
    ],
)
def test_a_command_names_rows(given: list[str], expected: dict[str, list[str]]) -> None:
    assert named_rows(given) == expected


@pytest.mark.parametrize(
    "given",
    ["public.a", "public.a:", ":4", "", "public.a:[]", "public.a:[ ]", "public.a:[null]", "public.a:[[1, 2]]",
     'public.a:[{"a": 1}]', "public.a:[x", 'public.a:["43"', 'public."a:b"', 'public."a:b":', "public.a:2,,",
     "public.a:,"],
)  # fmt: skip
def test_a_command_that_names_none(given: str) -> None:
    with pytest.raises(SettingsError, match=r"names (no row|an empty key)") as caught:
        named_rows([given])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("43\n44\n", ["43", "44"]),
        ('\ufeff["43"]', ["43"]),
        ("\ufeff43\n\ufeff", ["43", "\ufeff"]),
        ("a,b\r\n\n c \n", ["a,b", " c "]),
        ('["a\\nb", 1.10]\n', ["a\nb", "1.10"]),
    ],
)
def test_keys_come_from_a_file_or_standard_input(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(text.encode())
    assert named_rows([f"public.a:@{file}"]) == {"public.a": expected}
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode()), encoding="latin-1"))
    assert named_rows(["public.a:@-"]) == {"public.a": expected}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]\n43\n", "begins like JSON"), (b'["43", "44"', "begins like JSON"),
        (b'\xef\xbb\xbf["43"', "begins like JSON"),
        (b'{"id": 43}', "begins like JSON"), (b'\n{"id": 1}\n{"id": 2}\n', "begins like JSON"),
        (b"{1,2}\n", "begins like JSON"),
        ("43\n".encode("utf-16"), "not UTF-8"), ("43\n".encode("utf-16-le"), "not UTF-8"),
        ("43\n".encode("utf-32"), "not UTF-8"), ("ñ\n".encode("cp1252"), "not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_may_mean_something_else_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        named_rows([f"public.a:@{file}"])
    assert ("UTF-8" if said == "not UTF-8" else '["43", "44"]') in caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"[]", b"\xff\n"])
def test_a_file_without_keys_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"names no row|cannot be read"):
        named_rows([f"public.a:@{file}"])


@pytest.mark.parametrize(
    "key", ["a\nb", "a\u00a0b", "", "x" * 250, "ok", "a,b", "[1]", "@ana", " ", "\u202eab", "None"]
)
@pytest.mark.parametrize(
    "table", ["s.p", "s.a:b", 's.a"b', "s.a\nb", "s.a.b", "s.A b", "s. a", "s.a\u2003b", "s.a..b", "s.:a:.", "s.@a"]
)
def test_every_key_that_is_shown_can_be_given(table: str, key: str) -> None:
    shown = as_given(table, key)
    assert one_line(shown) == shown
    assert named_rows(shlex.split(shown)) == {table: [key]}
    assert asked(rows={PATIENTS: [key]}).rows == {PATIENTS: (key,)}
    if table.isprintable():
        assert asked(rows={table: [key]}).rows == {table: (key,)}


@pytest.mark.parametrize(
    "table", ["s.p", "s.a:b", 's.a"b', "s.a.b", "s.A b", "s. a", "s.a..b", "s.:a:.", 's."a"', '"a']
)
def test_a_table_is_named_as_it_is_shown(table: str) -> None:
    assert named_tables([spelled(table)]) == [table]
    assert asked(tables=named_tables([spelled(table)])).tables == (table,)
    if not table.endswith('"'):
        assert named_tables([table]) == [table]


@pytest.mark.parametrize("key", ["a\0b", "a\udce4b"])
def test_what_postgresql_cannot_hold_is_no_key(key: str) -> None:
    for call in (lambda: named_rows([f"public.a:{json.dumps([key])}"]), lambda: asked(rows={PATIENTS: [key]})):
        with pytest.raises(SettingsError, match="PostgreSQL can hold no such"):
            call()


@pytest.mark.parametrize("mode", [None, "", "exact", "rows"])
def test_named_rows_have_a_mode_of_their_own(mode: str | None) -> None:
    found = asked(rows={PATIENTS: [43, "44", 43]}, mode=mode, only=True)
    assert (found.mode, found.rows, found.only) == ("rows", {PATIENTS: ("43", "44")}, True)
    assert RestoreRequest.from_json(found.to_json()) == found


def test_one_key_needs_no_list() -> None:
    assert asked(rows={PATIENTS: 43}).rows == {PATIENTS: ("43",)}


@pytest.mark.parametrize(
    "conf",
    [
        {"rows": {PATIENTS: [43]}, "mode": "missing"}, {"rows": {PATIENTS: [43]}, "mode": "live"},
        {"rows": {PATIENTS: [43]}, "mode": "into", "schema": "look"}, {"mode": "rows"}, {"mode": "rows", "rows": {}},
        {"rows": {PATIENTS: [43]}, "tables": [PATIENTS]}, {"only": True}, {"rows": [PATIENTS]}, {"rows": "a:1"},
        {"rows": {PATIENTS: []}}, {"rows": {PATIENTS: [True]}}, {"rows": {PATIENTS: [1.5]}}, {"rows": {PATIENTS: [[]]}},
        {"rows": {PATIENTS: [None]}}, {"rows": {PATIENTS: ["x" * 1_000_001]}},
        {"rows": {"public.a": ["x" * 500_000], "public.b": ["x" * 500_001]}},
        {"rows": {"": [1]}},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(conf: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        asked(**conf)
    assert caught.value.hint


def test_an_approval_holds_for_these_rows_alone() -> None:
    one = digest_of_rows(asked(rows={PATIENTS: [43]}))
    assert one == digest_of_rows(asked(rows={PATIENTS: ["43"]}))
    assert digest_of_rows(asked(rows={PATIENTS: [1, 2]})) == digest_of_rows(asked(rows={PATIENTS: [2, 1]}))
    others = [{"rows": {PATIENTS: [44]}}, {"rows": {PATIENTS: [43]}, "only": True}, {"rows": {"public.b": [43]}}]
    assert one not in {digest_of_rows(asked(**other)) for other in others}


@pytest.mark.parametrize("given", ['s."a.b"', '"s"."a.b"'])
def test_a_conf_that_quotes_a_table_is_told_how_it_is_written_there(given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        require_known([given], ["s.a.b", "s.c"])
    assert caught.value.hint.endswith('without quotes: "s.a.b"')


def test_a_name_with_dots_is_near_to_the_same_in_another_schema() -> None:
    with pytest.raises(SettingsError, match=r'no table s\."a\.b"') as caught:
        require_known(["s.a.b"], ["x.a.b", "s.b"])
    assert 'Did you mean x."a.b"?' in caught.value.hint


@pytest.mark.parametrize(("name", "is_one"), [("s.a.b", True), ("s.a:b", True), ("s", False), ("s.", False)])
def test_the_page_takes_names_with_dots(name: str, is_one: bool) -> None:
    with nullcontext() if is_one else pytest.raises(ValidationError):
        assert TypeAdapter(TableName).validate_python(name) == name
