"""The JSON API: the paths for the clinics' application and for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.backup_list import HistoryEntry, Status, Type
from clinic_backups.catalog.board import Sort, Standing
from clinic_backups.web.access import CallerDep
from clinic_backups.web.actions import Started
from clinic_backups.web.caller import Caller
from clinic_backups.web.chain_download import parts_of
from clinic_backups.web.clinic_values import Clinica
from clinic_backups.web.downloads import LINK_LASTS
from clinic_backups.web.metrics import MEDIA_TYPE as MEDIA_TYPE_METRICS
from clinic_backups.web.metrics import Service, exposition
from clinic_backups.web.next_backup import next_backups
from clinic_backups.web.problems import MEDIA_TYPE, TITLES, Conflict, WrongValue
from clinic_backups.web.render import PageLinks, archive_path, whole_path
from clinic_backups.web.request_bodies import clinic_named, json_body, read_body
from clinic_backups.web.schemas import (
    Chosen,
    ClinicsPage,
    Enlace,
    Health,
    Iniciado,
    Line,
    Moment,
    NuevoRespaldo,
    Number,
    Page,
    PageSize,
    Parte,
    ProblemBody,
    Respaldo,
    Respaldos,
    Restauracion,
    clinic_of,
    respaldo_of,
)
from clinic_backups.web.services import Services, ServicesDep, entry_of
from clinic_backups.web.threads import file_response, on_threads

KINDS: Mapping[str, WantedKind] = {"auto": "auto", "completo": "full", "incremental": "incremental"}
LONGEST_LIST = 1000
"""The most entries of a list that is not paged."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": TITLES[status], "model": ProblemBody, "content": {MEDIA_TYPE: {}}}
    for status in (401, 403, 404, 409, 413, 422, 429, 503)
}


router = APIRouter(responses=PROBLEMS)


async def new_backup(request: Request, caller: CallerDep) -> NuevoRespaldo:
    """The body, read after the caller's rights were checked, so that 403 comes before 422."""
    given = await json_body(request)
    clinic_id = clinic_named(given)
    if clinic_id is not None:
        caller.require("back_up", clinic_id)
    else:
        caller.require_anywhere("back_up")
    return read_body(NuevoRespaldo, given)


@on_threads
def to_restore(caller: CallerDep, services: ServicesDep, number: Number) -> HistoryEntry:
    """The backup, if the caller may restore it."""
    entry = entry_of(services, caller, number)
    caller.require("restore", entry.record.clinic_id)
    return entry


async def new_restore(request: Request, entry: Annotated[HistoryEntry, Depends(to_restore)]) -> Restauracion:
    """The body, read after the caller's rights were checked."""
    return read_body(Restauracion, await json_body(request))


@router.get("/respaldos/", summary="List backups, the newest first")
@on_threads
def list_backups(
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    clinica: Annotated[Clinica | None, Query()] = None,
    tipo: Annotated[list[Type], Query(), Chosen] = [],  # noqa: B006 - FastAPI copies it
    estado: Annotated[list[Status], Query(), Chosen] = [],  # noqa: B006
    desde: Moment | None = None,
    hasta: Moment | None = None,
    buscar: Annotated[Line, Query(description="The clinic's name, its id, or the backup's id or number")] = "",
    page: Page = 1,
    page_size: PageSize = 50,
    sin_paginar: Annotated[bool, Query(description="A bare list of the newest, at most 1,000")] = False,
) -> Respaldos | list[Respaldo]:
    if sin_paginar:
        page, page_size = 1, LONGEST_LIST
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
    if sin_paginar:
        response.headers["X-Total-Count"] = str(found.total)
        return [respaldo_of(entry) for entry in found.entries]
    return Respaldos(
        count=found.total,
        next=_other_page(request, page + 1) if page < found.pages else None,
        previous=_other_page(request, page - 1) if page > 1 else None,
        results=[respaldo_of(entry) for entry in found.entries],
    )


@router.post(
    "/respaldos/crear_respaldo_manual/",
    status_code=202,
    summary="Back up a clinic now",
    openapi_extra=NuevoRespaldo.as_body(),
)
@on_threads
def back_up(
    request: Request, caller: CallerDep, services: ServicesDep, asked: Annotated[NuevoRespaldo, Depends(new_backup)]
) -> Iniciado:
    clinic_id: ClinicId | None = asked.clinica
    if clinic_id is None:
        own = caller.viewer.clinics_where("back_up")
        if own is None or len(own) != 1:
            raise WrongValue("clinica is missing.", hint='Give the clinic\'s id, for instance {"clinica": 7}.')
        clinic_id = own[0]
    started = services.actions.back_up(
        caller, clinic_id, kind=KINDS[asked.tipo], notes=asked.notas, on_behalf_of=asked.creado_por
    )
    return _iniciado(request, started)


@router.get("/respaldos/{number}/", summary="One backup")
@on_threads
def one_backup(caller: CallerDep, services: ServicesDep, number: Number) -> Respaldo:
    return respaldo_of(entry_of(services, caller, number))


