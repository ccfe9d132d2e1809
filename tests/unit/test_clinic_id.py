"""The ids of clinics: what can be one, its one form, its path, and how SQL writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from clinic_backups.archive.object_keys import archive_key_of, envelope_key_of, parse_key, prefix_of
from clinic_backups.backup.choose_clinics import select
from clinic_backups.base.backup_id import backup_id_of, clinic_of
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import (
    MAX_CHARACTERS,
    MAX_COMPONENT,
    ClinicId,
    clinic_id_of,
    component_of,
    from_component,
    in_order,
    name_of,
    nearest,
)
from clinic_backups.base.errors import SettingsError
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.onboarding import texts
from clinic_backups.onboarding.schema import Tenant
from clinic_backups.restore.request import parse
from clinic_backups.tenant.clinic_key import NUMBER, ClinicKey
from clinic_backups.tenant.extract import SqlFolder, render
from clinic_backups.tenant.given_id import given_id
from clinic_backups.tenant.sql_tokens import tokens
from clinic_backups.web.clinic_values import Clinica, possible_clinic

SOME_UUID = "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f60"
NOW = datetime(2026, 11, 26, 2, 0, 3, tzinfo=UTC)
FORGED = ("../x", "a/b", "%2e%2e", "1e3", "01", "+1", "１", "-0", "..", ".", "7 OR 1=1", "<b>x</b>", "a'b", "$$", "\\x")
"""Texts that look like something else. Each is an id of its own, or none."""
ODD = st.text(st.sampled_from("aZ09-._~%/\\'\"<> éß漢{}$:*\u0660"), min_size=1, max_size=40)
IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.uuids().map(str), ODD, st.text(max_size=60))


def possible(value: object) -> ClinicId | None:
    try:
        return clinic_id_of(value)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("value", "is_"),
    [
        (7, 7), ("7", 7), ("0", 0), (0, 0), ("-5", -5), (2**63 - 1, 2**63 - 1), (str(-(2**63)), -(2**63)),
        (str(2**63), str(2**63)), (UUID(SOME_UUID), SOME_UUID), (SOME_UUID, SOME_UUID), ("Sonrisas", "Sonrisas"),
        ("a" * MAX_CHARACTERS, "a" * MAX_CHARACTERS), *((text, text) for text in FORGED),
    ],
)  # fmt: skip
def test_a_value_has_one_form(value: object, is_: ClinicId) -> None:
    found = clinic_id_of(value)
    assert found == is_ and type(found) is type(is_)


@pytest.mark.parametrize(
    "value",
    [
        "", " ", " 7", "7 ", "7\n", "\t", "a\0b", "a\x7f", "\ud800", "a\u202eb", "a\u2028b", "a\u00a0b", "\ufeff7",
        "a" * 201, "1" * 400, "漢" * 41, 2**63, -(2**63) - 1, 7.0, True, False, None, b"7", [7], {"id": 7}, 10**4000,
    ],
)  # fmt: skip
def test_what_cannot_be_an_id_is_refused_without_repeating_it(value: object) -> None:
    with pytest.raises(ValueError, match=r"^it (is|has|begins|takes)") as caught:
        clinic_id_of(value)
    assert str(value) == "" or len(str(caught.value)) < 60


@given(value=IDS)
def test_an_id_keeps_its_form_everywhere(value: int | str) -> None:
    id_ = possible(value)
    if id_ is None:
        return
    assert clinic_id_of(id_) == id_ == clinic_id_of(str(id_))
    component = component_of(id_)
    assert (
        re.fullmatch(r"(?!\.{1,2}\Z)(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", component) and len(component) <= MAX_COMPONENT
    )
    assert from_component(component) == id_ and unquote(component) == str(id_)
    assert not isinstance(id_, int) or component == str(id_) == name_of(id_)
    assert clinic_of(backup_id_of(id_, NOW)) == id_


@given(text=st.one_of(ODD, st.text(max_size=30), st.from_regex(r"(?:%[0-9A-Fa-f]{2}|[a-z0-9.]){1,12}", fullmatch=True)))
def test_one_id_has_one_path(text: str) -> None:
    id_ = from_component(text)
    assert id_ is None or component_of(id_) == text


@pytest.mark.parametrize(
    "text", ["%2e%2e", "..", ".", "a%2fb", "%41", "%", "%zz", "a b", "é", "%C3%28", "%00", "01%20", ""]
)
def test_a_path_of_another_form_is_none(text: str) -> None:
    assert from_component(text) is None


@given(first=IDS, second=IDS, clinic_name=st.text(max_size=20))
def test_keys_of_objects_say_their_clinic_and_no_other(first: int | str, second: int | str, clinic_name: str) -> None:
    one, other = possible(first), possible(second)
    if one is None or other is None:
        return
    key = archive_key_of(Clinic(one, clinic_name), NOW)
    for each, part in ((key, "archive"), (envelope_key_of(key), "envelope")):
        found = parse_key(each)
        assert found is not None and (found.clinic_id, found.part, found.archive_key) == (one, part, key)
        assert all(0 < len(piece) <= 255 for piece in each.split("/")) and each.isascii()
    assert key.startswith(prefix_of(one)) and (key.startswith(prefix_of(other)) is (one == other))
    if one != other:
        assert parse_key(key.replace(prefix_of(one), prefix_of(other), 1)) is None or name_of(one) == name_of(other)


def test_numbers_keep_their_keys() -> None:
    assert re.fullmatch(
        r"backups/7/2026/11/backup_sonrisas_7_20261126_020003_[a-z2-7]{26}\.tar\.zst\.age",
        archive_key_of(Clinic(7, "Sonrisas"), NOW),
    )
    assert parse_key("backups/07/2026/11/backup_a_7_20261126_020003.json") is None
    assert parse_key("backups/7/2026/11/backup_a_8_20261126_020003.json") is None


@given(ids=st.lists(IDS.map(possible).filter(lambda id_: id_ is not None), max_size=8))
def test_numbers_come_by_value_before_texts(ids: list[Any]) -> None:
    found = in_order(ids)
    numbers = [id_ for id_ in found if isinstance(id_, int)]
    assert found[: len(numbers)] == sorted(numbers)
    assert found[len(numbers) :] == sorted(id_ for id_ in ids if isinstance(id_, str))


def test_the_nearest_ids_are_named() -> None:
    assert nearest("acme-dentl", ["zz", "acme-dental", 7])[:1] == ["acme-dental"]
    assert nearest(71, [7, 17, 711, "x"])[0] in (711, 7, 17) and len(nearest(1, list(range(100)))) <= 5


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1),
    st.sampled_from(["uuid", "text", "bigint"]),
)
@example("the code", "text")
@example('a "b" c', "uuid")
@example("Code", "text")
def test_init_writes_a_line_that_names_the_key(column: str, type_: str) -> None:
    tenant = Tenant("public.tenant", column, type_, None, "")
    _, line = texts.clinic_table(tenant, is_primary=False).splitlines()
    assert ClinicKey.of_line(line) == ClinicKey(column, "integer" if type_ == "bigint" else type_)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("key: id uuid", ClinicKey("id", "uuid")), ("key:id  UUID", ClinicKey("id", "uuid")),
        ('key: "Id ""x""" text', ClinicKey('Id "x"', "text")),
        ("key: code character varying(36)", ClinicKey("code", "text")),
        ("key: code varchar(36)", ClinicKey("code", "text")), ("key: id bigint", ClinicKey("id", "integer")),
        ("key: id bytea", None), ("key: id", None), ("id uuid", None),
    ],
)  # fmt: skip
def test_the_line_of_the_key(line: str, key: ClinicKey | None, tmp_path: Path) -> None:
    assert ClinicKey.of_line(line) == key
    (tmp_path / "clinic_table.txt").write_text(f"public.tenant\n{line}\n")
    folder = SqlFolder(tmp_path)
    assert folder.clinic_table == "public.tenant"
    if key is None:
        with pytest.raises(SettingsError, match="more than a table and its key"):
            _ = folder.clinic_key
    else:
        assert folder.clinic_key == key


