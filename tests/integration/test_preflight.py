"""The preflight finds everything that is wrong in one run, with the remedy, and reports nothing else."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinic_backups.archive.encryption import generate_identity
from clinic_backups.backup import database_checks, preflight
from clinic_backups.backup.row_report import RowReport
from clinic_backups.base import connections
from clinic_backups.base.clock import machine_now
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.findings import Finding, require
from clinic_backups.base.project import PROJECT_EMAIL, PROJECT_SQL
from clinic_backups.base.settings import Settings
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.connect import open_store
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase

SECRET, PUBLIC = generate_identity()


class Preflight:
    """One preflight that passes, to be spoiled by a test: its database, its folder of SQL, its settings, its store."""

    def __init__(self, database: DemoDatabase, folder: Path) -> None:
        self.database = database
        self.sql = folder / "sql"
        shutil.copytree(PROJECT_SQL, self.sql)
        self.settings: dict[str, Any] = {
            "store_url": (folder / "store").as_uri(),
            "recipients": (PUBLIC,),
            "sql_dir": self.sql,
            "lock_timeout_seconds": 1,
        }
        self.clinic_db = database.reader_uri
        self.store: Callable[[], ObjectStore] = lambda: open_store(self.settings["store_url"], None)
        self.store().make_place()
        self.catalog: Callable[[], object] = lambda: None

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """As the superuser, each statement on its own. Returns the rows of the last one."""
        with closing(self.database.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def write(self, name: str, text: str) -> None:
        (self.sql / name).write_text(text, encoding="utf-8")

    def run(self, *, count_rows: bool = False, rows: RowReport | None = None) -> list[Finding]:
        return preflight.run(
            settings=Settings(**self.settings),
            clinic_db=lambda: connections.parse("clinic_db", self.clinic_db),
            stores=lambda: Stores.of(self.store()),
            now=machine_now,
            catalog_version=self.catalog,
            count_rows=count_rows,
            rows=rows,
        )

    def found(self, level: str, check: str, *, count_rows: bool = False) -> list[str]:
        """The messages of one check's errors or warnings; each has a remedy."""
        findings = [item for item in self.run(count_rows=count_rows) if (item.level, item.check) == (level, check)]
        assert all(finding.hint for finding in findings)
        return [finding.message for finding in findings]


@pytest.fixture
def demo(demo_database: DemoDatabase, tmp_path: Path) -> Preflight:
    return Preflight(demo_database, tmp_path)


def test_the_demo_passes_and_its_rows_of_no_clinic_are_counted(demo: Preflight) -> None:
    nobody = "(SELECT id FROM public.usuarios_usuario WHERE clinica_id IS NULL)"
    expected = {
        table: demo.execute(f"SELECT count(*) FILTER (WHERE {column} IN {nobody}), count(*) FROM {table}")[0]
        for table, column in {
            "public.auditoria_bitacora": "usuario_id",
            "public.usuarios_usuario": "id",
            "public.usuarios_usuario_groups": "usuario_id",
        }.items()
    }
    assert all(count for count, _ in expected.values())

    findings = demo.run(count_rows=True)

    require(findings)
    assert [finding.check for finding in findings if finding.level == "ok"] == [
        "settings", "store", "catalog", "owners", "extracts", "coverage", "shared", "shared", "indexes", *["rows"] * 4,
    ]  # fmt: skip
    nobodys = sum(count for count, _ in expected.values())
    *nobody_s, compared = [finding.message for finding in findings if (finding.check, finding.level) == ("rows", "ok")]
    assert re.fullmatch(
        r"\d+ tables were compared with the backups of all clinics, \d+ by their primary keys: [\d,]+ rows are in one"
        rf" backup each, {nobodys:,} belong to no clinic\.",
        compared,
    )
    assert nobody_s == [
        f"{table}: {count} of {total} rows belong to no clinic. The backup of the shared data holds them."
        for table, (count, total) in expected.items()
    ]
    assert [finding for finding in findings if finding.level == "warning"] == []
    demo.settings["shared"] = False
    assert [(each.check, each.message) for each in demo.run(count_rows=True) if each.level == "warning"] == [
        (
            "shared",
            "The shared data are not backed up: what belongs to no clinic, the positions of sequences and the"
            " definition of the database.",
        ),
        *(
            ("rows", f"{table}: {count} of {total} rows belong to no clinic and are in no backup.")
            for table, (count, total) in expected.items()
        ),
    ]
    assert demo.settings["store_url"] in findings[1].message
    assert list(demo.store().list()) == []
    assert findings[0].to_json() == {
        "check": "settings", "level": "ok", "message": "Backups are encrypted to 1 public key.", "hint": "",
    }  # fmt: skip


