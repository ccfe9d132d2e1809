"""The SQL that lets the clinics' application read the view ``respaldo``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.text import quoted
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import SCHEMA

VIEW, ROWS = f"{SCHEMA}.respaldo", f"{SCHEMA}.respaldo_rows"
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
"""Rights for statements that the view's trigger answers: on_delete has no effect, changes are refused with a hint."""
OURS = "Made by clinic-backups grant respaldo: it can be made anew at any time."
"""The comment of a view that this command made and may replace."""
LONGEST_NAME_BYTES = 63
DEFAULT_PATH = '"$user", public'

PATH_OF = text("""
    SELECT substr(entry, 13)
      FROM pg_db_role_setting, unnest(setconfig) AS entry,
           (SELECT oid FROM pg_database WHERE datname = current_database()) AS here
     WHERE setrole IN (0, coalesce(to_regrole(quote_ident(:role))::oid, 0)) AND setdatabase IN (0, here.oid)
       AND entry LIKE 'search\\_path=%'
     ORDER BY setrole = 0, setdatabase = 0 LIMIT 1""")
"""The setting that applies to a role: its own here, its own everywhere, the database's, the general one."""
RELATION = text("""
    SELECT relkind = 'v' AND obj_description(pg_class.oid, 'pg_class') IS NOT DISTINCT FROM :ours
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname = :schema AND relname = :name""")
MAY_READ = text("""
    SELECT has_schema_privilege(:role, :schema, 'USAGE'), has_table_privilege(:role, :view, 'SELECT')""")


@dataclass(frozen=True)
class RespaldoRights:
    """Lets one role read the view.

    :param role: the role that the application connects with.
    :param synonym: ``schema.name`` of a view of the same rows, for a model whose table has another name.
    :param search_path: add the schema to the role's search path, so that ``respaldo`` is found without its schema.
    """

    role: str
    synonym: str | None = None
    search_path: bool = False

    def statements(self, db: Connection) -> list[str]:
        """The statements, without semicolons. All may be repeated.

        :raises SettingsError: the synonym is not ``schema.name``, or is the name of something else.
        """
        role = quoted(self.role)
        found = [
            f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
            f"GRANT {RIGHTS} ON {VIEW} TO {role}",
            f"GRANT SELECT ON {ROWS} TO {role}",
        ]
        if self.synonym is not None:
            schema, name = _free_name(db, self.synonym)
            view = f"{quoted(schema)}.{quoted(name)}"
            found.append(f"CREATE OR REPLACE VIEW {view} AS TABLE {VIEW}")
            found.append(f"COMMENT ON VIEW {view} IS '{OURS}'")
            found.append(f"GRANT {RIGHTS} ON {view} TO {role}")
        if self.search_path:
            path = _names(db.execute(PATH_OF, {"role": self.role}).scalar() or DEFAULT_PATH)
            if SCHEMA not in path:
                database = quoted(db.execute(text("SELECT current_database()")).scalar_one())
                longer = ", ".join(map(quoted, [*path, SCHEMA]))
                found.append(f"ALTER ROLE {role} IN DATABASE {database} SET search_path = {longer}")
        return found

    def apply(self, database: CatalogDatabase) -> list[str]:
        """Run the statements in one transaction, as the catalog's role, then read the view; returns the statements.

        :raises PermanentError: one was refused, or the role cannot read the view afterwards. Nothing was changed.
        """
        with database.transaction(f"granting {VIEW} to {self.role}") as db:
            statements = self.statements(db)
            for statement in statements:
                self._run(db, statement)
            self._look(db)
        return statements

    def _run(self, db: Connection, statement: str) -> None:
        try:
            db.exec_driver_sql(statement.replace("%", "%%"))
        except DBAPIError as error:
            refused = isinstance(error.orig, psycopg2.Error) and error.orig.pgcode == "42501"
            if not (refused and statement.startswith("ALTER ROLE")):
                raise
            raise PermanentError(
                f"The role of backup_catalog may not set the search_path of {self.role}. Nothing was changed.",
                hint=f"Let a superuser, {self.role} itself, or a role with CREATEROLE and the ADMIN option on it run:"
                f" {statement};  Then run this command again without --search-path.",
            ) from None

    def _look(self, db: Connection) -> None:
        """Check that the role can read the view."""
        for view in (VIEW, self.synonym):
            if view is None:
                continue
            schema, name = view.split(".")
            relation = f"{quoted(schema)}.{quoted(name)}"
            look = f"SELECT * FROM {relation} LIMIT 1"  # noqa: S608 - the name is quoted
            db.exec_driver_sql(look.replace("%", "%%")).all()
            usage, select = db.execute(MAY_READ, {"role": self.role, "schema": schema, "view": relation}).one()
            if not (usage and select):
                raise PermanentError(
                    f"{self.role} could not read {view} afterwards: it has no USAGE on the schema {schema}, or no"
                    " SELECT on the view. Nothing was changed.",
                    hint=f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(self.role)}; and run this again.",
                )


def _free_name(db: Connection, synonym: str) -> tuple[str, str]:
    """Schema and name of a view that may be made. :raises SettingsError: the name belongs to something else."""
    parts = synonym.split(".")
    if len(parts) != 2 or any(not 0 < len(part.encode()) <= LONGEST_NAME_BYTES for part in parts):
        raise SettingsError(
            f"{synonym!r} does not name a view with its schema.",
            hint="Write it as schema.name, without quotes and with one dot, for instance public.respaldos_respaldo.",
        )
    schema, name = parts
    if schema == SCHEMA:
        raise SettingsError(
            f"{synonym} lies in the schema of the catalog, where nothing else may be made.",
            hint=f"Name a view in another schema, for instance public.{name}; or use {VIEW} itself without --synonym.",
        )
    if db.execute(RELATION, {"schema": schema, "name": name, "ours": OURS}).scalar() is False:
        raise SettingsError(
            f"{synonym} is there already, and is not a view that `clinic-backups grant respaldo` made.",
            hint="Rename or drop it first, or name another view.",
        )
    return schema, name


def _names(path: str) -> list[str]:
    """The schemas of a search_path, as PostgreSQL reads it."""
    found = re.findall(r'"((?:[^"]|"")*)"|([^",\s]+)', path)
    return [name for name in (exact.replace('""', '"') or plain.lower() for exact, plain in found) if name]
