"""A clinic asks for its data: approval, the protected file, its download, and its end."""

from __future__ import annotations

import base64
import io
import re
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest

from clinic_backups.archive.encryption import generate_identity, seal_text
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ObjectLocked, PermanentError, SettingsError, TransientError
from clinic_backups.catalog.audit import Audit
from clinic_backups.catalog.exports import ExportRecord, Exports
from clinic_backups.export.export import Export
from clinic_backups.maintenance.retention_run import Cleaner
from clinic_backups.restore.request import parse
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.web.caller import Caller
from clinic_backups.web.export_pages import new_password
from clinic_backups.web.problems import Conflict, Denied, NotVisible
from clinic_backups.web.viewer import Viewer
from tests.integration.test_restore_runner import Theatre
from tests.integration.test_restore_tasks import RUN, WAITS, Tasks
from tests.integration.test_web_whole import downloads_of
from tests.postgres_fixtures import DemoDatabase
from tests.winzip import WrongPassword, opened

MARK = "MARCA-4711"
PASSWORD = "abcd-efgh-jkmn-pqrs-tuvw"


@pytest.fixture
def theatre(demo_database: DemoDatabase, tmp_path: Path) -> Theatre:
    theatre = Theatre(demo_database, FileStore(tmp_path / "store"))
    theatre.execute(f"UPDATE public.usuarios_paciente SET notas = '{MARK}' WHERE clinica_id = 1")
    theatre.back_up()
    return theatre


@pytest.fixture
def tasks(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return asking(theatre, monkeypatch, PASSWORD)


def asking(theatre: Theatre, patch: pytest.MonkeyPatch, password: str | None, output_format: str = "xlsx") -> Tasks:
    """A run that asks for the data. ``password``: the page has made it, and shown it to somebody."""
    made = Tasks(theatre, patch, approvers=("jefa",), user="ana")
    made.conf.clear()
    made.conf.update(clinic_id=1, mode="export", format=output_format)
    if password is not None:
        made.conf["password"] = seal_text(password, theatre.settings.recipients)
    return made


def exported(tasks: Tasks) -> ExportRecord:
    tasks.plan()
    tasks.approve()
    tasks.answer({"id": "7", "name": "jefa"})
    number = tasks.apply()["export"]
    record = Exports(tasks.theatre.catalog.database).get(number)
    assert record is not None
    return record


def stored(theatre: Theatre, record: ExportRecord) -> Path:
    return Path(theatre.store.url.removeprefix("file://")) / str(record.key)


@pytest.mark.parametrize("output_format", ["xlsx", "csv", "sqlite", "json"])
def test_with_a_password(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, output_format: str, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tasks = asking(theatre, monkeypatch, PASSWORD, output_format)
    record = exported(tasks)
    file = stored(theatre, record)
    files = opened(file, PASSWORD)
    name = f"clinica_n_o_1_1_{theatre.now:%Y%m%d}"
    top = f"{name}/" if output_format in ("csv", "json") else f"{name}.{output_format}"
    assert all(each.startswith(top) for each in files)
    whole = b"".join(files.values())
    if output_format == "xlsx":
        import zipfile

        with zipfile.ZipFile(io.BytesIO(whole)) as book:
            whole = b"".join(book.read(part) for part in book.namelist())
    assert MARK.encode() in whole
    assert MARK.encode() not in file.read_bytes()
    with pytest.raises(WrongPassword):
        opened(file, "abcd-efgh-jkmn-pqrs-tuvx")
    assert (record.requested_by, record.approved_by, record.protection) == ("ana", "jefa", "password")
    assert record.rows == theatre.catalog.require(record.backup_id).rows_total
    assert record.size_bytes == file.stat().st_size
    assert record.expires_at is not None and record.made_at is not None
    # Nothing of it is left on this machine.
    assert list(tmp_path.glob("clinic-backups-export-*")) == []
    tasks.report({"export": record.id})


def test_with_the_clinics_own_key(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, public = generate_identity()
    theatre.settings = theatre.settings.model_copy(update={"clinic_recipients": {1: (public,)}})
    record = exported(asking(theatre, monkeypatch, None, "csv"))
    sealed = stored(theatre, record).read_bytes()
    with pytest.raises(pyrage.DecryptError):  # the operator's key does not open it
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(theatre.identity)])
    plain = pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(secret)])
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        patients = next(name for name in tar.getnames() if "usuarios_paciente" in name)
        member = tar.extractfile(patients)
        assert member is not None and MARK.encode() in member.read()
    assert (record.protection, str(record.file_name).endswith(".tar.age")) == ("keys", True)


