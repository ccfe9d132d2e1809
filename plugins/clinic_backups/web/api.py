"""The JSON API: the paths and fields that the clinics' application calls, and what monitoring asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from babel import Locale
from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from clinic_backups.catalog.board import BoardLine, Standing
from clinic_backups.catalog.history import HistoryEntry
from clinic_backups.model import WantedKind
from clinic_backups.notify.formats import Formats
from clinic_backups.web.access import CallerDep
from clinic_backups.web.actions import Caller, Started
from clinic_backups.web.forms import MOST_TABLES, TableName
from clinic_backups.web.metrics import MEDIA_TYPE as MEDIA_TYPE_METRICS
from clinic_backups.web.metrics import exposition
from clinic_backups.web.problems import MEDIA_TYPE, TITLES, NotVisible, WrongValue
from clinic_backups.web.services import Services
from clinic_backups.web.threads import on_threads, stream

LARGEST_NUMBER = 2**63 - 1
LARGEST_PAGE = 100_000
Tipo = Literal["completo", "incremental", "manual"]
Estado = Literal["en_proceso", "completado", "fallido"]
SPANISH = Formats(Locale("es"), ZoneInfo("UTC"))
KINDS: Mapping[str, WantedKind] = {"auto": "auto", "completo": "full", "incremental": "incremental"}
Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="The field id of a backup")]
Page = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]
PageSize = Annotated[int, Query(ge=1, le=500)]
Clinica = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]


def _without_nul(text: str) -> str:
    """PostgreSQL's text holds every character but this one."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _in_utc(moment: datetime) -> datetime:
    """PostgreSQL knows fewer offsets than ISO 8601."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Line = Annotated[str, Field(max_length=500), AfterValidator(_without_nul)]


class Asked(BaseModel):
    """A body: what it does not know is refused, so that a misspelt field is not taken for its default."""

    model_config = ConfigDict(extra="forbid")


class Respaldo(BaseModel):
    """One backup, with the fields that the clinics' application has always had."""

    id: int
    clinica: int
    clinica_nombre: str
    tipo: Tipo
    estado: Estado
    nombre_archivo: str
    tamano_bytes: int | None
    tamano_legible: str
    tablas_respaldadas: list[str]
    registros_totales: int | None
    tiempo_ejecucion: float | None = Field(description="Seconds")
    fecha_creacion: datetime
    fecha_expiracion: datetime | None
    creado_por: int | None = Field(description="Always null: who asked is a user of Airflow, see creado_por_nombre")
    creado_por_nombre: str
    notas: str


class Respaldos(BaseModel):
    """One page of backups; ``next`` and ``previous`` are paths of other pages."""

    count: int
    next: str | None
    previous: str | None
    results: list[Respaldo]


class NuevoRespaldo(Asked):
    """What to back up. Whoever belongs to one clinic only may leave ``clinica`` out."""

    clinica: Clinica | None = None
    tipo: Literal["auto", "completo", "incremental"] = "auto"
    notas: Line = Field(default="", description="One line; nothing of a patient")


class Restauracion(Asked):
    """How to restore. It is planned, and then waits for somebody to approve the plan."""

    modo: Literal["exact", "missing"] = Field(
        default="exact", description="exact: as the backup; missing: only bring back rows that are gone"
    )
    tablas: list[TableName] = Field(
        default_factory=list, max_length=MOST_TABLES, description="Only these, as schema.table; all when empty"
    )
    notas: Line = ""


class Iniciado(BaseModel):
    """A run of Airflow that was started; ``url`` is the page that follows it."""

    dag_id: str
    run_id: str
    clinica: int
    url: str


class Enlace(BaseModel):
    """Where the archive can be fetched, encrypted as it is, until ``expira``."""

    url: str = Field(description="A link of the store; where the store is a folder, a path of this server")
    expira: datetime
    nombre_archivo: str


class Clinic(BaseModel):
    """How one clinic stands."""

    id: int
    name: str
    active: bool
    standing: Standing
    last_good_at: datetime | None
    last_good_id: int | None
    size_bytes: int | None
    rows: int | None
    running: bool
    last_failure: str | None
    restored_at: datetime | None = Field(description="The last completed restore: each one proves itself")