def test_a_table_that_nobody_thought_of_fails_by_name_until_it_is_accounted_for(demo: Preflight) -> None:
    demo.execute(
        # A cycle of foreign keys, in a schema that the backup's role may not even use.
        "CREATE SCHEMA laboratorio",
        'CREATE TABLE laboratorio."Pedido" (id int PRIMARY KEY, otro_id int REFERENCES laboratorio."Pedido",'
        " paciente_id bigint REFERENCES public.usuarios_paciente)",
        'ALTER TABLE public.usuarios_paciente ADD pedido_id int REFERENCES laboratorio."Pedido"',
        # A table below one that is left out is not left out with it.
        "CREATE TABLE public.respuesta (id int PRIMARY KEY, recordatorio_id bigint NOT NULL"
        " REFERENCES public.citas_recordatorio)",
        # Shared by all clinics: it does not lead to one, a clinic leads to it.
        "CREATE TABLE public.pais (id int PRIMARY KEY)",
        "ALTER TABLE public.comun_clinica ADD pais_id int REFERENCES public.pais",
    )
    assert demo.found("error", "coverage") == [
        "laboratorio.Pedido leads to the clinic (laboratorio.Pedido -> public.usuarios_paciente ->"
        " public.comun_clinica) and would be in no backup.",
        "public.respuesta leads to the clinic (public.respuesta -> public.citas_recordatorio -> public.citas_consulta"
        " -> public.profesionales_odontologo -> public.comun_clinica) and would be in no backup.",
    ]
    findings = demo.run()
    with pytest.raises(PermanentError, match="The preflight found 2 errors") as caught:
        require(findings)
    assert f"{demo.sql / 'extract' / 'laboratorio.Pedido'}.sql" in str(caught.value)
    assert f"{demo.sql / 'extract' / 'respuesta'}.sql" in str(caught.value)

    demo.execute("GRANT SELECT ON public.respuesta TO PUBLIC")
    demo.write("extract/respuesta.sql", "SELECT * FROM public.respuesta WHERE id = {{ clinic_id }}")
    demo.write("not_backed_up.txt", "laboratorio.Pedido: it can be asked for again\npublic.citas_recordatorio: queue\n")
    assert demo.found("error", "coverage") == [
        "public.django_admin_log leads to the clinic (public.django_admin_log -> public.usuarios_usuario ->"
        " public.comun_clinica) and would be in no backup."
    ]
    with (demo.sql / "not_backed_up.txt").open("a") as file:
        file.write("public.django_admin_log: log\npublic.respuesta: both\npublic.gone: dropped long ago\n")
    assert demo.found("error", "coverage") == []
    assert demo.found("warning", "coverage") == [
        "not_backed_up.txt names public.respuesta, but has an extract, and is backed up.",
        "not_backed_up.txt names public.gone, but there is no such table.",
    ]

    demo.write("clinic_table.txt", "public.comun_clinic")
    assert demo.found("error", "coverage") == ["clinic_table.txt names public.comun_clinic, which does not exist."]


