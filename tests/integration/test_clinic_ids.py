"""One whole life of a tenant by commands alone, for each type that the key of the tenants' table may have."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_backups.archive.envelope_checks import problem_of
from clinic_backups.backup.shares import Share
from clinic_backups.base.backup_request import BackupRequest
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, component_of
from clinic_backups.base.envelope import Envelope
from clinic_backups.catalog.comparisons import Comparisons
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.clinic_key import ClinicKey
from clinic_backups.tenant.extract import SqlExtract, SqlFolder, render
from clinic_backups.tenant.row_checks import RowChecks
from tests.integration.test_cli import Run, restore_keys, run  # noqa: F401 - a fixture
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig, compared_of
from tests.shapes import grants
from tests.unit.test_clinic_id import ODD, possible

UUIDS = "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f60", "0b6a4c1e-6d0f-4b0e-9f2a-1d2c3b4a5f61"
TEXTS = "../a/b 'o''x' \\ %2e <b>{{ 7 }}é", "12"
TABLES = ("tenant", "visit", "note", "tag", "paper")


@dataclass(frozen=True)
class Kind:
    """:param type: the key's. :param ids: of two tenants; the first one lives the life. :param line: of the key."""

    type: str
    ids: tuple[str, str]
    line: str

    @property
    def own(self) -> ClinicId:
        """The id as JSON has it."""
        return int(self.ids[0]) if self.type == "bigint" else self.ids[0]

    def sql(self, number: int) -> str:
        return "'{}'::s.tenant_key".format(self.ids[number].replace("'", "''"))


KINDS = {
    "bigint": Kind("bigint", ("9007199254740993", "-3"), "key: id bigint\n"),
    "uuid": Kind("uuid", UUIDS, "key: id uuid\n"),
    "text": Kind("text", TEXTS, "key: id text\n"),
    "varchar": Kind("varchar(60)", ("acme-dental.es", "012"), "key: id character varying(60)\n"),
}
LIVED = ("bigint", "uuid", "text")


@dataclass
class Life:
    """A database whose tenants have such keys, and the commands about it."""

    kind: Kind
    rig: Rig
    sql: Path
    run: Run
    variables: dict[str, str]

    def __call__(self, *words: str, code: int = 0) -> Any:
        done = self.run(*words, **self.variables)
        assert done.code == code, (words, done)
        return done

    def rows(self) -> dict[str, list[str]]:
        """All rows of all tenants, by SQL that the product does not use."""
        return {
            name: [row for (row,) in self.rig.execute_rows(f"SELECT t::text FROM s.{name} AS t ORDER BY 1")]
            for name in TABLES
        }


def schema(kind: Kind, *, key_type: str = "s.tenant_key") -> list[str]:
    own, other = kind.sql(0), kind.sql(1)
    return [
        f"CREATE SCHEMA s; CREATE DOMAIN s.tenant_key AS {kind.type}",
        f"CREATE TABLE s.tenant (id {key_type} PRIMARY KEY, name text NOT NULL, phone text)",
        f"CREATE TABLE s.visit (id int PRIMARY KEY, tenant_id {key_type} NOT NULL REFERENCES s.tenant, v text)",
        "CREATE INDEX ON s.visit (tenant_id)",
        "CREATE TABLE s.note (id int PRIMARY KEY, visit_id int NOT NULL REFERENCES s.visit ON DELETE CASCADE, v text)",
        "CREATE INDEX ON s.note (visit_id)",
        # No key of its own, and no constraint that leads to the tenant.
        f"CREATE TABLE s.tag (tenant_id {key_type}, v text)",
        # Rows that outlive their tenant, and then do not say whose they were.
        f"CREATE TABLE s.paper (id int PRIMARY KEY, tenant_id {key_type} REFERENCES s.tenant ON DELETE SET NULL)",
        "CREATE INDEX ON s.paper (tenant_id)",
        f"INSERT INTO s.tenant VALUES ({own}, 'Uno', '11'), ({other}, 'Dos', '22')",
        f"INSERT INTO s.visit SELECT n, CASE n % 2 WHEN 0 THEN {own} ELSE {other} END, 'v' || n"
        " FROM generate_series(1, 40) AS n",
        "INSERT INTO s.note SELECT n, n, 'n' || n FROM generate_series(1, 40) AS n",
        f"INSERT INTO s.paper VALUES (1, {own}), (2, {other}), (3, NULL)",
        f"INSERT INTO s.tag VALUES ({own}, 'a'), ({own}, 'a'), ({other}, 'a')",
    ]


