"""``clinic-backups recover``: the whole service into an empty database, from the store and the key alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups import cli
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.base.shared_unit import SHARED
from clinic_backups.stores.file import FileStore
from include.demo.database import dropping
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

ON_PURPOSE = {"public.citas_recordatorio", "public.django_admin_log", "public.django_session"}
"""What not_backed_up.txt gives up."""


@pytest.fixture
def rig(demo_database: DemoDatabase, tmp_path: Path) -> Rig:
    return Rig(demo_database, FileStore(tmp_path / "store"))


class Target:
    """An empty database on the same server, and the command that fills it."""

    def __init__(self, rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.rig, self.postgres, self.name = rig, rig.database.postgres, f"{rig.database.name}_target"
        self._patch, self._capsys = monkeypatch, capsys
        self._execute_elsewhere(f"CREATE DATABASE {self.name} TEMPLATE template0")
        key = folder / "key.txt"
        key.write_text(rig.identity)
        key.chmod(0o600)
        self.variables = {
            "AIRFLOW_CONN_NEW": self.postgres.uri(self.name),
            "CLINIC_BACKUPS_STORE_URL": rig.store.url,
            "CLINIC_BACKUPS_IDENTITY_FILE": str(key),
        }

    def recover(self, *words: str, **changes: str) -> tuple[int, str, str]:
        code: Any = 0
        with self._patch.context() as patch:
            for name, value in (self.variables | changes).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["clinic-backups", "recover", "--target", "new", *words])
            patch.setattr("clinic_backups.cli.stopping.install", lambda: None)
            try:
                cli.main()
            except SystemExit as done:
                code = done.code or 0
        out, err = self._capsys.readouterr()
        return code, out, err

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.postgres.connect(self.name)) as db, db.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def execute(self, *statements: str) -> None:
        with closing(self.postgres.connect(self.name)) as db, db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _execute_elsewhere(self, statement: Any) -> None:
        with closing(self.postgres.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            cursor.execute(statement)

    def drop(self) -> None:
        self._execute_elsewhere(dropping(self.name))


@pytest.fixture
def target(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    made = Target(rig, tmp_path, monkeypatch, capsys)
    yield made
    made.drop()


def shared(rig: Rig, **options: Any) -> BackupRecord:
    return rig.backup().run(BackupRequest(SHARED, requested_by="prueba", **options))


def clinics(rig: Rig) -> list[int]:
    return [id_ for (id_,) in rig.execute_rows("SELECT id FROM public.comun_clinica ORDER BY 1")]


def back_up_all(rig: Rig) -> list[BackupRecord]:
    return [shared(rig), *map(rig.run, clinics(rig))]


def contents(connect: Callable[[], Any]) -> dict[str, Counter[str]]:
    """Every row of every table, as PostgreSQL writes it."""
    found: dict[str, Counter[str]] = {}
    with closing(connect()) as db, db.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(
            "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN"
            " ('information_schema', 'clinic_backups')"
        )
        for schema, name in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM ONLY "{schema}"."{name}" AS t')
            found[f"{schema}.{name}"] = Counter(row for (row,) in cursor)
    return found


def definitions(rig: Rig, database: str) -> list[str]:
    """What pg_dump says of a database, without the catalog of backups and without names of databases."""
    tool = find_tool("pg_dump", at_least=17).path
    uri = rig.database.postgres.uri(database)
    done = subprocess.run(
        [tool, "--schema-only", "--exclude-schema=clinic_backups", "--create", uri],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text = re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)
    text = re.sub(r"-- Name: .*", "", text).replace(database, "DATABASE")
    return sorted(line for line in text.splitlines() if line.strip(" -") and "COMMENT ON DATABASE" not in line)


def sequences(connect: Callable[[], Any]) -> dict[str, Any]:
    with closing(connect()) as db, db.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences"
            " WHERE schemaname <> 'clinic_backups'"
        )
        return dict(cursor.fetchall())


def test_the_service_comes_back_row_by_row(rig: Rig, target: Target) -> None:
    back_up_all(rig)
    code, out, err = target.recover("--json")
    assert code == 0, err
    report = json.loads(out)
    before, after = contents(rig.database.connect), contents(lambda: target.postgres.connect(target.name))
    assert before.keys() == after.keys()
    for name in before.keys() - ON_PURPOSE:
        assert after[name] == before[name], name
    assert {name: rows for name, rows in report["tables"].items() if rows} == {
        name: rows.total() for name, rows in before.items() if name not in ON_PURPOSE and rows
    }
    assert definitions(rig, target.name) == definitions(rig, rig.database.name)
    assert sequences(lambda: target.postgres.connect(target.name)) == sequences(rig.database.connect)
    assert {unit["state"] for unit in report["units"]} == {"proven"}
    assert len(report["units"]) == len(clinics(rig)) + 1
    assert report["empty"].keys() == ON_PURPOSE
    assert report["left"] == report["missing"] == report["problems"] == []
    assert target.rows("SELECT FROM pg_namespace WHERE nspname = 'clinic_backups_recovery'") == []