class Clinics(BaseModel):
    """One page of clinics."""

    count: int
    results: list[Clinic]


class Health(BaseModel):
    """How the clinics that you may see stand, in figures; ``late``: the objective is missed."""

    status: Literal["ok", "late"]
    objective_hours: int
    clinics: int
    ok: int
    late: int
    never: int
    running: int
    failed: int
    next_run: datetime | None


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": TITLES[status], "model": ProblemBody, "content": {MEDIA_TYPE: {}}}
    for status in (401, 403, 404, 409, 413, 422, 429, 503)
}


def make_router(services: Services) -> APIRouter:
    """All routes of the API."""
    router = APIRouter(responses=PROBLEMS)

    @router.get("/respaldos/", summary="List backups, the newest first")
    @on_threads
    def list_backups(
        request: Request,
        caller: CallerDep,
        clinica: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None,
        tipo: Annotated[list[Tipo], Query()] = [],  # noqa: B006 - FastAPI copies it
        estado: Annotated[list[Estado], Query()] = [],  # noqa: B006
        desde: Moment | None = None,
        hasta: Moment | None = None,
        buscar: Annotated[Line, Query(description="Part of the clinic's name or of the file's")] = "",
        page: Page = 1,
        page_size: PageSize = 50,
    ) -> Respaldos:
        found = services.history.page(
            visible=caller.viewer.visible,
            clinic_id=clinica,
            types=tipo,
            states=estado,
            since=desde,
            until=hasta,
            search=buscar,
            page=page,
            per_page=page_size,
        )
        return Respaldos(
            count=found.total,
            next=_other_page(request, page + 1) if page < found.pages else None,
            previous=_other_page(request, page - 1) if page > 1 else None,
            results=[_respaldo(entry) for entry in found.entries],
        )

    @router.post("/respaldos/crear_respaldo_manual/", status_code=202, summary="Back up a clinic now")
    @on_threads
    def back_up(
        request: Request, caller: CallerDep, pedido: Annotated[NuevoRespaldo | None, Body()] = None
    ) -> Iniciado:
        asked = pedido or NuevoRespaldo()
        clinic_id = asked.clinica
        if clinic_id is None:
            own = caller.viewer.clinics_where("back_up")
            if own is None or len(own) != 1:
                raise WrongValue("clinica: which clinic?", hint='Name it, for instance {"clinica": 7}.')
            clinic_id = own[0]
        started = services.actions.back_up(caller, clinic_id, kind=KINDS[asked.tipo], notes=asked.notas)
        return _iniciado(request, started)

    @router.get("/respaldos/{number}/", summary="One backup")
    @on_threads
    def one_backup(caller: CallerDep, number: Number) -> Respaldo:
        return _respaldo(require_entry(services, caller.viewer.visible, number))

    @router.get("/respaldos/{number}/descargar/", summary="A link to the encrypted archive, for one hour")
    @on_threads
    def download(request: Request, caller: CallerDep, number: Number) -> Enlace:
        entry = require_entry(services, caller.viewer.visible, number)
        link = services.actions.download(caller, entry)
        # A folder signs no links. Without a host: a proxy may have changed it.
        url = link.url or f"{request.scope.get('root_path', '')}/respaldos/{number}/archivo/"
        return Enlace(url=url, expira=link.expires_at, nombre_archivo=link.filename)

    @router.get(
        "/respaldos/{number}/archivo/",
        summary="The encrypted archive itself, of stores that sign no links",
        response_class=StreamingResponse,
    )
    @on_threads
    def fetch(caller: CallerDep, number: Number) -> StreamingResponse:
        entry = require_entry(services, caller.viewer.visible, number)
        pieces, filename, size_bytes = services.actions.content(caller, entry)
        headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Content-Length": str(size_bytes)}
        return StreamingResponse(stream(pieces), media_type="application/vnd.age", headers=headers)

    @router.post("/respaldos/{number}/restaurar/", status_code=202, summary="Ask for a restore of this backup")
    @on_threads
    def restore(
        request: Request, caller: CallerDep, number: Number, pedido: Annotated[Restauracion | None, Body()] = None
    ) -> Iniciado:
        asked = pedido or Restauracion()
        entry = require_entry(services, caller.viewer.visible, number)
        started = services.actions.restore(
            caller,
            entry.record.clinic_id,
            backup=entry,
            mode=asked.modo,
            tables=tuple(asked.tablas),
            notes=asked.notas,
        )
        return _iniciado(request, started)

    @router.get("/clinics/", summary="How the clinics stand")
    @on_threads
    def clinics(
        caller: CallerDep,
        search: Line = "",
        standing: Standing | None = None,
        sort: Literal["standing", "name", "age", "size", "id"] = "standing",
        descending: bool = False,
        page: Page = 1,
        page_size: PageSize = 50,
    ) -> Clinics:
        found = services.board.page(
            visible=caller.viewer.visible,
            now=services.now(),
            objective_hours=services.settings.rpo_hours,
            search=search,
            standing=standing,
            sort=sort,
            descending=descending,
            page=page,
            per_page=page_size,
        )
        return Clinics(count=found.total, results=[_clinic(line, caller) for line in found.lines])

    @router.get("/health", summary="How many of your clinics are late")
    @on_threads
    def health(caller: CallerDep) -> Health:
        objective = services.settings.rpo_hours
        counts = services.board.counts(visible=caller.viewer.visible, now=services.now(), objective_hours=objective)
        status: Literal["ok", "late"] = "late" if counts.late or counts.never else "ok"
        return Health(status=status, objective_hours=objective, next_run=services.actions.next_run(), **asdict(counts))

    @router.get(
        "/metrics",
        summary="Figures of your clinics for Prometheus",
        response_class=PlainTextResponse,
        responses={200: {"content": {MEDIA_TYPE_METRICS: {}}}},
    )
    @on_threads
    def metrics(caller: CallerDep) -> Response:
        now = services.now()
        text = exposition(services.board.metrics(visible=caller.viewer.visible, now=now), now)
        return Response(text, media_type=MEDIA_TYPE_METRICS)

    @router.get("/openapi.json", summary="This description")
    async def description(request: Request) -> dict[str, Any]:
        described: dict[str, Any] = request.app.openapi()
        return described | {"servers": [{"url": request.scope.get("root_path") or "/"}]}

    return router