def test_all_broken_queries_are_named_in_one_run(demo: Preflight) -> None:
    demo.write("active_clinics.sql", "SELECT id + 1000, nombre, idioma FROM public.comun_clinica WHERE id = 3")
    demo.write("clinic_admins.sql", "SELECT username, first_name AS name FROM public.usuarios_usuario")
    demo.write("extract/citas_consulta.sql", "SELECT c.* FROM public.citas_consulta c WHERE c.clinic = {{ clinic_id }}")
    demo.write("extract/citas_horario.sql", "SELECT * FROM public.citas_horario WHERE odontologo_id = {{ clinica }}")
    demo.write("extract/comun_clinica.sql", "SELECT id, nombre FROM public.comun_clinica WHERE id = {{ clinic_id }}")
    demo.write("extract/nada.sql", "SELECT * FROM public.nada WHERE id = {{ clinic_id }}")
    demo.execute(f"REVOKE SELECT ON public.inventario_inventario FROM {demo.database.roles.reader}")

    errors = demo.found("error", "extracts")

    for message, part in zip(
        errors,
        [
            "active_clinics.sql returns clinics that all_clinics.sql lacks: 1003",
            "trying clinic_admins.sql, which must return the columns email and name: column r.email does not exist",
            "the extract of public.citas_consulta: column c.clinic does not exist",
            "extract/public.citas_horario cannot be rendered: 'clinica' is undefined",
            "The extract of public.comun_clinica does not return the column direccion, which the table has.",
            "may not read public.inventario_inventario",
            "No such table: public.nada",
        ],
        strict=True,
    ):
        assert part in message
    # The other checks went on in the same transaction.
    assert {finding.check for finding in demo.run() if finding.level == "ok"} >= {"coverage", "indexes"}


def test_a_missing_index_is_a_warning_with_the_statement_that_makes_it(demo: Preflight) -> None:
    demo.execute(
        "DROP INDEX public.citas_consulta_paciente_id_f0baf1d2",
        'CREATE TABLE public."Nota ""libre""" (id int PRIMARY KEY, "Paciente" bigint REFERENCES'
        " public.usuarios_paciente, pais int REFERENCES public.auth_group) PARTITION BY RANGE (id)",
        'GRANT SELECT ON public."Nota ""libre""" TO PUBLIC',
    )
    demo.write('extract/Nota "libre".sql', 'SELECT * FROM public."Nota ""libre""" WHERE "Paciente" = {{ clinic_id }}')
    missing = {
        finding.message: finding.hint
        for finding in demo.run()
        if (finding.level, finding.check) == ("warning", "indexes")
    }
    assert missing == {
        'public.Nota "libre" has no index on its foreign key (Paciente) to public.usuarios_paciente.': (
            'CREATE INDEX ON "public"."Nota ""libre""" ("Paciente");'
        ),
        "public.citas_consulta has no index on its foreign key (paciente_id) to public.usuarios_paciente.": (
            'CREATE INDEX CONCURRENTLY ON "public"."citas_consulta" ("paciente_id");'
        ),
    }
    require(demo.run())

    demo.execute(*missing.values())
    assert demo.found("warning", "indexes") == []


