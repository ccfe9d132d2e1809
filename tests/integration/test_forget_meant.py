"""A request means the row that was named and no other one, also after the key, its type or the table's name changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base.postgres_tools import find_tool
from tests.integration.test_cli import run as run
from tests.integration.test_forgotten_links import KEPT, MARK, OF, OWN, Site
from tests.integration.test_forgotten_links import make as make
from tests.shapes import grants

ONLY = "SELECT t.* FROM ONLY s.persona AS t WHERE " + OWN


@dataclass(frozen=True)
class Case:
    """Tables with a backup, then migrations, a request, and the deletion that the application makes.

    :param before: the request is made before the migrations.
    :param after: statements after the request: the deletion.
    :param files: of include/sql, after the migrations, by name; an empty text removes one. :param first: before them.
    :param again: there is a second backup after the migrations.
    :param code: of the restore of the older backup: without a line for the type it is refused, whatever was forgotten.
    """

    ddl: str
    tables: str
    named: Sequence[str]
    migrations: Sequence[str] = ()
    after: Sequence[str] = ()
    files: dict[str, str] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    before: bool = False
    code: int = 0
    again: bool = True


KEY = f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text);"
ROWS = f"INSERT INTO s.p VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}');"
HEIR = f"CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text);"
NOTE = f"CREATE TABLE s.nota (id int PRIMARY KEY, {OF}, persona_id int NOT NULL{{more}}, q text);"
GENTE = "SELECT t.* FROM s.gente AS t WHERE " + OWN
RENAMED = [
    "DELETE FROM s.persona WHERE id = 43", "ALTER TABLE s.persona RENAME TO gente",
    HEIR, f"INSERT INTO s.persona VALUES (43, 1, '{KEPT}'), (45, 1, '{KEPT}')",
]  # fmt: skip
EXCHANGED = ["ALTER TABLE s.p RENAME TO x", "ALTER TABLE s.q RENAME TO p", "ALTER TABLE s.x RENAME TO q"]
NEW_KEY = [
    "DELETE FROM s.p WHERE id = 43", "ALTER TABLE s.p DROP CONSTRAINT p_pkey", "ALTER TABLE s.p RENAME id TO old_id",
    "ALTER TABLE s.p ADD id uuid PRIMARY KEY DEFAULT gen_random_uuid()",
]  # fmt: skip
PARTITIONED = Case(
    f"CREATE TABLE s.cita (id int PRIMARY KEY, y int NOT NULL, {OF}, n text);"
    f"INSERT INTO s.cita VALUES (43, 2024, 1, '{MARK}'), (44, 2024, 1, '{KEPT}')",
    "cita", ["s.cita:43/2024"],
    ["ALTER TABLE s.cita RENAME TO cita_2024", "ALTER TABLE s.cita_2024 DROP CONSTRAINT cita_pkey",
     f"CREATE TABLE s.cita (id int, y int NOT NULL, {OF}, n text, PRIMARY KEY (id, y)) PARTITION BY LIST (y)",
     "ALTER TABLE s.cita ATTACH PARTITION s.cita_2024 FOR VALUES IN (2024)"],
    ["DELETE FROM s.cita WHERE id = 43"],
)  # fmt: skip
CASES = {
    "an heir has a key of its own": Case(
        HEIR + "CREATE TABLE s.vieja (num int PRIMARY KEY) INHERITS (s.persona);"
        f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (1, 1, '{KEPT}');"
        f"INSERT INTO s.vieja (id, c, n, num) VALUES (500, 1, '{KEPT}', 43), (501, 1, '{KEPT}', 7)",
        "persona vieja", ["s.persona:43"], after=["DELETE FROM ONLY s.persona WHERE id = 43"],
        first={"extract/s.persona.sql": ONLY},
    ),
    "another person's foreign key has the heir's number": Case(
        HEIR + "CREATE TABLE s.vieja (PRIMARY KEY (id)) INHERITS (s.persona);"
        + NOTE.format(more=" REFERENCES s.persona ON DELETE CASCADE")
        + f"INSERT INTO s.persona VALUES (1, 1, '{KEPT}');"
        f"INSERT INTO s.vieja VALUES (1, 1, '{MARK}'), (2, 1, '{KEPT}');"
        f"INSERT INTO s.nota VALUES (1, 1, 1, '{KEPT}')",
        "persona vieja nota", ["s.vieja:1"], after=["DELETE FROM s.vieja WHERE id = 1"],
        first={"extract/s.persona.sql": ONLY},
    ),
    "the key got a column": Case(
        KEY + f"CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p int NOT NULL REFERENCES s.p ON DELETE CASCADE, q text);"
        + ROWS + f"INSERT INTO s.k VALUES (1, 1, 43, '{MARK}'), (2, 1, 44, '{KEPT}')",
        "p k", ["s.p:1/43"],
        ["ALTER TABLE s.k DROP CONSTRAINT k_p_fkey", "ALTER TABLE s.p DROP CONSTRAINT p_pkey",
         "ALTER TABLE s.p ADD PRIMARY KEY (c, id)",
         "ALTER TABLE s.k ADD FOREIGN KEY (c, p) REFERENCES s.p ON DELETE CASCADE"],
        ["DELETE FROM s.p WHERE id = 43"],
    ),
    "the table became partitioned": replace(PARTITIONED, files={"drift.txt": "s.cita -> s.cita\n"}),
    "the key became a number": Case(
        f"CREATE TABLE s.p (id text PRIMARY KEY, {OF}, n text);"
        f"INSERT INTO s.p VALUES ('043', 1, '{MARK}'), ('044', 1, '{KEPT}')",
        "p", ["s.p:43"], ["ALTER TABLE s.p ALTER id TYPE int USING id::int"], ["DELETE FROM s.p WHERE id = 43"],
        code=1,
    ),
    "the key became a uuid": Case(
        f"CREATE TABLE s.p (id text PRIMARY KEY, {OF}, n text);"
        f"INSERT INTO s.p VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1, '{MARK}'),"
        f" ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12', 1, '{KEPT}')",
        "p", ["s.p:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"], ["ALTER TABLE s.p ALTER id TYPE uuid USING id::uuid"],
        [f"DELETE FROM s.p WHERE n = '{MARK}'"], code=1,
    ),
    "the key became another column of the backup": Case(
        f"CREATE TABLE s.p (id int PRIMARY KEY, code int UNIQUE NOT NULL, {OF}, n text);"
        f"INSERT INTO s.p VALUES (7, 43, 1, '{MARK}'), (43, 7, 1, '{KEPT}')",
        "p", ["s.p:43"], ["ALTER TABLE s.p DROP CONSTRAINT p_pkey", "ALTER TABLE s.p ADD PRIMARY KEY (code)"],
        ["DELETE FROM s.p WHERE code = 43"],
    ),
    "another column got the key's name": Case(
        f"CREATE TABLE s.p (id int PRIMARY KEY, legacy int, {OF}, n text);"
        f"INSERT INTO s.p VALUES (43, 7, 1, '{MARK}'), (7, 43, 1, '{KEPT}')",
        "p", ["s.p:43"],
        ["DELETE FROM s.p WHERE id = 43", "ALTER TABLE s.p DROP CONSTRAINT p_pkey",
         "ALTER TABLE s.p RENAME id TO old_id",
         "ALTER TABLE s.p RENAME legacy TO id", "ALTER TABLE s.p ADD PRIMARY KEY (id)"],
        files={"drift.txt": "s.p: id -> old_id\ns.p: legacy -> id\n"}, before=True,
    ),
    "the key's column was renamed": Case(
        KEY + ROWS, "p", ["s.p:43"], ["ALTER TABLE s.p RENAME id TO gid"], ["DELETE FROM s.p WHERE gid = 43"],
        {"drift.txt": "s.p: id -> gid\n"},
    ),
    "a table was renamed, and a column is named like a link to it": Case(
        HEIR + NOTE.format(more="") + f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}');"
        f"INSERT INTO s.nota VALUES (1, 1, 43, '{MARK}'), (2, 1, 44, '{KEPT}')",
        "persona nota", ["s.persona:43"],
        [f"DELETE FROM s.persona WHERE n = '{MARK}'", f"DELETE FROM s.nota WHERE q = '{MARK}'",
         "ALTER TABLE s.persona RENAME TO gente"],
        files={"drift.txt": "s.persona -> s.gente\n", "extract/s.persona.sql": "",
               "extract/s.gente.sql": "SELECT t.* FROM s.gente AS t WHERE " + OWN},
        before=True,
    ),
    "the old table is a partition of the one that got its name": replace(
        PARTITIONED, files={"drift.txt": "s.cita -> s.cita_2024\n"}
    ),
    "a table was renamed since the last backup": Case(
        HEIR + f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}')", "persona", ["s.gente:43"],
        ["ALTER TABLE s.persona RENAME TO gente"], ["DELETE FROM s.gente WHERE id = 43"],
        {"drift.txt": "s.persona -> s.gente\n", "extract/s.persona.sql": "",
         "extract/s.gente.sql": "SELECT t.* FROM s.gente AS t WHERE " + OWN}, again=False,
    ),
    "a new table got the name": Case(
        HEIR + f"INSERT INTO s.persona VALUES (43, 1, '{KEPT}'), (44, 1, '{KEPT}')", "persona", ["s.persona:43"],
        ["ALTER TABLE s.persona RENAME TO gente", f"CREATE TABLE s.persona (id int PRIMARY KEY, {OF}, n text)",
         f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}')"],
        ["DELETE FROM s.persona WHERE id = 43"],
        {"drift.txt": "s.persona -> s.gente\n", "extract/s.gente.sql": "SELECT t.* FROM s.gente AS t WHERE " + OWN},
    ),
    "a new table got the name after the request, and no line says so": Case(
        HEIR + f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}')", "persona", ["s.persona:43"],
        RENAMED, files={"extract/s.gente.sql": GENTE}, before=True, code=1,
    ),
    "two tables exchanged their names after the request, and no line says so": Case(
        KEY + f"CREATE TABLE s.q (id int PRIMARY KEY, {OF}, n text);" + ROWS
        + f"INSERT INTO s.q VALUES (43, 1, '{KEPT}'), (45, 1, '{KEPT}')", "p q", ["s.p:43"],
        ["DELETE FROM s.p WHERE id = 43", *EXCHANGED], before=True, code=1,
    ),
    "another column got the key's name after the request, and no line says so": Case(
        KEY + ROWS, "p", ["s.p:43"], NEW_KEY, before=True, code=1,
    ),
    "the table was copied, and the old one was kept": Case(
        KEY + ROWS, "p", ["s.p:43"],
        ["ALTER TABLE s.p RENAME TO p_old", "ALTER TABLE s.p_old RENAME CONSTRAINT p_pkey TO p_old_pkey", KEY,
         "INSERT INTO s.p SELECT * FROM s.p_old"],
        ["DELETE FROM s.p WHERE id = 43", "DELETE FROM s.p_old WHERE id = 43"],
        {"drift.txt": "s.p -> s.p\n", "extract/s.p_old.sql": "SELECT t.* FROM s.p_old AS t WHERE " + OWN}, before=True,
    ),
}  # fmt: skip


def prepared(make: Callable[..., Site], case: Case) -> tuple[Site, list[str]]:
    """The site after the migrations, the request and the deletion, and its backups."""
    site = make(case.ddl, tables=case.tables)
    folder = site.rig.settings.sql_dir

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (folder / name).write_text(text) if text else (folder / name).unlink()

    write(case.first)
    backups = [site.backup()]
    if case.before:
        site.forget(*case.named)
    site.rig.execute(*case.migrations, *grants(site.rig.database))
    write(case.files)
    if case.migrations and case.again:
        backups.append(site.backup())
    if not case.before:
        site.forget(*case.named)
    site.rig.execute(*case.after)
    return site, backups


def rows_of(site: Site) -> list[str]:
    return sorted(row for rows in site.rig.everything().values() for row in rows)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_named_row_stays_away_everywhere_and_no_other_one(
    make: Callable[..., Site], tmp_path: Path, case: Case
) -> None:
    site, backups = prepared(make, case)
    now = rows_of(site)
    for number, backup in enumerate(backups):
        output = tmp_path / f"out{number}"
        site("export", "--backup", backup, "--format", "csv", "--output", str(output))
        exported = site.texts(output)
        assert MARK not in exported
        stored = sum(site("show", backup, "--json").json()["rows"].values())
        target = {"AIRFLOW_CONN_RESTORE_TARGET": site.rig.database.postgres.uri(site.rig.database.name)}
        site("restore-into", "--clinic", "1", "--schema", f"copia{number}", "--backup", backup, **target)
        copied = [
            text
            for (table,) in site.rig.execute_rows(
                f"SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'copia{number}'"
            )
            for (text,) in site.rig.execute_rows(f"SELECT t::text FROM ONLY {table} AS t")
        ]
        assert MARK not in str(copied)
        shown = site("diff", backup, "now", "--clinic", "1", "--values").out
        assert MARK not in shown
        site("restore", "--clinic", "1", "--backup", backup, "--yes", code=0 if number else case.code)
        assert rows_of(site) == now
        assert exported.count(KEPT) == str(copied).count(KEPT)
        assert stored >= len(copied) >= exported.count(KEPT) > 0


def test_a_key_that_the_backup_does_not_have_refuses_export_and_restore(
    make: Callable[..., Site], tmp_path: Path
) -> None:
    """Nothing tells which row it is. Other tables can be exported, and no row gets out."""
    site = make(KEY + f"CREATE TABLE s.k (id int PRIMARY KEY, {OF}, q text);" + ROWS, tables="p k")
    backup = site.backup()
    site.rig.execute(
        "ALTER TABLE s.p ADD code text", "UPDATE s.p SET code = 'x' || id", "ALTER TABLE s.p DROP CONSTRAINT p_pkey",
        "ALTER TABLE s.p ADD PRIMARY KEY (code)",
    )  # fmt: skip
    site.forget("s.p:x43")
    words = ("export", "--backup", backup, "--format", "csv", "--output")
    done = site(*words, str(tmp_path / "out"), code=1)
    assert "Rows of s.p were forgotten by values of columns (code)" in " ".join(done.err.split())
    site(*words, str(tmp_path / "k"), "--table", "s.k")
    site.rig.execute("DELETE FROM s.p WHERE code = 'x43'")
    site("restore", "--clinic", "1", "--backup", backup, "--yes", code=1)
    assert MARK not in str(site.rig.everything())
    later = site.backup()
    site("export", "--backup", later, "--format", "csv", "--output", str(tmp_path / "later"))
    assert KEPT in site.texts(tmp_path / "later")


@pytest.mark.parametrize("more", ["", " REFERENCES s.persona"])
@pytest.mark.parametrize("only", [(), ("--only",)])
def test_a_row_comes_back_alone_although_an_heirs_row_was_forgotten(
    make: Callable[..., Site], more: str, only: tuple[str, ...]
) -> None:
    site = make(
        HEIR + "CREATE TABLE s.vieja (PRIMARY KEY (id)) INHERITS (s.persona);" + NOTE.format(more=more)
        + f"INSERT INTO s.persona VALUES (1, 1, '{KEPT}');"
        f"INSERT INTO s.vieja VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}');"
        f"INSERT INTO s.nota VALUES (2, 1, 1, '{KEPT}')",
        tables="persona vieja nota",
    )  # fmt: skip
    (site.rig.settings.sql_dir / "extract" / "s.persona.sql").write_text(ONLY)
    backup = site.backup()
    site.forget("s.vieja:43")
    site.rig.execute("DELETE FROM s.vieja WHERE id = 43")
    kept = site.rig.everything()
    site.rig.execute("DELETE FROM s.nota")
    site("restore", "--clinic", "1", "--backup", backup, "--rows", "s.nota:2", "--yes", *only)
    assert site.rig.everything() == kept


FORGET = ("forget", "--clinic", "1", "--reason", "Art. 17", "--rows")


def test_a_row_of_another_clinic_is_refused_and_one_that_nobody_has_is_said(make: Callable[..., Site]) -> None:
    site = make(KEY + ROWS + "INSERT INTO s.p VALUES (9, 2, 'z')", tables="p")
    site.backup()
    assert "not rows of clinic 1" in site(*FORGET, "s.p:9", code=1).err
    assert "names no row" in site(*FORGET, "s.p:[]", code=2).err
    assert site("forget", "--list", "--json").json() == []
    assert "no row has this key now: 34" in " ".join(site(*FORGET, "s.p:34").err.split())
    assert "no row has this key" not in site(*FORGET, "s.p:43").err
    site(*FORGET, "s.p:9", "--moved")
    assert len(site("forget", "--list", "--json").json()) == 3


def test_a_key_that_may_have_been_changed_is_said(make: Callable[..., Site]) -> None:
    ddl = f"CREATE TABLE s.p (id text PRIMARY KEY, {OF}, n text);"
    site = make(
        ddl + f"CREATE TABLE s.k (id int PRIMARY KEY, {OF}, p text REFERENCES s.p ON UPDATE CASCADE);"
        "INSERT INTO s.p VALUES ('a', 1, 'x')", tables="p k",
    )  # fmt: skip
    site.backup()
    assert "ON UPDATE CASCADE" in site(*FORGET, "s.p:a").err
    assert "ON UPDATE CASCADE" not in site(*FORGET, "s.k:1").err


def test_a_computed_key_is_refused_before_it_stops_every_export(make: Callable[..., Site], tmp_path: Path) -> None:
    site = make(
        f"CREATE TABLE s.p (a int, {OF}, n text, id int GENERATED ALWAYS AS (a + 1000) STORED PRIMARY KEY);"
        f"INSERT INTO s.p (a, c, n) VALUES (1, 1, '{MARK}'), (2, 1, '{KEPT}')", tables="p",
    )  # fmt: skip
    backup = site.backup()
    assert "The key of s.p is computed (id)" in site(*FORGET, "s.p:1001", code=1).err
    assert site("forget", "--list", "--json").json() == []
    site("export", "--backup", backup, "--format", "csv", "--output", str(tmp_path / "out"))
    assert "computed" in site("find", "--clinic", "1", "--rows", "s.p:1001", code=2).err


@pytest.mark.parametrize("name", ["another person's foreign key has the heir's number", "the key became a uuid"])
def test_a_recovery_of_an_older_backup_follows_the_request_of_the_store(make: Callable[..., Site], name: str) -> None:
    case = CASES[name]
    site = make(case.ddl, tables=case.tables)
    for file, text in case.first.items():
        (site.rig.settings.sql_dir / file).write_text(text)
    site("backup", "--all", "--allow-gaps")
    tables = [f"s.{table}" for table in case.tables.split()]
    kept = [row for table in tables for row in site.rig.everything()[table] if MARK not in row]
    site.rig.execute(*case.migrations, *grants(site.rig.database))
    site.forget(*case.named)
    assert sorted(recovered(site, tables)[1:]) == sorted(kept)


def recovered(site: Site, tables: Sequence[str], *words: str) -> list[str]:
    """The rows of tables in a new database that is made from the store alone."""
    postgres, target = site.rig.database.postgres, f"{site.rig.database.name}_new"
    with closing(postgres.connect("postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {target} TEMPLATE template0")
    try:
        none = {"AIRFLOW_CONN_CLINIC_DB": None, "AIRFLOW_CONN_BACKUP_CATALOG": None}
        variables = site.variables | none | {"AIRFLOW_CONN_NEW": postgres.uri(target)}
        done = site.run("recover", "--target", "new", *words, **variables)
        found = [" ".join(done.err.split())]
        with closing(postgres.connect(target)) as connection, connection.cursor() as cursor:
            for table in tables:
                cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
                if cursor.fetchone() == (True,):
                    cursor.execute(f"SELECT t::text FROM ONLY {table} AS t ORDER BY 1")
                    found += [row for (row,) in cursor.fetchall()]
    finally:
        with closing(postgres.connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"DROP DATABASE {target} WITH (FORCE)")
    return found


NEW_UUID = [
    "DELETE FROM s.p WHERE id = 43", "ALTER TABLE s.p DROP COLUMN id",
    "ALTER TABLE s.p ADD uid uuid PRIMARY KEY DEFAULT gen_random_uuid()",
]  # fmt: skip
PAST = "request 1 was made before the columns of the key were dropped (id)"


def said_by(done: Any) -> str:
    return " ".join((done.out + done.err).split())


def test_a_backup_after_the_key_was_dropped_is_usable_and_says_what_it_cannot_leave_out(
    make: Callable[..., Site], tmp_path: Path
) -> None:
    site = make(KEY + ROWS + "INSERT INTO s.p VALUES (50, 2, 'dos')", tables="p")
    older = site.backup()
    site.forget("s.p:43")
    site.rig.execute(*NEW_UUID, *grants(site.rig.database))
    site("backup", "--all", "--allow-gaps")
    (backup,) = {each["backup_id"] for each in site("list", "--clinic", "1", "--json").json()} - {older}
    now = site.rig.everything()
    words = ("export", "--format", "csv", "--output")
    assert PAST in said_by(site(*words, str(tmp_path / "new"), "--backup", backup))
    assert site.texts(tmp_path / "new").count(KEPT) == 1
    site(*words, str(tmp_path / "old"), "--backup", older)
    assert MARK not in site.texts(tmp_path / "old")
    target = {"AIRFLOW_CONN_RESTORE_TARGET": site.rig.database.postgres.uri(site.rig.database.name)}
    assert PAST in said_by(site("restore-into", "--clinic", "1", "--schema", "copia", "--backup", backup, **target))
    site.rig.execute("DELETE FROM s.p WHERE c = 1")
    shown = said_by(site("diff", backup, "now", "--clinic", "1", "--values"))
    assert KEPT in shown
    assert PAST in shown
    assert PAST in said_by(site("restore", "--clinic", "1", "--backup", backup, "--yes"))
    assert site.rig.everything() == now
    assert PAST in _certified(site)
    said, *rows = recovered(site, ["s.p"])
    assert sorted(rows) == sorted(now["s.p"])
    assert "Erasure requests of 20" in said
    assert "dropped (id)" in said


def _certified(site: Site) -> str:
    (drilled,) = site("drill", "--clinic", "1", "--json").json()
    assert drilled["outcome"] == "proven"
    return said_by(site("certificate", "show", str(drilled["number"]), "--json"))


def test_a_drill_fails_where_a_recovery_refuses(make: Callable[..., Site]) -> None:
    """The backup is older than the request, and does not have its column. So the row may be in it."""
    site = make(KEY + ROWS, tables="p")
    site("backup", "--all", "--allow-gaps")
    site.rig.execute(
        "ALTER TABLE s.p ADD code text", "UPDATE s.p SET code = 'x' || id", "ALTER TABLE s.p DROP CONSTRAINT p_pkey",
        "ALTER TABLE s.p ADD PRIMARY KEY (code)",
    )  # fmt: skip
    site.forget("s.p:x43")
    words, *rows = recovered(site, ["s.p"])
    assert "cannot be told" in words
    assert not rows
    done = site.run("drill", "--clinic", "1", **site.variables)
    assert done.code
    assert "cannot be told" in said_by(done)


MOVED = {
    "a new table has the name": Case(
        HEIR + f"INSERT INTO s.persona VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}')", "persona", ["s.persona:43"],
        RENAMED, files={"drift.txt": "s.persona -> s.gente\n", "extract/s.gente.sql": GENTE},
    ),
    "another column has the key's name": Case(
        KEY + ROWS, "p", ["s.p:43"], NEW_KEY, files={"drift.txt": "s.p: id -> old_id\n"}
    ),
    "two tables exchanged their names": Case(
        KEY + f"CREATE TABLE s.q (id int PRIMARY KEY, {OF}, n text);" + ROWS
        + f"INSERT INTO s.q VALUES (43, 1, '{KEPT}'), (45, 1, '{KEPT}')", "p q", ["s.p:43"],
        ["DELETE FROM s.p WHERE id = 43", *EXCHANGED], files={"drift.txt": "s.p -> s.x\ns.q -> s.p\ns.x -> s.q\n"},
        code=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVED.values(), ids=MOVED)
def test_a_request_means_the_same_after_a_migration_and_a_move_to_another_server(
    make: Callable[..., Site], tmp_path: Path, case: Case
) -> None:
    """There all numbers are others. What the lines do not tell is refused, and the message says where to write it."""
    site = make(case.ddl, tables=case.tables)
    site.backup()
    site.forget(*case.named)
    site.rig.execute(*case.migrations, *grants(site.rig.database))
    for name, text in case.files.items():
        (site.rig.settings.sql_dir / name).write_text(text)
    tables = [name for name in site.rig.everything() if name != "s.clinic"]
    with moved(site) as rows:
        now = [rows(name) for name in tables]
        backup = site.backup()
        words = ("export", "--backup", backup, "--format", "csv", "--output", str(tmp_path / "out"))
        done = site(*words, code=case.code)
        if case.code:
            assert "drift.txt does not say which of these tables" in " ".join(done.err.split())
        else:
            assert site.texts(tmp_path / "out").count(KEPT) == str(now).count(KEPT)
        done = site("restore", "--clinic", "1", "--backup", backup, "--yes", code=case.code)
        assert case.code == 0 or "correct it" in " ".join(done.err.split())
        assert [rows(name) for name in tables] == now


@contextmanager
def moved(site: Site) -> Iterator[Callable[[str], list[str]]]:
    """The database after ``pg_dump`` and ``pg_restore``. Gives the rows of a table there."""
    database, postgres = site.rig.database, site.rig.database.postgres
    old, new = database.name, f"{database.name}_moved"
    with closing(postgres.connect("postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {new} TEMPLATE template0")
    try:
        dump, load = (str(find_tool(name, at_least=17).path) for name in ("pg_dump", "pg_restore"))
        made = subprocess.run([dump, "-Fc", "-d", postgres.uri(old)], capture_output=True, check=True)
        subprocess.run([load, "-d", postgres.uri(new)], input=made.stdout, check=True)
        site.variables |= {
            "AIRFLOW_CONN_CLINIC_DB": database.reader_uri.replace(old, new),
            "AIRFLOW_CONN_RESTORE_DB": database.restorer_uri.replace(old, new),
            "AIRFLOW_CONN_BACKUP_CATALOG": database.catalog_uri,
        }

        def rows(table: str) -> list[str]:
            with closing(postgres.connect(new)) as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT t::text FROM ONLY {table} AS t ORDER BY 1")
                return [row for (row,) in cursor.fetchall()]

        yield rows
    finally:
        with closing(postgres.connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"DROP DATABASE {new} WITH (FORCE)")
