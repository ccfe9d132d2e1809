"""The clinics' rows as the application sees them, read with separate SQL, and the application's changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from random import Random

import psycopg2.extensions

Database = psycopg2.extensions.connection
Tables = Mapping[str, tuple[bytes, ...]]

# Whose each row is. Written by hand from schema.sql: the extracts of include/sql are under test.
_PATIENT = "JOIN public.usuarios_paciente p ON p.id = {}.paciente_id"
_VISIT = "JOIN public.citas_consulta c ON c.id = {}.consulta_id " + _PATIENT.format("c")
_INVOICE = "JOIN public.sistema_pagos_factura f ON f.id = {}.factura_id " + _VISIT.format("f")
OWNERS: Mapping[str, tuple[str, str]] = {
    "comun_clinica": ("", "t.id"),
    "usuarios_usuario": ("", "t.clinica_id"),
    "usuarios_usuario_groups": ("JOIN public.usuarios_usuario u ON u.id = t.usuario_id", "u.clinica_id"),
    "usuarios_paciente": ("", "t.clinica_id"),
    "profesionales_odontologo": ("", "t.clinica_id"),
    "profesionales_recepcionista": ("", "t.clinica_id"),
    "inventario_inventario": ("", "t.clinica_id"),
    "citas_horario": ("JOIN public.profesionales_odontologo o ON o.id = t.odontologo_id", "o.clinica_id"),
    "citas_consulta": (_PATIENT.format("t"), "p.clinica_id"),
    "historial_clinico_historialclinico": (_PATIENT.format("t"), "p.clinica_id"),
    "historial_clinico_tratamiento": (
        f"JOIN public.historial_clinico_historialclinico h ON h.id = t.historial_id {_PATIENT.format('h')}",
        "p.clinica_id",
    ),
    "sistema_pagos_factura": (_VISIT.format("t"), "p.clinica_id"),
    "sistema_pagos_pago": (_INVOICE.format("t"), "p.clinica_id"),
    "sistema_pagos_pagoenlinea": (
        f"JOIN public.sistema_pagos_pago g ON g.id = t.pago_id {_INVOICE.format('g')}", "p.clinica_id",
    ),
    "auditoria_bitacora": ("JOIN public.usuarios_usuario u ON u.id = t.usuario_id", "u.clinica_id"),
}  # fmt: skip
# As the archive's format says that values are written.
_SESSION = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3;"
    " SET bytea_output = 'hex'; SET search_path = pg_catalog"
)
_COLUMNS = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%s)
       AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     GROUP BY 1
"""


@dataclass(frozen=True)
class Version:
    """One clinic's rows at one moment: each table's rows as lines of CSV, sorted, and its columns."""

    columns: Mapping[str, tuple[str, ...]]
    rows: Tables

    def difference(self, other: Version) -> str:
        """The tables that differ, and by how many rows; empty where the rows are the same. No values."""
        found = []
        for table in sorted({*self.rows, *other.rows}):
            here, there = self.rows.get(table, ()), other.rows.get(table, ())
            if here and there and self.columns.get(table) != other.columns.get(table):
                found.append(f"{table}: other columns")
            elif here != there:
                mine, theirs = set(here), set(there)
                found.append(f"{table}: {len(mine - theirs)} more, {len(theirs - mine)} fewer")
        return ", ".join(found)

    def of_columns(self, columns: Mapping[str, tuple[str, ...]]) -> Version:
        """Only these columns."""
        rows = {}
        for table, lines in self.rows.items():
            own = self.columns[table]
            keep = [own.index(name) for name in columns.get(table, ()) if name in own]
            rows[table] = tuple(sorted(b",".join([fields(line)[place] for place in keep]) for line in lines))
        kept = {table: tuple(c for c in names if c in self.columns.get(table, ())) for table, names in columns.items()}
        return Version(kept, rows)


def read(db: Database) -> dict[int, Version]:
    """All clinics' rows in one snapshot; under 0 those of no clinic."""
    rows: dict[int, dict[str, list[bytes]]] = {}
    with db, db.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(_SESSION)
        cursor.execute(_COLUMNS, (list(OWNERS),))
        columns = {table: tuple(names) for table, names in cursor.fetchall()}
        for table, (joins, owner) in OWNERS.items():
            named = ", ".join(f't."{name}"' for name in columns[table])
            answer = BytesIO()
            query = f"SELECT coalesce({owner}, 0), {named} FROM public.{table} t {joins}"
            cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", answer)
            for line in records(answer.getvalue()):
                clinic, _, rest = line.partition(b",")
                rows.setdefault(int(clinic), {}).setdefault(table, []).append(rest)
    return {
        clinic: Version(columns, {table: tuple(sorted(lines)) for table, lines in tables.items()})
        for clinic, tables in rows.items()
    }


