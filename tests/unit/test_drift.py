"""What ``drift.txt`` may say, and what the lines mean for a backup's tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.archive.blocks import BlockList
from clinic_backups.archive.manifest import Manifest, TableContent
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.table import Column, Part, Table
from clinic_backups.base.text import quoted
from clinic_backups.restore.columns.identity import Matched, in_order, match
from clinic_backups.restore.columns.migrated import PresentNumbers, migrated
from clinic_backups.restore.columns.names import renames
from clinic_backups.restore.columns.proposals import proposed_columns, proposed_tables
from clinic_backups.tenant import drift, lost_lines
from clinic_backups.tenant.drift import ColumnLine, FillLine, PartLine, TableLine

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=8)


def test_every_form_of_a_line() -> None:
    found = drift.parse(
        """# comment

        public.paciente: correo -> email
        public.paciente : alergias = ''
        public.paciente: nota = 'it''s -> 5'
        public.paciente: activo=true
        public.paciente: fax = NULL
        s."odd.name": "a b" -> "c: d"
        public.paciente: precio (numeric(10,2)) -> precio (s."odd )"[])
        public.paciente: edad (column 4, integer) -> años ( column 7, bigint )
        public.viejo -> public.nuevo
        public.paciente without s."2020 old"
        """
    )
    paciente = "public.paciente"
    assert found.lines == (
        ColumnLine(paciente, "correo", "email"),
        FillLine(paciente, "alergias", ""),
        FillLine(paciente, "nota", "it's -> 5"),
        FillLine(paciente, "activo", "true"),
        FillLine(paciente, "fax", None),
        ColumnLine("s.odd.name", "a b", "c: d"),
        ColumnLine(paciente, "precio", "precio", "numeric(10,2)", 's."odd )"[]'),
        ColumnLine(paciente, "edad", "años", "column 4, integer", "column 7, bigint"),
        TableLine("public.viejo", "public.nuevo"),
        PartLine(paciente, "s.2020 old"),
    )
    assert not drift.parse("# nothing\n\n")


@pytest.mark.parametrize(
    "line",
    ["public.a", "a: b -> c", "public.a: b", "public.a: b ->", "public.a: b = now()", "public.a: b = 'x",
     "public.a: b = ", "public.a -> b", "public.a: b = 1; DROP TABLE x", "public.a: b = 'x' || secret",
     "public.a: b c -> d", "public.a: b (integer) -> b", "public.a: b -> b (integer)", "public.a: b () -> b ()"],
)  # fmt: skip
def test_what_is_no_line_is_named_with_its_number(line: str) -> None:
    with pytest.raises(SettingsError, match=r"drift\.txt, line 2: .*is not a change of a table"):
        drift.parse(f"# first\n{line}")


@pytest.mark.parametrize(
    "line", ["public.a: b -> d", "public.a: b -> c", "public.a: x = '2'", "public.t -> public.v", "public.a : b->c"]
)
def test_a_second_line_about_the_same_is_an_error(line: str) -> None:
    text = f"public.a: b -> c\npublic.a: x = '1'\npublic.t -> public.u\n{line}"
    with pytest.raises(SettingsError, match=r"line 4: .* has another line already, line [123]") as refused:
        drift.parse(text)
    assert (refused.value.hint or "").startswith("Remove one. If ")


@pytest.mark.parametrize(
    "text",
    ["s.a: b -> c\ns.a: c -> b\ns.a: b -> c", "s.a: b -> c\ns.a: b = null\ns.a: b -> d",
     "s.a -> s.b\ns.b -> s.a\ns.a -> s.b",
     "s.a: b = '1'\ns.a: b -> c\ns.a: b = '2'", "s.a: b (int) -> b (text)\ns.a: b (text) -> b (int)\ns.a: b -> c"],
)  # fmt: skip
def test_a_name_that_was_given_again_may_have_another_line(text: str) -> None:
    assert len(drift.parse(text).lines) == len(text.split("\n"))


@given(NAMES, NAMES, NAMES, NAMES)
def test_what_is_proposed_can_be_read_back(schema: str, table: str, old: str, new: str) -> None:
    name = f"{schema.replace('.', '_')}.{table}"
    lines = [drift.renamed_column(name, old, new), drift.filled_column(name, old, new)]
    found = drift.parse("\n".join(lines))
    assert found.lines == (ColumnLine(name, old, new), FillLine(name, old, new))
    renamed = [(name, f"s.{new}")] if name != f"s.{new}" else []
    assert drift.parse(drift.renamed_table(name, f"s.{new}")).tables == renamed
    assert drift.parse(drift.left_part(name, f"s.{new}")).lines == (PartLine(name, f"s.{new}"),)
    kept = drift.kept_column(name, old, "numeric(5,2)", f"s.{quoted(new)}")
    assert drift.parse(kept).lines == (ColumnLine(name, old, old, "numeric(5,2)", f"s.{quoted(new)}"),)


def columns(*names: str, type_: str = "text") -> tuple[Column, ...]:
    return tuple(Column(name, type_, False, None, "", None) for name in names)


def backup(**tables: tuple[str, ...]) -> Manifest:
    contents = {
        f"s.{name}": TableContent(Table(f"s.{name}", columns(*held), held[:1], ()), 0, 0, BlockList())
        for name, held in tables.items()
    }
    return Manifest("1-x", Clinic(1, "uno", "es"), datetime(2026, 1, 1, tzinfo=UTC), "", contents, ("1-x",))


def names(manifest: Manifest) -> dict[str, list[str]]:
    return {name: [c.name for c in content.table.columns] for name, content in manifest.tables.items()}


def test_renames_are_followed_one_after_the_other_also_through_a_renamed_table() -> None:
    lines = drift.parse("s.a: x -> y\ns.a -> s.b\ns.b: y -> z\ns.b -> s.c\ns.c: new = '7'")
    found = migrated(backup(a=("id", "x")), lines, {"s.c": {"id", "z", "new"}})
    assert names(found.manifest) == {"s.c": ["id", "z"]}
    assert (found.names, found.fills, found.refusals) == ({"s.c": "s.a"}, {"s.c": {"new": "7"}}, ())
    assert found.now(["s.a", "s.other"]) == ("s.c", "s.other")
    later = migrated(backup(b=("id", "y")), lines, {"s.c": {"id", "z", "new"}})
    assert names(later.manifest) == {"s.c": ["id", "z"]}
    newest = migrated(backup(c=("id", "z", "new")), lines, {"s.c": {"id", "z", "new"}})
    assert names(newest.manifest) == {"s.c": ["id", "z", "new"]}


@pytest.mark.parametrize(
    ("held", "now", "lines", "expected"),
    [
        ("a", "b", "ab", "ab"),
        ("a", "c", "ab bc", "ac"),
        ("b", "c", "ab bc", "bc"),
        ("c", "c", "ab bc", ""),
        ("ab", "bc", "bc ab", "ab bc"),  # the first made room for the second
        ("ac", "bc", "bc ab", "ab"),  # made between the two
        ("bc", "bc", "bc ab", ""),
        ("ab", "ab", "ab", ""),  # made after the rename, when another `a` was there
        ("a", "ab", "ab", None),  # renamed and then another `a` added, or the line is of no use any more
        ("ab", "ab", "at ba tb", None),  # exchanged: before or after it looks the same
        ("ba", "bat", "at ba tb", None),
        ("a", "a", "ab ba", ""),
        ("b", "a", "ab ba", "ba"),
        ("a", "x", "ab", ""),  # leads nowhere
        ("ab", "xb", "ax", "ax"),
        ("a", "ab", "ab +a", "ab"),  # renamed, and the name given to an added one
        ("b", "ab", "ab +a", ""),
        ("ab", "ab", "ab +a", ""),
        ("ab", "y", "ay by", None),  # one of them was dropped, and the lines do not say which
        ("ab", "b", "ab", None),  # `b` was dropped, or the line is wrong
    ],
)
def test_names_are_followed_in_order_or_not_at_all(held: str, now: str, lines: str, expected: str | None) -> None:
    pairs = [(line[0].replace("+", ""), line[1]) for line in lines.split()]
    wanted = None if expected is None else {pair[0]: pair[1] for pair in expected.split()}
    assert renames(held, now, pairs) == wanted


@given(
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=6, unique_by=lambda x: x[0]),
    st.integers(0, 6),
)
def test_what_is_followed_is_what_happened_or_is_refused(
    columns: set[str], wanted: list[tuple[str, str]], at: int
) -> None:
    """An oracle that renames real columns, one after the other, with a backup somewhere between."""
    at_backup: dict[str, str] = {}
    now, done = {name: name for name in columns}, list[tuple[str, str]]()
    for old, new in wanted:
        if len(done) == at:
            at_backup = dict(now)
        origin = next((origin for origin, name in now.items() if name == old), None)
        if origin is not None and new not in now.values():
            now[origin] = new
            done.append((old, new))
    at_backup = at_backup or dict(now)
    truth = {at_backup[origin]: now[origin] for origin in columns if at_backup[origin] != now[origin]}
    assert renames(set(at_backup.values()), set(now.values()), done) in (truth, None)


@pytest.mark.parametrize(
    ("text", "there", "message"),
    [
        ("s.a: x -> y", {"s.a": {"id", "x", "y"}}, "several ways for columns of s.a (x -> y)"),
        ("s.a -> s.b", {"s.a": {"id", "x"}, "s.b": {"id", "x"}}, "several ways for tables of the backup (s.a -> s.b)"),
    ],
)
def test_what_cannot_be_told_is_refused(text: str, there: dict[str, set[str]], message: str) -> None:
    (refusal,) = migrated(backup(a=("id", "x")), drift.parse(text), there).refusals
    assert message in refusal.message


@pytest.mark.parametrize("text", ["s.a: x -> y\ns.a: y -> x", "s.a -> s.b\ns.b -> s.a"])
def test_a_circle_of_lines_ends(text: str) -> None:
    found = migrated(backup(a=("id", "x")), drift.parse(text), {"s.a": {"id", "x"}})
    assert names(found.manifest) == {"s.a": ["id", "x"]}


def table(*held: tuple[str, str]) -> Table:
    return Table("s.a", tuple(Column(name, type_, False, None, "", None) for name, type_ in held), ("id",), ())


def test_proposals_are_of_the_same_type_at_the_same_place() -> None:
    then = table(("id", "int"), ("a", "text"), ("b", "text"), ("c", "int"), ("d", "date"))
    now = table(("id", "int"), ("a2", "text"), ("b", "text"), ("c2", "bigint"), ("d2", "date"), ("e", "text"))
    assert list(proposed_columns(then, now)) == ["s.a: a -> a2", "s.a: d -> d2"]
    assert list(proposed_columns(then, then)) == []
    assert list(proposed_columns(then, table(("id", "int"), ("b", "text")))) == []


def test_a_table_with_the_same_columns_is_proposed() -> None:
    then = table(("id", "int"), ("a", "text"))
    others = {"s.b": table(("id", "int"), ("a", "text")), "s.c": table(("id", "int"), ("a", "date"))}
    assert list(proposed_tables(then, others)) == ["s.a -> s.b"]


def test_lines_that_lead_nowhere_are_named() -> None:
    there = {"s.b": {"id", "z"}}
    fine = "s.a: x -> y\ns.a -> s.b\ns.b: y -> z\ns.a: y = '1'\ns.b: z = '2'"
    assert list(lost_lines.lost(drift.parse(fine), there)) == []
    assert list(lost_lines.lost(drift.parse("s.a without s.p\ns.a -> s.b\ns.p -> s.q"), there | {"s.q": {"id"}})) == []
    wrong = "s.b: x -> zz\ns.b: zz = '1'\ns.c: a -> b\ns.d -> s.e\ns.b without s.p"
    assert list(lost_lines.lost(drift.parse(wrong), there)) == [
        "drift.txt says that s.b.x became zz, and there is no such column.",
        "drift.txt gives a value for s.b.zz, and there is no such column.",
        "drift.txt says that s.c.a became b, and there is no such column.",
        "drift.txt says that s.d became s.e, and there is no such table.",
        "drift.txt says that s.p has left s.b, and there is no table s.p.",
    ]


def test_a_line_that_says_not_of_which_change_is_named() -> None:
    (said,) = lost_lines.lost(drift.parse("s.a: x -> x\ns.a: x (int) -> x (text)"), {"s.a": {"x"}})
    assert said.endswith("kept its values, and not through which change: write `x (old type) -> x (new type)`.")


def test_partitions_are_found_by_their_numbers_or_else_by_their_names() -> None:
    parts = (Part("s.p", 11), Part("s.q", 12), Part("s.gone", 13), Part("s.b", 14))
    made = backup(a=("id",), b=("id",))
    whole = replace(made.tables["s.a"].table, oid=1, parts=parts)
    manifest = replace(made, tables={**made.tables, "s.a": replace(made.tables["s.a"], table=whole)})
    there = dict.fromkeys(("s.a", "s.b", "s.p", "s.q2", "s.r"), ("id",))
    lines = drift.parse("s.q -> s.q2")
    assert migrated(manifest, lines, there).parts == {"s.a": ("s.p", "s.q2"), "s.b": None}
    numbers = PresentNumbers({"s.a": (1, None), "s.p": (21, None), "s.q2": (22, None), "s.r": (11, None)}, {})
    assert migrated(manifest, lines, there, numbers).parts == {"s.a": ("s.r",), "s.b": None}


def test_numbers_tell_what_names_do_not() -> None:
    swapped = {"a": 1, "b": 2}, {"b": 1, "a": 2}
    assert match(*swapped, []).unsaid == {"a": "b", "b": "a"}
    assert match(*swapped, [("a", "t"), ("b", "a"), ("t", "b")]).names == {"a": "b", "b": "a"}
    assert match({"a": 1, "b": 2}, {"a": 3, "b": 4}, []) == Matched()  # made again: names stay, and are compared later
    # Values moved into a new column, where a line says so; into two of them it cannot be.
    assert match({"a": 1}, {"c": 2}, [("a", "c")]).names == {"a": "c"}
    assert match({"a": 1}, {"c": 2, "d": 3}, [("a", "c"), ("c", "d")]).names == {"a": "d"}
    assert match({"a": 1}, {"c": 2, "d": 3}, [("a", "c"), ("", "a"), ("a", "d")]).several == ("a",)
    assert match({"a": 1, "b": 2}, {"c": 3}, [("a", "c"), ("b", "c")]).several == ("a", "b")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), max_size=6), st.integers(0, 6))
def test_with_numbers_every_rename_is_followed_that_a_line_says(wanted: list[tuple[str, str]], at: int) -> None:
    """An oracle that renames real columns, with a backup somewhere between."""
    now, done, held = {name: number for number, name in enumerate("abc")}, list[tuple[str, str]](), {}
    for old, new in wanted:
        if len(done) == at:
            held = dict(now)
        if old in now and new not in now:
            now[new] = now.pop(old)
            done.append((old, new))
    held = held or dict(now)
    names = {number: name for name, number in now.items()}
    truth = {name: names[number] for name, number in held.items() if names[number] != name}
    assert match(held, now, done) == Matched(truth)
    proposed = list(in_order(truth, {*held, *now}))
    assert match(held, now, proposed) == Matched(truth)


def numbered(held: Manifest, oid: int) -> Manifest:
    """The same backup with numbers: a table's columns are 1, 2 and so on."""
    contents = {}
    for name, content in held.tables.items():
        columns = tuple(replace(column, number=at) for at, column in enumerate(content.table.columns, start=1))
        contents[name] = replace(content, table=replace(content.table, columns=columns, oid=oid))
    return replace(held, tables=contents)