def test_without_the_line_the_key_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "clinic_table.txt").write_text("\n public.tenant \n\n")
    assert (SqlFolder(tmp_path).clinic_table, SqlFolder(tmp_path).clinic_key) == ("public.tenant", NUMBER)


UUIDS, TEXTS = ClinicKey("id", "uuid"), ClinicKey("id", "text")


@pytest.mark.parametrize(
    ("key", "id_", "sql"),
    [
        (NUMBER, 7, "id = 7"), (NUMBER, -7, "id = -7"), (UUIDS, SOME_UUID, f"id = '{SOME_UUID}'::uuid"),
        (TEXTS, 12, "id = '12'::text"), (TEXTS, "a'b", "id = 'a''b'::text"),
        (TEXTS, "a\\'b", "id = E'a\\\\''b'::text"), (TEXTS, "{{ x }} %s", "id = '{{ x }} %s'::text"),
    ],
)  # fmt: skip
def test_an_id_is_written_with_its_type(key: ClinicKey, id_: ClinicId, sql: str) -> None:
    assert render("id = {{ clinic_id }};", id_, name="t", key=key) == sql


@pytest.mark.parametrize(
    ("key", "id_"), [(NUMBER, "a"), (NUMBER, SOME_UUID), (UUIDS, 7), (UUIDS, "a"), (UUIDS, SOME_UUID.upper())]
)
def test_an_id_of_another_type_is_refused(key: ClinicKey, id_: ClinicId) -> None:
    with pytest.raises(SettingsError, match="cannot be a key of the clinics' table"):
        render("id = {{ clinic_id }}", id_, name="t", key=key)


