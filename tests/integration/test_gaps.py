"""Data that a backup would silently lack.

The preflight names them, and backups refuse them unless a line declares them.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clinic_backups.app import Parts
from clinic_backups.backup import preflight
from clinic_backups.backup.backup import ClinicBackup
from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clock import machine_now
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.findings import Finding
from clinic_backups.base.project import PROJECT_SQL
from clinic_backups.base.text import in_sql, one_line
from clinic_backups.restore.comparison import Present
from clinic_backups.restore.workspace import Workspace
from clinic_backups.stores import envelopes
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from clinic_backups.tenant.declarations import parse
from clinic_backups.tenant.extract import SqlFolder
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig, compared_of
from tests.shapes import shaped

STOCK, VISITS, PATIENTS = "public.inventario_inventario", "public.citas_consulta", "public.usuarios_paciente"
ALL = "SELECT * FROM {table} WHERE clinica_id = {{{{ clinic_id }}}}"
TENANT = "clinica_id bigint NOT NULL REFERENCES public.comun_clinica"


MINUTES = itertools.count()


class Guard(Rig):
    """A rig with a folder of SQL of its own."""

    @property
    def sql(self) -> Path:
        return self.settings.sql_dir

    def write(self, name: str, text: str) -> None:
        (self.sql / name).write_text(text, encoding="utf-8")

    def declare(self, *lines: str) -> None:
        with (self.sql / "not_backed_up.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def errors(self, level: str = "error", *, rows: bool = False) -> list[Finding]:
        """What the preflight finds about completeness."""
        findings = preflight.run(
            settings=self.settings, clinic_db=lambda: self.clinic_db, stores=lambda: Stores.of(self.store),
            now=machine_now,
            catalog_version=lambda: None, count_rows=rows,
        )  # fmt: skip
        checks = ("coverage", "parents", "rows")
        return [item for item in findings if item.level == level and item.check in checks]

    def backup(self, **options: Any) -> ClinicBackup:
        """With a clock of its own: two backups of one second have one name."""
        moment = datetime(2026, 11, 24, 6, tzinfo=UTC) + timedelta(minutes=next(MINUTES))
        return super().backup(**({"now": lambda: moment} | options))

    def allowed(self, clinic_id: int = 1) -> BackupRecord:
        """A backup with gaps."""
        return self.backup().run(replace(self.request(clinic_id), allow_gaps=True))

    def change(self, *statements: str) -> None:
        """As the superuser, each on its own, with every right for the backup's role."""
        with closing(self.database.connect()) as db, db.cursor() as cursor:
            db.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {self.database.roles.reader}")


@pytest.fixture
def guard(demo_database: DemoDatabase, tmp_path: Path) -> Guard:
    rig = Guard(demo_database, FileStore(tmp_path / "store"))
    shutil.copytree(PROJECT_SQL, tmp_path / "sql")
    rig.settings = rig.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    return rig


@dataclass(frozen=True)
class Case:
    """A change of the database after which a backup would lack something.

    ``settled``: the line of not_backed_up.txt, or the statement, that settles it.
    """

    name: str
    statements: tuple[str, ...]
    table: str
    said: str
    settled: str
    extracts: dict[str, str] = field(default_factory=dict)
    remove: str = ""
    """An extract that goes with the settlement."""


