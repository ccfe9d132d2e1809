"""What belongs to a forgotten row is not shown, also between databases, over new foreign keys, and over odd types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.catalog.forgotten import Forgotten
from clinic_backups.restore.links_now import NOT_ASKED
from tests.integration.test_cli import Run, restore_keys
from tests.integration.test_cli import run as run
from tests.integration.test_forget_shapes import MARK, OF, OWN
from tests.postgres_fixtures import DemoDatabase
from tests.shapes import Shaped, shaped

__all__ = ["run"]
KEPT = "Qqoph"
FAMILY = (
    f"CREATE TABLE s.p (id int PRIMARY KEY, {OF}, n text);"
    f" CREATE TABLE s.k (id int PRIMARY KEY, {OF}, owner int NOT NULL REFERENCES s.p ON DELETE CASCADE, q text);"
    f" CREATE TABLE s.g (id int PRIMARY KEY, {OF}, k int NOT NULL REFERENCES s.k ON DELETE CASCADE, q text)"
)


@dataclass
class Site:
    """The command over tables of a test."""

    run: Run
    rig: Shaped
    variables: dict[str, str]

    def __call__(self, *words: str, code: int = 0, **more: str) -> Any:
        done = self.run(*words, **(self.variables | more))
        assert done.code == code, (done.out, done.err)
        return done

    def backup(self) -> str:
        (record,) = self("backup", "--clinic", "1", "--json", "--allow-gaps").json()
        return str(record["backup_id"])

    def forget(self, rows: str) -> None:
        self("forget", "--clinic", "1", "--rows", rows, "--reason", "Art. 17")

    def texts(self, folder: Path) -> str:
        return "".join(file.read_text() for file in folder.iterdir())


@pytest.fixture
def make(run: Run, demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    def made(ddl: str, *rows: str, tables: str = "p k g") -> Site:
        rig = shaped(demo_database, tmp_path / "site", ddl, dict.fromkeys(tables.split(), OWN))
        rig.execute(*rows)
        identity = tmp_path / "identity.txt"
        site = Site(run, rig, restore_keys(run, identity, demo_database))
        site.variables |= {
            "CLINIC_BACKUPS_IDENTITY_FILE": str(identity), "CLINIC_BACKUPS_SQL_DIR": str(rig.settings.sql_dir),
        }  # fmt: skip
        site("catalog", "migrate")
        site("store", "init")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        return site

    return made


def family(make: Callable[..., Site], ddl: str = FAMILY) -> Site:
    return make(
        ddl,
        f"INSERT INTO s.p VALUES (43, 1, '{MARK}'), (44, 1, '{KEPT}')",
        f"INSERT INTO s.k VALUES (1, 1, 43, '{MARK}'), (2, 1, 44, '{KEPT}')",
        f"INSERT INTO s.g VALUES (1, 1, 1, '{MARK}'), (2, 1, 2, '{KEPT}')",
    )


@pytest.fixture
def earlier(demo_database: DemoDatabase) -> Iterator[Callable[[], str]]:
    """Copies the database, as a provider's point-in-time recovery does. Returns the copy's address."""
    name, postgres = f"{demo_database.name}_pitr", demo_database.postgres

    def statement(text: str) -> None:
        with closing(postgres.connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)

    def copy() -> str:
        demo_database.session.close()
        statement(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{demo_database.name}'")
        statement(f"CREATE DATABASE {name} TEMPLATE {demo_database.name}")
        return postgres.uri(name)

    yield copy
    statement(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_two_databases_are_compared_without_showing_the_forgotten(
    make: Callable[..., Site], earlier: Callable[[], str], tmp_path: Path
) -> None:
    site = family(make)
    backup = site.backup()
    site.variables["AIRFLOW_CONN_PITR_DB"] = earlier()
    site.forget("s.p:43")
    site.rig.execute("DELETE FROM s.p")
    for sides in (("pitr_db", "now"), ("now", "pitr_db"), (backup, "now"), (backup, "pitr_db")):
        shown = site("diff", *sides, "--clinic", "1", "--values")
        assert MARK not in shown.out, sides
        if sides != (backup, "pitr_db"):
            assert shown.out.count('"forgotten": true') == shown.out.count(f'"{KEPT}"') == 3, sides


def test_somebody_who_came_after_the_backup_is_not_shown(make: Callable[..., Site]) -> None:
    site = family(make)
    backup = site.backup()
    site.rig.execute(
        f"INSERT INTO s.p VALUES (50, 1, '{MARK}'), (51, 1, 'Nn')",
        f"INSERT INTO s.k VALUES (5, 1, 50, '{MARK}'), (6, 1, 51, 'Nn')",
        f"INSERT INTO s.g VALUES (5, 1, 5, '{MARK}'), (6, 1, 6, 'Nn')",
    )
    site.forget("s.p:50")
    for sides in ((backup, "now"), ("now", backup)):
        shown = site("diff", *sides, "--values")
        assert MARK not in shown.out, sides
        assert shown.out.count('"Nn"') == shown.out.count('"forgotten": true') == 3, sides


@pytest.mark.parametrize("what", ["no key", "a generated link"])
def test_tables_in_which_it_cannot_be_told_show_no_row(make: Callable[..., Site], what: str) -> None:
    ddl = {
        "no key": FAMILY.replace("s.p (id int PRIMARY KEY", "s.p (id int UNIQUE NOT NULL").replace(
            "REFERENCES s.p", "REFERENCES s.p (id)"
        ),
        "a generated link": FAMILY.replace(
            "owner int NOT NULL REFERENCES s.p ON DELETE CASCADE, q text",
            "code int, q text, owner int GENERATED ALWAYS AS (code) STORED REFERENCES s.p ON DELETE CASCADE",
        ),
    }[what]
    site = make(
        ddl + f"; CREATE TABLE s.t (id int PRIMARY KEY, {OF}, q text)",
        f"INSERT INTO s.p VALUES (43, 1, '{MARK}')",
        f"INSERT INTO s.k VALUES (1, 1, 43, '{MARK}')",
        f"INSERT INTO s.g VALUES (1, 1, 1, '{MARK}')",
        f"INSERT INTO s.t VALUES (1, 1, '{KEPT}')",
        tables="p k g t",
    )
    backup = site.backup()
    # Recorded before it was refused for tables without a key.
    Forgotten(site.rig.catalog.database).add(1, {"s.p": ["43"]}, by="ana", reason="Art. 17")
    site.rig.execute("DELETE FROM s.g", "DELETE FROM s.k", "DELETE FROM s.p", "DELETE FROM s.t")
    shown = site("diff", backup, "now", "--values")
    assert MARK not in shown.out
    assert KEPT in shown.out
    assert '{"table": "s.k", "hidden": true}' in shown.out
    for name in ("s.k", "s.g"):
        assert f"{name}: no row is shown. Rows of it may belong to forgotten ones" in shown.out


def test_a_foreign_key_that_was_added_since_counts_if_the_database_answers(
    make: Callable[..., Site], tmp_path: Path
) -> None:
    site = family(make, FAMILY.replace("owner int NOT NULL REFERENCES s.p ON DELETE CASCADE", "owner int"))
    backup = site.backup()
    site.rig.execute("ALTER TABLE s.k ADD FOREIGN KEY (owner) REFERENCES s.p ON DELETE CASCADE")
    site.forget("s.p:43")
    site.rig.execute("DELETE FROM s.p")
    later = site.backup()
    words = ("export", "--backup", backup, "--format", "csv", "--output")
    done = site(*words, str(tmp_path / "out"))
    assert MARK not in site.texts(tmp_path / "out")
    assert site.texts(tmp_path / "out").count(KEPT) == 3
    assert NOT_ASKED not in done.out
    for shown in (
        site("diff", backup, later, "--values"), site("diff", backup, "now", "--values"),
        site("find", "--clinic", "1", "--rows", "s.k:1", "--values"),
        site("find", "--clinic", "1", "--rows", "s.g:1", "--values"),
    ):  # fmt: skip
        assert MARK not in shown.out
    target = site.rig.database.postgres.uri(site.rig.database.name)
    site("restore-into", "--clinic", "1", "--schema", "cp", "--backup", backup, AIRFLOW_CONN_RESTORE_TARGET=target)
    assert site.rig.execute_rows("SELECT q FROM cp.k UNION ALL SELECT q FROM cp.g") == [(KEPT,), (KEPT,)]
    away = {"AIRFLOW_CONN_CLINIC_DB": "postgres://nobody@127.0.0.1:1/nothing"}
    assert NOT_ASKED in site(*words, str(tmp_path / "alone"), **away).out
    site("restore", "--clinic", "1", "--backup", backup, "--yes")
    assert site.rig.execute_rows(f"SELECT count(*) FROM s.g WHERE q = '{MARK}'") == [(0,)]


def test_an_export_is_refused_if_only_the_server_knows_which_values_are_equal(
    make: Callable[..., Site], tmp_path: Path
) -> None:
    """A timestamp without a zone and one with a zone are equal in the zone of the session that wrote them."""
    site = make(
        f"CREATE TABLE s.p (id timestamp PRIMARY KEY, {OF}, n text);"
        f"CREATE TABLE s.k (id int PRIMARY KEY, {OF}, owner timestamptz NOT NULL, q text)",
        f"INSERT INTO s.p VALUES ('2024-01-05 00:00', 1, '{MARK}'), ('2024-01-06 00:00', 1, '{KEPT}')",
        f"INSERT INTO s.k VALUES (1, 1, '2024-01-05 04:00+00', '{MARK}'), (2, 1, '2024-01-06 04:00+00', '{KEPT}')",
        "SET LOCAL timezone = 'America/La_Paz'; ALTER TABLE s.k ADD FOREIGN KEY (owner) REFERENCES s.p",
        tables="p k",
    )
    backup = site.backup()
    words = ("--backup", backup, "--format", "csv", "--output")
    site("export", *words, str(tmp_path / "before"))
    site.forget("s.p:2024-01-05 00:00")
    refused = site("export", *words, str(tmp_path / "out"), code=1)
    assert "Which rows of s.k belong to them cannot be told without the database: owner has values" in " ".join(
        refused.err.split()
    )
    assert "clinic-backups restore" in refused.err
    assert not (tmp_path / "out").exists()
    assert MARK not in site("diff", backup, "now", "--values").out
