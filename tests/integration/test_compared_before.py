"""What a run's preflight compared, no backup of the run compares again. Everything else each backup compares itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from clinic_backups.backup import database_checks, row_findings
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.errors import PermanentError
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant import gate
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.row_checks import RowChecks
from tests.integration.test_restore_runner import Theatre
from tests.integration.test_share_tasks import Task
from tests.postgres_fixtures import DemoDatabase

STOCK, HOURS = "public.inventario_inventario", "public.citas_horario"
NARROWED = f" AND id > (SELECT min(id) + 3 FROM {STOCK} WHERE clinica_id = {{{{ clinic_id }}}})"


class Night:
    """One run: the task ``preflight``, then the task of its clinics."""

    def __init__(self, theatre: Theatre, patch: pytest.MonkeyPatch) -> None:
        from clinic_backups.operators import tasks

        self.theatre, self.task = theatre, Task(theatre, patch)
        self.asked: list[list[str]] = []
        patch.setattr(tasks, "AirflowParts", lambda: self.task.parts)
        instance = SimpleNamespace(xcom_pull=lambda **which: None)
        run = SimpleNamespace(run_id="r", conf={}, run_type="manual", run_after=None)
        patch.setattr(tasks, "get_current_context", lambda: {"dag_run": run, "ti": instance})
        self._preflight: Callable[[], object] = tasks.preflight.function
        problems = RowChecks.problems

        def noted(checks: RowChecks, names: Any, **options: Any) -> Any:
            self.asked.append(list(names))
            return problems(checks, names, **options)

        patch.setattr(gate.RowChecks, "problems", noted)

    def preflight(self) -> None:
        self._preflight()
        self.asked.clear()

    @property
    def compared(self) -> ComparedRows:
        found = self.task.parts.comparisons.of_run("r", [1, 2, 3])
        assert found is not None
        return found

    def back_up(self, *, tries: int = 0) -> list[str]:
        """The tables that each backup compared itself."""
        self.asked.clear()
        self.task.tries = tries
        self.task.run()
        return sorted({name for names in self.asked for name in names})

    def is_refused(self, table: str = STOCK) -> bool:
        """Whether the clinics' backups name rows of that table that would be in no backup."""
        with pytest.raises(AirflowFailException, match="3 of the 3 clinics of this task have no backup"):
            self.back_up()
        errors = [record.error or "" for record in self.task.records().values()]
        return all(re.search(f"{table}: 1 row is in no backup", error) for error in errors)

    def rewrite(self, change: Callable[[str], str], table: str = STOCK) -> None:
        path = self.theatre.settings.sql_dir / "extract" / f"{table.removeprefix('public.')}.sql"
        path.write_text(change(path.read_text().rstrip()) + "\n")


