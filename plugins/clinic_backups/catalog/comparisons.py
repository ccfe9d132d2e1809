"""What the preflight of each run compared: see :class:`clinic_backups.base.compared_rows.ComparedRows`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of, in_order
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.catalog.tables import comparison

VALID_HOURS = 24
"""A backup that begins later compares its own rows: the clinics have worked meanwhile. No run lasts as long."""
_OF_RUN = text(
    "SELECT database, definitions, folder, tables,"
    " ARRAY(SELECT unnest(clinics) INTERSECT SELECT unnest(CAST(:clinics AS text[])))"
    " FROM clinic_backups.comparison WHERE run_id = :run_id AND compared_at > clock_timestamp() - :age * interval '1h'"
)


class Comparisons:
    """The comparisons, one for each run. Only a preflight that has compared rows writes one."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def note(self, run_id: str, compared: ComparedRows) -> None:
        """Record what the preflight of a run has just compared. It replaces what an earlier attempt recorded."""
        values = {
            "database": compared.database,
            "definitions": compared.definitions,
            "folder": compared.folder,
            "tables": sorted(compared.tables),
            "clinics": in_order(compared.clinics),
            "compared_at": func.clock_timestamp(),
            "turn": self.turn(run_id),
        }
        statement = insert(comparison).values(run_id=run_id, **values)
        with self._database.statement("recording which rows were compared") as db:
            db.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=values))

    def turn(self, run_id: str = "") -> int:
        """The number of a run among those that compare rows: one more than that of the last other run.

        A later attempt of a run has the same number. A run whose preflight fails takes none.
        """
        last = select(func.max(comparison.c.turn)).where(comparison.c.run_id != run_id)
        with self._database.statement("asking how many runs compared rows") as db:
            found = db.execute(last).scalar()
        return 0 if found is None else int(found) + 1

    def of_run(self, run_id: str, clinics: Iterable[ClinicId]) -> ComparedRows | None:
        """What the preflight of this run compared, as far as it is about these clinics.

        ``None``: nothing, or it is older than ``VALID_HOURS``.
        """
        values = {"run_id": run_id, "clinics": list(map(str, clinics)), "age": VALID_HOURS}
        with self._database.statement("asking which rows were compared") as db:
            row = db.execute(_OF_RUN, values).one_or_none()
        if row is None:
            return None
        database, definitions, folder, tables, of_clinics = row
        return ComparedRows(database, definitions, folder, frozenset(tables), frozenset(map(clinic_id_of, of_clinics)))
