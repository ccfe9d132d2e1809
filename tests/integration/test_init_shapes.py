"""``init`` on odd shapes: each table's extract is run, and compared with the rows that the test knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from clinic_backups.base import connections
from clinic_backups.base.errors import SettingsError
from clinic_backups.onboarding import init
from clinic_backups.onboarding.init import InitPlan, Wanted
from clinic_backups.tenant.extract import SqlFolder, render
from clinic_backups.tenant.tenant_db import Snapshot
from include.demo.postgres import EmbeddedPostgres

TENANTS = """
    CREATE TABLE org (id int PRIMARY KEY, name text);
    INSERT INTO org VALUES (1, 'uno'), (2, 'dos'), (3, 'tres');
"""
DATABASE = "init_shapes"


class Shape:
    """One database with a schema of the test, and a folder."""

    def __init__(self, server: EmbeddedPostgres, folder: Path) -> None:
        self.server, self.folder = server, folder

    def execute(self, script: str) -> None:
        with closing(self.server.connect(DATABASE)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(script)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self.server.connect(DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def plan(self, table: str = "public.org", **wanted: Any) -> InitPlan:
        with Snapshot(connections.parse("clinic_db", self.server.uri(DATABASE))) as snapshot:
            return init.plan(snapshot, self.folder, Wanted(table, **wanted))

    def write(self, table: str = "public.org", **wanted: Any) -> dict[str, str]:
        """Write the folder. Returns the class of each table."""
        found = self.plan(table, **wanted)
        init.apply(self.folder, found)
        return {choice.table: choice.table_class for choice in found.choices}

    def keys(self, table: str, column: str = "id", tenants: tuple[int, ...] = (1, 2, 3)) -> list[list[Any]]:
        """What the extract of a table gives for each tenant."""
        text = SqlFolder(self.folder).extracts()[table]
        return [
            [
                key
                for (key,) in self.rows(
                    f'SELECT r."{column}" FROM ({render(text, tenant, name=table)}) AS r ORDER BY 1'
                )
            ]
            for tenant in tenants
        ]


@pytest.fixture
def shape(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Shape]:
    with closing(postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        try:
            shape = Shape(postgres, tmp_path / "sql")
            shape.execute(TENANTS)
            yield shape
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(DATABASE)))


SHAPES: dict[str, tuple[str, dict[str, list[list[int]]]]] = {
    "composite keys": (
        """
        CREATE TABLE bill (org_id int NOT NULL REFERENCES org, id int NOT NULL, PRIMARY KEY (org_id, id));
        CREATE TABLE line (id int PRIMARY KEY, o int NOT NULL, b int NOT NULL, FOREIGN KEY (o, b) REFERENCES bill);
        INSERT INTO bill VALUES (1, 1), (2, 1); INSERT INTO line VALUES (1, 1, 1), (2, 2, 1), (3, 2, 1);
        """,
        {"public.bill": [[1], [1], []], "public.line": [[1], [2, 3], []]},
    ),
    "the first of several ways decides": (
        """
        CREATE TABLE a (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE b (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE c (id int PRIMARY KEY, a_id int REFERENCES a, b_id int REFERENCES b);
        INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1), (2, 2);
        INSERT INTO c VALUES (1, 1, NULL), (2, NULL, 2), (3, 1, 2), (4, NULL, NULL), (5, 2, 2);
        """,
        {"public.c": [[1, 3], [2, 5], []]},
    ),
    "a way through rows that may have no tenant": (
        """
        CREATE TABLE a (id int PRIMARY KEY, org_id int REFERENCES org);
        CREATE TABLE b (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE c (id int PRIMARY KEY, a_id int NOT NULL REFERENCES a, b_id int REFERENCES b);
        CREATE TABLE d (id int PRIMARY KEY, c_id int NOT NULL REFERENCES c);
        INSERT INTO a VALUES (1, 1), (2, NULL); INSERT INTO b VALUES (1, 1), (2, 2);
        INSERT INTO c VALUES (1, 1, NULL), (2, 2, 2), (3, 1, 2), (4, 2, NULL);
        INSERT INTO d VALUES (1, 1), (2, 2), (4, 4);
        """,
        {"public.a": [[1], [], []], "public.c": [[1, 3], [2], []], "public.d": [[1], [2], []]},
    ),
    "a tree whose branches name only their parent": (
        """
        CREATE TABLE topic (id int PRIMARY KEY, org_id int REFERENCES org, parent_id int REFERENCES topic);
        CREATE TABLE vote (id int PRIMARY KEY, topic_id int NOT NULL REFERENCES topic);
        INSERT INTO topic VALUES (1, 1, NULL), (2, NULL, 1), (3, NULL, 2), (4, 2, NULL), (5, 2, 3), (6, NULL, 5);
        INSERT INTO vote VALUES (1, 3), (2, 6);
        """,
        {"public.topic": [[1, 2, 3], [4, 5, 6], []], "public.vote": [[1], [2], []]},
    ),
    "two tables that refer to each other": (
        """
        CREATE TABLE a (id int PRIMARY KEY, org_id int REFERENCES org, b_id int);
        CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a);
        ALTER TABLE a ADD FOREIGN KEY (b_id) REFERENCES b;
        INSERT INTO a VALUES (1, 1, NULL), (2, 2, NULL); INSERT INTO b VALUES (1, 1), (2, 2); UPDATE a SET b_id = id;
        """,
        {"public.a": [[1], [2], []], "public.b": [[1], [2], []]},
    ),
    "partitions and children": (
        """
        CREATE TABLE log (id int, org_id int NOT NULL REFERENCES org, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
        CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20);
        CREATE TABLE thing (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE special (extra text, PRIMARY KEY (id), FOREIGN KEY (org_id) REFERENCES org) INHERITS (thing);
        INSERT INTO log VALUES (1, 1), (12, 2); INSERT INTO thing VALUES (1, 1); INSERT INTO special VALUES (2, 1, 'x');
        """,
        {"public.log": [[1], [12], []], "public.thing": [[1], [], []], "public.special": [[2], [], []]},
    ),
    "names that need quotes, and signs of the template engine": (
        """
        CREATE SCHEMA "Other Schema";
        CREATE TABLE "Other Schema"."Übung {{x}}" (id int PRIMARY KEY, "select" int NOT NULL REFERENCES org);
        CREATE TABLE "user" (id int PRIMARY KEY, "Ref {% if %}" int NOT NULL REFERENCES "Other Schema"."Übung {{x}}");
        INSERT INTO "Other Schema"."Übung {{x}}" VALUES (1, 1), (2, 2); INSERT INTO "user" VALUES (1, 1), (2, 2);
        """,
        {"Other Schema.Übung {{x}}": [[1], [2], []], "public.user": [[1], [2], []]},
    ),
    "a model that inherits from another one, and its parts": (
        """
        CREATE TABLE item (id int PRIMARY KEY, title text);
        CREATE TABLE invoice (item_ptr_id int PRIMARY KEY REFERENCES item, org_id int NOT NULL REFERENCES org);
        CREATE TABLE receipt (item_ptr_id int PRIMARY KEY REFERENCES item, org_id int NOT NULL REFERENCES org);
        CREATE TABLE file (id int PRIMARY KEY, item_id int NOT NULL REFERENCES item);
        CREATE TABLE address (id int PRIMARY KEY);
        CREATE TABLE customer (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org,
                               address_id int UNIQUE REFERENCES address);
        INSERT INTO item VALUES (1), (2), (3), (4); INSERT INTO invoice VALUES (1, 1), (2, 2);
        INSERT INTO receipt VALUES (3, 2); INSERT INTO file VALUES (5, 1), (6, 3), (7, 4);
        INSERT INTO address VALUES (1), (2), (3); INSERT INTO customer VALUES (1, 1, 2), (2, 2, 1), (3, 2, NULL);
        """,
        {"public.item": [[1], [2, 3], []], "public.file": [[5], [6], []], "public.address": [[2], [1], []]},
    ),
    "a column's name that is never NULL, beside a foreign key that may be": (
        """
        CREATE TABLE metric (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE cached (id int PRIMARY KEY, org_id int NOT NULL, metric_id int REFERENCES metric);
        INSERT INTO metric VALUES (1, 1); INSERT INTO cached VALUES (1, 1, 1), (2, 1, NULL), (3, 2, NULL);
        """,
        {"public.cached": [[1, 2], [3], []]},
    ),
    "a tree without a foreign key, below another tree": (
        """
        CREATE TABLE area (id int PRIMARY KEY, org_id int REFERENCES org, above int REFERENCES area);
        CREATE TABLE topic (id int PRIMARY KEY, area_id int REFERENCES area, parent_id int);
        INSERT INTO area VALUES (1, 1, NULL), (2, NULL, 1), (3, 2, NULL);
        INSERT INTO topic VALUES (1, 2, NULL), (2, NULL, 1), (3, NULL, 2), (4, 3, NULL), (5, NULL, 6), (6, NULL, 5);
        """,
        {"public.area": [[1, 2], [3], []], "public.topic": [[1, 2, 3], [4], []]},
    ),
    "the tenant's key in a table of its own": (
        """
        CREATE TABLE org_settings (org_id int PRIMARY KEY, colour text);
        CREATE TABLE palette (id int PRIMARY KEY, org_settings_id int NOT NULL REFERENCES org_settings);
        INSERT INTO org_settings VALUES (1), (2); INSERT INTO palette VALUES (5, 1), (6, 2);
        """,
        {"public.palette": [[5], [6], []]},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_extract_gives_the_rows_of_its_tenant(shape: Shape, name: str) -> None:
    script, wanted = SHAPES[name]
    shape.execute(script)
    classes = shape.write()
    assert set(classes.values()) == {"tenant"}
    assert {table: shape.keys(table) for table in wanted} == wanted


def test_a_user_of_several_tenants_is_a_parent_although_it_names_the_last_one(shape: Shape) -> None:
    shape.execute("""
        CREATE TABLE person (id int PRIMARY KEY, last_org_id int REFERENCES org, invited_by int REFERENCES person);
        CREATE TABLE member (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org,
                             person_id int NOT NULL REFERENCES person, UNIQUE (org_id, person_id));
        CREATE TABLE blob (id int PRIMARY KEY, by int REFERENCES person);
        CREATE TABLE picture (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org, blob_id int REFERENCES blob);
        INSERT INTO person VALUES (1, 2, NULL), (2, 1, 1), (3, NULL, 2), (4, NULL, NULL), (5, 1, NULL);
        INSERT INTO member VALUES (1, 1, 3), (2, 2, 1); INSERT INTO blob VALUES (1, 4), (2, NULL), (3, 5);
        INSERT INTO picture VALUES (1, 1, 1), (2, 1, 2);
    """)
    classes = shape.write()
    assert classes["public.person"] == classes["public.blob"] == "parent"
    given = {}
    for name in ("person", "blob"):
        text = (shape.folder / "parents" / f"{name}.sql").read_text()
        queries = [f"SELECT r.id FROM ({render(text, tenant, name=name)}) AS r ORDER BY 1" for tenant in (1, 2)]
        given[name] = [[key for (key,) in shape.rows(query)] for query in queries]
    # Of the first tenant: its member, who invited that one, who invited this one, and whoever put the picture there.
    assert given == {"person": [[1, 2, 3, 4], [1]], "blob": [[1, 2], []]}


def test_an_edited_file_stays_and_an_unedited_one_follows_the_schema(shape: Shape) -> None:
    shape.execute("CREATE TABLE a (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org)")
    shape.execute("CREATE TABLE b (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org)")
    shape.write()
    edited = shape.folder / "extract" / "a.sql"
    edited.write_text(edited.read_text() + " AND a.id > 0\n")
    kept = edited.read_text()
    (shape.folder / "clinic_admins.sql").write_text("SELECT 'x' AS email, '' AS name")
    shape.execute("ALTER TABLE a RENAME COLUMN org_id TO owner; ALTER TABLE b RENAME COLUMN org_id TO owner")
    shape.execute("CREATE TABLE c (id int PRIMARY KEY, a_id int NOT NULL REFERENCES a)")
    states = {file.name: file.state for file in shape.plan().files}
    assert (states["extract/a.sql"], states["extract/b.sql"], states["extract/c.sql"]) == ("edited", "changed", "new")
    shape.write()
    assert edited.read_text() == kept
    assert "owner" in (shape.folder / "extract" / "b.sql").read_text()
    assert "'x'" in (shape.folder / "clinic_admins.sql").read_text()
    assert shape.plan().is_settled


def test_a_table_that_is_gone_takes_its_own_file_along_but_not_a_persons(shape: Shape) -> None:
    for name in "ab":
        shape.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org)")
    shape.write()
    (shape.folder / "extract" / "a.sql").write_text("SELECT 1")
    shape.execute("DROP TABLE a, b")
    shape.write()
    assert [path.name for path in sorted((shape.folder / "extract").iterdir())] == ["a.sql", "org.sql"]


def test_what_a_person_declared_is_kept_and_no_way_leads_through_it(shape: Shape) -> None:
    shape.execute("CREATE TABLE a (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org)")
    shape.execute("CREATE TABLE b (id int PRIMARY KEY, a_id int NOT NULL REFERENCES a)")
    shape.execute("CREATE TABLE stray (id int PRIMARY KEY)")
    assert shape.write()["public.stray"] == "unknown"
    with (shape.folder / "not_backed_up.txt").open("a") as lists:
        lists.write("public.a: derived, made anew every night\npublic.stray: shared, of the application\n")
    classes = shape.write()
    assert classes["public.a"] == "derived"
    assert classes["public.stray"] == "shared"
    assert classes["public.b"] == "unknown"
    assert not (shape.folder / "extract" / "a.sql").exists()


def test_the_list_of_tenants_is_no_template(shape: Shape) -> None:
    shape.execute(
        """ALTER TABLE org ADD COLUMN tags text[] DEFAULT '{new}'; ALTER TABLE org RENAME name TO "na{{me" """
    )
    shape.write(active="tags @> '{new}'", name="na{{me")
    for name in ("active_clinics.sql", "all_clinics.sql"):
        assert shape.rows((shape.folder / name).read_text()) == [(1, "uno", "es"), (2, "dos", "es"), (3, "tres", "es")]


def test_a_second_run_changes_nothing(shape: Shape) -> None:
    shape.execute("CREATE TABLE a (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org)")
    shape.execute("CREATE TABLE django_migrations (id int PRIMARY KEY)")
    shape.write(active="id <> 2")
    before = {path: path.read_bytes() for path in shape.folder.rglob("*") if path.is_file()}
    assert shape.plan().is_settled
    shape.write()
    assert {path: path.read_bytes() for path in shape.folder.rglob("*") if path.is_file()} == before
    assert shape.rows((shape.folder / "active_clinics.sql").read_text()) == [(1, "uno", "es"), (3, "tres", "es")]


@pytest.mark.parametrize(
    ("table", "wanted", "message"),
    [
        ("public.nobody", {}, "There is no table public.nobody"),
        ("org", {}, "'org' is not a table"),
        ("public.pair", {}, "has 2 columns"),
        ("public.org", {"key": "name"}, "does not identify a tenant"),
        ("public.org", {"key": "nombre"}, "has no column nombre"),
        ("public.org", {"name": "nombre"}, "has no column nombre"),
        ("public.day", {}, "has the type date"),
        ("public.org", {"parents": ("public.nobody",)}, "There is no table public.nobody"),
    ],
)
def test_what_cannot_be_a_tenant_is_said_before_anything_is_written(
    shape: Shape, table: str, wanted: dict[str, Any], message: str
) -> None:
    shape.execute("CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b)); CREATE TABLE day (id date PRIMARY KEY)")
    with pytest.raises(SettingsError, match=message):
        shape.write(table, **wanted)
    assert not shape.folder.exists()


def test_a_folder_of_another_schema_is_not_touched(shape: Shape) -> None:
    shape.folder.mkdir()
    (shape.folder / "clinic_table.txt").write_text("public.comun_clinica\n")
    with pytest.raises(SettingsError, match=r"is for the table public\.comun_clinica"):
        shape.write()
    assert [path.name for path in shape.folder.iterdir()] == ["clinic_table.txt"]


def test_the_script_of_rights_can_be_run_twice_and_gives_no_more_than_each_role_needs(shape: Shape) -> None:
    shape.execute("""
        CREATE TABLE person (id int PRIMARY KEY);
        CREATE TABLE "Member" (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org, person_id int REFERENCES person);
        CREATE TABLE stray (id int PRIMARY KEY);
        CREATE TABLE login (id int PRIMARY KEY, member_id int REFERENCES "Member");
    """)
    shape.write()
    with (shape.folder / "not_backed_up.txt").open("a") as lists:
        lists.write("public.login: current logins only\n")
    shape.write()
    roles = {role: f"rights_{role}" for role in ("reader", "catalog", "restorer")}
    for _ in range(2):
        shape.server.psql(DATABASE, shape.folder / "grants.sql", roles)
    shape.execute("CREATE TABLE later (id int PRIMARY KEY)")
    may = {
        (role, table, right)
        for role, name in roles.items()
        for table in ("org", '"Member"', "person", "stray", "login", "later")
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if shape.rows(f"SELECT has_table_privilege('{name}', 'public.{table}', '{right}')")[0][0]
    }
    every = {("restorer", table, right) for table in ("org", '"Member"') for right in ("INSERT", "UPDATE", "DELETE")}
    assert may == every | {("restorer", "person", "INSERT"), ("restorer", "login", "SELECT")} | {
        (role, table, "SELECT")
        for role in ("reader", "restorer")
        for table in ("org", '"Member"', "person", "stray", "later")
    }


def test_with_a_type_beside_it_a_column_is_not_known_by_its_name(shape: Shape) -> None:
    shape.execute("""
        CREATE TABLE items (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE posts (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org);
        CREATE TABLE versions (id int PRIMARY KEY, item_type text NOT NULL, item_id int NOT NULL);
        INSERT INTO items VALUES (1, 1), (2, 2); INSERT INTO posts VALUES (1, 2), (2, 1);
        INSERT INTO versions VALUES (1, 'Item', 1), (2, 'Post', 1), (3, 'Post', 2);
    """)
    assert shape.write()["public.versions"] == "unknown"
    pair = "public.versions (item_type, item_id): Item = public.items, Post = public.posts\n"
    (shape.folder / "polymorphic.txt").write_text(pair)
    assert shape.write()["public.versions"] == "tenant"
    assert shape.keys("public.versions") == [[1, 3], [2], []]
    # The check goes by names too.
    assert "public.versions.item_id: item_type says" in (shape.folder / "not_backed_up.txt").read_text()
    assert shape.plan().is_settled


def test_a_parent_that_a_migration_gives_to_tenants_is_theirs(shape: Shape) -> None:
    shape.execute("CREATE TABLE ref (id int PRIMARY KEY)")
    shape.execute("CREATE TABLE item (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org, ref int REFERENCES ref)")
    assert shape.write()["public.ref"] == "parent"
    assert shape.plan().is_settled, "what init wrote itself is up to date"
    shape.execute("ALTER TABLE ref ADD COLUMN org_id int NOT NULL REFERENCES org")
    assert shape.write()["public.ref"] == "tenant"
    assert not (shape.folder / "parents" / "ref.sql").exists()


def test_a_parent_that_was_named_once_stays_one(shape: Shape) -> None:
    shape.execute("CREATE TABLE person (id int PRIMARY KEY, last_org_id int REFERENCES org)")
    shape.execute(
        "CREATE TABLE visit (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org, by int REFERENCES person)"
    )
    assert shape.plan().choices[1].table_class == "tenant"
    assert shape.write(parents=("public.person",))["public.person"] == "parent"
    assert shape.write()["public.person"] == "parent"
    assert shape.plan().is_settled
    assert "public.person.last_org_id: " in (shape.folder / "not_backed_up.txt").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("public.note: x", "is not `schema.table"),
        ("public.note (kind, ref): ", "is not `schema.table"),
        ("public.note (kind, ref): Org = public.org and more", "does not exist"),
        ("public.note (kind, nothing): Org = public.org", "no column public.note.nothing"),
        ("public.nobody (kind, ref): Org = public.org", "no column public.nobody.kind"),
        ("public.note (kind, ref): Org = public.nobody", "public.nobody does not exist"),
    ],
)
def test_a_line_about_pairs_that_cannot_be_read_is_named(shape: Shape, line: str, message: str) -> None:
    shape.execute("CREATE TABLE note (id int PRIMARY KEY, kind text, ref int)")
    shape.folder.mkdir()
    (shape.folder / "polymorphic.txt").write_text(f"# pairs\n\n{line}\n")
    with pytest.raises(SettingsError, match=message) as raised:
        shape.plan()
    assert "polymorphic.txt, line 3" in str(raised.value)
