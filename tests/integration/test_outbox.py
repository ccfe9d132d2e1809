"""Mail through the outbox and a real mail server: the right recipients, once, in threads, whatever fails."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.app import Parts
from clinic_backups.base import connections, setting_fields
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import connect
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.silence import WatchedConnection
from clinic_backups.catalog.clinics import Clinics
from clinic_backups.catalog.outbox import Notice, Outbox, Recipient, Settle
from clinic_backups.catalog.outbox import queue as outbox_queue
from clinic_backups.notify.backup_mails import Announcer
from clinic_backups.notify.sending import Post
from clinic_backups.notify.templates import Templates
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant import tenant_db
from include.demo.postgres import HOST
from tests.counting_proxy import CountingProxy
from tests.mailbox import mailbox
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

FIRST = "administrador1@clinica1.example.com"
SECOND = "segunda@clinica1.example.com"
PATIENTS = "public.usuarios_paciente"


class Office:
    """A rig whose clinic 1 has two administrators, with a mail server and a clock."""

    def __init__(self, database: DemoDatabase, folder: Path) -> None:
        self.folder, self.rig = folder, Rig(database, FileStore(folder / "store"))
        self.mailbox = mailbox()
        self.texts = setting_fields.PROJECT_EMAIL
        self.now = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
        self.outbox = Outbox(self.rig.catalog.database)
        self.parts = Parts(
            self.rig.settings, {"clinic_db": self.rig.clinic_db, "backup_catalog": self.rig.catalog._connection}.get
        )
        self.admins: Any = self.parts.admins
        active, every = self.parts.clinics()
        Clinics(self.rig.catalog.database).see(active=active, every=every)
        self.rig.execute(
            "INSERT INTO public.usuarios_usuario (id, password, is_superuser, username, first_name, last_name, email,"
            f" is_staff, is_active, date_joined, tipo, clinica_id) VALUES (9001, '!', false, 'segunda', 'Zoë', 'Ñáñez',"
            f" '{SECOND}', false, true, now(), 'administrador', 1)"
        )

    def back_up(self, clinic_id: int = 1, *, wish: str = "each", run_id: str | None = None) -> BackupRecord:
        """One backup, a night after the last one."""
        self.now += timedelta(days=1)
        return self.rig.run(clinic_id, announcer=Announcer(wish), now=lambda: self.now, run_id=run_id)  # type: ignore[arg-type]

    def fail(self, clinic_id: int = 1, *, retries_left: bool = False, run_id: str | None = None) -> None:
        """One backup that fails."""
        self.now += timedelta(days=1)
        backup = self.rig.backup(announcer=Announcer(), now=lambda: self.now, on_progress=_break)
        request = self.rig.request(clinic_id, run_id=run_id)
        with pytest.raises(TransientError):
            backup.run(type(request)(**{**request.__dict__, "retries_left": retries_left}))

    def own_sql(self) -> Path:
        """A copy of the SQL folder that a test may change."""
        folder = self.folder / "sql"
        shutil.copytree(self.rig.settings.sql_dir, folder)
        self.parts.settings = self.rig.settings.model_copy(update={"sql_dir": folder})
        return folder

    def recipients(self, clinic_id: int) -> set[str]:
        """Who gets the newest letter about a clinic."""
        return {each.address for each in self.outbox.last_recipients(clinic_id)}

    def deliver(self, *clinics: int, limit_seconds: float = 600) -> Any:
        return Post(
            outbox=self.outbox,
            server=self.mailbox.connection,
            templates=Templates(self.texts, self.rig.settings.zone, support_contact="ayuda@saas.example"),
            admins=self.admins,
            operators=["guardia@saas.example"],
            approvers=["jefa@saas.example", "no address"],
            operator_language="es",
            now=lambda: self.now,
        ).deliver(clinics=clinics or None, limit_seconds=limit_seconds)


def _break(progress: Any) -> None:
    raise TransientError("El texto técnico", hint="y su remedio")


@pytest.fixture
def office(demo_database: DemoDatabase, tmp_path: Path) -> Office:
    return Office(demo_database, tmp_path)


def test_each_administrator_gets_one_mail_for_each_outcome_in_the_clinics_language(office: Office) -> None:
    with office.mailbox.running() as box:
        office.back_up(1)
        office.back_up(4)
        office.fail(2)
        office.deliver()
        office.deliver()
    english = "administrador1@clinica4.example.com"
    failed = "administrador1@clinica2.example.com"
    assert sorted(to for to, _ in box.mails) == sorted([FIRST, SECOND, english, failed])
    assert box.subjects(FIRST) == box.subjects(SECOND)
    assert box.subjects(FIRST)[0].startswith("✅ Respaldo completado - ")
    assert box.subjects(failed)[0].startswith("❌ Error en respaldo - ")
    assert "Respaldo" not in box.subjects(english)[0]
    messages = dict(box.mails)
    assert messages[SECOND]["To"].addresses[0].display_name == "Zoë Ñáñez"
    for message in messages.values():
        for part in message.walk():
            if part.get_content_maintype() == "text":
                assert "El texto técnico" not in part.get_content()
    assert office.outbox.counts(office.now - timedelta(days=30)) == {"sent": 4}


def test_whose_code_would_run_is_asked_once_for_all_clinics(office: Office) -> None:
    """It costs the server more than the recipients of a hundred clinics."""
    port = office.rig.database.postgres.port
    for clinic_id in (1, 2, 3, 4, 5):
        office.back_up(clinic_id)
    with CountingProxy(HOST, port) as proxy, office.mailbox.running() as box:
        office.parts.clinic_db = replace(office.rig.clinic_db, port=proxy.port)
        office.deliver()
        sent = [query for _, query in proxy.sent]
    assert len(box.mails) == 6
    assert sum("The strangers among the owners" in query for query in sent) == 1
    assert sum("The recipients of the mails" in query for query in sent) == 5
    assert len(sent) < 3 * 5 + 12


def test_two_clinics_whose_lists_mention_other_things_are_asked_about_both(office: Office) -> None:
    """The text of one clinic may name another table, so that other code runs."""
    folder = office.own_sql()
    (folder / "clinic_admins.sql").write_text(
        "SELECT '{{ clinic_id }}@x.example' AS email, '' AS name"
        " {% if clinic_id == 2 %}FROM (SELECT upper('a')) AS other{% endif %}"
    )
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with CountingProxy(HOST, office.rig.database.postgres.port) as proxy, office.mailbox.running() as box:
        office.parts.clinic_db = replace(office.rig.clinic_db, port=proxy.port)
        office.deliver()
        asked = sum("The strangers among the owners" in query for _, query in proxy.sent)
    assert asked == 2
    assert sorted(to for to, _ in box.mails) == ["1@x.example", "2@x.example", "3@x.example"]


def test_the_fault_of_one_clinics_list_keeps_no_mail_from_another(office: Office) -> None:
    folder = office.own_sql()
    (folder / "clinic_admins.sql").write_text(
        "SELECT '{{ clinic_id }}@x.example' AS email, (1 / ({{ clinic_id }} - 2))::text AS name"
    )
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with office.mailbox.running() as box:
        done = office.deliver()
        assert sorted(to for to, _ in box.mails) == ["1@x.example", "3@x.example"]
    assert "clinic_admins.sql" in done.problem
    assert [each.clinic_id for each in office.outbox.unaddressed()] == [2]


def moved(office: Office) -> None:
    """Everybody had a mail; since then the second administrator of clinic 1 works for clinic 3."""
    with office.mailbox.running():
        for clinic_id in (1, 2, 3):
            office.back_up(clinic_id)
        office.deliver()
    office.rig.execute(f"UPDATE public.usuarios_usuario SET clinica_id = 3 WHERE email = '{SECOND}'")


@pytest.mark.parametrize("clinic_that_fails", [1, 2, 3])
def test_a_session_that_ends_at_one_clinic_takes_nothing_from_the_others(
    office: Office, clinic_that_fails: int
) -> None:
    """Those that were answered are kept, and the others are asked again: a last mail may have gone to a stranger."""
    moved(office)
    folder = office.own_sql()
    text = (
        (folder / "clinic_admins.sql")
        .read_text()
        .replace(
            "WHERE", f"WHERE ({{{{ clinic_id }}}} <> {clinic_that_fails} OR pg_terminate_backend(pg_backend_pid())) AND"
        )
    )
    (folder / "clinic_admins.sql").write_text(text)
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with office.mailbox.running():
        office.deliver()
    by_clinic = {clinic_id: office.recipients(clinic_id) for clinic_id in (1, 2, 3)}
    if clinic_that_fails != 1:
        assert by_clinic[1] == {FIRST}
    if clinic_that_fails != 3:
        assert by_clinic[3] == {"administrador1@clinica3.example.com", SECOND}
    assert by_clinic[2] == {"administrador1@clinica2.example.com"}


def test_what_one_clinics_query_sets_is_not_there_for_the_next(office: Office) -> None:
    folder = office.own_sql()
    (folder / "clinic_admins.sql").write_text(
        "SELECT email, '' AS name FROM public.usuarios_usuario WHERE tipo = 'administrador' AND clinica_id ="
        " coalesce(nullif(current_setting('app.clinic', true), ''), set_config('app.clinic', '{{ clinic_id }}', true))"
        "::int"
    )
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with office.mailbox.running():
        office.deliver()
    assert office.recipients(2) == {"administrador1@clinica2.example.com"}
    assert office.recipients(3) == {"administrador1@clinica3.example.com"}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("email, '' AS name, tipo", {FIRST, SECOND}),
        ("'x' AS name, email", {FIRST, SECOND}),
        ("'  ' || email || ' ' AS email, NULL AS name", {FIRST, SECOND}),
        ("NULL AS email, '' AS name", set()),
        ("email", set()),
        ("infinity AS name FROM nothing; --", set()),
    ],
)
def test_the_columns_are_taken_by_their_names(office: Office, columns: str, told: set[str]) -> None:
    folder = office.own_sql()
    (folder / "clinic_admins.sql").write_text(
        f"SELECT {columns} FROM public.usuarios_usuario"
        " WHERE tipo = 'administrador' AND clinica_id = {{ clinic_id }}"
    )
    office.back_up(1)
    office.outbox.queue(Notice("alarm", "watch_alarm", {"clinics": []}), office.now)
    with office.mailbox.running():
        office.deliver()
    assert office.recipients(1) == told
    assert [each.clinic_id for each in office.outbox.unaddressed()] in ([], [1])


def test_notices_that_cannot_be_addressed_hold_up_no_other_and_end_after_a_week(office: Office) -> None:
    folder = office.own_sql()
    (folder / "clinic_admins.sql").write_text(
        "SELECT '{{ clinic_id }}@x.example' AS email, (1/({{ clinic_id }}-2))::text AS name"
    )
    with office.outbox._database.transaction("a test") as db:
        for number in range(10_050):
            outbox_queue(db, Notice(f"old {number}", "backup_completed", {}, 2), office.now)
        outbox_queue(db, Notice("one more", "backup_completed", {}, 3), office.now)
        outbox_queue(db, Notice("alarm", "watch_alarm", {}), office.now)
    seen = office.outbox.unaddressed()
    assert seen[0].clinic_id is None
    assert 3 in {each.clinic_id for each in seen}
    office.outbox.expire(office.now + timedelta(days=8))
    assert office.outbox.unaddressed() == []


def test_a_slow_list_ends_at_the_time_limit(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[ClinicId]()

    def slow(clinics: Sequence[ClinicId]) -> Generator[tuple[ClinicId, list[Recipient]]]:
        for clinic_id in clinics:
            asked.append(clinic_id)
            time.sleep(0.3)
            yield clinic_id, [Recipient(f"{clinic_id}@x.example")]

    office.admins = slow
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with office.mailbox.running():
        office.deliver(limit_seconds=0.4)
        assert asked == [1, 2]
        assert [each.clinic_id for each in office.outbox.unaddressed()] == [3]
        office.deliver()
        assert asked == [1, 2, 3]


def test_a_share_of_clinics_tells_of_its_own_and_leaves_the_others_to_their_tasks(office: Office) -> None:
    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    with office.mailbox.running() as box:
        assert office.deliver(2, 3).sent == 2
        assert {to for to, _ in box.mails} == {
            "administrador1@clinica2.example.com", "administrador1@clinica3.example.com",
        }  # fmt: skip
        assert [each.clinic_id for each in office.outbox.unaddressed()] == [1]
        assert office.deliver().sent == 2


def test_the_clinics_database_is_asked_for_all_recipients_over_one_connection(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[str]()

    def counted(connection: Connection) -> WatchedConnection:
        opened.append(connection.conn_id)
        return connect(connection)

    for clinic_id in (1, 2, 3):
        office.back_up(clinic_id)
    monkeypatch.setattr(tenant_db, "connect", counted)
    known = {"clinic_db": office.rig.clinic_db, "backup_catalog": office.rig.catalog._connection}
    parts = Parts(office.rig.settings, (known | {"smtp_default": office.mailbox.connection}).get)
    with office.mailbox.running() as box:
        assert parts.deliver().sent == 4
    assert {to for to, _ in box.mails} > {FIRST, SECOND}
    assert opened == ["clinic_db"]
    assert parts.kept._idle == []


def test_a_server_that_was_down_for_two_runs_gets_each_mail_once(office: Office) -> None:
    office.back_up(1)
    first = office.deliver(1)
    assert (first.sent, first.problem != "") == (0, True)
    office.back_up(1)
    assert office.deliver(1).sent == 0
    with office.mailbox.running() as box:
        office.now += timedelta(minutes=2)
        assert office.deliver().sent == 4
        office.now += timedelta(hours=2)
        assert office.deliver().sent == 0
    assert len(box.subjects(FIRST)) == len(box.subjects(SECOND)) == 2
    assert len({message["Message-ID"] for _, message in box.mails}) == 4


def test_while_the_server_is_down_a_clinics_task_does_not_wait_for_it_again(office: Office) -> None:
    office.back_up(1)
    office.back_up(2)
    office.deliver(1)
    problem = office.deliver(2).problem
    assert "a moment ago" in problem


def test_a_broken_address_keeps_nobody_from_theirs_and_is_reported(office: Office) -> None:
    with office.mailbox.running() as box:
        box.broken.add(FIRST)
        office.back_up(1)
        done = office.deliver(1)
        office.now += timedelta(days=2)
        assert office.deliver().sent == 0
    assert (done.sent, done.refused) == (1, 1)
    assert [to for to, _ in box.mails] == [SECOND]
    (reported,) = office.outbox.undelivered(office.now - timedelta(days=1), office.now - timedelta(days=3))
    assert (reported["address"], "550" in reported["error"]) == (FIRST, True)


def test_what_waits_for_a_day_is_in_the_digest_and_after_a_week_it_is_given_up(office: Office) -> None:
    office.back_up(1)
    office.deliver()
    office.now += timedelta(days=2)
    waiting = office.outbox.undelivered(office.now - timedelta(days=1), office.now)
    assert [letter["address"] for letter in waiting] == [FIRST, SECOND]
    office.now += timedelta(days=6)
    office.outbox.expire(office.now)
    with office.mailbox.running() as box:
        assert office.deliver().sent == 0
    assert box.mails == []


def test_failures_in_a_row_are_one_thread_that_a_recovery_ends(office: Office) -> None:
    with office.mailbox.running() as box:
        for _ in range(3):
            office.fail()
            office.deliver()
        office.back_up(wish="never")
        office.deliver()
        office.back_up(wish="never")
        office.fail()
        office.deliver()
    mine = [message for to, message in box.mails if to == FIRST]
    assert len(mine) == 5
    root = mine[0]["Message-ID"]
    assert [message["References"] for message in mine] == [None, root, root, root, None]
    assert [message["Importance"] for message in mine] == ["high", None, None, None, "high"]
    assert str(mine[3]["Subject"]).startswith("✅")
    theirs = [message for to, message in box.mails if to == SECOND]
    assert theirs[1]["References"] == theirs[0]["Message-ID"] != root


NEW_MAIL = """{% extends "layout.jinja" %}
{% import "parts.jinja" as parts %}
{% set tone = "warning" %}
{% set subject = "Cambio de " ~ clinic_name %}
{% block body %}
{% call parts.facts() %}
{{ parts.fact("Clínica", clinic_name) }}
{% endcall %}
{% endblock %}
{% block footer %}Mensaje automático.{% endblock %}
"""


@pytest.mark.parametrize("urgent", [True, False])
@pytest.mark.parametrize(
    ("clinic_id", "to_approvers", "recipients"),
    [
        (1, False, [FIRST, SECOND]),
        (None, False, ["guardia@saas.example"]),
        (None, True, ["guardia@saas.example", "jefa@saas.example"]),
    ],
)
def test_a_new_mail_is_a_notice_and_one_file_of_each_language(
    office: Office, tmp_path: Path, urgent: bool, clinic_id: int | None, to_approvers: bool, recipients: list[str]
) -> None:
    office.texts = tmp_path / "email"
    shutil.copytree(setting_fields.PROJECT_EMAIL, office.texts)
    (office.texts / "es" / "change.jinja").write_text(NEW_MAIL, "utf-8")
    facts = {"clinic_name": "Sonrisas & <b>"}
    notice = Notice("change:1", "change", facts, clinic_id, urgent=urgent, to_approvers=to_approvers)
    office.outbox.queue(notice, office.now)
    with office.mailbox.running() as box:
        office.deliver()
    assert sorted(to for to, _ in box.mails) == recipients
    for _, mail in box.mails:
        assert (mail["Subject"], mail["Importance"]) == ("Cambio de Sonrisas & <b>", "high" if urgent else None)
        text, html = (part.get_content() for part in mail.iter_parts())
        assert text.splitlines() == ["Clínica:  Sonrisas & <b>", "", "--", "Mensaje automático."]
        assert "Sonrisas &amp; &lt;b&gt;" in html


def test_a_failure_that_will_be_tried_again_is_not_told(office: Office) -> None:
    with office.mailbox.running() as box:
        office.fail(retries_left=True, run_id="run-1")
        office.deliver()
        assert box.mails == []
        office.back_up(run_id="run-1")
        office.deliver()
        assert len(box.subjects(FIRST)) == 1
        # A task that was stopped for good before its retries were used up: the summary tells.
        office.fail(2, retries_left=True, run_id="run-2")
        records = office.rig.catalog.find(run_id="run-2")
        for _ in range(2):
            office.parts.outcomes.announce_failures(records)
        office.deliver()
    assert len(box.subjects("administrador1@clinica2.example.com")) == 1


def test_the_mail_is_written_with_the_outcome_or_not_at_all(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: Any) -> None:
        raise PermanentError("died")

    monkeypatch.setattr(Announcer, "completed", die)
    with pytest.raises(PermanentError):
        office.back_up()
    (record,) = office.rig.catalog.find()
    assert record.state == "running"
    assert office.outbox.unaddressed() == []


def test_a_kill_between_sending_and_recording_sends_once_more_with_the_same_id(office: Office, tmp_path: Path) -> None:
    office.back_up()
    note = tmp_path / "id"
    pid = os.fork()
    if pid == 0:
        office.rig.catalog.database.__dict__.pop("_engine", None)
        with office.mailbox.running() as box:

            def die(settle: Settle) -> None:
                note.write_text(str(box.mails[0][1]["Message-ID"]))
                os.kill(os.getpid(), signal.SIGKILL)

            Settle.sent = die  # type: ignore[method-assign]
            office.deliver()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with office.mailbox.running() as box:
        assert office.deliver().sent == 2
    ids = [message["Message-ID"] for _, message in box.mails]
    assert len(set(ids)) == 2
    assert note.read_text() in ids


def test_several_processes_at_the_outbox_send_each_mail_once(office: Office) -> None:
    for _ in range(8):
        office.back_up()
    with office.mailbox.running() as box:
        threads = [threading.Thread(target=office.deliver) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(box.mails) == 16
    assert len({message["Message-ID"] for _, message in box.mails}) == 16


def test_when_the_clinics_database_is_down_the_last_recipients_are_told(office: Office) -> None:
    with office.mailbox.running() as box:
        office.back_up()
        office.deliver()
        box.mails.clear()
        office.admins = connect_to_nothing
        office.fail()
        office.fail(2)
        office.deliver()
        assert [to for to, _ in box.mails] == [FIRST, SECOND]
        office.admins = office.parts.admins
        office.deliver()
    assert box.mails[-1][0] == "administrador1@clinica2.example.com"


def connect_to_nothing(clinics: Sequence[ClinicId]) -> Generator[tuple[ClinicId, list[Recipient]]]:
    connect(connections.parse("clinic_db", "postgres://u:p@127.0.0.1:1/x"))
    yield from ()


def test_without_a_mail_server_everything_waits(office: Office) -> None:
    office.back_up()
    done = office.parts.deliver()
    assert "smtp_default" in done.problem
    assert len(office.outbox.unaddressed()) == 1


def test_a_week_of_good_backups_is_one_mail(office: Office) -> None:
    with office.mailbox.running() as box:
        for _ in range(9):
            office.back_up(wish="weekly")
        office.deliver()
    assert len(box.subjects(FIRST)) == 2
