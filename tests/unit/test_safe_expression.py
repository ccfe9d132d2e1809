"""What is understood of an expression in a function's text is written anew; everything else is not evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_backups.restore.sequences.safe_expression import rewritten


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("nextval('s.q')", "nextval('s.q')"),
        ("2026 * 100 + nextval('q')", "((2026 OPERATOR(pg_catalog.*) 100) OPERATOR(pg_catalog.+) nextval('q'))"),
        ("7 - 2 - 1", "((7 OPERATOR(pg_catalog.-) 2) OPERATOR(pg_catalog.-) 1)"),
        ("'F-' || NEW.Code", "('F-' OPERATOR(pg_catalog.||) new.\"code\")"),
        ('new."Code"::text', '(new."Code")::pg_catalog.text'),
        ("lpad(nextval('q')::text, 6, '0')", "pg_catalog.lpad((nextval('q'))::pg_catalog.text, 6, '0')"),
        ("COALESCE(NEW.n, 1)", 'coalesce(new."n", 1)'),
        ("format('F-%s', nextval('q'))", "pg_catalog.format('F-%s', nextval('q'))"),
        ("'it''s'", "'it''s'"),
        ("'1E-' || nextval('q')", "('1E-' OPERATOR(pg_catalog.||) nextval('q'))"),
        ("nextval('q')::numeric", "(nextval('q'))::pg_catalog.numeric"),
        ("('1' || '2')::int::numeric", "(((('1' OPERATOR(pg_catalog.||) '2')))::pg_catalog.int4)::pg_catalog.numeric"),
    ],
)
def test_what_is_understood_is_written_with_its_schema_and_its_order(text: str, written: str) -> None:
    assert rewritten(text) == written


@pytest.mark.parametrize(
    "text",
    [
        "evil.run()",
        "run()",
        "pg_sleep(4)",
        "1; DELETE FROM t",
        "1 -- 2",
        "1 /* 2 */",
        "$$a$$",
        "$€1$ ( $€1$",
        "E'\\x75'",
        "U&'a'",
        'U&"a"',
        "B'1'",
        "'a' 'b'",
        "'a\\'",
        "1 OPERATOR(evil.+) 2",
        "1::evil.number",
        "1::money",
        "(SELECT 1)",
        "nextval('q') FROM t",
        "new.a.b",
        "other.a",
        "a",
        "x[1]",
        "lpad('a', 999999999)",
        "lpad('a', new.n)",
        "format('%999999999s', 1)",
        "format(new.a)",
        "(" * 60 + "1" + ")" * 60,
        "'1e60000'::numeric",
        "greatest('1e60000', nextval('q'))",
        "'1e60000' * nextval('q')",
        "('1' || 'e60000')::numeric",
        "('1' || 'e60000')::text::numeric",
        "concat('1e', '60000')::numeric",
        f"'{'9' * 60}'",
        "1\u00a0+ 1",
        "new\u00f1.a",
        "1" * 3000,
        "",
        "(",
        "1 +",
        "repeat('a', 9)",
        '"new".a',
        "nextval('q', 2)",
        "1..2",
        "1.e5",
        'new."a""b"',
    ],
)
def test_what_is_not_understood_is_not_evaluated(text: str) -> None:
    assert rewritten(text) is None


@given(st.text(alphabet="abnewNEW().,'\"$;|:+-*/%0189 \n\\\u20ac_EU&", max_size=40))
def test_nothing_of_a_text_is_passed_on_but_what_is_known(text: str) -> None:
    found = rewritten(text)
    if found is None:
        return
    outside = "".join(part for place, part in enumerate(found.split("'")) if place % 2 == 0)
    assert found.count("'") % 2 == 0
    assert not set(outside) & set(";$\\\u20ac&\n") and "--" not in outside and "/*" not in outside
    assert outside.count("(") == outside.count(")")