def folder_of(kind: Kind, sql: Path) -> None:
    (sql / "extract").mkdir(parents=True)
    (sql / "clinic_table.txt").write_text(f"s.tenant\n{kind.line}")
    (sql / "not_backed_up.txt").write_text("public.*: of the demo, which has clinics of its own\n")
    for name in ("active_clinics.sql", "all_clinics.sql"):
        (sql / name).write_text("SELECT id, name, 'es' AS language FROM s.tenant ORDER BY id")
    (sql / "clinic_admins.sql").write_text(
        "SELECT 'a@example.org' AS email, name FROM s.tenant WHERE id = {{ clinic_id }}"
    )
    (sql / "user_clinics.sql").write_text("SELECT id AS clinic_id, 'administrador' AS role FROM s.tenant WHERE false")
    for name, condition in {
        "tenant": "t.id = {{ clinic_id }}",
        "visit": "t.tenant_id = {{ clinic_id }}",
        "note": "t.visit_id IN (SELECT id FROM s.visit WHERE tenant_id = {{ clinic_id }})",
        "tag": "t.tenant_id = {{ clinic_id }}",
        "paper": "t.tenant_id = {{ clinic_id }}",
    }.items():
        (sql / "extract" / f"s.{name}.sql").write_text(f"SELECT t.* FROM s.{name} AS t WHERE {condition}")


def life_of(kind: Kind, database: DemoDatabase, folder: Path, run: Run) -> Life:  # noqa: F811
    rig, sql = Rig(database, FileStore(folder / "store")), folder / "sql"
    folder_of(kind, sql)
    rig.execute(
        *schema(kind), *grants(database), f"GRANT CREATE ON DATABASE {database.name} TO {database.roles.restorer}"
    )
    variables = {
        **restore_keys(run, folder / "key.txt", database), "CLINIC_BACKUPS_SQL_DIR": str(sql),
        "CLINIC_BACKUPS_IDENTITY_FILE": str(folder / "key.txt"),
        "CLINIC_BACKUPS_REPLICA_STORES": json.dumps({"far": (folder / "far").as_uri()}),
    }  # fmt: skip
    return Life(kind, rig, sql, run, variables)


