"""The API's requests and answers: the fields of the clinics' application, and those for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from babel import Locale
from fastapi import Path, Query
from pydantic import AfterValidator, AliasPath, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.backup_list import HistoryEntry, Status, Type
from clinic_backups.catalog.board import BoardLine, Standing
from clinic_backups.catalog.paging import BIGINT
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.notify.formats import Formats
from clinic_backups.restore.row_names import MOST_CHARACTERS
from clinic_backups.stores.envelopes import is_by_note
from clinic_backups.web.caller import Caller
from clinic_backups.web.clinic_values import Clinica
from clinic_backups.web.forms import LARGEST_PAGE, MOST_TABLES, TableName

SPANISH = Formats(Locale("es"), ZoneInfo("UTC"))
Number = Annotated[int, Path(ge=1, le=BIGINT - 1, description="The field id of a backup")]
Page = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]
PageSize = Annotated[int, Query(ge=1, le=500)]


def _not_like_a_number(value: object) -> object:
    """Refuse ``true`` and ``1.0``, which Python accepts as numbers but which are not ids."""
    if isinstance(value, (bool, float)):
        raise ValueError("is not a whole number")
    return value


UserNumber = Annotated[int, Field(ge=0, le=BIGINT - 1), BeforeValidator(_not_like_a_number)]


def _without_blanks(values: object) -> object:
    """Drop empty values, which the entry "all" of a form's list sends."""
    return [value for value in values if value != ""] if isinstance(values, list) else values


Chosen = BeforeValidator(_without_blanks)


def _without_nul(text: str) -> str:
    """Refuse NUL, the only character that PostgreSQL's text cannot hold."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _in_utc(moment: datetime) -> datetime:
    """Convert to UTC, because PostgreSQL accepts fewer offsets than ISO 8601."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Line = Annotated[str, Field(max_length=500), AfterValidator(_without_nul)]


Key = int | Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_without_nul)]


class Asked(BaseModel):
    """A request body. Unknown fields are refused, so that a misspelt field does not silently get its default."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def as_body(cls) -> dict[str, Any]:
        """The body for the API's description. Routes read their bodies themselves, after checking the caller."""
        return {"requestBody": {"content": {"application/json": {"schema": cls.model_json_schema()}}}}


def duration(seconds: float | None) -> str | None:
    """A duration in the form of Django's ``duration_string``: ``1 02:03:04.500000``."""
    if seconds is None:
        return None
    span = timedelta(seconds=seconds)
    minutes, left = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{span.days} " if span.days else ""
    fraction = f".{span.microseconds:06d}" if span.microseconds else ""
    return f"{days}{hours:02d}:{minutes:02d}:{left:02d}{fraction}"


def _filename(key: str) -> str:
    return key.rpartition("/")[2]


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else SPANISH.size(size_bytes).replace("\u00a0", " ")


def _total(rows: Mapping[str, int]) -> int | None:
    return sum(rows.values()) if rows else None


def _taken_from(path: str, description: str | None = None) -> Any:
    """A field of :class:`Respaldo`: the attributes that lead from a :class:`HistoryEntry` to its value."""
    return Field(validation_alias=AliasPath(*path.split(".")), description=description)


class Respaldo(BaseModel):
    """One backup, with the fields that the clinics' application has always had."""

    model_config = ConfigDict(from_attributes=True)

    id: int = _taken_from("number")
    clinica: ClinicId = _taken_from("record.clinic_id")
    clinica_nombre: str = _taken_from("record.clinic_name")
    tipo: Type = _taken_from("type")
    estado: Status = _taken_from("status")
    nombre_archivo: Annotated[str, BeforeValidator(_filename)] = _taken_from("record.archive_key")
    tamano_bytes: int | None = _taken_from("record.size_bytes")
    tamano_legible: Annotated[str, BeforeValidator(_size)] = _taken_from("record.size_bytes")
    tablas_respaldadas: Annotated[list[str], BeforeValidator(sorted)] = _taken_from("record.rows")
    registros_totales: Annotated[int | None, BeforeValidator(_total)] = _taken_from("record.rows")
    tiempo_ejecucion: Annotated[str | None, BeforeValidator(duration)] = _taken_from(
        "record.seconds",
        "[DD] [HH:[MM:]]ss[.uuuuuu], as Django REST Framework writes durations; null while it runs",
    )
    segundos: float | None = _taken_from("record.seconds", "The same in seconds")
    fecha_creacion: datetime = _taken_from("record.started_at")
    fecha_expiracion: datetime | None = _taken_from("record.expires_at")
    creado_por: int | None = _taken_from(
        "asked_by",
        "The application's user who asked, if user_clinics.sql returns a user_id; null for the schedule",
    )
    creado_por_nombre: str = _taken_from("record.requested_by")
    notas: str = _taken_from("record.notes")
    retencion: str | None = _taken_from("record.hold_reason", "The reason of its hold; null: it is not on hold")
    retencion_de_nota: Annotated[bool, BeforeValidator(is_by_note)] = _taken_from(
        "record",
        "The hold comes from a note in the store that the catalog did not write: ask who set it",
    )