LO = (
    "CREATE DOMAIN public.lo AS oid",
    "SELECT lo_create(4711)",
)
CASES = [
    Case(
        "foreign key", (f"CREATE TABLE public.nueva (id int PRIMARY KEY, {TENANT})",), "public.nueva",
        "leads to the clinic", "public.nueva: it can be made anew",
    ),
    Case(
        "partitioned table with a chain of foreign keys",
        (
            "CREATE TABLE public.visto (id int, consulta_id bigint REFERENCES public.citas_consulta)"
            " PARTITION BY RANGE (id)",
            "CREATE TABLE public.visto_1 PARTITION OF public.visto DEFAULT",
        ),
        "public.visto", "leads to the clinic", "public.visto: derived, it is a list of what was looked at",
    ),
    Case(
        "two columns that are one foreign key",
        (
            "CREATE UNIQUE INDEX horario_par ON public.inventario_inventario (clinica_id, id)",
            "CREATE TABLE public.par (c bigint, i bigint,"
            " FOREIGN KEY (c, i) REFERENCES public.inventario_inventario (clinica_id, id))",
        ),
        "public.par", "leads to the clinic", "public.par: nothing of worth",
    ),
    Case(
        "the clinic's key without a constraint", ("CREATE TABLE public.registro (id int, clinica_id integer)",),
        "public.registro", "named like a foreign key to public.comun_clinica",
        "public.registro: a log of the web server",
    ),
    Case(
        "the clinic's key as a primary key in other letters",
        ('CREATE SCHEMA extra', 'CREATE TABLE extra.ajustes ("clinicaId" bigint PRIMARY KEY, valor text)'),
        "extra.ajustes", "named like a foreign key to public.comun_clinica",
        'ALTER TABLE extra.ajustes DROP COLUMN "clinicaId"',
    ),
    Case(
        "the clinic's key as text", ("CREATE TABLE public.registro (id int, clinica_id text)",),
        "public.registro", "named like a foreign key to public.comun_clinica",
        "public.registro.clinica_id: the number of a clinic of another system",
    ),
    Case(
        "a table below one that belongs to clinics by its name alone",
        (
            "CREATE TABLE public.registro (id int PRIMARY KEY, clinica_id bigint)",
            "CREATE TABLE public.linea (id int PRIMARY KEY, registro int REFERENCES public.registro)",
        ),
        "public.linea", "leads to the clinic (public.linea -> public.registro -> public.comun_clinica)",
        "public.linea: nothing of worth", {"registro": ALL.format(table="public.registro")},
    ),
    Case(
        "another extract's key without a constraint",
        ("CREATE TABLE public.foto (id int PRIMARY KEY, paciente_id bigint NOT NULL, contenido bytea)",),
        "public.foto", "named like a foreign key to public.usuarios_paciente", "public.foto: kept by the photo server",
    ),
    Case(
        "a foreign table",
        (
            "CREATE FOREIGN DATA WRAPPER sin", "CREATE SERVER otro FOREIGN DATA WRAPPER sin",
            "CREATE FOREIGN TABLE public.lejana (id int, clinica_id bigint) SERVER otro",
        ),
        "public.lejana", "is a foreign table", "public.lejana: the other server has backups of its own",
    ),
    Case(
        "a column of type lo", (*LO, f"ALTER TABLE {STOCK} ADD foto public.lo"),
        STOCK, "holds numbers of large objects", f"{STOCK}.foto: photos are kept by the supplier",
    ),
    Case(
        "a column of type oid that names large objects",
        ("SELECT lo_create(4711)", f"ALTER TABLE {STOCK} ADD foto oid", f"UPDATE {STOCK} SET foto = 4711 WHERE id = 3"),
        STOCK, "holds numbers of large objects", f"{STOCK}.foto: photos are kept by the supplier",
    ),
    Case(
        "a column of type oid[] that names large objects",
        ("SELECT lo_create(4711)", f"ALTER TABLE {VISITS} ADD f oid[]", f"UPDATE {VISITS} SET f = '{{1,4711}}'"),
        VISITS, "holds numbers of large objects", "SELECT lo_unlink(4711)",
    ),
    Case(
        "a composite type with an attribute that names large objects",
        (
            "SELECT lo_create(4711)", 'CREATE TYPE public.escaneo AS (nota text, "la foto" oid)',
            f"ALTER TABLE {STOCK} ADD foto public.escaneo", f"UPDATE {STOCK} SET foto = ROW('x', 4711) WHERE id = 3",
        ),
        STOCK, "holds numbers of large objects", f"{STOCK}.foto: photos are kept by the supplier",
    ),
    Case(
        "an array of composite types in each other that name large objects",
        (
            "SELECT lo_create(4711)", "CREATE TYPE public.una AS (n int, fotos oid[])",
            "CREATE TYPE public.serie AS (nombre text, una public.una)",
            "CREATE DOMAIN public.series AS public.serie[]",
            f"ALTER TABLE {VISITS} ADD f public.series",
            f"UPDATE {VISITS} SET f = ARRAY[ROW('a', ROW(1, '{{1,4711}}'::oid[])::public.una)::public.serie]",
        ),
        VISITS, "holds numbers of large objects", "SELECT lo_unlink(4711)",
    ),
    Case(
        "a column that lo_manage looks after",
        (
            "CREATE FUNCTION public.lo_manage() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            f"ALTER TABLE {STOCK} ADD foto bigint",
            f"CREATE TRIGGER t BEFORE UPDATE ON {STOCK} FOR EACH ROW EXECUTE FUNCTION public.lo_manage('foto')",
        ),
        STOCK, "holds numbers of large objects", f"{STOCK}.foto: photos are kept by the supplier",
    ),
    Case(
        "an unlogged table", (f"ALTER TABLE {STOCK} SET UNLOGGED",), STOCK, "is unlogged",
        f"ALTER TABLE {STOCK} SET LOGGED",
    ),
    Case(
        "an unlogged partition",
        (
            f"CREATE TABLE public.parte (id int, {TENANT}) PARTITION BY RANGE (id)",
            "CREATE UNLOGGED TABLE public.parte_1 PARTITION OF public.parte DEFAULT",
        ),
        "public.parte", "public.parte_1 is unlogged", "ALTER TABLE public.parte_1 SET LOGGED",
        {"parte": ALL.format(table="public.parte")},
    ),
    Case(
        "an extract of a partition",
        (
            f"CREATE TABLE public.parte (id int, {TENANT}) PARTITION BY RANGE (id)",
            "CREATE TABLE public.parte_1 PARTITION OF public.parte DEFAULT",
        ),
        "public.parte_1", "is a partition of public.parte", "public.parte: nothing of worth",
        {"parte_1": ALL.format(table="public.parte_1")}, "parte_1",
    ),
    Case(
        "a child without extract",
        ("CREATE TABLE public.inventario_frio (grados int) INHERITS (public.inventario_inventario)",),
        "public.inventario_frio", "inherits from", "DROP TABLE public.inventario_frio",
    ),
    Case(
        "a parent's extract that reads its children",
        (
            "CREATE TABLE public.base (id int PRIMARY KEY, clinica_id bigint REFERENCES public.comun_clinica)",
            "CREATE TABLE public.rama (hoja text) INHERITS (public.base)",
            "CREATE TABLE public.hoja (fruto text) INHERITS (public.rama)",
        ),
        "public.base", "also reads rows of public.hoja, public.rama", "DROP TABLE public.rama CASCADE",
        {
            "base": ALL.format(table="public.base"), "hoja": ALL.format(table="public.hoja"),
            "rama": ALL.format(table="ONLY public.rama"),
        },
    ),
]  # fmt: skip


