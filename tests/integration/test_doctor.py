"""``clinic-backups doctor``: each situation is named, with the next commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clinic_backups.app.runbook import PAGE, Section
from tests.integration.test_cli import Run, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase
from tests.spoiled import Break, statement, variable

INCLUDED = Path(__file__).parents[2] / "include" / "sql"
NOWHERE = "postgres://nobody:nothing@127.0.0.1:9/nowhere?connect_timeout=1"
EARLIER = ", ".join(f"{name} = {name} - interval '3 days'" for name in ("started_at", "finished_at", "data_at"))


def _without_store(database: DemoDatabase, folder: Path) -> dict[str, str | None]:
    shutil.rmtree(folder / "store")
    return {}


def _without(pattern: str, *stores: str) -> Break:
    """The files of such a name are gone from these stores, and nothing else is."""

    def breaks(database: DemoDatabase, folder: Path) -> dict[str, str | None]:
        for store in stores:
            files = list((folder / store).rglob(pattern))
            assert files
            for file in files:
                file.unlink()
        return {}

    return breaks


def _other_key(database: DemoDatabase, folder: Path) -> dict[str, str | None]:
    return {"CLINIC_BACKUPS_IDENTITY_FILE": str(folder / "another")}


def _ids(column: str) -> Break:
    """Both lists of clinics have these ids."""

    def breaks(database: DemoDatabase, folder: Path) -> dict[str, str | None]:
        shutil.copytree(INCLUDED, folder / "sql")
        for name in ("active_clinics.sql", "all_clinics.sql"):
            path = folder / "sql" / name
            text = path.read_text().replace("SELECT id,", f"SELECT {column} AS id,")
            assert column in text
            path.write_text(text)
        return {"CLINIC_BACKUPS_SQL_DIR": str(folder / "sql")}

    return breaks


SITUATIONS: dict[str, tuple[Break, str, str, Section | None]] = {
    "well": (variable(), "All is well", "", None),
    "no folder": (variable(CLINIC_BACKUPS_SQL_DIR="/nonexistent"), "no SQL folder", "init --tenant", None),
    "no keys": (variable(CLINIC_BACKUPS_RECIPIENTS=None), "no key to encrypt to", "keygen", None),
    "no store": (
        variable(CLINIC_BACKUPS_STORE_URL=None), "store does not answer, or is not set", "STORE_URL", Section.BUCKET,
    ),
    "store gone": (_without_store, "store does not answer, or is not set", "STORE_URL", Section.BUCKET),
    "archives gone": (_without("*.age", "store"), "not in the store", "catalog verify", Section.BUCKET),
    "envelopes gone": (_without("backup_*.json", "store"), "not in the store", "replicate", Section.BUCKET),
    "catalog lost": (
        statement("DROP SCHEMA clinic_backups CASCADE"), "catalog is lost", "catalog rebuild", Section.CATALOG,
    ),
    "catalog away": (
        variable(AIRFLOW_CONN_BACKUP_CATALOG=NOWHERE), "catalog does not answer", "restore --archive KEY",
        Section.CATALOG,
    ),
    "server away": (
        variable(AIRFLOW_CONN_BACKUP_CATALOG=NOWHERE, AIRFLOW_CONN_CLINIC_DB=NOWHERE), "Neither the clinics' database",
        "recover --target new_server --plan", Section.SERVER,
    ),
    "another server": (
        statement("DROP SCHEMA clinic_backups, public CASCADE"), "its clinics are gone", "recover --target new_server",
        Section.SERVER,
    ),
    "clinics gone": (
        statement("TRUNCATE public.comun_clinica CASCADE"), "clinics are gone", "recover", Section.SERVER,
    ),
    "tables gone": (
        statement("DROP TABLE public.comun_clinica CASCADE"), "its clinics are gone", "an empty database",
        Section.SERVER,
    ),
    "database away": (
        variable(AIRFLOW_CONN_CLINIC_DB=NOWHERE), "database does not answer", "clinic_db", Section.SERVER,
    ),
    "one key is empty": (
        _ids("CASE id WHEN 3 THEN '' ELSE id::text END"), "list of clinics is wrong", "another key", Section.BACKUP,
    ),
    "no key can be an id": (_ids("id || ' '"), "list of clinics is wrong", "Correct ", Section.BACKUP),
    "the list fails": (_ids("id / (id - id)"), "list of clinics is wrong", "clinic-backups check", Section.BACKUP),
    "late": (statement(f"UPDATE clinic_backups.backup SET {EARLIER} WHERE clinic_id = '3'"),
             "late, failed or missing", "list --state failed", Section.BACKUP),
    "another key": (_other_key, "does not open new backups", "secret key", Section.KEY),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_situation_is_named_with_the_next_commands(
    name: str, run: Run, demo_database: DemoDatabase, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    breaks, situation, step, section = SITUATIONS[name]
    keys = {"CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(tmp_path / "key")).out.strip()}
    run("keygen", str(tmp_path / "another"))
    variables: dict[str, str | None] = {
        **keys, "CLINIC_BACKUPS_IDENTITY_FILE": str(tmp_path / "key"),
        "AIRFLOW_CONN_RESTORE_DB": demo_database.restorer_uri,
    }  # fmt: skip
    for words in (("catalog", "migrate"), ("store", "init"), ("backup", "--all")):
        assert run(*words, **variables).code == 0
    broken = breaks(demo_database, tmp_path)
    found = run("doctor", "--json", **variables | broken)
    told = found.json()
    assert situation in told["situation"]
    assert (found.code, step in " ".join(told["steps"])) == (int(bool(step)), True)
    place = PAGE if name == "well" else section.place if section else ""
    assert (place in told["runbook"], bool(told["runbook"])) == (True, bool(place))
    if name in ("well", "late"):
        shown = run("doctor", **variables | broken)
        assert (shown.code, situation in shown.out, place in shown.out) == (found.code, True, True)


def test_a_new_store_without_the_backups_is_not_well(
    run: Run, demo_database: DemoDatabase, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    variables = {"CLINIC_BACKUPS_RECIPIENTS": run("keygen", str(tmp_path / "key")).out.strip()}
    for words in (("catalog", "migrate"), ("store", "init"), ("backup", "--all")):
        assert run(*words, **variables).code == 0
    assert run("doctor", "--json", **variables).code == 0
    (tmp_path / "new").mkdir()
    variables["CLINIC_BACKUPS_STORE_URL"] = (tmp_path / "new").as_uri()
    assert run("store", "init", **variables).code == 0
    found = run("doctor", "--json", **variables)
    assert found.code == 1
    told = found.json()
    assert "not in the store" in told["situation"]
    (backups,) = [part["said"] for part in told["sights"] if part["part"] == "backups"]
    assert "is in none of the stores that are set here" in backups
    assert (tmp_path / "store").as_uri() in backups


def test_a_new_installation_is_led_from_step_to_step(
    run: Run, new_database: DemoDatabase  # noqa: F811
) -> None:  # fmt: skip
    first = run("doctor", "--json").json()
    assert first["steps"] == ["clinic-backups catalog migrate", "clinic-backups store init", "clinic-backups check"]
    run("catalog", "migrate")
    run("store", "init")
    second = run("doctor", "--json").json()
    assert second["situation"] == "No clinic has a backup yet."