def require_entry(services: Services, visible: tuple[int, ...] | None, number: int) -> HistoryEntry:
    """A backup that this person may see. :raises NotVisible: there is none."""
    entry = services.history.by_number(number, visible)
    if entry is None:
        raise NotVisible(f"Backup {number}")
    return entry


def _respaldo(entry: HistoryEntry) -> Respaldo:
    record = entry.record
    return Respaldo(
        id=entry.number,
        clinica=record.clinic_id,
        clinica_nombre=record.clinic_name,
        tipo=entry.type,
        estado=entry.status,
        nombre_archivo=record.archive_key.rpartition("/")[2],
        tamano_bytes=record.size_bytes,
        tamano_legible=SPANISH.size(record.size_bytes).replace("\u00a0", " ") if record.size_bytes is not None else "",
        tablas_respaldadas=sorted(record.rows),
        registros_totales=record.rows_total if record.rows else None,
        tiempo_ejecucion=record.seconds,
        fecha_creacion=record.started_at,
        fecha_expiracion=record.expires_at,
        creado_por=None,
        creado_por_nombre=record.requested_by,
        notas=record.notes,
    )


def _clinic(line: BoardLine, caller: Caller) -> Clinic:
    # An error's text is for whoever runs the system: it may name servers and settings.
    failure = line.last_failure if caller.viewer.superadmin else line.last_failure and "The newest backup failed."
    return Clinic(
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
    )


def _iniciado(request: Request, started: Started) -> Iniciado:
    root = request.scope.get("root_path", "")
    return Iniciado(
        dag_id=started.dag_id,
        run_id=started.run_id,
        clinica=started.clinic_id,
        url=f"{root}/ui/runs/{started.dag_id}/{quote(started.run_id, safe='')}",
    )


def _other_page(request: Request, page: int) -> str:
    """The same list, another page."""
    return f"{request.url.path}?{request.url.include_query_params(page=page).query}"
