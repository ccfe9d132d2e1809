"""The request for a restore, and how it is read from a conf and checked before anything else happens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any

from pydantic import TypeAdapter

from clinic_backups.backup.choose_clinics import select
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import MAX_COMPONENT, ClinicId
from clinic_backups.base.conf_values import flag, notes, require_known_keys, told, unknown_word
from clinic_backups.base.documents import StoredId, read
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.plain import plain
from clinic_backups.catalog.exports import FORMATS, Format
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.restore.row_names import EXAMPLE, keys_of, require_keys
from clinic_backups.tenant.given_id import given_id

MODES: tuple[RestoreMode, ...] = ("exact", "missing", "live", "rows")
INTO, EXPORT = "into", "export"
KEYS = (
    "clinic_id", "backup_id", "as_of", "from_connection", "mode", "schema", "masked", "tables", "rows", "only",
    "ignore_dropped", "other_database", "format", "password", "approve", "notes",
)  # fmt: skip
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_SEALED = re.compile(r"[A-Za-z0-9+/]{200,8000}={0,2}")
LONGEST_BACKUP_ID = MAX_COMPONENT + 20


@dataclass(frozen=True)
class Wish:
    """What is wanted of a backup.

    :param mode: ``exact``: the clinic becomes what the backup holds; ``missing``: only rows that are gone come back;
        ``live``: as exact, but rows that changed since the plan stay; ``rows``: only ``rows`` and what hangs on them.
    :param rows: for that mode: the keys of rows by table. Between the parts of a key of several columns is ``/``.
    :param only: rows that refer to these stay out.
    :param tables: only these, and what their rows need; all if empty.
    :param ignore_dropped: restore although columns of the backup are gone from the database.
    :param other_database: restore although this is not the database that backups are read from.
    """

    mode: RestoreMode = "exact"
    tables: tuple[str, ...] = ()
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only: bool = False
    ignore_dropped: bool = False
    other_database: bool = False


@dataclass(frozen=True, kw_only=True)
class RestoreRequest(Wish):
    """A request for a restore: a wish, the backup that it is for, and who asks.

    :param backup_id: the backup; if empty, the newest completed one at or before ``as_of``, or the newest of all.
    :param from_connection: back up the clinic from this database of an earlier time first, and restore that. Then
        ``as_of`` is the time that it was recovered to.
    :param into_schema: do not restore the clinic, but make a copy in a new schema of this name.
    :param export_format: do not restore the clinic, but write a file of this format for people.
    :param sealed_password: its password, encrypted to the keys of backups; none: it is encrypted to the clinic's own
        keys.
    """

    clinic_id: StoredId
    backup_id: str | None = None
    as_of: datetime | None = None
    from_connection: str | None = None
    into_schema: str | None = None
    export_format: Format | None = None
    sealed_password: str | None = field(default=None, repr=False)
    masked: bool | None = None
    """Of such a copy: whether values are masked. None: if the SQL folder has masks."""
    requested_by: str = ""
    notes: str = ""
    run_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: for the catalog."""
        return plain(self) | {"tables": list(self.tables)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestoreRequest:
        """The request that :meth:`to_json` wrote."""
        return read(_REQUEST, data)


_REQUEST = TypeAdapter(RestoreRequest)


def require_rows(conf: Mapping[str, Any]) -> None:
    """Check what a conf says about rows. :raises SettingsError: it is wrong, or does not fit the mode."""
    _mode(conf), _rows(conf), _only(conf)


def digest_of_rows(wish: Wish) -> str:
    """SHA-256, in hex, of the named rows. An approval includes it: the keys may be a patient's."""
    said = json.dumps([wish.only, sorted((table, sorted(keys)) for table, keys in wish.rows.items())])
    return hashlib.sha256(said.encode()).hexdigest()


def parse(
    conf: Mapping[str, Any], *, every: Sequence[Clinic], requested_by: str, run_id: str | None, zone: tzinfo
) -> tuple[RestoreRequest, bool]:
    """Read a conf. Returns the request, and whether it is approved in advance (``approve: true``).

    :param every: the existing clinics, for the error. A clinic whose row is gone is known by its backups, so its id is
        accepted.
    :param zone: the time zone of times without an offset.
    :raises SettingsError: a key is unknown or a value is wrong.
    """
    require_known_keys(conf, KEYS)
    if conf.get("clinic_id") is None:
        raise SettingsError("The conf names no clinic.", hint='For instance: {"clinic_id": 7}')
    known = [*every, *_as_clinic(conf["clinic_id"], every)]
    chosen = select({"clinic_id": conf["clinic_id"]}, active=[], every=known)
    if conf.get("backup_id") and conf.get("as_of"):
        raise SettingsError("The conf has both backup_id and as_of.", hint="Give only one of them.")
    request = RestoreRequest(
        clinic_id=chosen.clinics[0].id,
        backup_id=_text(conf, "backup_id"),
        as_of=moment_of(conf.get("as_of"), zone),
        from_connection=_from_connection(conf),
        mode=_mode(conf),
        into_schema=_schema(conf),
        export_format=_export_format(conf),
        sealed_password=_sealed_password(conf),
        masked=_masked(conf),
        tables=_tables(conf.get("tables")),
        rows=_rows(conf),
        only=_only(conf),
        ignore_dropped=flag(conf, "ignore_dropped"),
        other_database=flag(conf, "other_database"),
        requested_by=requested_by,
        notes=notes(conf),
        run_id=run_id,
    )
    return request, flag(conf, "approve")


def require_schema_name(schema: str) -> None:
    """:raises SettingsError: the name cannot be used for a new schema."""
    if not _SCHEMA.fullmatch(schema) or schema == "information_schema":
        raise SettingsError(
            f"{schema[:80]!r} cannot be the name of the new schema.",
            hint="Use small letters a-z, digits and underscores, at most 63, no digit first, and not pg_…",
        )


def _as_clinic(value: object, every: Sequence[Clinic]) -> list[Clinic]:
    """A clinic that no longer exists, in the type that its backups have."""
    try:
        clinic_id = given_id(value)
    except ValueError:
        return []
    known = {clinic.id for clinic in every}
    if clinic_id in known or (known and not _is_alike(clinic_id, known)):
        return []
    return [Clinic(clinic_id, f"clinic {clinic_id}")]


def _is_alike(clinic_id: ClinicId, known: set[ClinicId]) -> bool:
    """Whether a clinic that is gone may have had that id: where all are numbers, it was one; likewise the sign."""
    numbers = [other for other in known if isinstance(other, int)]
    if len(numbers) < len(known):
        return True
    return isinstance(clinic_id, int) and (clinic_id >= 0 or min(numbers) < 0)


def _text(
    conf: Mapping[str, Any], key: str, what: str = "the id of a backup", hint: str = "See `clinic-backups list`."
) -> str | None:
    value = conf.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_BACKUP_ID or not value.isprintable():
        raise SettingsError(f"{key} is not {what}.", hint=hint)
    return value


def _from_connection(conf: Mapping[str, Any]) -> str | None:
    name = _text(
        conf, "from_connection", "the name of a connection", "For instance: pitr_db. See docs/point-in-time.md."
    )
    if name is None:
        return None
    if conf.get("backup_id"):
        raise SettingsError("The conf has both backup_id and from_connection.", hint="Give only one of them.")
    if conf.get("mode") in (INTO, EXPORT):
        raise SettingsError(
            f"from_connection and the mode {conf['mode']} do not fit together.",
            hint="`clinic-backups restore --plan --from-connection …` records a backup of that time. Make the copy or"
            " the export from that backup, by its id.",
        )
    return name


def moment_of(value: object, zone: tzinfo) -> datetime | None:
    """The time in ``as_of``, in UTC; none if it is missing. :raises SettingsError: it is not a usable time."""
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
        if not 2000 <= moment.year < 2200:
            raise ValueError
    except (ValueError, OverflowError):
        raise SettingsError(
            f"as_of: {str(value)[:40]!r} is not a time of the years 2000 to 2199.",
            hint="Write it like 2026-11-24T02:00:00-04:00. Without an offset it is a time of CLINIC_BACKUPS_TIME_ZONE.",
        ) from None
    return moment


def _mode(conf: Mapping[str, Any]) -> RestoreMode:
    value, names_rows = conf.get("mode"), bool(conf.get("rows"))
    if value in (None, "", "exact") and names_rows:
        return "rows"  # exact is what forms send if nobody chose
    if value != "rows" and names_rows:
        raise SettingsError(
            "rows and mode do not fit together: named rows come back in a mode of their own.",
            hint="Leave mode out, or leave rows out.",
        )
    if value == "rows" and not names_rows:
        raise SettingsError("The mode rows needs rows.", hint=EXAMPLE)
    if value in (INTO, EXPORT):
        return "exact"
    for mode in MODES:
        if value == mode:
            return mode
    if value is None or value == "":
        return "exact"
    raise unknown_word("mode", value, (*MODES, INTO, EXPORT))


def _rows(conf: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    value = conf.get("rows")
    if value is None or value == "" or value == {}:
        return {}
    if conf.get("tables"):
        raise SettingsError("rows and tables do not fit together.", hint="Leave tables out.")
    if not isinstance(value, dict):
        raise SettingsError("rows is not an object of tables and keys.", hint=EXAMPLE)
    found = dict[str, tuple[str, ...]]()
    for table in _tables(list(value)):
        found[table] = keys_of(table, value[table])
    require_keys(found)
    return found


def _only(conf: Mapping[str, Any]) -> bool:
    only = flag(conf, "only")
    if only and not conf.get("rows"):
        raise SettingsError("only was given without rows.", hint=EXAMPLE)
    return only


def _export_format(conf: Mapping[str, Any]) -> Format | None:
    value = conf.get("format")
    if (conf.get("mode") == EXPORT) != (value is not None and value != ""):
        raise SettingsError(
            "mode and format do not fit together: a format needs the mode export, and that mode needs a format.",
            hint='{"mode": "export", "format": "xlsx"} writes a file for people; leave both out to restore the clinic.',
        )
    for known in FORMATS:
        if value == known:
            return known
    if value:
        raise unknown_word("format", value, FORMATS)
    return None


def _sealed_password(conf: Mapping[str, Any]) -> str | None:
    value = conf.get("password")
    if value is None or value == "":
        return None
    # An open password would stand in Airflow's pages and its database.
    if conf.get("mode") != EXPORT or not isinstance(value, str) or not _SEALED.fullmatch(value):
        raise SettingsError(
            "password is not one that the page has encrypted for the mode export.",
            hint="Leave it out. Ask for the data on the clinic's page.",
        )
    return value


def _schema(conf: Mapping[str, Any]) -> str | None:
    schema = _text(conf, "schema")
    if (conf.get("mode") == INTO) != (schema is not None):
        raise SettingsError(
            "mode and schema do not fit together: a schema needs the mode into, and that mode needs a schema.",
            hint='{"mode": "into", "schema": "clinic_7_look"} makes a copy; leave both out to restore the clinic.',
        )
    if schema is not None:
        require_schema_name(schema)
    return schema


def _masked(conf: Mapping[str, Any]) -> bool | None:
    if (masked := told(conf, "masked")) is None:
        return None
    if conf.get("mode") != INTO:
        raise SettingsError(
            "masked needs the mode into: only a copy is masked.", hint="Leave masked out to restore the clinic."
        )
    return masked


def _tables(value: object) -> tuple[str, ...]:
    if value is None or value == "" or value == []:
        return ()
    # A table's name without its schema is checked later, when the backup's tables are known.
    if not isinstance(value, list) or not all(
        isinstance(name, str) and name.isprintable() and 0 < len(name) <= 130 for name in value
    ):
        raise SettingsError(
            "tables is not a list of tables.", hint='For instance: ["public.usuarios_paciente"]; all when left out.'
        )
    return tuple(dict.fromkeys(value))