def records(csv: bytes) -> Iterator[bytes]:
    """The records of a CSV as they stand there: a quoted field may hold the end of a line."""
    waiting = b""
    for line in csv.splitlines(keepends=True):
        waiting += line
        if waiting.count(b'"') % 2 == 0:
            yield waiting.rstrip(b"\n")
            waiting = b""
    if waiting:
        raise ValueError("a CSV ends within a field")


def fields(record: bytes) -> list[bytes]:
    """The fields of a record as they stand there: NULL and an empty text differ in their quotes."""
    found: list[bytes] = []
    waiting: bytes | None = None
    for piece in record.split(b","):
        waiting = piece if waiting is None else waiting + b"," + piece
        if waiting.count(b'"') % 2 == 0:
            found.append(waiting)
            waiting = None
    return found


def _new_patient(random: Random, clinic: int) -> str:
    return (
        "INSERT INTO public.usuarios_paciente (nombres, apellidos, cedula, fecha_nacimiento, sexo, telefono, direccion,"
        " alergias, creado_en, clinica_id) SELECT 'Ana \"la\" Nueva', E'Pérez,\\nde Prueba',"
        f" 'F{random.getrandbits(40)}', '1990-02-03', 'F', '', '', ARRAY['polen', NULL], now(), {clinic}"
    )


def _stock(random: Random, clinic: int) -> str:
    return (
        "INSERT INTO public.inventario_inventario (codigo, nombre, cantidad, precio_unitario, clinica_id)"
        f" SELECT 'F{random.getrandbits(40)}-' || n, repeat('caja ', 8) || n, n, n * 1.25, {clinic}"
        f" FROM generate_series(1, {random.randint(1, 200)}) n"
    )


CHANGES: tuple[Callable[[Random, int], str], ...] = (
    _new_patient,
    _stock,
    lambda random, clinic: (
        f"UPDATE public.inventario_inventario SET cantidad = cantidad + {random.randint(1, 9)}"
        f" WHERE clinica_id = {clinic} AND id % {random.randint(1, 7)} = 0"
    ),
    lambda random, clinic: (
        f"DELETE FROM public.inventario_inventario WHERE clinica_id = {clinic} AND id % {random.randint(3, 7)} = 0"
    ),
    lambda random, clinic: (
        f"UPDATE public.comun_clinica SET direccion = '{random.getrandbits(30)}' WHERE id = {clinic}"
    ),
    lambda random, clinic: (
        "UPDATE public.usuarios_paciente SET notas = concat_ws(', ', notas, 'vino')"
        f" WHERE clinica_id = {clinic} AND id % {random.randint(1, 5)} = 0"
    ),
    lambda random, clinic: (
        "INSERT INTO public.auditoria_bitacora (accion, modelo, objeto_id, agente_usuario, ocurrido_en, usuario_id)"
        " SELECT 'ver', 'paciente', '1', '', now(), min(id) FROM public.usuarios_usuario"
        f" WHERE clinica_id = {clinic} HAVING count(*) > 0"
    ),
    lambda random, clinic: (
        "DELETE FROM public.citas_horario WHERE odontologo_id IN (SELECT id FROM public.profesionales_odontologo"
        f" WHERE clinica_id = {clinic}) AND dia_semana = {random.randint(1, 7)}"
    ),
)  # fmt: skip
# No column that is given another type is changed otherwise: a restore cannot tell such a change from another meaning.
MIGRATIONS = (
    "ALTER TABLE public.inventario_inventario ADD COLUMN IF NOT EXISTS lote text",
    "ALTER TABLE public.inventario_inventario DROP COLUMN IF EXISTS lote",
    "ALTER TABLE public.usuarios_paciente ADD COLUMN IF NOT EXISTS avisos boolean NOT NULL DEFAULT true",
    "ALTER TABLE public.usuarios_paciente ALTER COLUMN telefono TYPE varchar(40)",
    "ALTER TABLE public.comun_clinica ALTER COLUMN telefono TYPE text",
    "CREATE INDEX IF NOT EXISTS inventario_nombre ON public.inventario_inventario (nombre)",
)