@router.get("/respaldos/{number}/descargar/", summary="A link to the encrypted archive, for one hour")
@on_threads
def download(request: Request, caller: CallerDep, services: ServicesDep, number: Number) -> Enlace:
    entry = entry_of(services, caller, number)
    link = services.downloads.link(caller, entry)
    url = link.url or archive_path(request, number)  # a folder signs no links
    parts = [
        Parte(
            respaldo=part.backup_id,
            nombre_archivo=part.filename,
            tamano_bytes=part.archive.size_bytes,
            sha256=part.archive.sha256,
        )
        for part in parts_of(entry.record)
    ]
    return Enlace(
        url=url,
        expira=link.expires_at,
        expira_en=int(LINK_LASTS.total_seconds()),
        nombre_archivo=link.filename,
        autosuficiente=len(parts) == 1,
        cambios_desde=entry.record.parent_id if entry.record.chain else None,
        url_completo=whole_path(request, number),
        partes=parts,
    )


@router.get(
    "/respaldos/{number}/completo/",
    summary="The archive and its chain, as one tar with instructions",
    response_class=StreamingResponse,
)
@on_threads
def fetch_whole(caller: CallerDep, services: ServicesDep, number: Number) -> StreamingResponse:
    entry = entry_of(services, caller, number)
    return file_response(*services.downloads.whole(caller, entry), media_type="application/x-tar")


@router.get(
    "/respaldos/{number}/archivo/",
    summary="The encrypted archive itself, for stores that cannot sign links",
    response_class=StreamingResponse,
)
@on_threads
def fetch(caller: CallerDep, services: ServicesDep, number: Number) -> StreamingResponse:
    entry = entry_of(services, caller, number)
    return file_response(*services.downloads.content(caller, entry), media_type=ENCRYPTION.CONTENT_TYPE)


@router.post(
    "/respaldos/{number}/restaurar/",
    status_code=202,
    summary="Ask for a restore of this backup",
    openapi_extra=Restauracion.as_body(),
)
@on_threads
def restore(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    entry: Annotated[HistoryEntry, Depends(to_restore)],
    asked: Annotated[Restauracion, Depends(new_restore)],
) -> Iniciado:
    if asked.clinica not in (None, entry.record.clinic_id):
        raise Conflict(
            f"Backup {entry.number} is not of clinic {asked.clinica}.",
            hint="Choose a backup of that clinic. If the application shows it there, it reads another catalog.",
        )
    started = services.actions.restore(
        caller, entry, mode=asked.modo, tables=tuple(asked.tablas), rows=asked.registros, only=asked.solo,
        notes=asked.notas,
    )  # fmt: skip
    return _iniciado(request, started)


@router.get("/clinics/", summary="The state of each clinic's backups")
@on_threads
def clinics(
    caller: CallerDep,
    services: ServicesDep,
    search: Line = "",
    standing: Standing | None = None,
    sort: Sort = "standing",
    descending: bool = False,
    page: Page = 1,
    page_size: PageSize = 50,
) -> ClinicsPage:
    found = services.board.page(
        visible=caller.viewer.visible,
        **services.objectives(),
        search=search,
        standing=standing,
        sort=sort,
        descending=descending,
        page=page,
        per_page=page_size,
    )
    return ClinicsPage(count=found.total, results=[clinic_of(line, caller) for line in found.lines])


def alerts_for(caller: Caller, services: Services) -> list[str]:
    """The kinds of alerts for the operator; empty for other people."""
    return [banner.kind for banner in services.banners()] if caller.viewer.superadmin else []


@router.get("/health", summary="How many of your clinics are late")
@on_threads
def health(caller: CallerDep, services: ServicesDep) -> Health:
    known = services.objectives()
    counts = services.board.counts(visible=caller.viewer.visible, **known)
    status: Literal["ok", "unproven", "late"] = "unproven" if counts.unproven else "ok"
    if counts.late or counts.never:
        status = "late"
    planned, alerts = services.seen_runs.next_run(), alerts_for(caller, services)
    next_run = next_backups(planned, services.settings, known["now"])(None)
    return Health(
        status=status, objective_hours=known["objective_hours"], next_run=next_run, alerts=alerts, **asdict(counts)
    )


@router.get(
    "/metrics",
    summary="Figures of your clinics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"content": {MEDIA_TYPE_METRICS: {}}}},
)
@on_threads
def metrics(caller: CallerDep, services: ServicesDep) -> Response:
    known = services.objectives()
    now, counts = known["now"], services.board.counts(visible=caller.viewer.visible, **known)
    service = services.figures(counts) if caller.viewer.superadmin else Service(counts)
    text = exposition(services.board.metrics(visible=caller.viewer.visible, now=now), now, service)
    return Response(text, media_type=MEDIA_TYPE_METRICS)


@router.get("/openapi.json", summary="This description")
async def description(request: Request) -> dict[str, Any]:
    described: dict[str, Any] = request.app.openapi()
    return described | {"servers": [{"url": request.scope.get("root_path") or "/"}]}


def _iniciado(request: Request, started: Started) -> Iniciado:
    return Iniciado(
        dag_id=started.dag_id,
        run_id=started.run_id,
        clinica=started.clinic_id,
        url=PageLinks.of(request).url("runs", started.dag_id, started.run_id),
    )


def _other_page(request: Request, page: int) -> str:
    """The address of another page of the same list."""
    return f"{request.url.path}?{request.url.include_query_params(page=page).query}"
