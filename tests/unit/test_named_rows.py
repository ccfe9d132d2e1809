"""How single rows are named, in a conf and in a command."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import SettingsError
from clinic_backups.cli.row_param import named_rows
from clinic_backups.restore.request import RestoreRequest, digest_of_rows, parse

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
        (["public.a:[x"], {"public.a": ["[x"]}),
    ],
)
def test_a_command_names_rows(given: list[str], expected: dict[str, list[str]]) -> None:
    assert named_rows(given) == expected


@pytest.mark.parametrize("given", ["public.a", "public.a:", ":4", ""])
def test_a_command_that_names_none(given: str) -> None:
    with pytest.raises(SettingsError, match="names no row"):
        named_rows([given])


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
        {"rows": {PATIENTS: ["a\nb"]}}, {"rows": {PATIENTS: ["x" * 201]}}, {"rows": {PATIENTS: list(range(1_001))}},
        {"rows": {"a.b.c": [1]}}, {"rows": {"": [1]}},
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
