"""The mode ``rows`` over keys and foreign keys of all kinds: what was lost comes back, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clinic_backups.restore.request import Wish
from clinic_backups.stores.file import FileStore
from tests.integration.test_restore import Ward
from tests.integration.test_restore_rows import rows_of
from tests.postgres_fixtures import DemoDatabase

OF = "clinica_id bigint NOT NULL REFERENCES comun_clinica"
EXTRACT = "SELECT * FROM public.{} WHERE clinica_id = {{{{ clinic_id }}}}"


@dataclass(frozen=True)
class Shape:
    """Tables with rows of clinic 1 and of clinic 2, what deletes one row, and what comes back by which name.

    :param stays: statements of people who go on working; what they write stays.
    :param after: how the tables have to be in the end, if not as before the deletion with that work.
    """

    tables: dict[str, str]
    rows: tuple[str, ...]
    lost: tuple[str, ...]
    named: dict[str, tuple[str, ...]]
    stays: tuple[str, ...] = ()
    after: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    only: bool = False


SHAPES = {
    "composite keys with a text": Shape(
        {
            "caja": f"{OF}, codigo text, nota text, PRIMARY KEY (clinica_id, codigo)",
            "hoja": f"id int PRIMARY KEY, {OF}, codigo text NOT NULL, texto text,"
            " FOREIGN KEY (clinica_id, codigo) REFERENCES caja ON DELETE CASCADE",
            "rastro": f"{OF}, codigo text NOT NULL, que text,"
            " FOREIGN KEY (clinica_id, codigo) REFERENCES caja ON DELETE CASCADE",
        },
        (
            "INSERT INTO caja VALUES (1, 'a,b', 'x'), (1, 'c', NULL), (2, 'a,b', 'z')",
            "INSERT INTO hoja VALUES (1, 1, 'a,b', 'uno'), (2, 1, 'c', 'dos'), (3, 2, 'a,b', 'tres')",
            "INSERT INTO rastro VALUES (1, 'a,b', 'r'), (1, 'a,b', 'r'), (1, 'c', 'r'), (2, 'a,b', 'r')",
        ),
        ("DELETE FROM caja WHERE clinica_id = 1 AND codigo = 'a,b'",),
        {"public.caja": ("1/a,b",)},
        ("UPDATE hoja SET texto = 'otro' WHERE id = 2", "INSERT INTO rastro VALUES (1, 'c', 'r2')"),
    ),
    "a foreign key to a unique column, and SET NULL": Shape(
        {
            "marca": f"num numeric PRIMARY KEY, {OF}, ref text UNIQUE",
            "sello": f"id int PRIMARY KEY, {OF}, ref text REFERENCES marca (ref) ON DELETE SET NULL, color text",
        },
        (
            "INSERT INTO marca VALUES (1.0, 1, 'm'), (2.50, 1, 'n')",
            "INSERT INTO sello VALUES (1, 1, 'm', 'rojo'), (2, 1, 'm', 'azul'), (3, 1, 'n', 'gris'),"
            " (4, 1, 'm', 'oro')",
        ),
        ("DELETE FROM marca WHERE num = 1",),
        {"public.marca": ("1.0",)},
        ("UPDATE sello SET color = 'verde' WHERE id = 1", "UPDATE sello SET ref = 'n' WHERE id = 2",
         "DELETE FROM sello WHERE id = 4"),
        {"public.sello": {("1", "1", "m", "verde"), ("2", "1", "n", "azul"), ("3", "1", "n", "gris"),
                          ("4", "1", "m", "oro")}},
    ),
    "a key of two columns of which one becomes NULL": Shape(
        {
            "lote": f"{OF}, codigo text, PRIMARY KEY (clinica_id, codigo)",
            "pieza": f"id int PRIMARY KEY, {OF}, codigo text, color text,"
            " FOREIGN KEY (clinica_id, codigo) REFERENCES lote ON DELETE SET NULL (codigo)",
        },
        (
            "INSERT INTO lote VALUES (1, 'a'), (1, 'b')",
            "INSERT INTO pieza VALUES (1, 1, 'a', 'rojo'), (2, 1, 'b', 'azul')",
        ),
        ("DELETE FROM lote WHERE codigo = 'a'",),
        {"public.lote": ("1/a",)},
        ("UPDATE pieza SET color = 'verde' WHERE id = 1",),
        {"public.pieza": {("1", "1", "a", "verde"), ("2", "1", "b", "azul")}},
    ),
    "a link that somebody emptied while the named row stayed": Shape(
        {
            "mesa": f"id int PRIMARY KEY, {OF}, nota text",
            "silla": f"id int PRIMARY KEY, {OF}, mesa int REFERENCES mesa, color text",
        },
        ("INSERT INTO mesa VALUES (1, 1, 'x')", "INSERT INTO silla VALUES (1, 1, 1, 'rojo'), (2, 1, 1, 'azul')"),
        ("UPDATE mesa SET nota = 'mal'",),
        {"public.mesa": ("1",)},
        ("UPDATE silla SET mesa = NULL WHERE id = 1",),
        {"public.mesa": {("1", "1", "x")}},
    ),
    "rows that refer to each other": Shape(
        {
            "jefe": f"id int PRIMARY KEY, {OF}, suplente int REFERENCES jefe ON DELETE CASCADE"
            " DEFERRABLE INITIALLY DEFERRED",
        },
        ("INSERT INTO jefe VALUES (1, 1, 2), (2, 1, 3), (3, 1, 1), (4, 1, NULL)",),
        ("DELETE FROM jefe WHERE id = 1",),
        {"public.jefe": ("2",)},
        ("INSERT INTO jefe VALUES (5, 1, 4)",),
    ),
    "a loop of two tables": Shape(
        {
            "equipo": f"id int PRIMARY KEY, {OF}, capitan int",
            "miembro": f"id int PRIMARY KEY, {OF}, equipo int NOT NULL REFERENCES equipo ON DELETE CASCADE",
        },
        (
            "ALTER TABLE equipo ADD FOREIGN KEY (capitan) REFERENCES miembro ON DELETE SET NULL DEFERRABLE",
            "INSERT INTO equipo VALUES (1, 1, NULL), (2, 1, NULL)",
            "INSERT INTO miembro VALUES (1, 1, 1), (2, 1, 1), (3, 1, 2)",
            "UPDATE equipo SET capitan = id",
        ),
        ("DELETE FROM equipo WHERE id = 1",),
        {"public.miembro": ("2",)},
        ("UPDATE equipo SET capitan = 3 WHERE id = 2",),
        # The team is needed; its other member is not, and so the captain comes back with the team that names it.
        {"public.miembro": {("1", "1", "1"), ("2", "1", "1"), ("3", "1", "2")},
         "public.equipo": {("1", "1", "1"), ("2", "1", "3")}},
    ),
    "an identity that is always generated, with a generated column": Shape(
        {"turno": f"id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {OF}, n int,"
         " doble int GENERATED ALWAYS AS (n * 2) STORED"},
        ("INSERT INTO turno (clinica_id, n) VALUES (1, 10), (1, 20), (2, 30)",),
        ("DELETE FROM turno WHERE clinica_id = 1",),
        {"public.turno": ("2",)},
        ("INSERT INTO turno (clinica_id, n) VALUES (1, 40)",),
        {"public.turno": {("2", "1", "20"), ("4", "1", "40")}},
    ),
    "only the named row": Shape(
        {
            "arbol": f"id uuid PRIMARY KEY, {OF}, padre uuid REFERENCES arbol ON DELETE CASCADE",
        },
        (
            "INSERT INTO arbol VALUES ('00000000-0000-0000-0000-00000000000a', 1, NULL),"
            " ('00000000-0000-0000-0000-00000000000b', 1, '00000000-0000-0000-0000-00000000000a'),"
            " ('00000000-0000-0000-0000-00000000000c', 1, '00000000-0000-0000-0000-00000000000b')",
        ),
        ("DELETE FROM arbol",),
        {"public.arbol": ("00000000-0000-0000-0000-00000000000B",)},
        (),
        # Its parent is needed; its child is not.
        {"public.arbol": {("00000000-0000-0000-0000-00000000000a", "1", ""),
                          ("00000000-0000-0000-0000-00000000000b", "1", "00000000-0000-0000-0000-00000000000a")}},
        only=True,
    ),
}  # fmt: skip


@pytest.fixture
def ward(demo_database: DemoDatabase, tmp_path: Path) -> Ward:
    return Ward(demo_database, FileStore(tmp_path / "store"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_was_lost_comes_back_and_nothing_else_changes(ward: Ward, tmp_path: Path, shape: Shape) -> None:
    roles = ward.database.roles
    ward.with_extracts(tmp_path / "sql", {name: EXTRACT.format(name) for name in shape.tables})
    ward.execute(
        *(f"CREATE TABLE public.{name} ({columns})" for name, columns in shape.tables.items()), *shape.rows,
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {roles.reader}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {roles.restorer}",
        f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {roles.restorer}",
    )  # fmt: skip
    record, before = ward.run(1), rows_of(ward)
    ward.execute(*shape.lost)
    lost = {name: rows - rows_of(ward).get(name, set()) for name, rows in before.items()}
    assert any(lost.values())
    ward.execute(*shape.stays)
    worked, others = rows_of(ward), ward.others()
    wish = Wish(mode="rows", rows=shape.named, only=shape.only)
    plan = ward.apply(record, wish)
    assert plan.refusals == ()
    assert not any(table.delete for table in plan.tables)
    expected = {name: rows | lost.get(name, set()) for name, rows in worked.items()}
    expected |= {name: rows for name, rows in lost.items() if rows and name not in expected}
    assert rows_of(ward) == expected | shape.after
    assert ward.others() == others
    assert ward.plan(record, wish).writes == 0
