"""The id of a clinic as people, confs and requests give it."""

from __future__ import annotations

import re

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.load_settings import load_usable
from clinic_backups.tenant.extract import SqlFolder

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def given_id(value: object) -> ClinicId:
    """The id that somebody gives. A UUID in capitals is the same one, in PostgreSQL's form.

    Only here: a path in a store and a record have one form each. Where keys are texts, capitals are another key.

    :raises ValueError: see :func:`clinic_id_of`.
    """
    id_ = clinic_id_of(value)
    return id_.lower() if isinstance(id_, str) and _UUID.fullmatch(id_) and _are_uuids() else id_


def _are_uuids() -> bool:
    try:
        return SqlFolder(load_usable()[0].sql_dir).clinic_key.type == "uuid"
    except SettingsError:
        return True  # without the folder, as after a loss: an id that looks like a UUID is one
