"""From an empty SQL folder to proven restores on schemas that nobody prepared, by commands only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clinic_backups.tenant.declarations import FILE
from include.demo.postgres import EmbeddedPostgres
from tests.foreign import Foreign, foreign_database
from tests.integration.test_cli import Done, Run
from tests.integration.test_cli import run as command  # noqa: F401 - a fixture
from tests.integration.test_copy_runs import LEADS_OUT

LINES = {
    "uuid_tenants": """\
public.feature_flags: shared, of the application
public.background_jobs: made anew
public.tax_codes: shared, of the application
""",
    "django_auth": "",
    "rails_loose": "public.good_jobs: made anew\n",
}
"""What a person says of the tables that init does not know."""
DAMAGE = {
    "uuid_tenants": (
        (
            "DELETE FROM customers WHERE id IN (SELECT id FROM customers WHERE organization_id = '{tenant}' LIMIT 3)",
            False,
        ),
        ("DELETE FROM organizations WHERE id = '{tenant}'", False),
    ),
    "django_auth": (
        (
            "DELETE FROM auth_user WHERE id IN (SELECT user_id FROM staff_employee"
            " WHERE company_id = {tenant} LIMIT 2)",
            True,
        ),
        ("DELETE FROM staff_employee WHERE company_id = {tenant}", False),
        ("DELETE FROM company WHERE id = {tenant}", False),
    ),
    "rails_loose": (
        ("DELETE FROM tasks WHERE project_id IN (SELECT id FROM projects WHERE account_id = {tenant})", False),
        ("DELETE FROM comments; UPDATE members SET email = 'x' WHERE account_id = {tenant}", True),
        ("DELETE FROM projects WHERE account_id = {tenant}; DELETE FROM accounts WHERE id = {tenant}", False),
    ),
}
"""By cascade, by SET NULL and by the loss of the whole tenant; and whether others lose rows too."""


class Life:
    """The commands, with the roles that the script of init makes."""

    def __init__(self, call: Run, foreign: Foreign, folder: Path) -> None:
        self._command, self.foreign = call, foreign
        roles = {role: f"{role}_{foreign.name}" for role in ("reader", "catalog", "restorer")}
        self._roles = roles
        uris = {role: foreign.server.uri(foreign.database, name, "pw") for role, name in roles.items()}
        self._variables = {
            "AIRFLOW_CONN_CLINIC_DB": uris["reader"],
            "AIRFLOW_CONN_BACKUP_CATALOG": uris["catalog"],
            "AIRFLOW_CONN_RESTORE_DB": uris["restorer"],
            "CLINIC_BACKUPS_SQL_DIR": str(foreign.folder),
            "CLINIC_BACKUPS_STORE_URL": (folder / "store").as_uri(),
            "CLINIC_BACKUPS_RECIPIENTS": call("keygen", str(folder / "identity")).out.strip(),
            "CLINIC_BACKUPS_IDENTITY_FILE": str(folder / "identity"),
        }

    def run(self, *words: str) -> Done:
        return self._command(*words, **self._variables)

    def done(self, *words: str) -> Done:
        """Run a command that must succeed."""
        done = self.run(*words)
        assert done.code == 0, done.err
        return done

    def begin(self, lines: str | None = None) -> None:
        """From the empty folder to a catalog and a store. :param lines: what a person says of unknown tables."""
        foreign = self.foreign
        owner = foreign.server.uri(foreign.database)
        made = self._command(
            "init", "--tenant", foreign.tenant_table, **self._variables | {"AIRFLOW_CONN_CLINIC_DB": owner}
        )
        assert made.code == 0, made.err
        with (foreign.folder / FILE).open("a") as lists:
            lists.write(LINES[foreign.name] if lines is None else lines)
        foreign.server.psql(foreign.database, foreign.folder / "grants.sql", self._roles)
        foreign.execute(*(f"ALTER ROLE {name} PASSWORD 'pw'" for name in self._roles.values()))
        self.done("catalog", "migrate")
        self.done("store", "init")


@pytest.fixture(params=["django_auth", pytest.param("rails_loose", marks=pytest.mark.long), "uuid_tenants"])
def life(
    request: pytest.FixtureRequest,
    command: Run,  # noqa: F811
    postgres: EmbeddedPostgres,
    tmp_path: Path,
) -> Iterator[Life]:
    with foreign_database(request.param, postgres, tmp_path / "sql", each=4) as foreign:
        life = Life(command, foreign, tmp_path)
        life.begin()
        yield life


def test_every_row_comes_back_after_each_damage(life: Life) -> None:
    checked = life.run("check")
    assert "error" not in checked.out, checked.out
    before = life.foreign.everything()
    life.done("backup", "--all")
    for number, (damage, is_of_all) in enumerate(DAMAGE[life.foreign.name]):
        tenant = str(life.foreign.tenants[number])
        life.foreign.execute(damage.format(tenant=tenant))
        assert life.foreign.everything() != before
        for each in life.foreign.tenants if is_of_all else [tenant]:
            life.done("restore", "--clinic", str(each), "--yes", "--backup", newest(life, str(each)))
        now = without_links_of_parents(life.foreign, life.foreign.everything())
        assert now == without_links_of_parents(life.foreign, before)


def without_links_of_parents(foreign: Foreign, rows: dict[str, list[str]]) -> dict[str, list[str]]:
    """The rows, and of parent tables only the keys: a restore changes no row of theirs, even if a link is NULL now."""
    parents = [table.name for table in foreign.spec.tables.values() if table.kind == "+"]
    return rows | {name: [row.partition(",")[0] for row in rows[name]] for name in parents}


def newest(life: Life, tenant: str) -> str:
    """The scheduled backup of a tenant."""
    found = life.done("list", "--clinic", tenant, "--json").json()
    return str(next(each["backup_id"] for each in found if not each["safety_of"]))


COUNTS = """
    SELECT c.relname, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid),
           (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('c', 'u', 'x', 'p')),
           (SELECT count(*) FROM pg_attrdef WHERE adrelid = c.oid),
           (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attidentity <> ''),
           (SELECT array_agg(attname || attnotnull || attgenerated::text ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
      FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = %s::regnamespace ORDER BY 1
"""


def test_a_copy_has_everything_that_each_table_has(life: Life) -> None:
    tenant = str(life.foreign.tenants[0])
    life.done("backup", "--clinic", tenant)
    life.foreign.execute(f"GRANT CREATE ON DATABASE {life.foreign.database} TO {life._roles['restorer']}")
    report = json.loads(life.done("restore-into", "--clinic", tenant, "--schema", "copia", "--json").out)
    with closing(life.foreign.connect()) as db, db.cursor() as cursor:
        found = []
        for schema in ("public", "copia"):
            cursor.execute(COUNTS, (schema,))
            found.append({name: rest for name, *rest in cursor})
        cursor.execute(LEADS_OUT)
        assert cursor.fetchall() == []
    own, copied = found
    assert copied.keys() == {table["name"] for table in report["tables"]} and len(copied) > 8
    assert copied == {name: own[name] for name in copied}
    said = [note for table in report["tables"] for note in table["notes"]]
    assert all(note.startswith(("There is no foreign key to", "Not in the copy:")) for note in said), said