def test_rows_in_several_backups_or_twice_in_one_are_counted(demo: Preflight, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.settings["shared"] = False
    ((patients, hours),) = demo.execute(
        "SELECT (SELECT count(*) FROM public.usuarios_paciente), (SELECT count(*) FROM public.citas_horario)"
    )
    demo.execute(
        # No primary key, equal rows and a NULL.
        "CREATE TABLE public.aviso (clinica_id bigint REFERENCES public.comun_clinica, texto json)",
        "INSERT INTO public.aviso VALUES (1, '{}'), (1, '{}'), (2, NULL), (NULL, '{}')",
        "CREATE INDEX ON public.aviso (clinica_id)",
        "GRANT SELECT ON public.aviso TO PUBLIC",
    )
    demo.write("all_clinics.sql", (demo.sql / "all_clinics.sql").read_text().rstrip() + ";\n")
    demo.write("extract/aviso.sql", "SELECT * FROM public.aviso WHERE clinica_id = {{ clinic_id }} -- all")
    demo.write("extract/usuarios_paciente.sql", "SELECT * FROM public.usuarios_paciente")
    demo.write(
        "extract/citas_horario.sql",
        "SELECT h.* FROM public.citas_horario h JOIN public.profesionales_odontologo o ON o.id = h.odontologo_id"
        " CROSS JOIN generate_series(1, 2) WHERE o.clinica_id = {{ clinic_id }}",
    )
    # What works for one clinic only cannot be counted, and fails nothing.
    demo.write(
        "extract/inventario_inventario.sql",
        "SELECT * FROM public.inventario_inventario WHERE clinica_id = '{{ clinic_id }}'",
    )
    # Too slow to be counted.
    monkeypatch.setattr(database_checks, "COUNT_TIMEOUT_SECONDS", 1)
    demo.write(
        "extract/comun_clinica.sql",
        "SELECT c.* FROM public.comun_clinica c, pg_sleep(1.5) WHERE c.id = {{ clinic_id }}",
    )

    findings = [item for item in demo.run(count_rows=True) if item.check == "rows" and item.level != "ok"]

    too_many = "the backups of all clinics would hold {} rows too many"
    not_compared = "not compared with the rows that they refer to"
    for message, parts in zip(
        sorted(item.message for item in findings if not_compared not in item.message),
        [
            ("public.comun_clinica", "not counted within 1 s"),
            ("extract/public.inventario_inventario cannot be compared for all clinics at once",),
            ("public.auditoria_bitacora", "belong to no clinic"),
            ("public.aviso", "1 of 4 rows belong to no clinic"),
            ("public.citas_horario", f"{hours} rows are twice in one backup."),
            ("public.citas_horario", too_many.format(hours)),
            ("public.usuarios_paciente", too_many.format(5 * patients)),
            ("public.usuarios_usuario:", "belong to no clinic"),
            ("public.usuarios_usuario_groups", "belong to no clinic"),
        ],
        strict=True,
    ):
        assert all(part in message for part in parts), message
    # What leads to the clinics' slow extract cannot be compared with it in time, and that is said.
    assert {"public.aviso", "public.usuarios_paciente", "public.usuarios_usuario"} <= {
        item.message.split()[3] for item in findings if not_compared in item.message
    }
    assert {item.message.split(":")[0] for item in findings if item.level == "error"} == {
        "public.citas_horario", "public.usuarios_paciente",
    }  # fmt: skip
    with pytest.raises(PermanentError, match="rows too many"):
        require(demo.run(count_rows=True))


def test_settings_store_catalog_and_database_are_all_reported_in_one_run(demo: Preflight, tmp_path: Path) -> None:
    def unreachable() -> None:
        raise PermanentError("The catalog is at version none.", hint="Run `clinic-backups catalog migrate`.")

    demo.catalog = unreachable
    demo.settings |= {"recipients": (), "clinic_recipients": {3: (PUBLIC,), 7: (SECRET,)}}
    (tmp_path / "file").touch()
    demo.settings["store_url"] = (tmp_path / "file" / "store").as_uri()
    demo.clinic_db = demo.clinic_db.replace(demo.database.name, "no_such_database")

    findings = demo.run(count_rows=True)

    errors = [(finding.check, finding.message) for finding in findings if finding.level == "error"]
    assert len(findings) == len(errors)
    assert [check for check, _ in errors] == ["settings", "settings", "store", "catalog", "database"]
    with pytest.raises(PermanentError) as caught:
        require(findings)
    text = str(caught.value)
    assert all(message in text for _, message in errors)
    assert text.count("HINT: ") == 6
    assert SECRET not in text
    assert "No recipient" in text and "clinic 7: A recipient is a SECRET key" in text
    assert 'database "no_such_database" does not exist' in text

    demo.settings["store_url"] = "ftp://user:secreto@host/path"
    (error,) = demo.found("error", "store")
    assert "ftp://host/path" in error and "secreto" not in error
    demo.settings["store_url"] = ""
    assert "No store is configured." in demo.found("error", "settings")


def test_what_may_pass_by_itself_is_retried_unless_something_else_is_wrong(demo: Preflight) -> None:
    with closing(demo.database.connect()) as db, db.cursor() as cursor:
        cursor.execute("LOCK TABLE public.inventario_inventario IN ACCESS EXCLUSIVE MODE")
        findings = demo.run()
    with pytest.raises(TransientError, match=r"1 error\.\n\[extracts\] .*inventario"):
        require(findings)

    demo.write("extract/citas_horario.sql", "SELECT 1 FROM public.nada")
    with pytest.raises(PermanentError, match=r"2 errors(?s:.*)inventario(?s:.*)nada"):
        require(findings + [finding for finding in demo.run() if finding.level == "error"])

    demo.clinic_db = "postgresql://reader:x@127.0.0.1:1/nothing"
    with pytest.raises(TransientError, match="1 error"):
        require(demo.run(count_rows=True))


def test_a_store_that_cannot_give_back_what_it_took_is_left_empty(demo: Preflight, tmp_path: Path) -> None:
    class WriteOnly(FileStore):
        def open(self, key: str) -> Any:
            raise PermanentError(f"Access denied to {key}.", hint="Allow reading.")

    class Altered(FileStore):
        def open(self, key: str) -> Any:
            return closing(io.BytesIO(b"something else"))

    for kind, text in ((WriteOnly, "Access denied to preflight/"), (Altered, "returned other bytes")):
        store = kind(tmp_path / "other")
        store.make_place()
        demo.store = lambda store=store: store  # type: ignore[misc]
        (error,) = demo.found("error", "store")
        assert text in error
        assert list(store.list()) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT u.clinica AS clinic_id, 'x' AS role FROM public.usuarios_usuario AS u",
        "SELECT clinica_id FROM public.usuarios_usuario",
        "SELECT clinica_id, 'x', 1, 2 FROM public.usuarios_usuario",
        "SELECT clinica_id, 'x', email FROM public.usuarios_usuario",
        "SELECT email, name FROM airflow_user",
        "SELECT 1, 'x' FROM public.nosuch -- a table that is not there",
    ],
)
def test_the_query_for_the_clinics_people_is_tried(query: str, demo: Preflight) -> None:
    demo.write("user_clinics.sql", query)
    (message,) = demo.found("error", "extracts")
    assert "user_clinics.sql" in message