class TestTables:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_a_gap_is_named_refused_allowed_by_a_word_and_settled(self, guard: Guard, case: Case) -> None:
        guard.change(*case.statements)
        for file, text in case.extracts.items():
            guard.write(f"extract/{file}.sql", text)

        (finding,) = [item for item in guard.errors() if case.said in item.message]
        assert case.table in finding.message
        assert "not_backed_up.txt" in finding.hint or "extract" in finding.hint
        with pytest.raises(PermanentError, match=re.escape(finding.message)) as caught:
            guard.run(1)
        assert finding.hint in caught.value.message
        assert "--allow-gaps" in caught.value.hint
        assert guard.objects() == []
        assert [record.state for record in guard.catalog.find()] == ["failed"]

        if case.said != "is a partition of public.parte":
            record = guard.allowed()
            assert finding.message in [gap.reason for gap in record.gaps]

        if case.settled.split()[0].isupper():
            guard.change(case.settled)
            for heir in ("rama", "hoja"):
                (guard.sql / "extract" / f"{heir}.sql").unlink(missing_ok=True)
        else:
            guard.declare(case.settled)
        if case.remove:
            (guard.sql / "extract" / f"{case.remove}.sql").unlink()
        assert guard.errors() == []
        assert guard.run(1).gaps == ()

    @pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
    def test_an_extract_of_a_view_is_refused_by_name(self, guard: Guard, kind: str) -> None:
        guard.change(f"CREATE {kind} public.vista AS SELECT * FROM {STOCK}")
        assert guard.errors() == []  # its rows are those of tables
        guard.write("extract/vista.sql", ALL.format(table="public.vista"))
        (finding,) = guard.errors()
        assert f"public.vista is a {kind.lower()}" in finding.message
        with pytest.raises(PermanentError, match=f"public.vista is a {kind.lower()}"):
            guard.run(1)
        assert guard.objects() == []

    def test_what_only_looks_like_a_gap_is_none(self, guard: Guard) -> None:
        guard.change(
            # Django's own: a foreign key to something else, and a name that means several things.
            "CREATE TABLE public.auth_user (id int PRIMARY KEY)",
            "CREATE TABLE public.auth_token (id int PRIMARY KEY, usuario_id int REFERENCES public.auth_user)",
            "CREATE TABLE public.cola (id bigint PRIMARY KEY, consulta_id uuid)",
            # An extract's column that cannot be compared with the key that it is named like.
            f"ALTER TABLE {STOCK} ADD paciente_id money DEFAULT 3, ADD consulta_id json DEFAULT '7'",
            # What a table calls its own rows.
            "ALTER TABLE public.comun_clinica ADD parent_id bigint REFERENCES public.comun_clinica",
            "CREATE TABLE public.pagina (id int PRIMARY KEY, parent_id bigint REFERENCES public.auth_user)",
            "CREATE TABLE public.menu (id int PRIMARY KEY, parent_id bigint)",
            # A table that shares the key of its parent: every table has an id.
            f"CREATE TABLE public.ficha (id bigint PRIMARY KEY REFERENCES {PATIENTS}, texto text)",
            f"CREATE MATERIALIZED VIEW public.cuenta AS SELECT clinica_id, count(*) FROM {STOCK} GROUP BY 1",
            # A number of a catalog's row, and a large object that nobody in a backup names.
            "SELECT lo_create(4711)",
            f"ALTER TABLE {STOCK} ADD tabla oid",
            f"UPDATE {STOCK} SET tabla = '{STOCK}'::regclass",
            # A partitioned table, by its root.
            f"CREATE TABLE public.parte (id int, {TENANT}) PARTITION BY RANGE (id)",
            "CREATE TABLE public.parte_1 PARTITION OF public.parte DEFAULT",
            "INSERT INTO public.parte VALUES (1, 1), (2, 2)",
        )
        guard.write(
            "extract/ficha.sql",
            f"SELECT f.* FROM public.ficha f JOIN {PATIENTS} p USING (id) WHERE p.clinica_id = {{{{ clinic_id }}}}",
        )
        guard.write("extract/parte.sql", ALL.format(table="public.parte"))
        assert guard.errors(rows=True) == []
        record = guard.run(1)
        assert (record.gaps, record.rows["public.parte"]) == ((), 1)

    def test_children_with_an_extract_each_are_a_backup_of_each(self, guard: Guard) -> None:
        guard.change(
            "CREATE TABLE public.base (id int PRIMARY KEY, clinica_id bigint REFERENCES public.comun_clinica)",
            "CREATE TABLE public.rama (hoja text) INHERITS (public.base)",
            "INSERT INTO public.base VALUES (1, 1), (2, 2)",
            "INSERT INTO public.rama VALUES (3, 1, 'verde'), (4, 3, 'roja')",
        )
        guard.write("extract/base.sql", ALL.format(table="ONLY public.base"))
        guard.write("extract/rama.sql", ALL.format(table="public.rama"))
        assert guard.errors(rows=True) == []
        tables = guard.open(guard.run(1)).tables
        assert (tables["public.base"], tables["public.rama"]) == (b"1,1\n", b"3,1,verde\n")

    def test_rows_that_the_role_may_not_see_fail_the_backup_by_name(self, guard: Guard) -> None:
        guard.change(
            f"ALTER TABLE {STOCK} ENABLE ROW LEVEL SECURITY", f"CREATE POLICY p ON {STOCK} USING (clinica_id <> 1)"
        )
        for allow in (False, True):
            with pytest.raises(PermanentError, match="inventario_inventario") as caught:
                guard.backup().run(replace(guard.request(1), allow_gaps=allow))
            assert "BYPASSRLS" in caught.value.hint

    def test_a_name_with_several_meanings_is_a_warning(self, guard: Guard) -> None:
        guard.change(
            "CREATE TABLE public.auth_user (id int PRIMARY KEY)",
            "CREATE TABLE public.auth_token (id int PRIMARY KEY, usuario_id int REFERENCES public.auth_user)",
            "CREATE TABLE public.cola (id bigint PRIMARY KEY, usuario_id bigint)",
        )
        (finding,) = guard.errors("warning")
        assert "public.cola is a table whose column usuario_id is named like" in finding.message
        assert guard.errors() == []
        guard.declare("public.cola.usuario_id: a user of the login service")
        assert guard.errors("warning") == []

    def test_parents_outside_are_named_until_somebody_says_what_they_are(self, guard: Guard) -> None:
        guard.change(
            "CREATE TABLE public.auth_user (id int PRIMARY KEY, login text)",
            "INSERT INTO public.auth_user VALUES (1, 'ana')",
            "ALTER TABLE public.profesionales_odontologo ADD cuenta_id int DEFAULT 1 REFERENCES public.auth_user",
            "CREATE TABLE public.pais (id int PRIMARY KEY)",
            "ALTER TABLE public.comun_clinica ADD pais_id int REFERENCES public.pais",
        )
        assert [item.message for item in guard.errors("warning")] == [
            "Rows of the clinics refer to rows of public.auth_user, which is in no backup:"
            " public.profesionales_odontologo (cuenta_id).",
            "Rows of the clinics refer to rows of public.pais, which is in no backup: public.comun_clinica (pais_id).",
        ]
        assert guard.errors() == []
        guard.run(1)
        guard.declare("public.auth_user: accounts are made anew by the login service", "public.pais: shared, a list")
        assert guard.errors("warning") == []