def test_what_would_be_open_to_everybody_is_not_written(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    tasks = asking(theatre, monkeypatch, None)
    with pytest.raises(AirflowFailException, match="Nothing would protect the file"):
        tasks.plan()
    _, other = generate_identity()
    tasks.conf["password"] = seal_text(PASSWORD, [other])
    with pytest.raises(AirflowFailException, match="cannot be opened"):
        tasks.plan()
    tasks.conf["password"] = seal_text("short", theatre.settings.recipients)
    with pytest.raises(AirflowFailException, match="cannot be used"):
        tasks.plan()
    assert Exports(theatre.catalog.database).of_clinic(1) == []


@pytest.mark.parametrize("conf", [
    {"mode": "export"}, {"format": "xlsx"}, {"mode": "export", "format": "doc"}, {"mode": "export", "format": 7},
    {"mode": "export", "format": "xlsx", "password": "hunter2hunter2"}, {"password": "A" * 300},
    {"mode": "export", "format": "xlsx", "password": ["A" * 300]},
    {"mode": "export", "format": "xlsx", "from_connection": "pitr_db"},
    {"mode": "export", "format": "xlsx", "schema": "look"}, {"mode": "export", "format": "xlsx", "rows": {"a.b": [1]}},
])  # fmt: skip
def test_a_conf_that_makes_no_sense_is_refused_and_repeats_no_password(conf: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({"clinic_id": 1, **conf}, every=[], requested_by="x", run_id=None, zone=UTC)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


def test_the_page_of_the_approver_says_what_it_is(theatre: Theatre, tasks: Tasks) -> None:
    tasks.plan()
    _, page = tasks.approve()
    for piece in ("`xlsx`", "needs a password", "shown to ana", "for 7 days", "patients' data", "Nothing is changed"):
        assert piece in page
    told = tasks.told()
    assert [each["mode"] for each in told] == ["export"]
    everything = str(told) + page + str(tasks.parts.approvals.of_run("manual__1"))
    assert PASSWORD not in everything


def test_nobody_approves_it_in_advance(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore may be approved in the conf where no approvers are set. Data are never handed over like that."""
    tasks = Tasks(theatre, monkeypatch, approvers=(), user="ana")
    tasks.conf.update(mode="export", format="csv", approve=True)
    tasks.conf["password"] = seal_text(PASSWORD, theatre.settings.recipients)
    tasks.plan()
    waits, _ = tasks.approve()
    assert waits == WAITS
    asked = tasks.parts.approvals.of_run(RUN)
    assert asked is not None and asked.answer is None


def test_an_approval_is_for_one_file(theatre: Theatre, tasks: Tasks) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    first = exported(tasks)
    with pytest.raises(AirflowFailException, match="has used that approval"):
        tasks.apply()
    assert [each.id for each in Exports(theatre.catalog.database).of_clinic(1)] == [first.id]


def test_keys_that_changed_after_the_approval_void_it(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    theatre.settings = theatre.settings.model_copy(update={"clinic_recipients": {1: (generate_identity()[1],)}})
    tasks = asking(theatre, monkeypatch, None)
    tasks.plan()
    tasks.approve()
    tasks.answer({"id": "7", "name": "jefa"})
    tasks.parts.settings = tasks.parts.settings.model_copy(update={"clinic_recipients": {1: (generate_identity()[1],)}})
    with pytest.raises(AirflowFailException, match="other keys than those that were approved"):
        tasks.apply()
    assert not list(theatre.store.list("exports/"))


def test_a_store_that_fails_leaves_no_file_and_no_used_approval(
    theatre: Theatre, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.plan()
    tasks.approve()
    tasks.answer({"id": "7", "name": "jefa"})

    def full(*_: Any, **__: Any) -> None:
        raise PermanentError("The store is full.")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "put", full)
        with pytest.raises(Exception, match="The store is full"):
            tasks.apply()
    assert not list(theatre.store.list("exports/"))
    assert Exports(theatre.catalog.database).of_clinic(1) == []
    assert tasks.apply()["rows"] > 0


def test_a_lost_answer_to_the_commit_is_asked_of_the_catalog(
    theatre: Theatre, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Exports.finish

    def lost(*given: Any, **known: Any) -> Any:
        finish(*given, **known)
        raise TransientError("The catalog does not answer.")

    monkeypatch.setattr(Exports, "finish", lost)
    record = exported(tasks)
    assert record.made_at is not None and opened(stored(theatre, record), PASSWORD)


class TestDownload:
    @pytest.mark.parametrize(
        ("clinics", "error"),
        [({1: "lector"}, Denied), ({2: "administrador"}, NotVisible), ({}, NotVisible)],
    )
    def test_others_do_not_get_it(
        self, theatre: Theatre, tasks: Tasks, clinics: dict[ClinicId, Any], error: type[Exception]
    ) -> None:
        record = exported(tasks)
        caller = Caller(Viewer("leo", clinics=clinics), "203.0.113.9", None)
        with pytest.raises(error):
            downloads_of(theatre).export(caller, record)

    def test_it_is_recorded_first_and_ends(self, theatre: Theatre, tasks: Tasks) -> None:
        record = exported(tasks)
        caller = Caller(Viewer("ana", clinics={1: "administrador"}), "203.0.113.9", None)
        url, content = downloads_of(theatre).export(caller, record)
        assert url is None and b"".join(content) == stored(theatre, record).read_bytes()
        found = Audit(theatre.catalog.database).page(visible=None, page=1, per_page=10).entries  # type: ignore[call-arg]
        assert [(line.actor, line.action) for line in found] == [("ana", "fetch_export")]
        assert record.expires_at is not None
        theatre.now = record.expires_at
        with pytest.raises(Conflict):
            downloads_of(theatre).export(caller, record)


class TestEnd:
    def test_retention_deletes_it_after_its_time_and_not_before(self, theatre: Theatre, tasks: Tasks) -> None:
        record = exported(tasks)
        assert record.expires_at is not None
        for now, there in ((record.expires_at - timedelta(minutes=1), True), (record.expires_at, False)):
            self.clean(theatre, now)
            assert stored(theatre, record).exists() == there
            (line,) = Exports(theatre.catalog.database).of_clinic(1)
            assert (line.deleted_at is None) == there
        assert theatre.catalog.require(record.backup_id).state == "completed"

    def test_what_no_catalog_knows_is_deleted_too_once_it_is_old(self, theatre: Theatre, tasks: Tasks) -> None:
        """As after the catalog was lost and rebuilt. A new one may just be written by a run."""
        record = exported(tasks)
        theatre.execute("DELETE FROM clinic_backups.export")
        at = theatre.store.stat(str(record.key)).last_modified
        for days, there in ((6, True), (8, False)):
            self.clean(theatre, at + timedelta(days=days))
            assert stored(theatre, record).exists() == there

    @pytest.mark.parametrize("known", [True, False], ids=["recorded", "after a rebuild"])
    def test_the_erasure_of_a_clinic_deletes_it_at_once(self, theatre: Theatre, tasks: Tasks, known: bool) -> None:
        record = exported(tasks)
        if not known:
            theatre.execute("DELETE FROM clinic_backups.export")
        erasures = tasks.parts.erasures()
        theatre.now = datetime.now(UTC)  # the catalog's own clock has dated the export
        erasures.request(1, by="jefa", reason="se fue", at=theatre.now)
        self.clean(theatre, theatre.now)
        assert not stored(theatre, record).exists()
        assert theatre.execute_rows("SELECT FROM clinic_backups.export") == []
        (done,) = erasures.find()
        assert [(each["left"], each["deleted"]) for each in done.evidence] == [(0, 3)], "archive, envelope and export"

    def test_an_erasure_stays_open_while_a_file_cannot_be_removed(
        self, theatre: Theatre, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = exported(tasks)
        erasures, purge = tasks.parts.erasures(), FileStore.purge
        erasures.request(1, by="jefa", reason="se fue", at=theatre.now)

        def locked(store: FileStore, key: str) -> None:
            if key == record.key:
                raise ObjectLocked("It is locked.")
            purge(store, key)

        with monkeypatch.context() as patch:
            patch.setattr(FileStore, "purge", locked)
            (cleaned,) = self.cleaner(theatre, theatre.now).run()
            assert cleaned.problem == "It is locked."
        assert [each.finished_at for each in erasures.find()] == [None]
        self.clean(theatre, theatre.now)
        assert not stored(theatre, record).exists()

    def test_a_file_of_a_clinic_without_backups_ends_too(self, theatre: Theatre, tasks: Tasks) -> None:
        record = exported(tasks)
        theatre.execute("DELETE FROM clinic_backups.backup")
        assert record.expires_at is not None
        list(self.cleaner(theatre, record.expires_at).run())
        assert not stored(theatre, record).exists()

    def test_an_export_and_an_erasure_never_run_at_the_same_time(
        self, theatre: Theatre, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks.plan()
        tasks.approve()
        tasks.answer({"id": "7", "name": "jefa"})
        seen, run = list[bool](), Export.run

        def erased_meanwhile(*given: Any, **known: Any) -> Any:
            done = run(*given, **known)
            tasks.parts.erasures().request(1, by="jefa", reason="se fue", at=theatre.now)
            (cleaned,) = self.cleaner(theatre, theatre.now).run(clinic_id=1)
            seen.append(cleaned.busy)
            return done

        monkeypatch.setattr(Export, "run", erased_meanwhile)
        tasks.apply()
        assert seen == [True]
        self.clean(theatre, theatre.now)
        assert theatre.objects() == []

    @staticmethod
    def cleaner(theatre: Theatre, now: datetime) -> Cleaner:
        stores = Stores.of(theatre.store)
        return Cleaner(settings=theatre.settings, catalog=theatre.catalog, stores=stores, now=lambda: now)

    def clean(self, theatre: Theatre, now: datetime) -> None:
        (cleaned,) = self.cleaner(theatre, now).run(clinic_id=1)
        assert cleaned.problem == ""


def test_a_store_check_takes_it_for_no_backup(theatre: Theatre, tasks: Tasks) -> None:
    exported(tasks)
    from clinic_backups.maintenance.store_contents import read_contents

    found = read_contents(theatre.store, now=theatre.now)
    assert (len(found.backups), found.other_objects) == (1, 0)


def test_passwords_are_long_and_no_two_are_equal() -> None:
    made = {new_password() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(re.fullmatch(r"([a-hj-km-np-z2-9]{4}-){4}[a-hj-km-np-z2-9]{4}", each) for each in made)


def test_only_the_restore_side_can_read_the_password() -> None:
    secret, public = generate_identity()
    sealed = seal_text(PASSWORD, [public])
    assert PASSWORD.encode() not in base64.b64decode(sealed)
    assert pyrage.decrypt(base64.b64decode(sealed), [pyrage.x25519.Identity.from_str(secret)]) == PASSWORD.encode()
