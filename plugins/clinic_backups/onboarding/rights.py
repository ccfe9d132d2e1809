"""Writes the script with the rights of the three roles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.onboarding.classes import TableChoice, TableClass
from clinic_backups.onboarding.schema import Schema, Tenant
from clinic_backups.tenant.problems import schema_of
from clinic_backups.tenant.structure import ParentKey

FILE = "grants.sql"
_HEAD = """\
-- The rights of the three roles of the backups. Run it with psql as a superuser or as the owner of the tables. Run it
-- again after each migration that made tables:
--   psql -v ON_ERROR_STOP=1 -v reader=backups_reader -v catalog=backups_catalog -v restorer=backups_restorer \\
--        -f grants.sql "$DATABASE"
-- It gives no passwords: \\password backups_reader in psql sets one. It names tables by class, as init saw them:
--   the reader (connection clinic_db) may read the tables of backups, what checks compare, and the positions of
--   sequences; it may write nothing.
--   the catalog's role (connection backup_catalog) owns the schema clinic_backups. It may read no other table.
--   the restorer (connection restore_db) may write tenants' tables, insert into parents, delete from derived tables,
--   and move sequences. It may not change definitions. Keep its password where the backup workers cannot read it.
BEGIN;
SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest(ARRAY[:'reader', :'catalog', :'restorer']) AS r
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r)
\\gexec
ALTER ROLE :"reader" SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"reader", :"catalog", :"restorer";
GRANT TEMPORARY ON DATABASE :"DBNAME" TO :"restorer";
-- Who is no superuser makes a schema only for a role that it is a member of.
SELECT format('GRANT %I TO CURRENT_USER', :'catalog') FROM pg_roles WHERE rolname = current_user AND NOT rolsuper
\\gexec
CREATE SCHEMA IF NOT EXISTS clinic_backups AUTHORIZATION :"catalog";
ALTER ROLE :"catalog" IN DATABASE :"DBNAME" SET search_path = clinic_backups;
"""


def grants(
    schema: Schema, tenant: Tenant, choices: Sequence[TableChoice], links: Mapping[str, Sequence[ParentKey]]
) -> str:
    """The script. It names only tables that exist.

    :param choices: the class of each table.
    :param links: those of each table.
    """
    by_class: dict[TableClass, list[str]] = {}
    for choice in choices:
        by_class.setdefault(choice.table_class, []).append(choice.table)
    own, parents, derived = by_class.get("tenant", []), by_class.get("parent", []), by_class.get("derived", [])
    seen = [*own, *parents, *derived, *by_class.get("shared", []), *by_class.get("unknown", [])]
    schemas = sorted(set(map(schema_of, seen)))
    lines = [_HEAD, *_on_schemas(schemas)]
    referring = {table for table, keys in links.items() if any(key.parent in {*own, *parents} for key in keys)}
    lines += _grant("SELECT", seen, "reader", "Backups and checks read these.")
    lines += _grant("SELECT", {*seen, *referring}, "restorer", "A plan reads these, and what refers to them.")
    lines += _grant("INSERT, UPDATE, DELETE", own, "restorer", "A restore writes these.")
    lines += _grant("INSERT", parents, "restorer", "A restore inserts rows that are missing, and changes none.")
    lines += _grant("DELETE", derived, "restorer", "A restore may delete these rows; the application makes them anew.")
    lines += ["-- The backup of the shared data holds the positions of sequences."]
    lines += [f'GRANT SELECT ON ALL SEQUENCES IN SCHEMA {in_sql(each)} TO :"reader";' for each in schemas]
    lines += ["-- A restore moves sequences past the keys that it wrote."]
    lines += [f'GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {in_sql(each)} TO :"restorer";' for each in schemas]
    lines += _defaults(schemas, {schema.owners[table] for table in (tenant.table, *own) if table in schema.owners})
    return "\n".join([*lines, "COMMIT;", ""])


def _on_schemas(schemas: Iterable[str]) -> list[str]:
    return [f'GRANT USAGE ON SCHEMA {in_sql(each)} TO :"reader", :"restorer";' for each in schemas]


def _grant(rights: str, tables: Collection[str], role: str, comment: str) -> list[str]:
    if not tables:
        return []
    listed = ",\n    ".join(table_in_sql(table) for table in sorted(tables))
    return [f"-- {comment}", f'GRANT {rights} ON\n    {listed}\n TO :"{role}";']


def _defaults(schemas: Sequence[str], owners: Collection[str]) -> list[str]:
    """The reader's rights on tables of later migrations: a new table must not fail the next night's backup."""
    lines = ["-- Tables of the application's next migration can be read too, so that the check can name them."]
    return lines + [
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {in_sql(owner)} IN SCHEMA {in_sql(each)} GRANT SELECT ON TABLES"
        ' TO :"reader", :"restorer";'
        for owner in sorted(owners) for each in schemas
    ]  # fmt: skip