ROWS = {
    "another clinic's": (STOCK, f"SELECT * FROM {STOCK} WHERE clinica_id = {{{{ clinic_id }}}} % 3 + 1", "of a backup"),
    "another clinic's, by a join": (
        VISITS,
        f"SELECT c.* FROM {VISITS} c JOIN {PATIENTS} p ON p.id = c.paciente_id"
        " WHERE p.clinica_id = CASE {{ clinic_id }} WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE {{ clinic_id }} END",
        "of a backup refer in paciente_id",
    ),
    "another clinic's too": (
        STOCK, f"SELECT * FROM {STOCK} WHERE clinica_id IN ({{{{ clinic_id }}}}, 2)", "belong to another clinic",
    ),
    "a limit": (STOCK, ALL.format(table=STOCK) + " LIMIT 3", "are in no backup"),
    "a condition on a date": (
        VISITS,
        f"SELECT c.* FROM {VISITS} c JOIN {PATIENTS} p ON p.id = c.paciente_id"
        " WHERE p.clinica_id = {{ clinic_id }} AND c.fecha > (SELECT max(fecha) - 10 FROM public.citas_consulta)",
        "are in no backup",
    ),
    "a join that loses": (
        PATIENTS,
        f"SELECT p.* FROM {PATIENTS} p JOIN (SELECT DISTINCT paciente_id FROM {VISITS}) c ON c.paciente_id = p.id"
        " WHERE p.clinica_id = {{ clinic_id }} AND p.id % 2 = 0",
        "are in no backup",
    ),
    "nothing at all": (PATIENTS, ALL.format(table=PATIENTS) + " AND false", "are in no backup"),
    "a join that multiplies": (
        STOCK, f"SELECT i.* FROM {STOCK} i, generate_series(1, 2) WHERE i.clinica_id = {{{{ clinic_id }}}}",
        "are twice in one backup",
    ),
    "a join that multiplies some": (
        "public.profesionales_odontologo",
        "SELECT o.* FROM public.profesionales_odontologo o LEFT JOIN public.citas_horario h ON h.odontologo_id = o.id"
        " WHERE o.clinica_id = {{ clinic_id }}",
        "are twice in one backup",
    ),
}  # fmt: skip


