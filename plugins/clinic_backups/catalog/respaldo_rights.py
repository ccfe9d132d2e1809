"""What the clinics' application needs in the database to read the view ``respaldo``, as SQL."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from clinic_backups.catalog.database import CatalogDatabase
from clinic_backups.catalog.tables import SCHEMA
from clinic_backups.errors import SettingsError

VIEW = f"{SCHEMA}.respaldo"
RIGHTS = "SELECT, DELETE, UPDATE (clinica_id, creado_por_id)"
"""Django deletes and clears what refers to a clinic or a user. The view's trigger lets that succeed without effect."""


@dataclass(frozen=True)
class RespaldoRights:
    """Lets one role read the view.

    :param role: the role that the application connects with.
    :param synonym: ``schema.name`` of a view of the same rows, for a model whose table has another name.
    :param search_path: put the schema into the role's search path, so that ``respaldo`` alone is found.
    """

    role: str
    synonym: str | None = None
    search_path: bool = False

    def statements(self, database: str) -> list[str]:
        """The statements, each without its semicolon; all may be repeated.

        :raises SettingsError: the synonym is no ``schema.name``.
        """
        role = _quoted(self.role)
        found = [f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}", f"GRANT {RIGHTS} ON {VIEW} TO {role}"]
        if self.synonym is not None:
            schema, dot, name = self.synonym.partition(".")
            if not (schema and dot and name):
                raise SettingsError(
                    f"{self.synonym!r} does not name a view with its schema.",
                    hint="Write it as schema.name, for instance public.respaldos_respaldo.",
                )
            view = f"{_quoted(schema)}.{_quoted(name)}"
            found.append(f"CREATE OR REPLACE VIEW {view} AS TABLE {VIEW}")
            found.append(f"GRANT {RIGHTS} ON {view} TO {role}")
        if self.search_path:
            path = f'"$user", public, {SCHEMA}'
            found.append(f"ALTER ROLE {role} IN DATABASE {_quoted(database)} SET search_path = {path}")
        return found

    def apply(self, database: CatalogDatabase) -> list[str]:
        """Run them in one transaction, as the catalog's role; returns them."""
        with database.transaction(f"granting {VIEW} to {self.role}") as db:
            statements = self.statements(db.execute(text("SELECT current_database()")).scalar_one())
            for statement in statements:
                db.exec_driver_sql(statement.replace("%", "%%"))
        return statements


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
