"""The params of runs that name clinics. Their schema is that of the key of the clinics' table."""

from __future__ import annotations

import re
from typing import Any

from airflow.sdk import Param

from clinic_backups.base.clinic_id import MAX_CHARACTERS
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.settings import Settings
from clinic_backups.base.shared_unit import SHARED_ID
from clinic_backups.tenant.extract import SqlFolder


def clinic_param(settings: Settings, description: str) -> Any:
    """The param ``clinic_id``."""
    schema = _schema(settings)
    kinds = schema.pop("type")
    either = ["null", kinds] if isinstance(kinds, str) else ["null", *kinds]
    return Param(None, type=either, title="Clinic", description=description, **schema)


def clinics_param(settings: Settings, description: str) -> Any:
    """The param ``clinic_ids``."""
    return Param(
        None,
        type=["null", "array"],
        items=_schema(settings),
        minItems=1,
        title="Clinics",
        description=description,
    )


def _schema(settings: Settings) -> dict[str, Any]:
    """An id, or that of the shared data. Airflow's form makes a field for the first type."""
    try:
        is_number = SqlFolder(settings.sql_dir).clinic_key.type == "integer"
    except SettingsError:
        is_number = True  # a run says what is wrong with the folder
    if is_number:
        # A pattern is about texts alone, and a minimum about numbers.
        return {"type": ["integer", "string"], "minimum": 1, "pattern": f"^{re.escape(SHARED_ID)}$"}
    return {"type": ["string", "integer"], "minLength": 1, "maxLength": MAX_CHARACTERS}