def test_a_query_for_the_clinics_people_may_end_as_it_likes(demo: Preflight) -> None:
    text = (demo.sql / "user_clinics.sql").read_text(encoding="utf-8")
    for end in (";", " -- 100 %", ";\n-- end\n", " AND 'x%' LIKE 'x%%'"):
        demo.write("user_clinics.sql", text + end)
        assert demo.found("error", "extracts") == []
    demo.write("user_clinics.sql", "SELECT clinica_id, tipo FROM public.usuarios_usuario WHERE false")
    assert demo.found("error", "extracts") == []


def test_clinics_that_settings_name_exist(demo: Preflight) -> None:
    demo.settings["clinic_retention"] = {"1": {"keep_days": 9}, "777": {"keep_days": 9}}
    demo.settings["clinic_notify_success"] = {"778": "never"}
    assert demo.found("warning", "settings") == [
        "CLINIC_BACKUPS_CLINIC_RETENTION names clinics that do not exist: 777.",
        "CLINIC_BACKUPS_CLINIC_NOTIFY_SUCCESS names clinics that do not exist: 778.",
    ]


def test_the_mails_texts_are_read(demo: Preflight, tmp_path: Path) -> None:
    shutil.copytree(PROJECT_EMAIL, tmp_path / "email")
    demo.settings["email_dir"] = tmp_path / "email"
    assert demo.found("error", "settings") == []
    (tmp_path / "email" / "es" / "failure.jinja").write_text("{{ si", encoding="utf-8")
    (message,) = demo.found("error", "settings")
    assert "failure.jinja, line 1" in message
    shutil.rmtree(tmp_path / "email")
    (message,) = demo.found("error", "settings")
    assert "no folder 'es'" in message


