"""The shared unit: what no clinic's backup holds, backed up beside the clinics as if it were one more.

It has an id of its own that no clinic can have, so that records, paths, retention, replicas and locks treat it as they
treat a clinic. Its archive also holds files: the definition of the database, the positions of sequences, the roles,
and the SQL folder. See docs/decisions/0033-the-shared-unit.md.
"""

from __future__ import annotations

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, clinic_id_of

SHARED_ID = "~shared"
"""The id. A clinic whose key is this text is refused."""
_NAMES = {"es": "Datos compartidos"}
DEFINITION, UNDUMPED, SEQUENCES, ROLES = "definition.dump", "undumped.json", "sequences.json", "roles.json"
SQL, CLINICS, TABLES = "sql.json", "clinics.json", "tables.json"
FILES = (DEFINITION, UNDUMPED, SEQUENCES, ROLES, SQL, CLINICS, TABLES)
"""The files of its archive.

- ``definition.dump``: what ``pg_dump --schema-only`` wrote in its custom format.
- ``undumped.json``: the tables that it could not dump, because the role may not read them: ``[{"name", "before": [SQL],
  "after": [SQL]}]``, for before and after the rows.
- ``sequences.json``: ``[{"schema", "name", "last_value", "is_called"}]``. A clinic's archive has it too, of the
  sequences whose numbers no numeric column holds.
- ``roles.json``: the roles that own something or have rights, without passwords.
- ``sql.json``: the texts of the SQL folder by name.
- ``clinics.json``: ``[{"id", "name"}]`` of all clinics, also of those that are closed, so that a recovery can name
  those without a backup.
- ``tables.json``: the tables that clinics' backups hold, as a manifest describes them. The definition does not have
  PostgreSQL's numbers, which tell a column from another one that has its name. Older archives lack it.
"""


def shared_clinic(language: str = "en") -> Clinic:
    """The shared unit as a run backs it up. :param language: that of the operator, who is the one to see its name."""
    return Clinic(SHARED_ID, _NAMES.get(language, "Shared data"), language)


SHARED = shared_clinic()


def is_shared(id_: ClinicId) -> bool:
    """Whether an id is that of the shared unit."""
    return id_ == SHARED_ID


def key_of_clinic(value: object) -> ClinicId:
    """The id in a row of the clinics' table. :raises ValueError: it cannot be a clinic's; see :func:`clinic_id_of`."""
    id_ = clinic_id_of(value)
    if is_shared(id_):
        raise ValueError(f"{SHARED_ID} is the id of the data that belong to no clinic")
    return id_


def named(id_: ClinicId) -> str:
    """What messages call it: ``clinic 7``, or ``the shared data``."""
    return "the shared data" if is_shared(id_) else f"clinic {id_}"