@pytest.fixture
def night(demo_database: DemoDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.with_extracts(tmp_path / "sql", {})
    return Night(theatre, monkeypatch)


def test_what_was_compared_is_not_compared_again(night: Night) -> None:
    night.preflight()
    assert night.compared.clinics == {1, 2, 3}
    assert STOCK in night.compared.tables
    assert night.back_up() == []
    # Cleared, perhaps days later.
    assert STOCK in night.back_up(tries=1)


def test_each_run_has_the_next_turn_whatever_the_day_is(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CLINIC_BACKUPS_COMPARE_NIGHTS the turn says which clinics a run compares, and none may wait for ever."""
    from clinic_backups.operators import tasks

    turns, run = list[int](), tasks.get_current_context()["dag_run"]
    monkeypatch.setattr(database_checks.Sample, "of_night", lambda clinics, nights, turn: turns.append(turn))
    for run.run_id in ("r", "s", "s", "t"):  # the second attempt of a run compares what the first one did
        night.preflight()
    assert turns == [0, 1, 1, 2]
    night.task.parts.catalog.forget(before=datetime(2200, 1, 1, tzinfo=UTC))
    run.run_id = "u"
    night.preflight()
    assert turns[-1] == 3


def test_a_table_that_the_preflight_could_not_compare_is_compared_by_each_backup(night: Night) -> None:
    # PostgreSQL cannot read the name of a column as a number, but every single clinic's extract runs.
    night.rewrite(lambda text: f"{text.replace('{{ clinic_id }}', chr(39) + '{{ clinic_id }}' + chr(39))}{NARROWED}")
    night.preflight()
    assert STOCK not in night.compared.tables
    assert HOURS in night.compared.tables
    assert night.is_refused()
    assert {name for names in night.asked for name in names} & night.compared.tables == set()


OTHER_FOR_ONE = {
    "a comparison of a text": "'{{ clinic_id }}' NOT IN ('1', '2', '3')",
    "a dollar-quoted text": "$x${{ clinic_id }}$x$ NOT IN ('1', '2', '3')",
    "the length of a text": "length('{{ clinic_id }}') > 1",
    "a test": "{{ clinic_id is not integer }}",
    "a concatenation": "{{ (clinic_id ~ '') not in ('1', '2', '3') }}",
    "a filter": "{{ clinic_id | string | length > 1 }}",
    "the type of a number": "pg_typeof({{ clinic_id }}) <> 'integer'::regtype",
}


@pytest.mark.parametrize("kept", OTHER_FOR_ONE.values(), ids=OTHER_FOR_ONE)
def test_an_extract_that_means_something_else_for_one_clinic_is_not_compared_for_all(night: Night, kept: str) -> None:
    night.rewrite(lambda text: f"{text} AND (id > (SELECT min(id) FROM {STOCK} WHERE clinica_id = 1) OR {kept})")
    night.preflight()
    with pytest.raises(AirflowFailException, match="1 of the 3 clinics of this task have no backup"):
        night.back_up()
    assert f"{STOCK}: 1 row is in no backup" in (night.task.records()[1].error or "")


@pytest.mark.parametrize(
    "kept", ["true", "{{ clinic_id }} > 0 -- of clinic {{ clinic_id }}", "clinica_id IN ({{ clinic_id }})"]
)
def test_an_extract_in_which_the_clinic_is_a_number_is_compared_for_all(night: Night, kept: str) -> None:
    night.rewrite(lambda text: f"{text} AND clinica_id - {{{{ clinic_id }}}} = 0 AND {kept}")
    night.preflight()
    assert STOCK in night.compared.tables
    assert night.back_up() == []


def test_a_table_that_took_too_long_is_compared_by_each_backup(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.rewrite(lambda text: text + NARROWED)
    monkeypatch.setattr(row_findings.RowChecks, "count", lambda *given, **named: None)
    night.preflight()
    assert night.compared.tables == set()
    assert night.is_refused()


def test_an_extract_that_is_changed_after_the_preflight_is_compared_by_each_backup(night: Night) -> None:
    night.preflight()
    night.rewrite(lambda text: text + NARROWED)
    assert night.is_refused()


def test_statements_that_are_not_those_of_the_folder_are_compared(night: Night) -> None:
    night.preflight()
    request = replace(night.theatre.request(1), compared=night.compared)
    queries = SqlExtract().rendered(SqlFolder(night.theatre.settings.sql_dir), 1)
    night.task.parts.backup().run(request, queries=queries)
    assert night.asked == []
    queries[STOCK] += NARROWED.replace("{{ clinic_id }}", "1")
    with pytest.raises(PermanentError, match="1 row is in no backup"):
        night.task.parts.backup().run(request, queries=queries)


def test_a_migration_after_the_preflight_makes_each_backup_compare(night: Night) -> None:
    night.preflight()
    # Rows that lead to the clinic in a new way.
    night.theatre.execute(
        f"ALTER TABLE {STOCK} ADD otra_id bigint REFERENCES public.comun_clinica",
        f"CREATE INDEX ON {STOCK} (otra_id)",
    )
    assert STOCK in night.back_up()


@pytest.mark.parametrize(
    "change",
    [
        "compared_at = now() - interval '25 hours'", "run_id = 'another'", "clinics = '{4,5}'",
        "database = database || '2'", "tables = '{}'",
    ],
)  # fmt: skip
def test_what_another_run_database_or_day_compared_does_not_count(night: Night, change: str) -> None:
    night.preflight()
    night.theatre.execute(f"UPDATE clinic_backups.comparison SET {change}")
    assert STOCK in night.back_up()


def test_a_clinic_that_all_clinics_lacks_is_not_among_the_compared(night: Night) -> None:
    path = night.theatre.settings.sql_dir / "all_clinics.sql"
    path.write_text(path.read_text().replace("FROM public.comun_clinica", "FROM public.comun_clinica WHERE id <> 2"))
    assert "id <> 2" in path.read_text()
    night.preflight()
    assert night.compared.clinics == {1, 3}
    assert STOCK in night.back_up()


def test_a_preflight_that_did_not_compare_hands_on_nothing(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinic_backups.operators import tasks

    run = SimpleNamespace(run_id="r", conf={"clinic_id": 1}, run_type="manual", run_after=None)
    instance = SimpleNamespace(xcom_pull=lambda **which: None)
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"dag_run": run, "ti": instance})
    night.preflight()
    assert night.task.parts.comparisons.of_run("r", [1]) is None
    assert STOCK in night.back_up()


def test_old_comparisons_are_forgotten(night: Night) -> None:
    night.preflight()
    now = night.task.parts.clock()
    night.theatre.catalog.forget(before=now.replace(year=2000))
    assert night.compared.database
    # The last one stays: the number of the next one follows from it.
    night.task.parts.comparisons.note("s", night.compared)
    night.theatre.catalog.forget(before=now.replace(year=2100))
    assert night.task.parts.comparisons.of_run("r", [1]) is None
