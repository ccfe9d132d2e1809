"""Makes a schema with two tenants for a test, backs it up and restores it, and compares it with separate SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage

from clinic_backups.base import connections
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.restore.archives import Archives, Source
from clinic_backups.restore.clinic_restore import ClinicRestore
from clinic_backups.restore.plan import RestorePlan
from clinic_backups.restore.request import Wish
from clinic_backups.stores.configured import Stores
from clinic_backups.stores.file import FileStore
from tests.postgres_fixtures import DemoDatabase
from tests.rig import Rig

CLINICS = """
    CREATE SCHEMA s;
    CREATE TABLE s.clinic (id int PRIMARY KEY, name text NOT NULL, phone text);
    INSERT INTO s.clinic VALUES (1, 'uno', '11'), (2, 'dos', '22')
"""


@dataclass
class Shaped(Rig):
    """A rig whose tables are those of a test: the clinics' is ``s.clinic``.

    :param as_owner: restores run as the tables' owner, who is a superuser; else as the demo's restoring role.
    """

    as_owner: bool = False

    def restore(self) -> ClinicRestore:
        uri = self.database.restorer_uri
        if self.as_owner:
            uri = self.database.postgres.uri(self.database.name)
        return ClinicRestore(
            settings=self.settings,
            restore_db=connections.parse("restore_db", uri),
            archives=Archives(Stores.of(self.store), [pyrage.x25519.Identity.from_str(self.identity)]),
        )

    def source(self, record: BackupRecord) -> Source:
        return Source(record.backup_id, record.clinic_id, record.archive, record.chain)

    def plan(self, record: BackupRecord, **wish: Any) -> RestorePlan:
        return self.restore().plan(self.source(record), Wish(**wish))

    def bring_back(self, record: BackupRecord, **wish: Any) -> RestorePlan:
        """Plan and apply; the plan must have no refusals."""
        plan = self.plan(record, **wish)
        assert plan.refusals == ()
        return self.restore().apply(self.source(record), Wish(**wish), approved=plan.digest)

    def everything(self) -> dict[str, list[str]]:
        """All rows of all tables of the schema, by SQL that the product does not use."""
        names = self.execute_rows(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 's' ORDER BY 1"
        )
        return {
            name: [str(row[0]) for row in self.execute_rows(f"SELECT t::text FROM ONLY {name} AS t ORDER BY 1")]
            for (name,) in names
        }


def shaped(
    database: DemoDatabase, folder: Path, ddl: str, extracts: Mapping[str, str], *, lists: str = "", owner: bool = False
) -> Shaped:
    """Make the schema and its SQL folder.

    :param ddl: statements besides the clinics' table.
    :param extracts: the condition, or a whole SELECT, of each table ``s.<name>``.
    :param lists: the content of ``not_backed_up.txt``.
    """
    sql = folder / "sql"
    (sql / "extract").mkdir(parents=True)
    (sql / "clinic_table.txt").write_text("s.clinic\n")
    (sql / "not_backed_up.txt").write_text(lists)
    for name in ("active_clinics.sql", "all_clinics.sql"):
        (sql / name).write_text("SELECT id, name, 'es' AS language FROM s.clinic ORDER BY id")
    (sql / "clinic_admins.sql").write_text("SELECT 'a@example.org' AS email, 'A' AS name WHERE {{ clinic_id }} > 0")
    (sql / "user_clinics.sql").write_text("SELECT 1 AS clinic_id, 'admin' AS role WHERE false")
    for name, text in {"clinic": "id = {{ clinic_id }}", **extracts}.items():
        query = text if text.lstrip().startswith("SELECT") else f"SELECT t.* FROM s.{name} AS t WHERE {text}"
        (sql / "extract" / f"s.{name}.sql").write_text(query)
    rig = Shaped(database, FileStore(folder / "store"), as_owner=owner)
    rig.settings = rig.settings.model_copy(update={"sql_dir": sql})
    rig.execute(CLINICS, *([ddl] if ddl else []), *grants(database))
    return rig


def grants(database: DemoDatabase) -> list[str]:
    """The rights that the roles need in the schema."""
    reader, restorer = database.roles.reader, database.roles.restorer
    return [
        f"GRANT USAGE ON SCHEMA s TO {reader}, {restorer}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA s TO {reader}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA s TO {restorer}",
        f"GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA s TO {restorer}",
    ]
