"""A restore with its record: choice of the backup, one at a time, safety backup, undo, and mail."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.catalog.approvals import Approval, Approvals, NotApproved
from clinic_backups.catalog.locks import AlreadyRunning
from clinic_backups.catalog.restores import RestoreMode, RestoreRecord, Restores, restore_id_of
from clinic_backups.restore.hooks import AfterHookFailed
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.plan_text import as_lines, as_markdown, undo_command, undo_conf
from clinic_backups.restore.point_in_time import PointInTime
from clinic_backups.restore.request import RestoreRequest, parse
from clinic_backups.restore.runner import RestoreRunner, close_abandoned
from clinic_backups.restore.safety import SafetyBackup
from clinic_backups.stores.file import FileStore
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.integration.test_restore import STOCK, Ward
from tests.postgres_fixtures import DemoDatabase

DAMAGE = f"UPDATE {STOCK} SET cantidad = cantidad + 5 WHERE clinica_id = 1"


class Theatre(Ward):
    """A ward whose restores have records."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now = datetime(2026, 11, 24, 6, tzinfo=UTC)
        self.restores = Restores(self.catalog.database)
        self.earlier: dict[str, str] = {}

    def runner(self, database: DemoDatabase | None = None) -> RestoreRunner:
        """What restores, into another database than backups are read from where one is given."""
        restore_db = connections.parse("restore_db", (database or self.database).restorer_uri)
        restore = self.restore()
        restore.database, restore.clinic_db = restore_db, self.clinic_db
        backup = self.backup(clinic_db=restore_db, now=self.tick)
        return RestoreRunner(
            restore=restore, catalog=self.catalog, restore_db=restore_db, approvals=self.approvals(), now=self.tick,
            safety=SafetyBackup(settings=self.settings, backup=backup, restore_db=restore_db),
            of_point_in_time=self.point_in_time(restore_db).take,
        )  # fmt: skip

    def point_in_time(self, restore_db: Connection) -> PointInTime:
        """What backs up from the databases of an earlier time that ``earlier`` names."""
        folder = self.settings.point_in_time_sql_dir or self.settings.sql_dir
        then = self.settings.model_copy(update={"sql_dir": folder})
        return PointInTime(
            settings=then, connection_of=lambda name: connections.parse(name, self.earlier[name]),
            backup=lambda connection, ask: self.backup(
                clinic_db=connection, ask_time=ask, now=self.tick, settings=then
            ),
            productive=[restore_db, self.clinic_db],
        )  # fmt: skip

    def approvals(self, hours: float = 24) -> Approvals:
        return Approvals(self.catalog.database, hours, self.settings.approvers)

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def back_up(self, clinic_id: int = 1) -> BackupRecord:
        self.now += timedelta(hours=1)
        return self.run(clinic_id, now=self.tick)

    def approved(self, request: RestoreRequest, runner: RestoreRunner | None = None, by: str = "jefa") -> Approval:
        """The request's plan, with somebody's approval."""
        runner = runner or self.runner()
        proposed = runner.propose(request, runner.plan(request))
        return self.approvals().answer(proposed.id, "approved", by=by, how="ui")

    def go(self, request: RestoreRequest) -> RestoreRecord:
        return self.runner().apply(self.approved(request))


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    return Theatre(demo_database, FileStore(tmp_path / "store"))


def test_which_backup_is_meant(theatre: Theatre) -> None:
    first, second = theatre.back_up(), theatre.back_up()
    other = theatre.back_up(2)
    runner = theatre.runner()

    def chosen(**wish: Any) -> str:
        return runner.choose(RestoreRequest(clinic_id=1, **wish)).backup_id

    assert chosen() == second.backup_id
    assert chosen(backup_id=first.backup_id) == first.backup_id
    assert chosen(as_of=second.started_at - timedelta(seconds=1)) == first.backup_id
    assert chosen(as_of=second.started_at) == second.backup_id
    for wish in ({"backup_id": other.backup_id}, {"backup_id": "x"}, {"as_of": first.started_at - timedelta(days=1)}):
        with pytest.raises(PermanentError) as caught:
            chosen(**wish)
        assert "clinic-backups list --clinic 1" in caught.value.hint