@pytest.mark.parametrize(
    "template",
    [
        "'{{ clinic_id }}'", "$${{ clinic_id }}$$", '"{{ clinic_id }}"', "E'{{ clinic_id }}'", "x{{ clinic_id }}",
        "1{{ clinic_id }}", "{{ clinic_id }}e", "-{{ clinic_id }}", "'%{{ clinic_id }}%'", "{{ clinic_id | int }}",
        "{% if clinic_id %}1{% endif %}", "{{ clinic_id + 0 }}", "{{ clinic_id.upper() }}", "'{{ clinic_id }}",
        "U&'{{ clinic_id }}'", "$a$ {{ clinic_id }} $a$", "{{ clinic_id }}{{ clinic_id }}",
    ],
)  # fmt: skip
def test_a_text_is_only_put_where_a_value_stands(template: str) -> None:
    with pytest.raises(SettingsError, match=r"Write \{\{ clinic_id \}\} alone"):
        render(f"SELECT 1 WHERE {template}", "x", name="t", key=TEXTS)


@given(id_=ODD.map(possible).filter(lambda id_: id_ is not None))
def test_no_text_leaves_its_quotes(id_: Any) -> None:
    template = "SELECT 'a' /* {{ clinic_id }} */ -- {{ clinic_id }}\n WHERE (id = {{ clinic_id }}) OR b"
    plain = [(token.kind, token.value) for token in tokens(render(template, 7, name="t"))]
    found = [(token.kind, token.value) for token in tokens(render(template, id_, name="t", key=TEXTS))]
    at = plain.index(("number", "7"))
    assert found[:at] == plain[:at] and found[at + 3 :] == plain[at + 1 :]
    assert found[at : at + 3] == [("text", str(id_)), ("sign", "::"), ("word", "text")]


@pytest.mark.parametrize(
    ("line", "given_", "is_"),
    [
        ("key: id uuid", SOME_UUID.upper(), SOME_UUID), ("key: id uuid", SOME_UUID, SOME_UUID),
        (None, SOME_UUID.upper(), SOME_UUID), ("key: id text", SOME_UUID.upper(), SOME_UUID.upper()),
        ("key: id uuid", "ACME", "ACME"), ("key: id uuid", "7", 7),
    ],
)  # fmt: skip
def test_a_uuid_in_capitals_is_the_same_one_if_somebody_gives_it(
    line: str | None, given_: str, is_: ClinicId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the SQL folder too, as after a loss. A path has one form."""
    if line is not None:
        (tmp_path / "clinic_table.txt").write_text(f"public.t\n{line}\n")
    monkeypatch.setenv("CLINIC_BACKUPS_SQL_DIR", str(tmp_path))
    assert given_id(given_) == is_
    clinics = [Clinic(is_, "Uno"), Clinic("another", "Dos")]
    assert select({"clinic_ids": [given_]}, active=[], every=clinics).clinics == (clinics[0],)
    conf = {"clinic_id": given_}
    assert parse(conf, every=[], requested_by="", run_id=None, zone=UTC)[0].clinic_id == is_
    assert clinic_arg(given_) == is_
    assert TypeAdapter(Clinica).validate_python(given_) == possible_clinic(given_) == is_
    assert from_component(SOME_UUID.upper()) == SOME_UUID.upper() != SOME_UUID