@pytest.mark.parametrize("kind", [KINDS[name] for name in LIVED], ids=LIVED)
def test_a_whole_life(kind: Kind, demo_database: DemoDatabase, tmp_path: Path, run: Run) -> None:  # noqa: F811
    life = life_of(kind, demo_database, tmp_path, run)
    word, own = kind.ids[0], kind.own
    life("store", "init")
    checked = life("check").out
    assert "error" not in checked and "all clinics at once" not in checked

    # A full backup of both, an incremental one of one, and what is said of them.
    life("backup", "--all", "--kind", "full")
    life.rig.execute("UPDATE s.visit SET v = 'changed' WHERE id = 2")
    before = life.rows()
    # A UUID is the same one in capitals. Where keys are texts, capitals are another key.
    life("backup", "--clinic", word.upper() if kind.type == "uuid" else word)
    new, full = life("list", "--clinic", word, "--json").json()
    assert [(each["clinic_id"], each["kind"]) for each in (new, full)] == [(own, "incremental"), (own, "full")]
    assert all(each["archive_key"].startswith(f"backups/{component_of(own)}/") for each in (new, full))
    assert {each["clinic_id"] for each in life("list", "--json").json()} == {own, kind_id(kind, 1), "~shared"}
    assert life("show", new["backup_id"], "--json").json()["rows"] == {
        "s.tenant": 1, "s.visit": 20, "s.note": 20, "s.tag": 2, "s.paper": 1,
    }  # fmt: skip
    far = tmp_path / "far" / "backups"
    shutil.rmtree(far / component_of(own))
    life("catalog", "verify", "--clinic", word, "--record", code=1)
    life("replicate", "--clinic", word)
    life("verify", new["backup_id"])
    assert len(list((far / component_of(own)).rglob("*.age"))) == 2

    # Damage, a restore with its plan, and its undo.
    life.rig.execute(
        f"DELETE FROM s.visit WHERE tenant_id = {kind.sql(0)} AND id > 10",
        f"UPDATE s.tenant SET phone = NULL WHERE id = {kind.sql(0)}",
        f"DELETE FROM s.tag WHERE tenant_id = {kind.sql(0)}",
    )
    damaged = life.rows()
    asked = word.upper() if kind.type == "uuid" else word
    plan = life("restore", "--clinic", asked, "--plan", "--json").json()
    assert (plan["clinic_id"], plan["refusals"]) == (own, [])
    done = life("restore", "--clinic", word, "--yes", "--json").json()
    assert (done["clinic_id"], done["state"]) == (own, "completed")
    assert life.rows() == before
    life("restore", "--clinic", word, "--backup", done["safety_backup_id"], "--yes")
    assert life.rows() == damaged

    # The whole tenant is gone: its backup brings it back, and others are as they were.
    life.rig.execute(
        f"DELETE FROM s.visit WHERE tenant_id = {kind.sql(0)}", f"DELETE FROM s.tag WHERE tenant_id = {kind.sql(0)}",
        f"DELETE FROM s.tenant WHERE id = {kind.sql(0)}",
    )  # fmt: skip
    life("restore", "--clinic", word, "--backup", new["backup_id"], "--yes")
    assert life.rows() == before
    life("restore-into", "--clinic", word, "--schema", "copia", "--backup", full["backup_id"])
    copied = "SELECT count(*) FROM copia.visit"
    assert life.rig.execute_rows(copied) == [(20,)]
    life.rig.execute("DROP SCHEMA copia CASCADE")

    # The catalog is lost and comes back from the store. The preflight and the store agree with it.
    held = life("hold", new["backup_id"], "--reason", "court")
    assert held.code == 0
    known = {each["backup_id"]: each["clinic_id"] for each in life("list", "--json").json()}
    life.rig.execute("DELETE FROM clinic_backups.backup_replica", "TRUNCATE clinic_backups.backup CASCADE")
    life("catalog", "rebuild")
    assert {each["backup_id"]: each["clinic_id"] for each in life("list", "--json").json()} == known
    life("catalog", "verify", "--clinic", word, "--read")
    life("backup", "--clinic", word)
    life("retention", "--clinic", word)
    life("release", new["backup_id"])

    # It leaves: nothing of it stays in the store, and everything of the others does.
    life.rig.execute(
        f"DELETE FROM s.visit WHERE tenant_id = {kind.sql(0)}", f"DELETE FROM s.tag WHERE tenant_id = {kind.sql(0)}",
        f"DELETE FROM s.tenant WHERE id = {kind.sql(0)}",
    )  # fmt: skip
    others = [key for key in life.rig.objects() if not key.startswith(f"backups/{component_of(own)}/")]
    life("erase-clinic", word, "--reason", "contract 12", "--yes")
    assert life.rig.objects() == others != []
    assert {folder.name for folder in far.iterdir() if any(folder.rglob("*.*"))} == {
        component_of(kind_id(kind, 1)), "~shared",
    }  # fmt: skip
    (erased,) = life("erasures", "--json").json()
    assert (erased["clinic_id"], erased["remaining"]) == (own, 0)


def plain(text: str) -> str:
    """What a frame says, without the frame."""
    return " ".join(text.replace("│", " ").split())


def kind_id(kind: Kind, number: int) -> ClinicId:
    text = kind.ids[number]
    return int(text) if text.lstrip("-").isdigit() and str(int(text)) == text else text


WRONG = {
    "no line, a UUID": ("", "uuid", UUIDS, "has the type uuid", "key: id uuid"),
    "no line, a text": ("", "text", TEXTS, "has the type text", "key: id text"),
    "a UUID, declared a text": ("key: id text\n", "uuid", UUIDS, "says that it is text", "key: id uuid"),
    "a text, declared a UUID": ("key: id uuid\n", "text", UUIDS, "says that it is uuid", "key: id text"),
    "a number, declared a text": ("key: id text\n", "bigint", ("7", "8"), "says that it is text", "key: id bigint"),
    "a UUID, declared a number": ("key: id int\n", "uuid", UUIDS, "says that it is integer", "key: id uuid"),
    "another column": ("key: ident uuid\n", "uuid", UUIDS, "has no such column", "Correct the key"),
    "a date": ("key: id text\n", "date", ("2026-01-01", "2026-01-02"), "has the type date", "Name a unique column"),
}