class Respaldos(BaseModel):
    """One page of backups; ``next`` and ``previous`` are paths of other pages."""

    count: int
    next: str | None
    previous: str | None
    results: list[Respaldo]


class NuevoRespaldo(Asked):
    """What to back up. People of only one clinic may leave ``clinica`` out."""

    clinica: Clinica | None = None
    tipo: Literal["auto", "completo", "incremental"] = "auto"
    notas: Line = Field(default="", description="One line without patients' data")
    creado_por: UserNumber | None = Field(
        default=None, description="The application's user on whose behalf a service asks; only for superadmins"
    )


class Restauracion(Asked):
    """How to restore. A plan is made, and then waits for an approval."""

    clinica: Clinica | None = Field(
        default=None, description="The expected clinic of the backup; if it is of another clinic, the answer is 409"
    )
    modo: RestoreMode = Field(
        default="exact",
        description="exact: as the backup; missing: only bring back rows that are gone; live: as the backup, but"
        " changes since the plan stay; rows: only registros and what hangs on them",
    )
    tablas: list[TableName] = Field(
        default_factory=list, max_length=MOST_TABLES, description="Only these tables, as schema.table; all if empty"
    )
    registros: dict[TableName, list[Key]] = Field(
        default_factory=dict,
        max_length=MOST_TABLES,
        description="For rows: keys of rows by table. Between the parts of a key of several columns is a /",
    )
    solo: bool = Field(default=False, description="For rows: without what hangs on them")
    notas: Line = ""


class Iniciado(BaseModel):
    """A started Airflow run; ``url`` is the page that shows its progress."""

    dag_id: str
    run_id: str
    clinica: ClinicId
    url: str


class Parte(BaseModel):
    """One of the archives that a restore of a backup needs, in the order in which they are opened."""

    respaldo: str = Field(description="The backup whose archive it is")
    nombre_archivo: str
    tamano_bytes: int
    sha256: str


class Enlace(BaseModel):
    """The link to the encrypted archive, valid until ``expira``."""

    url: str = Field(description="A link of the store; if the store is a folder, a path of this server")
    expira: datetime
    expira_en: int = Field(description="Seconds until then")
    nombre_archivo: str
    autosuficiente: bool = Field(description="False: this file alone cannot be restored, all of partes are needed")
    cambios_desde: str | None = Field(
        description="For an incremental backup: its file holds only changes since this backup; null: it holds all"
    )
    url_completo: str = Field(description="A path of this server: all of partes as one tar, with instructions")
    partes: list[Parte]


class ClinicState(BaseModel):
    """The state of one clinic's backups."""

    id: ClinicId
    name: str
    active: bool
    standing: Standing = Field(
        description="never: it has no good backup. late: its last good backup is older than the objective. unproven: "
        "its last drill failed, or its last proof is too old"
    )
    last_good_at: datetime | None
    last_good_id: int | None
    size_bytes: int | None
    rows: int | None
    running: bool
    last_failure: str | None
    restored_at: datetime | None = Field(description="The last completed restore; each one was proven")
    proven_at: datetime | None = Field(description="The last drill that proved one of its backups")
    recovery_seconds: float | None = Field(description="How long that drill's restore and comparison took")


class ClinicsPage(BaseModel):
    """One page of clinics."""

    count: int
    results: list[ClinicState]


class Health(BaseModel):
    """Counts of your clinics by state; ``late``: the objective is missed; ``unproven``: see ``Standing``."""

    status: Literal["ok", "unproven", "late"]
    objective_hours: int
    clinics: int
    ok: int
    unproven: int
    late: int
    never: int
    running: int
    failed: int
    next_run: datetime | None
    alerts: list[str] = Field(
        description="Reasons why backups or restores do not run, as on the board: paused, no_slots, failed, waiting "
        "and others; only for operators"
    )


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str


def respaldo_of(entry: HistoryEntry) -> Respaldo:
    """One backup for the clinics' application."""
    return Respaldo.model_validate(entry)


def clinic_of(line: BoardLine, caller: Caller) -> ClinicState:
    """One clinic, for this person."""
    # An error's text is for operators only, because it may name servers and settings.
    failure = line.last_failure if caller.viewer.superadmin else line.last_failure and "The newest backup failed."
    return ClinicState(
        id=line.clinic_id,
        name=line.name,
        active=line.active,
        standing=line.standing,
        last_good_at=line.last_good_at,
        last_good_id=line.last_good_number,
        size_bytes=line.size_bytes,
        rows=line.rows,
        running=line.running is not None,
        last_failure=failure,
        restored_at=line.restored_at,
        proven_at=line.proven_at,
        recovery_seconds=line.proof_seconds,
    )
