"""``clinic-backups recover`` into a database of another encoding or locale."""

# ruff: noqa: E501 - a statement reads best in one line

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg2 import sql

from clinic_backups.recovery.locales import Locale
from tests.integration.test_recover import Target
from tests.integration.test_recover_migrated import back_up
from tests.integration.test_recover_shapes import alone, made
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Shaped:
    schema = """
        CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int NOT NULL REFERENCES s.clinic, v text);
        INSERT INTO s.t VALUES (1, 1, 'ñandú'), (2, 2, 'x')
    """
    return alone(shaped(demo_database, tmp_path, schema, {"t": "t.clinic_id = {{ clinic_id }}"}))


@pytest.fixture
def target(
    rig: Shaped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    yield from made(rig, tmp_path, monkeypatch, capsys)


def make_anew(target: Target, options: str) -> None:
    target.drop()
    target._execute_elsewhere(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(target.name), sql.SQL(options))
    )


def test_another_encoding_is_refused_with_the_statement_that_helps(rig: Shaped, target: Target) -> None:
    back_up(rig)
    make_anew(target, "ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'")
    code, out, err = target.recover("--json", "--allow-missing")
    said = " ".join(err.split())
    assert (code, out) == (1, "")
    assert "has the encoding SQL_ASCII, and the one that was backed up had UTF8" in said
    assert target.rows("SELECT FROM pg_namespace WHERE nspname = 's'") == []
    make_anew(target, said.partition("TEMPLATE template0 ")[2])
    assert target.report()["left"] == []
    assert target.rows("SELECT length(v) FROM s.t WHERE id = 1") == [(5,)]


def test_another_locale_is_named(rig: Shaped, target: Target) -> None:
    back_up(rig)
    make_anew(target, "ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'")
    (left,) = target.report()["left"]
    assert "The database has the locale libc (LC_COLLATE C, LC_CTYPE C), and the one that was" in left["what"]
    assert not left["is_problem"]
    make_anew(target, left["what"].partition("TEMPLATE template0 ")[2])
    assert target.report()["left"] == []


@pytest.mark.parametrize(("statement", "locale"), [
    ("CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';",
     Locale("UTF8", "libc", "C.UTF-8", "C.UTF-8")),
    ("CREATE DATABASE \"a ENCODING = 'x'\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' LC_COLLATE = 'C' LC_CTYPE = 'es';",
     Locale("LATIN1", "libc", "C", "es")),
    ("CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'es';",
     Locale("UTF8", "icu", "C", "C", "es")),
    ("CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = builtin LOCALE = 'C' BUILTIN_LOCALE = 'C.UTF-8';",
     Locale("UTF8", "builtin", "C", "C", "C.UTF-8")),
    ("", None), ("CREATE DATABASE a;", None),
])  # fmt: skip
def test_the_locale_in_a_dump(statement: str, locale: Locale | None) -> None:
    assert Locale.in_dump(statement) == locale


def test_one_locale_has_several_spellings() -> None:
    assert Locale("UTF8", "libc", "C.UTF-8", "es_MX.utf8").is_like(Locale("UTF8", "libc", "C.utf8", "es_MX.UTF-8"))
    assert not Locale("UTF8", "libc", "C", "C").is_like(Locale("UTF8", "icu", "C", "C", "es"))