@pytest.mark.parametrize(("line", "type_", "ids", "says", "remedy"), list(WRONG.values()), ids=list(WRONG))
def test_the_type_that_the_folder_says_is_compared_before_anything_is_read(
    line: str, type_: str, ids: tuple[str, str], says: str, remedy: str, demo_database: DemoDatabase, tmp_path: Path,
    run: Run,  # noqa: F811
) -> None:  # fmt: skip
    life = life_of(Kind(type_, ids, line), demo_database, tmp_path, run)
    life("store", "init")
    found = life("check", code=1)
    assert says in found.out and remedy in found.out
    refused = life.run("backup", "--all", **life.variables)
    assert refused.code in (1, 2) and any(
        words in refused.err for words in (says, "cannot be a key", "each id is a number or a text")
    )
    assert life.rig.objects() == []


def test_an_unknown_id_names_the_nearest_ones(demo_database: DemoDatabase, tmp_path: Path, run: Run) -> None:  # noqa: F811
    life = life_of(KINDS["varchar"], demo_database, tmp_path, run)
    life("store", "init")
    life("backup", "--all")
    for words in (("backup", "--clinic", "acme-dentl.es"), ("restore", "--clinic", "acme-dentl.es", "--plan")):
        told = life(*words, code=2 if words[0] == "backup" else 1).err
        assert "nearest ids" in told and "acme-dental.es" in told
    for forged in ("", "7 ", "a\nb", "x" * 400, "\x1b[31m"):
        assert "is not the id of a clinic" in plain(life("backup", "--clinic", forged, code=2).err)
    assert life("list", "--clinic", "12", "--json").json() == []


def test_keys_that_cannot_be_ids_keep_no_other_tenant_from_its_backup(
    demo_database: DemoDatabase, tmp_path: Path, run: Run  # noqa: F811
) -> None:  # fmt: skip
    life = life_of(KINDS["varchar"], demo_database, tmp_path, run)
    life("store", "init")
    life.rig.execute(
        "INSERT INTO s.tenant VALUES ('acme ', 'Tres'), ('', 'Cuatro'), (E'a\\u202eb', 'Cinco')",
        "INSERT INTO s.visit SELECT n, 'acme ', 'v' FROM generate_series(51, 55) AS n",
    )
    queries = {life.sql / file: (life.sql / file).read_text() for file in ("active_clinics.sql", "all_clinics.sql")}
    for path, query in queries.items():
        path.write_text(f"SELECT * FROM (\n{query.strip().rstrip(';')}\n) AS q UNION ALL SELECT NULL, 'Seis', 'es'")
    wrong = {
        "NULL": "it is NULL", "'acme '": "it begins or ends with a space", "''": "it is empty",
        "'a\\u202eb'": "it has a character that cannot be shown",
    }  # fmt: skip
    errors = [each for each in life("check", "--json", code=1).json() if each["level"] == "error"]
    assert {each["check"] for each in errors} == {"clinics"}
    said = plain(life("backup", "--all", code=1).err)
    for key, reason in wrong.items():
        sentence = f"The key {key} of a clinic cannot be an id: {reason}. It has no backup of its own."
        assert [each["message"] for each in errors].count(sentence) == 1 and sentence in said
    assert "Give this row of the clinics' table another key" in said
    assert {each["clinic_id"] for each in life("list", "--json").json()} == {*life.kind.ids, "~shared"}
    # Rows of a clinic without a backup are not lost: they are with the shared data.
    tables = {each["table"]: each for each in life("check", "--rows", "--json", code=1).json()["rows"]}
    assert [tables["s.visit"][name] for name in ("rows", "in_backups", "in_shared", "in_none")] == [45, 40, 5, 0]
    life("backup", "--clinic", life.kind.ids[0])
    life.rig.execute(
        "DELETE FROM s.visit WHERE id > 50", "DELETE FROM s.tenant WHERE name IN ('Tres', 'Cuatro', 'Cinco')"
    )  # fmt: skip
    for path, query in queries.items():
        path.write_text(query)
    life("backup", "--all")


