"""docs/runbook.md and docs/es/runbook.md: each command runs, and prints what the page says.

With ``RUNBOOK_TRANSCRIPT=folder``, what each command printed and its seconds are written there. The page's times are
from that, with ``PATIENTS = 200`` in ``tests/postgres_fixtures.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.app.runbook import Section
from clinic_backups.base.postgres_tools import find_tool
from include.demo.postgres import THROWAWAY, EmbeddedPostgres
from include.demo.restore import damage
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.integration.test_recover import ON_PURPOSE, contents
from tests.postgres_fixtures import DemoDatabase, server_folder
from tests.runbook import Shell, Value, blocks
from tests.servers import CHECKOUT

PAGES = (CHECKOUT / "docs" / "runbook.md", CHECKOUT / "docs" / "es" / "runbook.md")
ENGLISH = blocks(PAGES[0])
NOT_RUN = 1
NOWHERE = "postgres://nobody:nothing@127.0.0.1:9/nowhere?connect_timeout=1"
PATIENT, GONE_ON_PURPOSE = "9", "15"
"""Two patients of clinic 3."""
DERIVED = {"public.citas_recordatorio"}
Rows = dict[str, Any]


@dataclass
class Lab:
    """The demo, each clinic backed up once, and the variables of the reader's terminal.

    :ivar values: what the reader writes instead of the page's values.
    """

    database: DemoDatabase
    folder: Path
    variables: dict[str, str]
    made: dict[str, str]
    stack: ExitStack
    values: dict[str, Value] = field(default_factory=dict)

    def execute(self, *statements: str) -> None:
        with self.database.session.transaction() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self) -> Rows:
        return contents(self.database.connect)

    def lose_store(self) -> None:
        shutil.rmtree(self.folder / "store")

    def url(self, name: str) -> str:
        (self.folder / name).mkdir(exist_ok=True)
        return (self.folder / name).as_uri()


@pytest.fixture
def lab(run: Run, demo_database: DemoDatabase, tmp_path: Path) -> Iterator[Lab]:  # noqa: F811
    postgres = demo_database.postgres
    shutil.copytree(CHECKOUT / "include" / "sql", tmp_path / "sql")
    tools = Path(find_tool("psql", at_least=17).path).parent
    variables = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), str(tools), os.environ["PATH"])),
        "HOME": str(tmp_path), "COLUMNS": "200", "LC_ALL": "C.UTF-8", "TZ": "UTC",
        "CLINIC_BACKUPS_STORE_URL": (tmp_path / "store").as_uri(),
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"backup_replica": (tmp_path / "replica").as_uri()}),
        "CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(tmp_path / "identity.txt")).out.strip(),
        "CLINIC_BACKUPS_IDENTITY_FILE": str(tmp_path / "identity.txt"),
        "CLINIC_BACKUPS_SQL_DIR": str(tmp_path / "sql"),
        "AIRFLOW_CONN_CLINIC_DB": demo_database.reader_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": demo_database.catalog_uri,
        "AIRFLOW_CONN_RESTORE_DB": demo_database.restorer_uri,
        "PGHOST": postgres.host, "PGPORT": str(postgres.port), "PGUSER": postgres.user,
        "PGPASSWORD": postgres.password, "PGDATABASE": demo_database.name,
    }  # fmt: skip
    for words in (("store", "init"), ("backup", "--all"), ("backup", "--clinic", "6")):
        done = run(*words, **variables)
        assert done.code == 0, done.err
    made = {str(each["clinic_id"]): each["backup_id"] for each in run("list", "--json", **variables).json()}
    (tmp_path / "desk").mkdir()
    with ExitStack() as stack:
        yield Lab(demo_database, tmp_path, variables, made, stack, {"BACKUP": made["3"]})


Check = Callable[[Lab, Shell], None]


def _nothing(lab: Lab) -> Check:
    return lambda lab, shell: None


def _rows_deleted(lab: Lab) -> Check:
    lab.execute(*damage(3))
    damaged = lab.rows()
    lab.values["SAFETY"] = lambda shell: shell.last(r"To undo: .* --backup (\S+)")

    def check(lab: Lab, shell: Shell) -> None:
        assert lab.rows() == damaged, "the last command of the section undoes the restore"

    return check


def _rows_deleted_and_catalog_away(lab: Lab) -> Check:
    before = lab.rows()
    lab.execute(*damage(3))
    lab.variables["AIRFLOW_CONN_BACKUP_CATALOG"] = NOWHERE
    lab.values["ARCHIVE"] = lambda shell: shell.last(r"(backups/3/\S+\.age)")
    return lambda lab, shell: _same(lab.rows(), before)


def _same(now: Rows, before: Rows, *, but: frozenset[str] = frozenset()) -> None:
    assert now.keys() == before.keys()
    for name in now.keys() - but - DERIVED:
        assert now[name] == before[name], name


def _deleting(patient: str) -> tuple[str, ...]:
    """What deletes one patient with all that hangs on them."""
    return damage(3, f"id = {patient}")


def _patient_deleted(lab: Lab, *, others: tuple[str, ...]) -> Check:
    lab.values |= {"AS_OF": datetime.now(UTC).isoformat(), "PATIENT": PATIENT}
    for patient in others:
        lab.execute(*_deleting(patient))
    lab.execute(
        f"UPDATE public.usuarios_paciente SET telefono = '7000' WHERE clinica_id = 3 AND id NOT IN ({PATIENT})",
        "DELETE FROM public.inventario_inventario WHERE clinica_id = 3 AND id % 2 = 0",
    )
    worked = lab.rows()
    lab.execute(*_deleting(PATIENT))
    assert lab.rows() != worked
    return lambda lab, shell: _same(lab.rows(), worked)


def _one_patient(lab: Lab) -> Check:
    return _patient_deleted(lab, others=())


def _one_patient_of_two(lab: Lab) -> Check:
    return _patient_deleted(lab, others=(GONE_ON_PURPOSE,))


def _looking(lab: Lab) -> Check:
    _one_patient_of_two(lab)
    done = subprocess.run(["clinic-backups", "backup", "--clinic", "3"], env=lab.variables, check=False)
    assert done.returncode == 0
    now = lab.rows()
    return lambda lab, shell: _same(lab.rows(), now)


def _server_lost(lab: Lab) -> Check:
    before = lab.rows()
    server = lab.stack.enter_context(EmbeddedPostgres(lab.stack.enter_context(server_folder()), settings=THROWAWAY))
    lab.variables |= {"PGDATABASE": "clinica"}
    lab.values |= {
        "PGPORT": str(server.port), "PGHOST": server.host, "PGUSER": server.user, "PGPASSWORD": server.password,
        "AIRFLOW_CONN_NEW_SERVER": server.uri("clinica"),
        "BACKUP": lambda shell: shell.last(r"(3-\d+T\d+Z)"),
    }  # fmt: skip
    for connection, role in (("CLINIC_DB", "reader"), ("RESTORE_DB", "restorer"), ("BACKUP_CATALOG", "catalog")):
        name = f"AIRFLOW_CONN_{connection}"
        lab.variables[name], lab.values[name] = (
            NOWHERE, server.uri("clinica", f"clinic_backups_{role}", f"new-{role}"),
        )  # fmt: skip

    def check(lab: Lab, shell: Shell) -> None:
        _same(contents(lambda: server.connect("clinica")), before, but=frozenset(ON_PURPOSE))

    return check


def _bucket_lost(lab: Lab) -> Check:
    lab.values |= {
        "LOST": lab.variables["CLINIC_BACKUPS_STORE_URL"],
        "CLINIC_BACKUPS_STORE_URL": lab.url("replica"),
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"backup_replica": lab.url("new")}),
    }
    lab.lose_store()

    def check(lab: Lab, shell: Shell) -> None:
        assert set(_archives(lab.folder / "new")) == set(_archives(lab.folder / "replica"))
        assert len(_archives(lab.folder / "new")) == len(lab.made)

    return check


def _archives(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.age")]


def _bucket_lost_without_replica(lab: Lab) -> Check:
    lab.variables.pop("CLINIC_BACKUPS_REPLICA_STORES")
    lab.values |= {
        "LOST": lab.variables["CLINIC_BACKUPS_STORE_URL"],
        "CLINIC_BACKUPS_STORE_URL": lab.url("new"),
    }
    lab.lose_store()

    def check(lab: Lab, shell: Shell) -> None:
        assert len(_archives(lab.folder / "new")) == len(lab.made) - 1  # the closed clinic is not in --all

    return check


def _key_lost(lab: Lab) -> Check:
    (lab.folder / "identity.txt").unlink()
    lab.values["CLINIC_BACKUPS_RECIPIENTS"] = lambda shell: shell.last(r"(age1\w+)")
    return lambda lab, shell: None


def _catalog_lost(lab: Lab) -> Check:
    lab.execute("DROP SCHEMA clinic_backups CASCADE")

    def check(lab: Lab, shell: Shell) -> None:
        with lab.database.session.transaction() as cursor:
            cursor.execute("SELECT backup_id FROM clinic_backups.backup")
            assert {id_ for (id_,) in cursor.fetchall()} >= set(lab.made.values())

    return check


def _values_changed(lab: Lab) -> Check:
    before = lab.rows()
    lab.values["AS_OF"] = datetime.now(UTC).isoformat()
    lab.execute("UPDATE public.usuarios_paciente SET telefono = '' WHERE clinica_id <> 6")
    return lambda lab, shell: _same(lab.rows(), before)


def _column_dropped(lab: Lab) -> Check:
    query = "SELECT id, notas FROM public.usuarios_paciente WHERE clinica_id = 3 ORDER BY id"
    before = _read(lab, query)
    lab.execute("ALTER TABLE public.usuarios_paciente DROP COLUMN notas")
    lab.values["LINE"] = lambda shell: shell.last("`(public.usuarios_paciente: notas [^`]*)`")

    def check(lab: Lab, shell: Shell) -> None:
        assert any(note for _, note in before)
        assert _read(lab, query) == before

    return check


def _read(lab: Lab, query: str) -> list[Any]:
    with closing(lab.database.connect()) as db, db.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _table_unknown(lab: Lab) -> Check:
    lab.execute(
        "CREATE TABLE public.citas_espera (id bigint PRIMARY KEY,"
        " clinica_id bigint NOT NULL REFERENCES public.comun_clinica)",
        "CREATE INDEX ON public.citas_espera (clinica_id)",
        f"GRANT SELECT ON public.citas_espera TO {lab.database.roles.reader}",
        "INSERT INTO public.citas_espera VALUES (1, 3)",
    )
    return lambda lab, shell: None


@dataclass(frozen=True)
class Situation:
    """What happened, and the parts of the page that a reader goes through then.

    :ivar happens: makes it happen, and returns what must be true at the end.
    """

    happens: Callable[[Lab], Check]
    parts: tuple[tuple[int, int], ...]
    first: tuple[str, ...] = ()
    """A command that fails, before the reader opens the page."""


SITUATIONS: Mapping[str, Situation] = {
    "well": Situation(_nothing, ((0, 0),)),
    "rows deleted": Situation(_rows_deleted, ((1, 2),)),
    "rows deleted, no catalog": Situation(_rows_deleted_and_catalog_away, ((1, 3),)),
    "one patient": Situation(_one_patient, ((2, 2),)),
    "looking": Situation(_looking, ((2, 1), (2, 3))),
    "one patient of two": Situation(_one_patient_of_two, ((2, 2),)),
    "server lost": Situation(_server_lost, ((3, 0),)),
    "bucket lost": Situation(_bucket_lost, ((4, 1),)),
    "bucket lost, no replica": Situation(_bucket_lost_without_replica, ((4, 2),)),
    "key lost": Situation(_key_lost, ((5, 0),)),
    "catalog lost": Situation(_catalog_lost, ((6, 0),)),
    "values changed": Situation(_values_changed, ((7, 1),)),
    "column dropped": Situation(_column_dropped, ((7, 2),)),
    "backup failed": Situation(_table_unknown, ((8, 0),), ("backup", "--clinic", "3")),
    "clinic leaves": Situation(_nothing, ((9, 1), (9, 2))),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_command_runs_and_prints_what_the_page_says(name: str, lab: Lab, run: Run) -> None:  # noqa: F811
    situation = SITUATIONS[name]
    check = situation.happens(lab)
    if situation.first:
        assert run(*situation.first, **lab.variables).code == 1
    shell = Shell(lab.folder / "desk", lab.variables, lab.values)
    for part in situation.parts:
        for block in ENGLISH:
            if block.part == part and not block.reason and not block.in_airflow:
                shell.run(block)
    if transcript := os.environ.get("RUNBOOK_TRANSCRIPT"):
        (Path(transcript) / f"{name}.txt").write_text(shell.transcript)
    check(lab, shell)


def test_all_blocks_are_run_but_those_with_a_reason() -> None:
    run_parts = {part for situation in SITUATIONS.values() for part in situation.parts}
    here = [block for block in ENGLISH if not block.reason and not block.in_airflow]
    assert {block.part for block in here if block.kind == "sh"} == run_parts
    assert {block.kind for block in ENGLISH} == {"sh", "text"}
    assert sum(bool(block.reason) for block in ENGLISH) == NOT_RUN


def test_both_languages_have_the_same_commands_and_output() -> None:
    assert blocks(PAGES[1]) == ENGLISH


@pytest.mark.parametrize("page", PAGES, ids=["en", "es"])
def test_the_pages_have_the_sections_that_doctor_names(page: Path) -> None:
    titles = [line for line in page.read_text("utf-8").splitlines() if line.startswith("## ")]
    assert len(titles) == len(Section)
    for section, title in zip(Section, titles, strict=True):
        number, name = section.value
        assert title.startswith(f"## {number}. ")
        assert page is not PAGES[0] or title == f"## {number}. {name}"


@pytest.mark.parametrize("page", PAGES, ids=["en", "es"])
def test_the_messages_of_the_table_of_causes_exist(page: Path) -> None:
    sources = [path.read_text("utf-8") for path in (CHECKOUT / "plugins" / "clinic_backups").rglob("*.py")]
    (causes,) = [text for text in page.read_text("utf-8").split("\n\n") if "`would be in no backup`" in text]
    said = [line.split("`")[1] for line in causes.splitlines()[2:]]
    assert len(said) > 8
    assert [text for text in said if not any(text in source for source in sources)] == []
