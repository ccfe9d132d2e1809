"""Functions' texts show where they write a sequence's numbers. No text makes the reading fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.restore.sequences import number_calls, number_code
from clinic_backups.restore.sequences.number_calls import calls, in_place, named_calls, texts_in
from clinic_backups.restore.sequences.number_code import Code
from clinic_backups.tenant.sql_tokens import Token, name_of, plain, tokens

ID = "id", "nextval('s.q')"
BODIES = {
    "NEW.id := nextval('s.q');": [ID],
    "new . \"id\" = nextval('s.q');": [ID],
    "NEW.id := NEXTVAL ( 's.q' );": [("id", "NEXTVAL ( 's.q' )")],
    "-- NEW.id := nextval('s.q');\n/* a /* b */ NEW.id := nextval('s.q'); */ NEW.v := 'nextval(''s.q'')';": [],
    "IF NEW.id IS NULL THEN NEW.id := nextval('s.q'); ELSE NEW.v := 'x'; END IF;": [ID],
    "NEW.id := CASE WHEN NEW.v THEN nextval('a') ELSE 3 END;": [("id", "CASE WHEN NEW.v THEN nextval('a') ELSE 3 END")],
    "CASE NEW.v WHEN 1 THEN NEW.id := nextval('s.q'); ELSE NEW.v := 2; END CASE;": [ID],
    "SELECT nextval('s.q') INTO NEW.id;": [ID],
    "SELECT 1, nextval('s.q') AS n INTO STRICT NEW.v, NEW.id;": [ID],
    "SELECT INTO NEW.id nextval('s.q') FROM s.x;": [("id", "(SELECT nextval('s.q') FROM s.x)")],
    "SELECT nextval('s.q') INTO n; NEW.id := n;": [("id", "(nextval('s.q'))")],
    "m := nextval('s.q'); n := m; NEW.id := 'F' || n;": [("id", "'F' || ((nextval('s.q')))")],
    "IF true THEN n := nextval('a'); ELSE n := nextval('b'); END IF; NEW.id := n;":
        [("id", "(nextval('a'))"), ("id", "(nextval('b'))")],
    "PERFORM nextval('s.q');": [],
    "PERFORM nextval('s.q'); NEW.id := currval('s.q');": [("id", "currval('s.q')")],
    "PERFORM nextval('s.q'); NEW.id := lastval();": [("id", "currval('s.q')")],
    "PERFORM nextval('a'), nextval('b'); NEW.id := lastval();": [("id", "lastval()")],
    "NEW.id := s.next(NEW.v);": [("id", "s.next(NEW.v)")],
    "EXECUTE 'SELECT nextval(''s.q'')' INTO NEW.id;": [("id", None)],
    "EXECUTE 'SELECT nextval(''s.q'')' INTO n; NEW.id := n;": [("id", None)],
    "n := nextval('s.q');": [(None, "nextval('s.q')")],
    "FOR r IN SELECT nextval('s.q') LOOP NEW.id := r.n; END LOOP;": [(None, "FOR r IN SELECT nextval('s.q')")],
    "n := n + nextval('s.q'); NEW.id := n;": [],
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_where_numbers_go_is_read(body: str) -> None:
    found = Code(f"DECLARE n bigint; m int; BEGIN {body} RETURN NEW; END", ["next"]).written()
    if "n := n +" in body:  # a variable of itself is followed a few times, and never forever
        assert [written.column for written in found] == ["id"]
    else:
        assert [(written.column, written.expression) for written in found] == BODIES[body]


def test_tables_that_a_text_writes_are_read() -> None:
    code = Code(
        "BEGIN INSERT INTO s.t (id, v) VALUES (nextval('a'), 1), (2, nextval('b')); INSERT INTO t SELECT nextval('c');"
        " UPDATE ONLY s.t AS x SET v = 1, id = nextval('d') + x.v FROM y WHERE x.id = 5; END"
    )
    assert [(written.table, written.column, written.expression) for written in code.written()] == [
        (("s", "t"), "id", "nextval('a')"),
        (("s", "t"), "v", "nextval('b')"),
        (("t",), None, "nextval('c')"),
        (("s", "t"), "id", "nextval('d') + x.v"),
    ]


def test_what_a_trigger_gives_its_function_stands_in_its_place() -> None:
    given_ = {"tg_argv[0]": "'s.q'", "tg_table_name": "'t'"}
    assert in_place("nextval(TG_ARGV[0]) || tg_table_name || 'TG_TABLE_NAME' || TG_ARGV[1]", given_) == (
        "nextval('s.q') || 't' || 'TG_TABLE_NAME' || NULL"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s.q", ("s", "q")),
        (" S.Q ", ("s", "q")),
        ('"Otro.x"."Q\'a""b"', ("Otro.x", "Q'a\"b")),
        ("a.b.c.d", ("a", "b", "c", "d")),
        ("factura_", ("factura_",)),
        ("s.q-1", ("s", "q-1")), ("'s'", ("'s'",)), ("1", ("1",)), ('U&"q"', ('u&"q"',)),
        ("a b", None), ("", None), ("s.", None), (".s", None), ("s..q", None), ('""', None), ('"a"b', None),
    ],
)  # fmt: skip
def test_a_name_is_read_as_postgresql_does(text: str, name: tuple[str, ...] | None) -> None:
    assert name_of(text) == name


@given(st.text(alphabet="newNEW.:=;'\"$()[]/*- \nextvalINTOSELECTcase,E\\é1|", max_size=80))
def test_no_text_makes_the_reading_fail(text: str) -> None:
    assert [token.value for token in tokens(plain(text)) if token.kind == "word"] == [
        token.value for token in tokens(text) if token.kind == "word"
    ]
    Code(text, ["x"]).written()
    calls(text)
    list(texts_in(text))
    name_of(text)


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    """Each of many variables is made of the others again and again."""
    names = [f"v{number}" for number in range(40)]
    body = "".join(f"{name} := {' || '.join(names)} || nextval('s.{name}');" for name in names * 3)
    written = Code(f"DECLARE x int; BEGIN {body} NEW.id := v1; END").written()
    assert {each.column for each in written} == {"id"}


LONG = " + ".join(["1"] * 290)
GROWING = (
    "DECLARE n bigint := nextval('s.q'); BEGIN "
    + "".join(f"v := nextval('s.q') + {number} + {LONG};" for number in range(8))
    + "w := v || v || v; "
)


@pytest.mark.parametrize(
    "body",
    [
        GROWING + "NEW.x := w;" * 1500,
        GROWING + "u := w || w; z := u || u || u || u; " + "NEW.x := z || z;" * 1500,
        "BEGIN v := nextval('s.q') + " + LONG + ";" + "NEW.x := v;" * 1900,
        "BEGIN INSERT INTO s.b (id) VALUES " + ",".join(["(nextval('s.q'))"] * 1500),
        "BEGIN " + "".join(f"v{number} := nextval('s.q');" for number in range(1000)),
        "BEGIN " + "".join(f"INSERT INTO s.b{number} (id) VALUES (nextval('s.q'));" for number in range(500)),
    ],
)
def test_a_text_is_not_followed_without_end(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is read for it, what is told of it stays short, and that there is more is told too."""
    read = list[int]()

    def counting(text: str) -> Iterator[Token]:
        read.append(len(text))
        return tokens(text)

    for module in (number_calls, number_code):
        monkeypatch.setattr(module, "tokens", counting)
    found = Code(f"{body} END").written()
    assert sum(read) <= 5_000_000
    assert 0 < len(found) <= 101
    assert sum(len(each.expression or "") for each in found) <= 400_000


def test_calls_in_calls_are_read_once() -> None:
    text = "nextval(" * 3700
    assert sum(len(call.argument) for call in calls(text)) <= 4 * len(text)
    assert [call.argument for call in calls("nextval('a' || nextval('b'))")] == ["'a' || nextval('b')", "'b'"]


def test_calls_are_told_with_their_schema_and_the_number_of_their_arguments() -> None:
    text = 'p.name, (q)."Full", a(1, b(2, 3)), x."C"(), INSERT INTO s.t (u, v) VALUES (f(ARRAY[1, 2])); d(1'
    found = {(call.schema, call.name, call.given) for call in named_calls(text)}
    assert found - {(None, "values", 1)} == {
        (None, "name", 1), (None, "Full", 1),
        (None, "a", 2), (None, "b", 2), ("x", "C", 0), (None, "f", 1), (None, "d", None)
    }  # fmt: skip