SWAPPED = PresentNumbers({"s.a": (7, None)}, {"s.a": {"id": 1, "y": 2, "x": 3}})


def test_a_backup_without_numbers_and_another_table_go_by_the_names() -> None:
    there, held = SWAPPED.columns, backup(a=("id", "x", "y"))
    assert migrated(held, drift.Drift(), there, SWAPPED).refusals == ()
    assert migrated(numbered(held, 7), drift.Drift(), there).refusals == ()  # another database
    made_again = migrated(numbered(held, 6), drift.Drift(), there, SWAPPED)
    assert made_again.refusals == () and "created again" in made_again.notes["s.a"][0]
    (refusal,) = migrated(numbered(held, 7), drift.Drift(), there, SWAPPED).refusals
    assert "x is y now, y is x now" in refusal.message


def test_a_table_that_became_a_part_of_the_one_with_its_name_was_made_again() -> None:
    columns = {"s.a": {"id": 1, "x": 2}, "s.old": {"id": 1, "x": 2}}
    now = PresentNumbers({"s.a": (9, None), "s.old": (7, "s.a")}, columns)
    found = migrated(numbered(backup(a=("id", "x")), 7), drift.Drift(), now.columns, now)
    assert found.refusals == () and names(found.manifest) == {"s.a": ["id", "x"]}
    assert "created again" in found.notes["s.a"][0]
    aside = PresentNumbers({name: (oid, None) for name, (oid, _) in now.tables.items()}, now.columns)
    (refusal,) = migrated(numbered(backup(a=("id", "x")), 7), drift.Drift(), now.columns, aside).refusals
    assert "`s.a -> s.old`" in refusal.hint and "`s.a -> s.a`" in refusal.hint
    kept = migrated(numbered(backup(a=("id", "x")), 7), drift.parse("s.a -> s.a"), now.columns, aside)
    assert kept.refusals == () and "created again" in kept.notes["s.a"][0]