class TestRows:
    @pytest.mark.parametrize("name", ROWS)
    def test_an_extract_that_gives_other_rows_is_named_and_refused(self, guard: Guard, name: str) -> None:
        table, text, said = ROWS[name]
        assert guard.errors(rows=True) == []
        guard.write(f"extract/{table.removeprefix('public.')}.sql", text)
        found = [item for item in guard.errors(rows=True) if item.message.startswith(f"{table}: ")]
        assert any(said in item.message for item in found)
        with pytest.raises(PermanentError, match=rf"{re.escape(table)}: \d+ rows? .*{re.escape(said)}"):
            guard.run(1)
        assert guard.objects() == []
        allowed = replace(guard.request(1), allow_gaps=True, compared=compared_of(guard, 1, 3))
        assert {gap.table for gap in guard.backup().run(allowed).gaps} >= {table}
        # A run for all clinics has just compared all rows, and is not made to do it once more for each.
        assert guard.backup().run(replace(guard.request(3), compared=compared_of(guard, 1, 3))).gaps == ()

    def test_rows_of_several_clinics_backups_are_an_error(self, guard: Guard) -> None:
        user = "public.usuarios_usuario"
        guard.write(
            "extract/usuarios_usuario.sql",
            f"SELECT * FROM {user} WHERE clinica_id = {{{{ clinic_id }}}} OR clinica_id IS NULL",
        )
        messages = [item.message for item in guard.errors(rows=True) if item.message.startswith(f"{user}:")]
        assert messages == [
            f"{user}: the backups of all clinics would hold 15 rows too many. Rows are in the backups of several"
            " clinics, or twice in one backup.",
            f"{user}: 3 rows are in the backups of several clinics.",
        ]

    def test_a_row_that_names_another_clinics_row_is_counted_until_it_is_declared(self, guard: Guard) -> None:
        guard.change(
            f"UPDATE {VISITS} SET odontologo_id = (SELECT min(id) FROM public.profesionales_odontologo WHERE clinica_id"
            f" = 2) WHERE id IN (SELECT c.id FROM {VISITS} c JOIN {PATIENTS} p ON p.id = c.paciente_id WHERE"
            " p.clinica_id = 1 ORDER BY c.id LIMIT 2)"
        )
        (finding,) = guard.errors(rows=True)
        assert finding.message == (
            f"{VISITS}: 2 rows of a backup refer in odontologo_id to a row of public.profesionales_odontologo that is"
            " not in the same clinic's backup."
        )
        with pytest.raises(PermanentError, match="2 rows of a backup refer in odontologo_id"):
            guard.run(1)
        assert guard.run(3).gaps == ()
        guard.declare(f"{VISITS}.odontologo_id: dentists help out in other clinics")
        assert guard.errors(rows=True) == []
        assert guard.run(1).gaps == ()

    def test_rows_that_are_left_out_on_purpose_are_declared(self, guard: Guard) -> None:
        guard.write("extract/inventario_inventario.sql", ALL.format(table=STOCK) + " AND cantidad > 10")
        (finding,) = guard.errors(rows=True)
        assert f"add the line `{STOCK}: rows, reason`" in finding.hint
        guard.declare(f"{STOCK}: rows, small quantities are counted anew")
        assert guard.errors(rows=True) == []
        assert any("left out on purpose: small" in item.message for item in guard.errors("ok", rows=True))
        assert guard.run(1).gaps == ()

    def test_a_column_without_constraint_is_compared_as_if_it_had_one(self, guard: Guard) -> None:
        guard.change(
            "CREATE TABLE public.nota (id int PRIMARY KEY, clinica_id int, paciente_id bigint)",
            f"INSERT INTO public.nota SELECT n, n, (SELECT min(id) FROM {PATIENTS} WHERE clinica_id = n)"
            " FROM generate_series(1, 6) n",
            "INSERT INTO public.nota VALUES (7, 99, 123456789)",  # a clinic that is gone
        )
        guard.write("extract/nota.sql", ALL.format(table="public.nota"))
        assert guard.errors(rows=True) == []
        guard.run(1)
        guard.write("extract/nota.sql", "SELECT * FROM public.nota WHERE clinica_id = {{ clinic_id }} % 3 + 1")
        messages = [item.message for item in guard.errors(rows=True) if item.message.startswith("public.nota: ")]
        assert "public.nota: 6 rows of a backup belong to another clinic, as the column clinica_id says." in messages
        guard.write("extract/nota.sql", ALL.format(table="public.nota") + " AND id <> 1")
        with pytest.raises(PermanentError, match=r"public\.nota: 1 row is in no backup, but the column clinica_id"):
            guard.run(1)

    def test_a_database_without_foreign_keys_is_compared_by_what_the_extracts_ask_for(self, guard: Guard) -> None:
        guard.change(
            *(
                f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'
                for table, name in guard.execute_rows(
                    "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'f'"
                    " AND connamespace = 'public'::regnamespace"
                )
            ),
            "CREATE TABLE public.suelta (id int PRIMARY KEY, clinica_id bigint)",
        )
        (finding,) = guard.errors(rows=True)
        assert "public.suelta is a table whose column clinica_id is named like a foreign key" in finding.message
        guard.declare("public.suelta: nothing of worth")
        guard.write("extract/inventario_inventario.sql", ROWS["another clinic's"][1])
        with pytest.raises(PermanentError, match=rf"{STOCK}: \d+ rows of a backup belong to another clinic"):
            guard.run(1)

    def test_keys_of_an_extensions_type_are_compared_with_their_own_operator(self, guard: Guard) -> None:
        guard.change(
            "CREATE SCHEMA ext",
            "CREATE DOMAIN ext.codigo AS text",
            f"CREATE TABLE public.marca (codigo ext.codigo PRIMARY KEY, {TENANT})",
            "CREATE TABLE public.pieza (id int PRIMARY KEY, marca ext.codigo REFERENCES public.marca)",
            "INSERT INTO public.marca VALUES ('a', 1), ('b', 2)",
            "INSERT INTO public.pieza VALUES (1, 'a'), (2, 'b'), (3, NULL)",
        )
        guard.write("extract/marca.sql", ALL.format(table="public.marca"))
        guard.write(
            "extract/pieza.sql",
            "SELECT p.* FROM public.pieza p JOIN public.marca m ON m.codigo = p.marca"
            " WHERE m.clinica_id = {{ clinic_id }}",
        )
        assert guard.errors(rows=True) == []
        assert guard.run(1).rows["public.pieza"] == 1

    def test_what_takes_too_long_is_said(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("clinic_backups.tenant.gate.WITHIN_SECONDS", 0.2)
        guard.write("extract/comun_clinica.sql", (guard.sql / "extract/comun_clinica.sql").read_text().replace(
            "WHERE", "CROSS JOIN pg_sleep(0.5) WHERE"))  # fmt: skip
        said: list[str] = []
        assert guard.run(1, on_unchecked=said.append).gaps == ()
        assert len(said) == 1 and "were not compared" in said[0]


class TestMarked:
    @pytest.fixture
    def gap(self, guard: Guard) -> str:
        guard.change("CREATE TABLE public.nueva (id int, clinica_id bigint)")
        return "public.nueva"

    def test_record_envelope_and_the_next_backup_know_it(self, guard: Guard, gap: str) -> None:
        record = guard.allowed()
        assert [found.table for found in record.gaps] == [gap]
        assert guard.catalog.get(record.backup_id) == record
        envelope = envelopes.load(record.archive_key, guard.store, now=guard.catalog.clock())
        assert envelope is not None
        assert envelope.gaps == record.gaps
        assert BackupRecord.of(envelope, guard.store.url).gaps == record.gaps
        assert Envelope.from_json(json.loads(json.dumps(envelope.to_json()))) == envelope
        assert list(record.to_json()["gaps"]) == [{"table": gap, "reason": record.gaps[0].reason}]
        guard.declare(f"{gap}: nothing of worth")
        guard.kind = "incremental"
        second = guard.run(1)
        assert (second.kind, second.gaps) == ("incremental", ())

    def test_a_safety_backup_is_made_and_says_what_it_lacks(self, guard: Guard, gap: str) -> None:
        names = {"clinic_db": guard.database.reader_uri, "backup_catalog": guard.database.catalog_uri,
                 "restore_db": guard.database.restorer_uri}  # fmt: skip
        parts = Parts(guard.settings, lambda name: connections.parse(name, names[name]) if name in names else None)
        guard.initialise()
        with Workspace(parts.restore_db) as workspace, parts.catalog.lock(1) as lock:
            present = Present(workspace.export(), {}, {})
            record = parts.safety().take(Clinic(1, "Una"), present, of="1-x", requested_by="guardia", lock=lock)
        assert record is not None
        assert [found.table for found in record.gaps] == [gap]

    @pytest.mark.parametrize("change", [
        {"gaps": [{"table": 7, "reason": "x"}]}, {"gaps": [{"table": "a\0", "reason": "x"}]},
        {"gaps": [{"table": "a", "reason": "x"}] * 1001},
    ])  # fmt: skip
    def test_an_envelope_with_absurd_gaps_is_not_usable(self, guard: Guard, change: dict[str, Any]) -> None:
        from clinic_backups.archive.envelope_checks import problem_of

        record = guard.run(1)
        data = record.envelope().to_json()
        assert record.finished_at is not None
        assert problem_of(Envelope.from_json(data), 1, record.finished_at) == ""
        assert problem_of(Envelope.from_json(data | change), 1, record.finished_at)


class TestDeclarations:
    def test_the_demo_says_what_each_table_is(self) -> None:
        folder = SqlFolder(PROJECT_SQL)
        assert list(folder.derived()) == ["public.citas_recordatorio"]
        assert folder.not_backed_up().keys() == {
            *folder.derived(), *folder.declarations().shared, "public.django_admin_log", "public.django_session",
        }  # fmt: skip

    def test_every_form_of_a_line(self) -> None:
        found = parse(
            "# a comment\n\npublic.a: queue, made anew\npublic.b: derived, from a\nx.c : shared , one for all\n"
            "public.d: rows, old ones: a year\npublic.d.e: photos\n"
            "public.f: May be empty, a queue\npublic.d: lasting keys, a sequence\n"
        )
        assert found.lasting_keys == {"public.d": "a sequence"}
        assert found.may_be_empty == {"public.f": "a queue"}
        assert found.left_out == {"public.a": "queue, made anew"}
        assert (found.derived, found.shared) == ({"public.b": "from a"}, {"x.c": "one for all"})
        assert (found.rows, found.columns) == ({"public.d": "old ones: a year"}, {"public.d.e": "photos"})
        assert list(found.tables) == ["public.a", "public.b", "x.c"]

    @pytest.mark.parametrize(
        "line",
        [
            "public.a",
            "a: reason",
            "public.a:",
            "public.a: derived,",
            "a.b.c.d: x",
            "public.x: y\npublic.x: z",
            "a. : x",
            'a."b: x',
            'a."b"c: x',
            'a."b".c.d: x',
            "a.b: may be empty",
            "a.b: lasting keys",
            "a.b: lasting keys, x\na.b: lasting keys, y",
        ],
    )
    def test_a_line_that_says_nothing_is_refused(self, line: str) -> None:
        with pytest.raises(SettingsError, match=r"not_backed_up\.txt, line"):
            parse(line)


ODD_NAMES = [
    "lo.g",
    "a: b",
    '"',
    "#",
    "con espacio",
    "ñandú",
    " x ",
    "a,b",
    "%s",
    "{}",
    "x\u2028y",
    "A.B.C",
    "bill\u200b",
    "two  spaces",
    "a\\b\u200b",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_with_odd_characters_can_be_declared(demo_database: DemoDatabase, tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    rig = shaped(demo_database, tmp_path, "", {})
    with closing(demo_database.connect()) as db, db, db.cursor() as cursor:
        cursor.execute(f"CREATE TABLE s.{quoted} (id int, clinic_id int REFERENCES s.clinic, {quoted} oid)")
    with pytest.raises(PermanentError) as caught:
        rig.run(1)
    (line,) = re.findall(r"`(s\..*): reason` to", caught.value.message)
    (tmp_path / "sql" / "not_backed_up.txt").write_text(f"{line}: nothing of worth\n", encoding="utf-8")
    assert rig.run(1).gaps == ()
    found = parse(f"s.{quoted}: x\ns.{quoted}.{quoted}: y\n{quoted}.t: shared, z")
    assert (found.left_out, found.columns) == ({f"s.{name}": "x"}, {f"s.{name}.{name}": "y"})
    assert found.shared == {f"{name}.t": "z"}


def test_a_statement_that_is_copied_names_that_very_object(demo_database: DemoDatabase) -> None:
    with closing(demo_database.connect()) as db, db.cursor() as cursor:

        @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15))
        @example("two  spaces").via("words")
        @example("bill\u200b").via("nothing to see")
        def same(name: str) -> None:
            cursor.execute(f"SELECT 1 AS {one_line(in_sql(name))}")
            assert [column.name for column in cursor.description] == [name]

        same()


OWN_KEYS = """
    CREATE TABLE s.own0 (clinic_id int PRIMARY KEY, v text);
    CREATE TABLE s.own1 ("clinicId" int PRIMARY KEY, v text);
    CREATE TABLE s.own2 ("CLINIC_ID" int PRIMARY KEY, v text);
"""
BY_CLINIC = "clinic_id = {{ clinic_id }}"


def test_rows_of_a_partition_that_is_being_detached_are_not_silently_left_out(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE s.t1 PARTITION OF s.t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE s.t2 PARTITION OF s.t FOR VALUES FROM (10) TO (20);"
        "INSERT INTO s.t VALUES (1, 1, 'a'), (11, 1, 'b'), (12, 2, 'c')",
        {"t": "clinic_id = {{ clinic_id }}"},
    )
    assert rig.run(1).rows["s.t"] == 2
    with closing(demo_database.connect()) as reading, closing(demo_database.connect()) as detaching:
        reading.cursor().execute("SELECT count(*) FROM s.t")
        detaching.autocommit = True
        detaching.cursor().execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            detaching.cursor().execute("ALTER TABLE s.t DETACH PARTITION s.t1 CONCURRENTLY")
    with pytest.raises(PermanentError, match=r"s\.t1 is being detached from s\.t") as caught:
        rig.run(1)
    finalize = re.search(r"ALTER TABLE .* FINALIZE", str(caught.value))
    assert finalize
    rig.execute(finalize[0])
    with pytest.raises(PermanentError, match=r"s\.t1 .* would be in no backup"):
        rig.run(1)


def test_a_line_settles_a_schema_of_somebody_else(demo_database: DemoDatabase, tmp_path: Path) -> None:
    rig = shaped(demo_database, tmp_path, "CREATE TABLE s.t (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic)",
                 {"t": "clinic_id = {{ clinic_id }}"})  # fmt: skip
    rig.execute('CREATE SCHEMA "Its own"; CREATE TABLE "Its own".noise (clinic_id int)')
    with pytest.raises(PermanentError) as refused:
        rig.run()
    line = re.search(r"`([^`]*\.\*): reason`", refused.value.message)
    assert line is not None and line[1] == "Its own.*"
    declared = rig.settings.sql_dir / "not_backed_up.txt"
    before = declared.read_text()
    declared.write_text(f"{before}\n{line[1]}: of another team\n")
    assert rig.run().gaps == ()
    rig.execute('CREATE TABLE "Its own".more (clinic_id int REFERENCES s.clinic)')
    assert rig.run().gaps == ()
    # The schema of an extract cannot be left out as a whole: a new table would be missed.
    declared.write_text(f"{before}\nIts own.*: of another team\ns.*: nothing\n")
    rig.execute("CREATE TABLE s.new (clinic_id int REFERENCES s.clinic)")
    with pytest.raises(PermanentError, match=r"no table of the schema s is backed up, and s\.clinic has an"):
        rig.run()


@pytest.mark.parametrize("reference", ["REFERENCES s.clinic", ""], ids=["a foreign key", "what an extract compares"])
def test_tables_whose_own_key_is_the_clinics_do_not_hide_others(
    demo_database: DemoDatabase, tmp_path: Path, reference: str
) -> None:
    ddl = f"CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int {reference}); {OWN_KEYS}"
    rig = shaped(
        demo_database, tmp_path, f"{ddl} CREATE TABLE s.log (id int PRIMARY KEY, clinic_id int)", {"visit": BY_CLINIC}
    )
    with pytest.raises(PermanentError, match="for 4 reasons") as caught:
        rig.run(1)
    for table in ("s.own0", "s.own1", "s.own2", "s.log"):
        assert f"{table} is a table whose column" in str(caught.value)


def test_a_table_that_shares_the_clinics_key_called_id_names_no_other_table(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    rig = shaped(
        demo_database,
        tmp_path,
        "CREATE TABLE s.profile (id int PRIMARY KEY REFERENCES s.clinic);"
        "CREATE TABLE s.visit (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.bill (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);"
        "CREATE TABLE s.country (id int PRIMARY KEY, name text)",
        {"profile": "id = {{ clinic_id }}", "visit": BY_CLINIC, "bill": BY_CLINIC},
    )
    assert rig.run(1).gaps == ()


def test_an_extract_that_compares_the_clinics_own_key_names_no_other_table(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    joined = "SELECT t.* FROM s.{} AS t JOIN s.clinic AS c ON c.id = t.sede WHERE c.id = {{{{ clinic_id }}}}"
    tables = ("visit", "bill", "note")
    ddl = "".join(f"CREATE TABLE s.{name} (id int PRIMARY KEY, sede int);" for name in tables)
    countries = "".join(f"CREATE TABLE s.country{n} (id int PRIMARY KEY, name text);" for n in range(4))
    rig = shaped(demo_database, tmp_path, ddl + countries, {name: joined.format(name) for name in tables})
    assert rig.run(1).gaps == ()


COMPUTED = [
    "clinic_id = {{ clinic_id + 0 }}",
    "clinic_id = {{ clinic_id }}{% if clinic_id > 5 %} AND false{% endif %}",
    "clinic_id = {{ clinic_id }}{% if clinic_id == 5 %} AND false{% endif %}",
    "clinic_id = {{ clinic_id | int }}",
    "clinic_id = {{ '%05d' | format(clinic_id) }}::int",
    "clinic_id = {{ '{:05d}'.format(clinic_id) }}::int",
    "clinic_id = {{ clinic_id }}{% if clinic_id in [7, 8] %} AND false{% endif %}",
]


def test_an_extract_that_computes_with_the_clinics_number_is_a_warning(
    demo_database: DemoDatabase, tmp_path: Path
) -> None:
    names = [f"t{number}" for number in range(len(COMPUTED))]
    ddl = "".join(f"CREATE TABLE s.{name} (id int PRIMARY KEY, clinic_id int REFERENCES s.clinic);" for name in names)
    shape = shaped(demo_database, tmp_path, ddl, dict(zip(names, COMPUTED, strict=True)))
    rig = Guard(demo_database, shape.store, settings=shape.settings)
    rig.settings = rig.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    assert rig.errors(rows=True) == []
    found = [finding.message for finding in rig.errors("warning", rows=True) if finding.check == "rows"]
    assert found == [
        f"extract/s.{name} cannot be compared for all clinics at once: it computes with clinic_id." for name in names
    ]
    assert rig.run(1).gaps == ()


@pytest.mark.parametrize(
    "reason",
    ["derivde, x", "Derivd, x", "Shard, x", "derived; x", "row, x", "Rows: x", "derivado, x", "lasting-key, x",
     "lasting keys never again", "lasting  keys: x", "Lasting-keys; x", "may-be-empy, x", "may  be empty often"],
)  # fmt: skip
def test_a_slip_in_the_class_of_a_table_is_no_reason(reason: str) -> None:
    with pytest.raises(SettingsError, match="the unknown word") as caught:
        parse(f"# a comment\nx.tabla: {reason}")
    assert "line 2" in caught.value.message
    assert re.search("`(derived|shared|rows|lasting keys|may be empty), reason`", caught.value.hint)


def test_the_class_of_a_table_is_read_whatever_the_editor(tmp_path: Path) -> None:
    file = tmp_path / "not_backed_up.txt"
    file.write_text(
        "\ufeffx.a: Derived, made anew\nx.b:SHARED , everywhere\nx.c: rows that nobody reads, and more\nx.d: logs, x",
        encoding="utf-8",
    )
    found = SqlFolder(tmp_path).declarations()
    assert found.derived == {"x.a": "made anew"}
    assert found.shared == {"x.b": "everywhere"}
    assert found.left_out == {"x.c": "rows that nobody reads, and more", "x.d": "logs, x"}
    with pytest.raises(SettingsError):
        parse("x.a: Derived,")


@pytest.mark.parametrize(
    ("written", "kind"),
    [("lasting  keys", "lasting_keys"), ("lasting-keys", "lasting_keys"), ("Lasting\u00a0Keys ", "lasting_keys"),
     ("lasting_keys", "lasting_keys"), ("lastingkeys", "lasting_keys"), ("lasting\u2011keys", "lasting_keys"),
     ("may  be empty", "may_be_empty"), ("may-be-empty", "may_be_empty"), ("MAY BE\tEMPTY", "may_be_empty"),
     ("maybe empty", "may_be_empty"), ("`derived`", "derived"), ("d\u200berived", "derived"), ("'shared' ", "shared")],
)  # fmt: skip
def test_spaces_and_hyphens_do_not_change_the_class_of_a_table(written: str, kind: str) -> None:
    found = parse(f"x.a: {written}, because")
    assert getattr(found, kind) == {"x.a": "because"}
    assert found.left_out == {}


UNTOLD = {
    "a join": ("", "SELECT v.* FROM s.visit v JOIN s.clinic c ON c.id = v.sede WHERE c.id IN ({{ clinic_id }})", True),
    "a list": ("", "sede IN ({{ clinic_id }})", True),
    "a comparison": ("", "sede = {{ clinic_id }}", False),
    "a foreign key": ("REFERENCES s.clinic", "sede IN ({{ clinic_id }})", False),
}


@pytest.mark.parametrize(("reference", "extract", "warned"), UNTOLD.values(), ids=UNTOLD)
def test_it_is_said_where_nothing_tells_whose_a_tables_rows_are(
    demo_database: DemoDatabase, tmp_path: Path, reference: str, extract: str, warned: bool
) -> None:
    shape = shaped(
        demo_database, tmp_path, f"CREATE TABLE s.visit (id int PRIMARY KEY, sede int {reference})", {"visit": extract}
    )
    rig = Guard(demo_database, shape.store)
    rig.settings = rig.settings.model_copy(update={"sql_dir": tmp_path / "sql"})
    found = [finding.message for finding in rig.errors("warning") if finding.message.startswith("It cannot be told")]
    assert len(found) == warned
    assert rig.run(1).gaps == ()