def test_an_archive_in_another_tenants_folder_is_of_nobody(
    demo_database: DemoDatabase, tmp_path: Path, run: Run  # noqa: F811
) -> None:  # fmt: skip
    """Whoever may write into the bucket makes folders of any name."""
    life = life_of(KINDS["text"], demo_database, tmp_path, run)
    life("store", "init")
    life("backup", "--all")
    own = component_of(life.kind.own)
    root = tmp_path / "store" / "backups"
    for forged in ("%2E%2E", "%2e%2e%2fa", "..%2F", "0012", "1e3", "%31%32", "%00", "x" * 250, "+12", "%EF%BC%91"):
        shutil.copytree(root / own, root / forged)
    known = {each["backup_id"]: each["clinic_id"] for each in life("list", "--json").json()}
    life.rig.execute("DELETE FROM clinic_backups.backup_replica", "TRUNCATE clinic_backups.backup CASCADE")
    life.run("catalog", "rebuild", **life.variables)
    assert {each["backup_id"]: each["clinic_id"] for each in life("list", "--json").json()} == known


FORGED_IDS: list[Any] = [
    "7",
    7.0,
    True,
    None,
    "",
    " x",
    "x\n",
    "../x",
    "y" * 300,
    2**63,
    ["acme-dental.es"],
    "ACME-dental.es",
]


def test_an_envelope_names_the_clinic_of_its_folder_in_one_form(
    demo_database: DemoDatabase, tmp_path: Path, run: Run  # noqa: F811
) -> None:  # fmt: skip
    life = life_of(KINDS["varchar"], demo_database, tmp_path, run)
    life("store", "init")
    life("backup", "--clinic", life.kind.ids[0])
    (path,) = (tmp_path / "store" / "backups" / "acme-dental.es").rglob("*.json")
    data, now = json.loads(path.read_bytes()), datetime.now(UTC)
    assert problem_of(Envelope.from_json(data), "acme-dental.es", now) == ""
    for forged in FORGED_IDS:
        with suppress(ValueError):
            assert problem_of(Envelope.from_json(data | {"clinic_id": forged}), "acme-dental.es", now), forged
    for forged in ("acme-dental.es", "7-20261126T020003Z", "acme%2Ddental.es-20261126T020003Z"):
        assert problem_of(Envelope.from_json(data | {"backup_id": forged}), "acme-dental.es", now), forged


@pytest.mark.parametrize("kind", [KINDS["uuid"], KINDS["text"]], ids=["uuid", "text"])
def test_a_run_of_airflow_knows_what_its_preflight_compared(
    kind: Kind, demo_database: DemoDatabase, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """The rendered field of the task, the share of its clinics as XCom, and the comparison of the run."""
    life, own = life_of(kind, demo_database, tmp_path, run), kind.own
    life.rig.settings = life.rig.settings.model_copy(update={"sql_dir": life.sql})
    compared = compared_of(life.rig, own, kind_id(kind, 1))  # type: ignore[arg-type]
    comparisons = Comparisons(life.rig.catalog.database)
    comparisons.note("r", compared)
    found = comparisons.of_run("r", [own, "another"])
    assert found is not None and (found.clinics, found.folder) == ({own}, compared.folder)
    share = Share.from_item(json.loads(json.dumps(Share((Clinic(own, "Uno"),)).to_item())))
    monkeypatch.setenv("CLINIC_BACKUPS_SQL_DIR", str(life.sql))
    rendered = SqlExtract()(context={"task": SimpleNamespace(clinic=share.to_item())}, jinja_env=None)
    literal = SqlFolder(life.sql).clinic_key.literal(own)
    assert f"t.tenant_id = {literal}" in rendered
    monkeypatch.setattr(RowChecks, "problems", lambda *_, **__: pytest.fail("rows were compared again"))
    request = BackupRequest(share.clinics[0], requested_by="prueba", kind="full", compared=found)
    record = life.rig.backup().run(request, queries=rendered.of(own))
    assert (record.clinic_id, record.state, record.gaps) == (own, "completed", ())


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_postgresql_reads_each_text_as_it_is(demo_database: DemoDatabase, conforming: str) -> None:
    """Whatever the id, the statement has one value more, and no other meaning."""
    template = "SELECT {{ clinic_id }} /* {{ clinic_id }} */, 1 -- {{ clinic_id }}\n, {{ clinic_id }} = {{clinic_id}}"
    key = ClinicKey("id", "text")
    with demo_database.session.transaction() as cursor:
        cursor.execute(f"SET LOCAL standard_conforming_strings = {conforming}")

        @settings(max_examples=300, deadline=None, derandomize=True)
        @given(text=st.one_of(ODD, st.text(max_size=40)))
        def is_read(text: str) -> None:
            id_ = possible(text)
            if id_ is not None:
                cursor.execute(render(template, id_, name="t", key=key))
                assert cursor.fetchall() == [(text, 1, True)]

        is_read()