def test_the_secret_key_at_hand_belongs_to_the_recipients(demo: Preflight, tmp_path: Path) -> None:
    identity, public = generate_identity()
    file = tmp_path / "identity"
    file.touch(mode=0o600)
    file.write_text(identity)
    demo.settings["identity_file"] = file
    (message,) = demo.found("error", "settings")
    assert "belongs to none of the keys in CLINIC_BACKUPS_RECIPIENTS" in message
    demo.settings["recipients"] = (*demo.settings["recipients"], public)
    assert demo.found("error", "settings") == []
    demo.settings["operator_language"] = "fr"
    (message,) = demo.found("warning", "settings")
    assert "OPERATOR_LANGUAGE is fr" in message


def test_the_report_of_rows_adds_up_and_names_one_key_of_each_violation(demo: Preflight) -> None:
    ((one,), (other,)) = demo.execute(
        "SELECT id FROM public.usuarios_paciente WHERE clinica_id = 1 ORDER BY id LIMIT 2"
    )
    demo.write(
        "extract/usuarios_paciente.sql",
        # One patient of clinic 1 is in clinic 2's backup, and another one in none.
        f"SELECT p.* FROM public.usuarios_paciente AS p WHERE p.id <> {other} AND"
        f" CASE WHEN p.id = {one} THEN 2 ELSE p.clinica_id END = {{{{ clinic_id }}}}",
    )
    report = RowReport(60)
    demo.run(count_rows=True, rows=report)
    assert set(report.tables) == {
        name
        for (name,) in demo.execute("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = 'public'")
    }
    for name, table in report.tables.items():
        ((rows,),) = demo.execute(f"SELECT count(*) FROM {name}")
        assert (table.rows, table.is_sum) == (rows, True) or name == "public.django_session"
    of_patients_now = report.tables["public.usuarios_paciente"]
    assert (of_patients_now.in_none, of_patients_now.in_shared) == (0, 1)
    assert report.tables["public.auth_group"].table_class == "shared"
    of_patients = [each for each in report.violations if each.problem.table == "public.usuarios_paciente"]
    by_text = {each.problem.reason.split(" ", 2)[2]: each for each in of_patients}
    assert {text[:34]: each.example for text, each in by_text.items()} == {
        "row of a backup belongs to another": (str(one),), "row is in no backup, but the colum": (str(other),),
    }  # fmt: skip
    for each in report.violations:
        listed = demo.execute(each.statement)
        assert each.problem.reason.startswith(f"{each.problem.table}: {len(listed)} row")
        assert each.example in {tuple(map(str, row)) for row in listed}


def test_a_table_whose_extract_does_not_run_keeps_its_class_in_the_report(demo: Preflight) -> None:
    demo.write("extract/usuarios_paciente.sql", "SELECT nothing FROM public.usuarios_paciente")
    report = RowReport(60)
    demo.run(count_rows=True, rows=report)
    patients = report.tables["public.usuarios_paciente"]
    assert (patients.table_class, patients.in_backups, patients.is_sum) == ("tenant", None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("public.usuarios_paciente.apellidos: Apellidos", []),
        (
            "public.usuarios_paciente.apodo: Apodo",
            ["search.txt names public.usuarios_paciente.apodo, which no backup has."],
        ),
        ("public.nada.x: X", ["search.txt names public.nada.x, which no backup has."]),
        ("public.nada: X", ["search.txt, line 1: 'public.nada: X' is not `schema.table.column: label`."]),
    ],
)
def test_columns_to_search_in_have_to_be_in_backups(demo: Preflight, text: str, said: list[str]) -> None:
    demo.write("search.txt", text)
    assert demo.found("warning", "search") == said
