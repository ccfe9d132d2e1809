"""The command ``clinic-backups``: what it prints for people and machines, its exit codes, and its remedies."""

from __future__ import annotations

import json
import re
import stat
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyrage
import pytest

from clinic_backups import cli
from clinic_backups.archive.encryption import generate_identity
from clinic_backups.catalog.migrate import newest
from clinic_backups.catalog.records import Catalog
from clinic_backups.cli import init
from clinic_backups.stores.base import ByteSource, StoredObject
from clinic_backups.stores.file import FileStore
from include.demo.layout import CHECKOUT
from tests.postgres_fixtures import DemoDatabase


class Done(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(
    demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs one command in an environment that is complete; a keyword sets a variable, ``None`` takes it away."""
    variables = {
        "AIRFLOW_CONN_CLINIC_DB": demo_database.reader_uri,
        "AIRFLOW_CONN_BACKUP_CATALOG": demo_database.catalog_uri,
        "CLINIC_BACKUPS_STORE_URL": (tmp_path / "store").as_uri(),
        "CLINIC_BACKUPS_RECIPIENTS": generate_identity()[1],
    }

    def call(*words: str, **changes: str | None) -> Done:
        code = 0
        with monkeypatch.context() as patch:
            for name, value in (variables | changes).items():
                if value is not None:
                    patch.setenv(name, value)
            patch.setattr(sys, "argv", ["clinic-backups", *words])
            patch.setattr("clinic_backups.cli.stopping.install", lambda: None)
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return call


def restore_keys(run: Run, identity: Path, database: DemoDatabase) -> dict[str, str]:
    """The variables of a command that backs up to a new key pair and may restore; the secret key goes to that file."""
    return {
        "CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(identity)).out.strip(),
        "AIRFLOW_CONN_RESTORE_DB": database.restorer_uri,
    }


def test_from_a_new_catalog_to_a_listed_backup(run: Run, new_database: DemoDatabase) -> None:
    early = run("backup", "--all")
    assert (early.code, early.out) == (1, "")
    assert "catalog migrate" in early.err
    assert run("catalog", "migrate").out == f"The catalog has version {newest()}.\n"
    unknown = run("backup", "--all")
    assert (unknown.code, unknown.out) == (2, "")
    assert "store init" in unknown.err
    assert run("store", "init", "--json").json()[0]["outcome"] == "made"
    done = run("backup", "--all", "--notes", "antes de migrar")
    assert done.code == 0
    assert "Clínica D'Ávila" in done.out
    assert done.err.count("completed") == 6
    found = run("list", "--json").json()
    assert [backup["clinic_id"] for backup in found].count("~shared") == 1
    assert sorted(id_ for backup in found if (id_ := backup["clinic_id"]) != "~shared") == [1, 2, 3, 4, 5]
    (night,) = run("list", "--fleet", "--json").json()
    # The sixth is closed, and was never backed up.
    assert (night["whole"], night["clinics"], night["missing"]) == (False, 5, [6])
    assert "5 of 6" in run("list", "--fleet").out
    assert {backup["state"] for backup in found} == {"completed"}
    assert {backup["notes"] for backup in found} == {"antes de migrar"}
    assert found[0]["requested_by"].endswith("(command line)")
    assert run("mail", "--json").json() == {}
    waiting = run("mail", "--send")
    assert (waiting.code, "smtp_default is not defined" in waiting.err) == (75, True)
    shown = run("show", found[0]["backup_id"])
    assert found[0]["sha256"] in shown.out
    assert "public.usuarios_paciente" in shown.out
    assert run("show", found[0]["backup_id"], "--json").json() == found[0]
    assert run("list", "--clinic", "3", "--state", "failed", "--json").json() == []


def test_the_kind_that_is_asked_for_is_made(run: Run) -> None:
    run("catalog", "migrate")
    run("store", "init")
    made = [run("backup", "--clinic", "1", "--json", *kind).json()[0] for kind in ([], [], ["--kind", "full"])]
    assert [(record["kind"], record["kind_reason"]) for record in made] == [
        ("full", "the clinic has no backup yet"),
        ("incremental", f"built on {made[0]['backup_id']}, 0.0 days after the full one"),
        ("full", "a full one was asked for"),
    ]


def test_one_clinics_failure_does_not_stop_the_others(run: Run, demo_database: DemoDatabase) -> None:
    run("catalog", "migrate")
    run("store", "init")
    from clinic_backups.base import connections

    catalog = Catalog(connections.parse("backup_catalog", demo_database.catalog_uri))
    with catalog.lock(2):
        done = run("backup", "--clinic", "1", "--clinic", "2", "--clinic", "6", "--json")
    assert done.code == 75
    outcomes = {outcome["clinic_id"]: outcome for outcome in done.json()}
    assert {number: outcome["state"] for number, outcome in outcomes.items()} == {
        1: "completed", 2: "failed", 6: "completed",
    }  # fmt: skip
    assert "already" in outcomes[2]["error"]
    assert outcomes[2]["hint"]


@pytest.mark.parametrize(("at_once", "together"), [("3", 3), ("1", 1)])
def test_several_clinics_are_under_way_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_once: str, together: int
) -> None:
    """Each has its own line, and the outcomes come in the order of the clinics, whichever ends first."""
    run("catalog", "migrate")
    run("store", "init")
    put, under_way, most = FileStore.put, set[str](), [0]
    all_there = threading.Barrier(together, timeout=30)

    def slow_put(self: FileStore, key: str, source: ByteSource, **options: Any) -> StoredObject:
        stored = put(self, key, source, **options)
        if key.endswith(".age"):
            under_way.add(key)
            most[0] = max(most[0], len(under_way))
            all_there.wait()  # with fewer at the same time it breaks, and each clinic fails
            under_way.discard(key)
            if "backups/1/" in key:
                time.sleep(2)  # longer than the others need to end, on a busy machine too
        return stored

    monkeypatch.setattr(FileStore, "put", slow_put)
    words = [word for number in (1, 2, 6) for word in ("--clinic", str(number))]
    done = run("backup", *words, CLINIC_BACKUPS_CLINICS_AT_ONCE=at_once)
    assert (done.code, most[0]) == (0, together), done.err
    ended = re.findall(r"^completed  (\d) ", done.err, re.MULTILINE)
    assert sorted(ended) == ["1", "2", "6"]
    assert (ended[-1] == "1") == (together == 3)
    assert re.findall(r"(\d)-\d{8}T\d{6}Z", done.out) == ["1", "2", "6"]
    time.sleep(1)
    again = run("backup", *words, "--json", CLINIC_BACKUPS_CLINICS_AT_ONCE=at_once)
    assert [outcome["clinic_id"] for outcome in again.json()] == [1, 2, 6]


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (["backup"], {}, "--clinic ID, once or more, --shared, or --all"),
        (["backup", "--all", "--clinic", "1"], {}, "--clinic ID, once or more, --shared, or --all"),
        (["backup", "--clinic", "99"], {}, "1 'Clínica Sonrisas', 2 'Odontología"),
        (["backup", "--clinic", "-1"], {}, "The clinics are: 1 'Clínica Sonrisas'"),
        (["backup", "--all", "--notes", "a\nb"], {}, "notes is not one line"),
        (["backup", "--all"], {"AIRFLOW_CONN_CLINIC_DB": None}, "AIRFLOW_CONN_CLINIC_DB=postgres://"),
        (["backup", "--all"], {"AIRFLOW_CONN_CLINIC_DB": "un secreto"}, "neither a connection URI nor JSON"),
        (["backup", "--all"], {"CLINIC_BACKUPS_STORE_URL": "ftp://x/y"}, "s3://bucket/prefix"),
        (["backup", "--all"], {"CLINIC_BACKUPS_KEEP_DAYS": "mucho"}, "CLINIC_BACKUPS_KEEP_DAYS"),
        (["list", "--state", "rota"], {}, "running, completed, failed"),
        (["list", "--fleet", "--clinic", "1"], {}, "--fleet is about all clinics"),
        (["erase-clinic", "~shared", "--reason", "x", "--yes"], {}, "belong to no clinic that could leave"),
    ],
)
def test_a_wrong_call_or_setting_names_itself_and_the_remedy_before_anything_is_touched(
    run: Run, tmp_path: Path, words: list[str], changes: dict[str, str | None], said: str
) -> None:
    run("catalog", "migrate")
    done = run(*words, **changes)
    assert done.code == 2
    assert said in done.err
    assert "un secreto" not in done.err
    assert done.out == ""
    assert not (tmp_path / "store").exists()
    assert run("list", "--json").json() == []


def test_a_database_that_is_down_may_be_tried_again(run: Run) -> None:
    down = run("backup", "--all", AIRFLOW_CONN_CLINIC_DB="postgres://u:geheim@127.0.0.1:1/x")
    assert down.code == 75
    assert "geheim" not in down.err


def test_check_reports_all_and_fails_when_something_is_wrong(run: Run) -> None:
    run("catalog", "migrate")
    run("store", "init")
    good = run("check", "--json")
    assert good.code == 0
    assert {finding["level"] for finding in good.json()} == {"ok", "warning"}
    bad = run("check", CLINIC_BACKUPS_RECIPIENTS=None, AIRFLOW_CONN_BACKUP_CATALOG="postgres://u:p@127.0.0.1:1/x")
    assert bad.code == 1
    assert "No recipient is configured" in bad.out
    assert "127.0.0.1" in bad.out
    assert "3 errors" in bad.err  # without a catalog nobody knows which store it should be


def test_keygen_makes_a_pair_and_never_overwrites_one(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "identity.txt"
    done = run("keygen", str(file))
    assert done.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    identity = pyrage.x25519.Identity.from_str(file.read_text().splitlines()[-1])
    assert done.out.strip() == str(identity.to_public())
    assert "AGE-SECRET-KEY" not in done.out + done.err
    kept = file.read_text()
    again = run("keygen", str(file))
    assert (again.code, file.read_text()) == (2, kept)
    assert "not overwritten" in again.err


def test_a_name_from_the_database_cannot_write_lines_of_its_own(run: Run, demo_database: DemoDatabase) -> None:
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute(
            r"UPDATE public.comun_clinica SET nombre = E'Mala\ncompleted  9 \x1b[31m[red]Otra[/red]' WHERE id = 1"
        )
    run("catalog", "migrate")
    run("store", "init")
    done = run("backup", "--clinic", "1")
    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    assert "[red]Otra[/red]" in done.out
    assert len([line for line in done.err.splitlines() if "completed" in line]) == 1


def test_one_backup_is_verified_in_each_store(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "store", tmp_path / "two"
    further = {"CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"replica": two.as_uri()})}
    run("catalog", "migrate")
    run("store", "init", **further)
    run("backup", "--clinic", "1", **further)
    (record,) = run("list", "--json").json()
    good = run("verify", record["backup_id"], "--json", **further)
    assert good.code == 0
    assert [(each["store_url"], each["condition"]) for each in good.json()] == [
        (one.as_uri(), "intact"), (two.as_uri(), "intact"),
    ]  # fmt: skip
    (two / record["key"]).unlink()
    bad = run("verify", record["backup_id"], **further)
    assert (bad.code, "missing" in bad.out, "clinic-backups replicate" in bad.err) == (1, True, True)
    assert run("show", "--json", record["backup_id"]).json()["stores"] == [one.as_uri()]
    one.rename(tmp_path / "away")
    assert run("verify", record["backup_id"]).code == 75
    assert run("verify", "1-20200101T000000Z").code == 1


def test_two_stores_a_lost_catalog_and_a_clinic_that_left(
    run: Run, tmp_path: Path, demo_database: DemoDatabase
) -> None:
    one, two = tmp_path / "store", tmp_path / "two"
    further = {"CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"replica": two.as_uri()})}
    run("catalog", "migrate")
    run("store", "init", **further)
    assert "only one store" in run("replicate").err
    assert run("backup", "--clinic", "1", "--clinic", "2").code == 0
    # Both were under way at once: either may be the newer one.
    first, second = sorted(run("list", "--json").json(), key=lambda each: int(each["clinic_id"]))
    done = run("replicate", "--json", **further).json()
    assert {(each["backup_id"], each["error"]) for each in done} == {
        (first["backup_id"], None), (second["backup_id"], None),
    }  # fmt: skip
    assert run("backup", "--clinic", "3", **further).code == 0
    assert run("show", "--json", first["backup_id"]).json()["stores"] == [one.as_uri(), two.as_uri()]
    checked = run("catalog", "verify", "--read", "--json", **further).json()
    assert [found["discrepancies"] for found in checked] == [[], []]
    assert checked[0]["archives"][first["backup_id"]] == "intact"
    # A folder has no checksum that nobody can set: what was not read is not called intact.
    (unread, _) = run("catalog", "verify", "--json", **further).json()
    assert set(unread["archives"].values()) == {"not compared"}
    assert "Intact archives: 0.\nNot compared: 3 archives." in run("catalog", "verify", **further).out

    # Lost in one store: found, written down, brought back.
    (one / first["key"]).unlink()
    bad = run("catalog", "verify", **further)
    assert (bad.code, "missing" in bad.out, "replicate" in bad.err) == (1, True, True)
    assert run("catalog", "verify", "--record", **further).code == 1
    assert run("replicate", **further).code == 0
    assert run("catalog", "verify", **further).code == 0

    # On hold, and the catalog is lost.
    assert run("hold", first["backup_id"], "--reason", "pleito 12", **further).code == 0
    before = run("list", "--json").json()
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute("TRUNCATE clinic_backups.backup CASCADE")
    report = run("catalog", "rebuild", "--store", two.as_uri(), "--json").json()
    assert [(each["adopted"], each["held"]) for each in report] == [(3, 1)]
    assert run("catalog", "rebuild", **further).code == 0
    after = run("list", "--json").json()
    assert [found["backup_id"] for found in after] == [found["backup_id"] for found in before]
    assert [found["stores"] for found in after] == [[two.as_uri(), one.as_uri()]] * 3

    # A clinic leaves.
    refused = run("erase-clinic", "1", "--reason", "baja", "--yes", **further)
    assert (refused.code, "is active" in refused.err) == (1, True)
    with demo_database.connect() as db, db.cursor() as cursor:
        cursor.execute("UPDATE public.comun_clinica SET activa = false WHERE id = 1")
    assert run("erase-clinic", "1", "--reason", " ", "--yes", **further).code == 2
    assert "Nobody can confirm this" in run("erase-clinic", "1", "--reason", "baja", **further).err
    part = run("erase-clinic", "1", "--reason", "baja", "--yes", **further)
    assert (part.code, "stays: on hold: pleito 12" in part.err) == (0, True)
    run("release", first["backup_id"], **further)
    assert run("retention", **further).code == 0
    (line,) = run("erasures", "--json").json()
    assert (line["clinic_id"], line["backups"], line["remaining"]) == (1, 1, 0)
    assert line["finished_at"]
    assert "baja" in run("erasures").out
    assert not list(one.rglob("*_1_2*")) + list(two.rglob("*_1_2*"))

    # The second store is given up.
    assert "is a store of the settings" in run("catalog", "forget-store", two.as_uri(), "--yes", **further).err
    assert "2 replicas" in run("catalog", "forget-store", two.as_uri(), "--yes").out
    assert [found["stores"] for found in run("list", "--json").json()] == [[one.as_uri()]] * 2


def test_a_gap_fails_the_backup_and_a_word_completes_it_as_incomplete(run: Run, demo_database: DemoDatabase) -> None:
    run("catalog", "migrate")
    run("store", "init")
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute("CREATE TABLE public.nueva (id int, clinica_id bigint REFERENCES public.comun_clinica)")
    assert run("check", "--no-count").code == 1
    refused = run("backup", "--clinic", "3")
    assert (refused.code, refused.out) == (1, "")
    assert "public.nueva leads to the clinic" in refused.err
    assert "add the line `public.nueva: reason`" in refused.err
    assert "--allow-gaps" in refused.err
    allowed = run("backup", "--clinic", "3", "--allow-gaps")
    assert allowed.code == 0
    assert "incomplete" in allowed.out
    assert "public.nueva leads to the clinic" in allowed.err
    first, second = run("list", "--json").json()
    assert (first["state"], second["state"]) == ("completed", "failed")
    assert [gap["table"] for gap in first["gaps"]] == ["public.nueva"]
    assert "incomplete" in run("list").out
    assert "public.nueva leads to the clinic" in run("show", first["backup_id"]).err


@pytest.mark.parametrize("words", ["retention --dry-run --clinic 99", "catalog verify --clinic 99"])
def test_a_clinic_that_nobody_knows_is_an_error(run: Run, words: str) -> None:
    done = run(*words.split())
    assert done.code == 2
    assert "The catalog has no backup of clinic 99" in done.err


@pytest.mark.parametrize("option", ["--as-of", "--backup"])
def test_an_unset_variable_of_a_shell_chooses_no_backup(run: Run, option: str) -> None:
    done = run("restore", "--clinic", "1", "--plan", option, "")
    assert (done.code, f"{option} is empty" in done.err) == (2, True)


def test_init_writes_nothing_into_an_installed_package(
    run: Run, demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "PROJECT_SQL", tmp_path / "sql")
    monkeypatch.setattr(init, "IS_CHECKOUT", False)
    own = {"CLINIC_BACKUPS_SQL_DIR": str(tmp_path / "sql")}
    refused = run("init", "--tenant", "public.comun_clinica", **own)
    assert (refused.code, "init-project FOLDER" in " ".join(refused.err.split())) == (2, True)
    assert not (tmp_path / "sql").exists()


def test_init_writes_a_folder_for_the_demos_schema_and_check_only_says_what_a_migration_brought(
    run: Run, demo_database: DemoDatabase, tmp_path: Path
) -> None:
    owner = demo_database.postgres.uri(demo_database.name)
    own = {"CLINIC_BACKUPS_SQL_DIR": str(tmp_path / "sql"), "AIRFLOW_CONN_CLINIC_DB": owner}
    refused = run("init", **own)
    assert (refused.code, "init --tenant schema.table" in refused.err) == (2, True)
    made = run("init", "--tenant", "public.comun_clinica", "--json", **own).json()
    assert {table["table"] for table in made["tables"] if table["class"] == "tenant"} >= {
        "public.comun_clinica", "public.sistema_pagos_pago", "public.auditoria_bitacora",
    }  # fmt: skip
    assert {table["class"] for table in made["tables"] if table["table"] == "public.django_migrations"} == {"shared"}
    assert made["settled"] is False  # nobody had written the files
    assert run("init", "--check-only", **own).code == 0
    with demo_database.session.transaction() as cursor:
        cursor.execute("CREATE TABLE public.aviso (id int PRIMARY KEY, clinica_id int REFERENCES public.comun_clinica)")
        cursor.execute("CREATE TABLE public.tarifa (id int PRIMARY KEY)")
    lacking = run("init", "--check-only", **own)
    assert lacking.code == 1
    assert "1 files missing" in lacking.err and "extract/aviso.sql" in lacking.err
    assert "not_backed_up.txt: public.tarifa: shared, …" in lacking.out
    assert not (tmp_path / "sql" / "extract" / "aviso.sql").exists()
    other = run("init", "--tenant", "public.usuarios_usuario", **own)
    assert (other.code, "is for the table public.comun_clinica" in other.err) == (2, True)


def test_check_wants_a_class_for_each_table_and_a_run_does_not(run: Run, demo_database: DemoDatabase) -> None:
    with demo_database.session.transaction() as cursor:
        cursor.execute("CREATE TABLE public.tarifa (id int PRIMARY KEY)")
    assert run("catalog", "migrate").code == run("store", "init").code == 0
    checked = run("check", "--no-count")
    assert checked.code == 1
    assert "`public.tarifa: shared, reason`" in " ".join(checked.out.split())
    assert run("backup", "--clinic", "3").code == 0


def test_it_says_its_version(run: Run) -> None:
    """Without any setting; pyproject.toml alone states it, and the image's tag is the same."""
    stated = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    done = run("--version", AIRFLOW_CONN_CLINIC_DB=None, CLINIC_BACKUPS_STORE_URL=None)
    assert (done.code, done.out) == (0, f"clinic-backups {stated}, catalog version {newest()}\n")
    assert f"image: clinic-backups:{stated}\n" in (CHECKOUT / "docker-compose.yaml").read_text()
