"""The wheel is the whole product: plugin, DAGs, SQL, mails and command, without the repository beside it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.cli.commands import app
from clinic_backups.onboarding import project
from include.demo.layout import CHECKOUT

PACKAGE = CHECKOUT / "plugins"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the wheel's files. What it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "build", "-q", "--wheel", "-o", folder / "built", CHECKOUT], check=True, timeout=200)
    (wheel,) = (folder / "built").glob("*.whl")
    subprocess.run(
        [*uv, "pip", "install", "-q", "--no-deps", "--target", folder / "site", wheel], check=True, timeout=100
    )
    # What it depends on, and not this package: in this environment it is installed from the repository.
    others = folder / "others"
    others.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "clinic_backups" not in path.name:
            (others / path.name).symlink_to(path)
    yield folder


def path_of(installed: Path) -> str:
    return f"{installed / 'site'}{os.pathsep}{installed / 'others'}"


def run(installed: Path, code: str, **variables: str) -> Any:
    """Run code with the wheel in place of the repository; returns what it prints as JSON."""
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": path_of(installed), "AIRFLOW_HOME": str(installed / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false", **variables,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code], cwd=installed, env=environment, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_has_every_file_of_the_package_and_of_the_project(installed: Path) -> None:
    (wheel,) = (installed / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = archive.read(next(name for name in held if name.endswith("/METADATA"))).decode()
    package = {
        path.relative_to(PACKAGE).as_posix()
        for name in ("clinic_backups", "clinic_backups_django")
        for path in (PACKAGE / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    brought = {
        f"clinic_backups/project/{folder}/{path.relative_to(CHECKOUT / 'include' / folder).as_posix()}"
        for folder in ("sql", "email")
        for path in (CHECKOUT / "include" / folder).rglob("*")
        if path.is_file()
    }
    assert package - held == set()
    assert brought - held == set()
    assert not [name for name in held if name.startswith(("tests/", "include/", "bench/"))]
    needed = [line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist") and ";" not in line]
    listed = [line.strip() for line in (CHECKOUT / "requirements.in").read_text().splitlines()]
    assert sorted(needed) == sorted(line for line in listed if line and line[0] != "#" and line != "pytest")


def test_a_project_of_ones_own_has_all_dags_and_the_plugin(installed: Path) -> None:
    command = (
        "import sys; from clinic_backups.cli import main; sys.argv[1:] = ['init-project', 'mine', '--json']; main()"
    )
    files = json.loads(
        subprocess.run(
            [sys.executable, "-S", "-P", "-c", command], cwd=installed, capture_output=True, text=True, check=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path_of(installed)},
        ).stdout
    )  # fmt: skip
    assert {each["outcome"] for each in files} == {"written"}
    found = run(installed, """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow import plugins_manager
import clinic_backups
from clinic_backups.base.settings import Settings
bag = DagBag("mine/dags")
plugins, errors = plugins_manager._get_plugins()
print(json.dumps([clinic_backups.__file__, sorted(bag.dags), list(map(str, bag.import_errors)),
                  sorted(str(each.name) for each in plugins), {str(k): str(v) for k, v in errors.items()},
                  str(Settings().sql_dir), [len(bag.dags[one].doc_md) > 200 for one in sorted(bag.dags)]]))
""")  # fmt: skip
    where, dags, errors, plugins, problems, sql_dir, documented = found
    assert where.startswith(str(installed / "site"))
    assert dags == sorted(path.stem for path in (CHECKOUT / "dags").glob("*.py"))
    assert (errors, problems, all(documented)) == ([], {}, True)
    assert "clinic_backups" in plugins
    assert Path(sql_dir) == installed / "site" / "clinic_backups" / "project" / "sql"


def test_a_plugins_folder_beside_an_installed_package_registers_nothing_twice(installed: Path) -> None:
    folder = installed / "airflow" / "plugins"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clinic_backups_plugin.py").write_bytes((PACKAGE / "clinic_backups_plugin.py").read_bytes())
    plugins, problems = run(installed, """
import json
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
print(json.dumps([[each.name for each in plugins], {str(k): str(v) for k, v in errors.items()}]))
""")  # fmt: skip
    assert plugins.count("clinic_backups") == 1
    assert problems == {}


def test_dag_files_of_before_the_wheel_find_what_they_import() -> None:
    from clinic_backups import operators

    before = ("CODEC", "ENCRYPTION", "OWNER", "ClinicBackupOperator", "SqlExtract", "Store", "active_clinics",
              "clinic_param", "clinics_param", "pool", "preflight", "priority", "summary", "watch")  # fmt: skip
    for name in ("pool", "priority", "restore_tasks", "retention_tasks", "drill_tasks", "timetable"):
        importlib.import_module(f"clinic_backups.operators.{name}")
    assert [name for name in before if not hasattr(operators, name)] == []


def test_a_build_leaves_nothing_where_airflow_would_find_it(installed: Path) -> None:
    assert list(PACKAGE.glob("*.egg-info")) == []


def test_the_repository_is_a_project_as_init_project_would_make_it() -> None:
    for path in (CHECKOUT / "dags").glob("*.py"):
        assert path.read_text() == project.DAG_FILE.format(dag_id=path.stem)


def test_what_is_a_teams_own_stays(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert {file.outcome for file in project.make(mine)} == {"written"}
    changed, link = mine / "include/sql/active_clinics.sql", mine / ".env.example"
    changed.write_text("SELECT 1")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    gone = mine / "dags/clinic_backup.py"
    gone.unlink()
    checked = {file.path: file.outcome for file in project.make(mine, check_only=True)}
    assert not gone.exists()
    again = {file.path: file.outcome for file in project.make(mine)}
    assert checked == again
    others = {path for path, outcome in again.items() if outcome == "kept"}
    assert {path: again[path] for path in again.keys() - others} == {
        "include/sql/active_clinics.sql": "differs", ".env.example": "differs", "dags/clinic_backup.py": "written",
    }  # fmt: skip
    assert changed.read_text() == "SELECT 1"
    assert not (tmp_path / "elsewhere").exists()


def test_an_upgrade_adds_nothing_to_the_sql_of_a_teams_own_schema(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    project.make(mine)
    extracts = mine / "include/sql/extract"
    for example in extracts.iterdir():
        example.unlink()
    (extracts / "tabla.sql").write_text("SELECT 1")
    again = {file.path: file.outcome for file in project.make(mine)}
    assert [path.name for path in extracts.iterdir()] == ["tabla.sql"]
    assert {outcome for path, outcome in again.items() if path.startswith("include/sql/extract/")} == {"left out"}
    done = CliRunner().invoke(app, ["init-project", str(mine), "--check-only"])
    assert done.exit_code == 0
    assert "files of the example were left out" in done.output


def test_a_project_that_was_half_written_is_completed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    project.make(mine)
    for name in ("active_clinics.sql", "user_clinics.sql"):
        (mine / "include/sql" / name).unlink()
    again = {file.path: file.outcome for file in project.make(mine)}
    assert {path for path, outcome in again.items() if outcome == "written"} == {
        "include/sql/active_clinics.sql", "include/sql/user_clinics.sql",
    }  # fmt: skip


def test_where_a_project_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is the repository of clinic-backups itself"):
        project.make(CHECKOUT)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="is not a folder"):
        project.make(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dags").write_text("")
    with pytest.raises(PermanentError, match="cannot be written"):
        project.make(tmp_path / "mine")