def test_the_record_tells_who_what_and_how_it_ended_and_the_undo_brings_the_state_before_back(theatre: Theatre) -> None:
    theatre.back_up()
    good = theatre.rows_now(1)
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    request = RestoreRequest(clinic_id=1, requested_by="guardia", notes="nota", run_id="r1")
    record = theatre.go(request)
    assert theatre.rows_now(1) == good
    safety = theatre.catalog.require(record.safety_backup_id or "")
    assert (safety.safety_of, safety.rows[STOCK]) == (record.backup_id, len(good[STOCK].splitlines()))
    assert theatre.restores.get(record.restore_id) == record
    assert (record.state, record.requested_by, record.approved_by, record.run_id) == (
        "completed",
        "guardia",
        "jefa",
        "r1",
    )
    assert record.transaction_id is not None
    assert (record.rows("update"), record.rows("insert"), record.rows("delete")) == (
        len(good[STOCK].splitlines()),
        0,
        0,
    )
    theatre.go(RestoreRequest(clinic_id=1, backup_id=safety.backup_id))
    assert theatre.rows_now(1) == damaged


def test_while_a_restore_runs_no_backup_of_the_clinic_begins_and_the_other_way_round(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    request = RestoreRequest(clinic_id=1)
    seen: list[str] = []
    runner = theatre.runner()
    approved = theatre.approved(request, runner)

    def meanwhile(step: str) -> None:
        if step.startswith("writing"):
            with pytest.raises(AlreadyRunning):
                theatre.run(1)
            seen.append(theatre.run(2).state)

    runner._restore.listener = Listener(meanwhile)
    runner.apply(approved)
    assert seen == ["completed"]
    with theatre.catalog.lock(1), pytest.raises(AlreadyRunning):
        theatre.go(request)


def test_a_failure_is_recorded_with_its_remedy(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    approved = theatre.approved(RestoreRequest(clinic_id=1))
    theatre.execute(DAMAGE)
    with pytest.raises(PermanentError, match="has changed since the plan was made"):
        theatre.runner().apply(approved)
    (record,) = theatre.restores.find(clinic_id=1)
    assert (record.state, "new plan" in (record.hint or "")) == ("failed", True)


@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_answer_to_the_commit_is_asked_of_the_database(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    from clinic_backups.restore.workspace import Workspace

    theatre.back_up()
    good = theatre.rows_now(1)
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    real = Workspace.commit

    def cut(workspace: Workspace) -> None:
        if committed:
            real(workspace)
        else:
            workspace._db.rollback()
        raise TransientError("the connection broke")

    monkeypatch.setattr(Workspace, "commit", cut)
    if committed:
        assert theatre.go(RestoreRequest(clinic_id=1)).state == "completed"
        assert theatre.rows_now(1) == good
    else:
        with pytest.raises(TransientError):
            theatre.go(RestoreRequest(clinic_id=1))
        assert theatre.rows_now(1) == damaged
        assert theatre.restores.find(clinic_id=1)[0].state == "failed"


@pytest.mark.parametrize("note", ["note_transaction", "note_safety_backup"])
def test_a_lost_answer_to_a_note_in_the_catalog_is_no_fault_for_good(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    """As the random faults found it: the note was written, and the attempt did not know."""
    theatre.back_up()
    theatre.execute(DAMAGE)
    damaged, real = theatre.rows_now(1), getattr(Restores, note)

    def cut(*values: Any, **options: Any) -> RestoreRecord:
        real(*values, **options)
        raise TransientError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(Restores, note, cut)
        with pytest.raises(TransientError):
            theatre.go(RestoreRequest(clinic_id=1))
    assert theatre.rows_now(1) == damaged
    assert theatre.restores.find(clinic_id=1)[0].state == "failed"
    assert theatre.go(RestoreRequest(clinic_id=1)).state == "completed"


def test_a_record_whose_process_died_is_closed_by_later_runs(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    plan = theatre.runner().plan(RestoreRequest(clinic_id=1))
    started = theatre.tick()
    theatre.restores.begin(
        RestoreRecord(
            restore_id_of(1, started), 1, "Uno", plan.backup_id, "exact", plan.to_json(), plan.digest, started
        )
    )
    with theatre.catalog.lock(1):
        assert close_abandoned(theatre.catalog, theatre.clinic_db, theatre.tick) == []
    (closed,) = close_abandoned(theatre.catalog, theatre.clinic_db, theatre.tick)
    assert closed.state == "failed"
    assert "as they were before" in (closed.error or "")


def test_a_plan_survives_its_json_and_its_page_shows_no_markup_of_names(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE, f"DELETE FROM {STOCK} WHERE id = (SELECT min(id) FROM {STOCK} WHERE clinica_id = 1)")
    plan = theatre.runner().plan(RestoreRequest(clinic_id=1))
    again = RestorePlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    evil = RestorePlan(**{**plan.__dict__, "clinic_name": "<script>x</script>\n| [a](http://b) |"})
    page = as_markdown(evil, requested_by="**yo**", notes="")
    assert "<script>" not in page
    assert "[a](" not in page
    assert f"| `{STOCK}` | 1 |" in page


@pytest.mark.parametrize(
    "conf",
    [
        {}, {"clinic_id": "siete"}, {"clinic_id": -7}, {"clinic_id": 1, "backup_id": "x", "as_of": "2026-01-01"},
        {"clinic_id": 1, "as_of": "mañana"}, {"clinic_id": 1, "mode": "todo"}, {"clinic_id": 1, "tables": "x"},
        {"clinic_id": 1, "tables": ["a.b", 7]}, {"clinic_id": 1, "approve": "perhaps"}, {"clinic_id": 1, "nose": 1},
        {"clinic_id": 1, "mode": "into"}, {"clinic_id": 1, "schema": "x"},
        {"clinic_id": 1, "mode": "into", "schema": "pg_x"}, {"clinic_id": 1, "mode": "into", "schema": 'a"; DROP'},
        {"clinic_id": 1, "backup_id": "a\nb"}, {"clinic_id": 1, "notes": "x" * 501},
        {"clinic_id": 1, "other_database": "perhaps"}, {"clinic_id": 1, "as_of": "9999-12-31T23:59:59.999999Z"},
        {"clinic_id": 1, "as_of": "0001-01-01T00:00:00+23:59"}, {"clinic_id": 1, "as_of": "9999-12-31"},
    ],
)  # fmt: skip
def test_a_wrong_conf_is_refused(conf: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(conf, every=[Clinic(1, "Uno")], requested_by="yo", run_id=None, zone=UTC)
    assert caught.value.hint


def test_the_command_plans_restores_undoes_and_needs_no_catalog(
    run: Run,  # noqa: F811
    demo_database: DemoDatabase,
    tmp_path: Path,
) -> None:
    identity = tmp_path / "identity"
    keys = restore_keys(run, identity, demo_database)
    ward = Ward(demo_database, FileStore(tmp_path / "store"))
    run("catalog", "migrate")
    run("store", "init")
    assert run("backup", "--clinic", "1", **keys).code == 0
    (backup,) = run("list", "--json").json()
    good = ward.rows_now(1)
    ward.execute(DAMAGE)
    damaged = ward.rows_now(1)
    assert run("restore", "--clinic", "1", **keys).code == 2  # no identity
    words = ("restore", "--clinic", "1", "--identity", str(identity))
    planned = run(*words, "--plan", "--json", **keys)
    assert planned.code == 0
    assert planned.json()["writes"] > 0
    unasked = run(*words, **keys)
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert ward.rows_now(1) == damaged
    # What opens the backup names the recipients of the safety backup, where the settings name none.
    done = run(*words, "--yes", **(keys | {"CLINIC_BACKUPS_RECIPIENTS": None}))
    assert (done.code, ward.rows_now(1)) == (0, good)
    undo = done.out.strip().splitlines()[-1].rpartition("--backup ")[2]
    assert run(*words, "--backup", undo, "--yes", **keys).code == 0
    assert ward.rows_now(1) == damaged
    # The catalog is gone, and the archive is all there is.
    gone = keys | {"AIRFLOW_CONN_BACKUP_CATALOG": "postgres://u:p@127.0.0.1:1/x"}
    archive = f"{(tmp_path / 'store').as_uri()}/{backup['key']}"
    wrong = run("restore", "--clinic", "2", "--identity", str(identity), "--archive", archive, "--yes", **gone)
    assert (wrong.code, "is a backup of clinic 1" in wrong.err) == (1, True)
    alone = run(*words, "--archive", archive, "--yes", **gone)
    assert (alone.code, ward.rows_now(1)) == (0, good)


@pytest.mark.parametrize(
    ("mode", "said", "unsaid"),
    [
        ("exact", ("is to become what backup", "the restore stops"), ("gone", "stay as these people leave them")),
        ("missing", ("get back the rows that are gone", "nothing else is changed or deleted"), ("is to become",)),
        (
            "live",
            ("except rows that people change after this plan", "stay as these people leave them"),
            ("restore stops",),
        ),
    ],
)
def test_the_page_says_what_its_mode_does(
    theatre: Theatre, mode: RestoreMode, said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    runner = theatre.runner()
    page = as_markdown(runner.plan(RestoreRequest(clinic_id=1, mode=mode)), requested_by="yo", notes="")
    assert [text for text in said if text not in page] + [text for text in unsaid if text in page] == []


def test_the_plan_of_a_safety_backup_says_so(theatre: Theatre) -> None:
    backup = theatre.back_up()
    theatre.execute(DAMAGE)
    runner, request = theatre.runner(), RestoreRequest(clinic_id=1)
    undo = runner.apply(theatre.approved(request, runner)).safety_backup_id
    plan = runner.plan(RestoreRequest(clinic_id=1, backup_id=undo))
    said = f"This is the safety backup of the restore of {backup.backup_id}"
    assert said in "\n".join(as_lines(plan))
    assert said in as_markdown(plan, requested_by="yo", notes="").replace("\\", "")


PATIENTS = "public.usuarios_paciente"


def test_the_undo_of_a_restore_of_some_tables_takes_back_only_these(theatre: Theatre) -> None:
    theatre.back_up()
    theatre.execute(DAMAGE)
    damaged = theatre.rows_now(1)
    request = RestoreRequest(clinic_id=1, tables=(STOCK,), other_database=True)
    record = theatre.go(request)
    # What people enter after the restore, in other tables, is nobody's to take back.
    theatre.execute(f"UPDATE {PATIENTS} SET nombres = 'Nueva' WHERE clinica_id = 1")
    worked = theatre.rows_now(1)
    undo = RestoreRequest(clinic_id=1, backup_id=record.safety_backup_id)
    runner = theatre.runner()
    plan = runner.plan(undo)
    assert {table.table for table in plan.tables if table.writes} == {STOCK}
    assert "only that is taken back" in "\n".join(as_lines(plan))
    taken_back = theatre.go(undo)
    assert taken_back.tables == (STOCK,)
    assert theatre.rows_now(1) == worked | {STOCK: damaged[STOCK]}
    # Said in so many words it is another table.
    named = runner.plan(replace(undo, tables=(PATIENTS,)))
    assert {table.table for table in named.tables if table.writes} == {PATIENTS}
    safety = theatre.catalog.require(record.safety_backup_id or "")
    assert safety.notes == f"before the restore of {record.backup_id}, of {STOCK} only"
    words = shlex.split(undo_command(record, request))
    assert words[2:] == ["--clinic", "1", "--table", STOCK, "--other-database", "--backup", safety.backup_id]
    assert json.loads(undo_conf(record, request)) == {
        "clinic_id": 1, "backup_id": safety.backup_id, "tables": [STOCK], "other_database": True
    }  # fmt: skip


def test_a_restore_that_begins_anew_saves_the_state_anew(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    theatre.back_up()
    ((lost,),) = theatre.execute_rows(f"SELECT min(id) FROM {STOCK} WHERE clinica_id = 1")
    theatre.execute(DAMAGE, f"DELETE FROM {STOCK} WHERE id = {lost}")
    saved: list[str] = []
    take = SafetyBackup.take

    def then_somebody_writes(safety: SafetyBackup, *arguments: Any, **named: Any) -> BackupRecord | None:
        made = take(safety, *arguments, **named)
        saved.append(made.backup_id if made else "")
        if len(saved) == 1:
            theatre.execute(
                f"INSERT INTO {STOCK} (id, codigo, nombre, cantidad, precio_unitario, clinica_id)"
                f" VALUES ({lost}, 'ajeno', 'ajeno', 1, 1, 2)"
            )
        return made

    monkeypatch.setattr(SafetyBackup, "take", then_somebody_writes)
    record = theatre.go(RestoreRequest(clinic_id=1, mode="live"))
    assert (record.state, len(saved), record.safety_backup_id) == ("completed", 2, saved[1])
    assert theatre.execute_rows(f"SELECT clinica_id FROM {STOCK} WHERE id = {lost}") == [(2,)]


def test_a_plan_is_not_applied_if_more_is_known_of_its_backup_by_now(theatre: Theatre) -> None:
    record = theatre.back_up()
    theatre.execute(DAMAGE)
    runner, damaged = theatre.runner(), theatre.rows_now(1)
    approved = theatre.approved(RestoreRequest(clinic_id=1, backup_id=record.backup_id), runner)
    theatre.execute(f"UPDATE clinic_backups.backup SET suspect = 'rows lost' WHERE backup_id = '{record.backup_id}'")
    with pytest.raises(NotApproved, match="suspect, and nobody has accepted it: rows lost"):
        runner.apply(approved)
    assert theatre.rows_now(1) == damaged


CLOSES = "INSERT INTO public.cerrada VALUES ({{ clinic_id }}) ON CONFLICT DO NOTHING"
OPENS = "DELETE FROM public.cerrada WHERE clinica_id = {{ clinic_id }}"


@pytest.fixture
def hooked(theatre: Theatre, tmp_path: Path) -> Theatre:
    """With hooks that shut a clinic and open it again."""
    folder = shutil.copytree(PROJECT_SQL, tmp_path / "sql")
    theatre.settings = theatre.settings.model_copy(update={"sql_dir": folder})
    theatre.execute(
        "CREATE TABLE public.cerrada (clinica_id bigint PRIMARY KEY)",
        f"GRANT SELECT, INSERT, DELETE ON public.cerrada TO {theatre.database.roles.restorer}",
        f"GRANT SELECT ON public.cerrada TO {theatre.database.roles.reader}",
    )
    with (folder / "not_backed_up.txt").open("a") as declarations:
        declarations.write("public.cerrada: who is being restored\n")
    (folder / "before_restore.sql").write_text(CLOSES)
    (folder / "after_restore.sql").write_text(OPENS)
    return theatre


def shut(theatre: Theatre) -> bool:
    return bool(theatre.execute_rows("SELECT FROM public.cerrada WHERE clinica_id = 1"))


def apply_without_the_second_hook(theatre: Theatre, error: PermanentError | None = None) -> None:
    """Apply a plan. The role loses the second hook's right after the writing. :param error: ends the restore then."""
    runner, restorer = theatre.runner(), theatre.database.roles.restorer
    approval = theatre.approved(RestoreRequest(clinic_id=1), runner)

    def meanwhile(step: str) -> None:
        if step.startswith("reading the clinic again"):
            theatre.execute(f"REVOKE DELETE ON public.cerrada FROM {restorer}")
            if error is not None:
                raise error

    runner._restore.listener = Listener(meanwhile)
    runner.apply(approval)


def test_a_second_hook_that_fails_after_the_commit_is_told_everywhere(hooked: Theatre) -> None:
    hooked.back_up()
    good = hooked.rows_now(1)
    hooked.execute(DAMAGE)
    with pytest.raises(AfterHookFailed, match=r"running after_restore\.sql") as raised:
        apply_without_the_second_hook(hooked)
    assert (
        "The restore itself has ended, but the clinic may still be shut: run it by hand for clinic 1"
        in raised.value.hint
    )
    (record,) = hooked.restores.find(clinic_id=1)
    assert (record.state, hooked.rows_now(1) == good, shut(hooked)) == ("completed", True, True)
    assert (record.error, record.hint) == (raised.value.message, raised.value.hint)
    notices = hooked.execute_rows("SELECT facts FROM clinic_backups.notification WHERE kind = 'restore_report'")
    assert [(facts["outcome"], facts["error"]) for (facts,) in notices] == [("completed", record.error)]


def test_a_restore_and_its_second_hook_that_fail_are_both_told(hooked: Theatre) -> None:
    hooked.back_up()
    hooked.execute(DAMAGE)
    with pytest.raises(PermanentError, match="Somebody ended it"):
        apply_without_the_second_hook(hooked, PermanentError("Somebody ended it.", hint="Ask them."))
    (record,) = hooked.restores.find(clinic_id=1)
    assert (
        record.state == "failed" and "Besides: " in (record.hint or "") and "after_restore.sql" in (record.hint or "")
    )


def test_after_a_killed_restore_people_are_told_to_run_the_second_hook(hooked: Theatre) -> None:
    hooked.back_up()
    hooked.execute(DAMAGE)
    runner = hooked.runner()
    approval = hooked.approved(RestoreRequest(clinic_id=1), runner)
    plan = runner.plan(RestoreRequest(clinic_id=1))
    with hooked.catalog.lock(1):
        hooked.restores.begin(
            RestoreRecord(
                restore_id_of(1, hooked.tick()),
                1,
                "x",
                plan.backup_id,
                "exact",
                plan.to_json(),
                plan.digest,
                hooked.now,
            )
        )
    hooked.execute("INSERT INTO public.cerrada VALUES (1)")
    assert runner.apply(approval).state == "completed"  # the first hook may run again
    dead = [record for record in hooked.restores.find(clinic_id=1) if record.state == "failed"]
    assert [("run it by hand for clinic 1" in (record.hint or "")) for record in dead] == [True]
    assert not shut(hooked)


@pytest.mark.parametrize("name", ["before_restore.sql", "after_restore.sql"])
def test_a_plan_tries_the_hooks(hooked: Theatre, name: str) -> None:
    hooked.back_up()
    hooked.execute(DAMAGE)
    (hooked.settings.sql_dir / name).write_text("SELECT 1 / 0")
    with pytest.raises(PermanentError, match=name):
        hooked.runner().plan(RestoreRequest(clinic_id=1))
    (hooked.settings.sql_dir / name).write_text("-- nothing to do\n")
    assert hooked.go(RestoreRequest(clinic_id=1)).state == "completed"
