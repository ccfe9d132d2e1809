"""The HTML pages below ``ui/``. They work without script; the script only keeps them up to date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.stores.envelopes import is_by_note
from clinic_backups.web import export_pages, forms, page_actions, render
from clinic_backups.web.access import CallerDep
from clinic_backups.web.certificates import MEDIA_TYPE, certificate_of
from clinic_backups.web.clinic_values import ClinicPath, clinic_in_query
from clinic_backups.web.next_backup import next_backups
from clinic_backups.web.problems import NotVisible
from clinic_backups.web.run_views import RunView
from clinic_backups.web.runs import BACKUP
from clinic_backups.web.services import ServicesDep, entry_of, words_of
from clinic_backups.web.showing import board_line, chosen_of, line_of, show
from clinic_backups.web.steps import steps_of
from clinic_backups.web.threads import on_threads

BACKUPS_PER_PAGE = 20
RECENT = 10
WORST = 10
RECENT_DAYS = 14
UTC_ZONE = ZoneInfo("UTC")


router = APIRouter(include_in_schema=False)
"""All pages, and the forms in them."""
ui = APIRouter(prefix="/ui", include_in_schema=False)


@router.get("/")
@router.get("/ui")
async def way_in(request: Request) -> Response:
    return RedirectResponse(render.PageLinks.of(request)(""), status_code=303)


@ui.get("/", name="board")
@on_threads
def board(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    query = forms.BoardQuery.of(request.query_params)
    known = {"visible": caller.viewer.visible, **services.objectives()}
    found = services.board.page(
        **known,
        search=query.q,
        standing=query.standing,
        running_only=query.running,
        failed_only=query.failed,
        active=None if query.all else True,
        sort=query.sort,
        descending=query.desc,
        page=query.page,
    )
    next_of = next_backups(services.seen_runs.next_run(), services.settings, known["now"])
    link = render.PageLinks.of(request)
    return show(
        request,
        "board.html",
        caller,
        services,
        board=found,
        counts=services.board.counts(**known),
        banners=services.banners() if caller.viewer.superadmin else [],
        query=query,
        next_run=next_of(None),
        next_of=next_of,
        objective_hours=known["objective_hours"],
        pager_link=lambda page: link("", query=query.values(page=page)),
    )


@ui.get("/clinics/{clinic_id}", name="clinic")
@on_threads
def clinic(
    request: Request, caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath]
) -> Response:
    line = line_of(caller, services, clinic_id)
    history = services.history.page(
        visible=caller.viewer.visible,
        clinic_id=clinic_id,
        page=forms.page_of(request.query_params),
        per_page=BACKUPS_PER_PAGE,
    )
    runs = services.seen_runs.restores(caller, clinic_id)
    restores = [run for run in runs if not run.is_export]
    exports = services.exports.of_clinic(clinic_id) if caller.viewer.may("export", clinic_id) else []
    audit = None
    if caller.viewer.may("audit", clinic_id):
        audit = services.audit.page(visible=caller.viewer.visible, clinic_id=clinic_id, per_page=RECENT)
    link = render.PageLinks.of(request)
    return show(
        request,
        "clinic.html",
        caller,
        services,
        clinic_id,
        line=line,
        history=history,
        restores=restores,
        exports=[(each, each.is_there(services.now())) for each in exports],
        asked_for=[run for run in runs if run.is_export and not run.is_over],
        restored=_restored(restores),
        queued=services.seen_runs.queued(clinic_id),
        next_run=next_backups(services.seen_runs.next_run(), services.settings, services.now())(line.schedule),
        audit=audit,
        pager_link=lambda page: link("clinics", clinic_id, query={"page": str(page)}),
    )


@ui.get("/clinics/{clinic_id}/changes", name="changes")
@on_threads
def changes(
    request: Request, caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath]
) -> Response:
    """What changed between two backups of a clinic, as tables and counts."""
    line = line_of(caller, services, clinic_id)
    moments = [moment for moment in services.history.moments(clinic_id) if moment.is_regular]
    params = request.query_params
    # By default: from the backup before the newest one to the newest one.
    newest, before = (moments[place].number if place < len(moments) else None for place in (0, 1))
    chosen = [forms.number(params, "first") or before, forms.number(params, "second") or newest]
    records = [entry_of(services, caller, number).record for number in chosen if number is not None]
    if any(record.clinic_id != clinic_id or record.state != "completed" for record in records):
        raise NotVisible("The backup")
    found = services.row_changes.between(*records) if len(records) == 2 else None
    return show(
        request, "changes.html", caller, services, clinic_id, line=line, moments=moments, chosen=chosen,
        nights=services.row_changes.nightly(clinic_id, services.now()),
        changes=None if found is None else [change for change in found if change.is_worth_saying],
    )  # fmt: skip


@ui.get("/clinics/{clinic_id}/certificate", name="certificate")
@on_threads
def certificate(caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath]) -> Response:
    line_of(caller, services, clinic_id)
    data, name = certificate_of(services.proofs, clinic_id)
    return Response(data, media_type=MEDIA_TYPE, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@ui.get("/clinics/{clinic_id}/runs/{run_id:path}", name="backup_of_run")
@on_threads
def backup_of_run(
    request: Request, caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath], run_id: str
) -> Response:
    line = line_of(caller, services, clinic_id)
    entry = services.history.of_run(clinic_id, run_id, caller.viewer.visible)
    if entry is not None:
        links = render.PageLinks.of(request)
        return RedirectResponse(links.url("backups", entry.number), status_code=303)
    return show(request, "none_yet.html", caller, services, clinic_id, line=line, run_id=run_id)


@ui.get("/clinics/{clinic_id}/restore", name="restore_dialog")
@on_threads
def restore_dialog(
    request: Request, caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath]
) -> Response:
    caller.require("restore", clinic_id)
    line = line_of(caller, services, clinic_id)
    moments = services.history.moments(clinic_id)
    chosen = chosen_of(moments, request)
    entry = services.history.by_number(chosen.number, caller.viewer.visible) if chosen else None
    zone = services.settings.zone
    days = [list(day) for _, day in groupby(moments, lambda moment: moment.started_at.astimezone(zone).date())]
    return show(
        request,
        "restore.html",
        caller,
        services,
        clinic_id,
        line=line,
        moments=moments,
        recent=days[:RECENT_DAYS],
        earlier=days[RECENT_DAYS:],
        chosen=chosen,
        tables=sorted(entry.record.rows) if entry else [],
    )


@ui.get("/backups/{number}", name="backup")
@on_threads
def backup(request: Request, caller: CallerDep, services: ServicesDep, number: int) -> Response:
    entry = entry_of(services, caller, number)
    record, visible = entry.record, caller.viewer.visible
    built_on = [record.parent_id, record.chain[-1].backup_id] if record.chain else [record.parent_id]
    parents = [services.history.by_id(backup_id, visible) for backup_id in dict.fromkeys(built_on) if backup_id]
    restores = services.seen_runs.restores(caller, record.clinic_id)
    return show(
        request,
        "backup.html",
        caller,
        services,
        record.clinic_id,
        entry=entry,
        parents=[parent for parent in parents if parent is not None],
        restored=_restored(restores).get(record.backup_id),
        by_note=is_by_note(record),
    )


@ui.get("/runs/{dag_id}/{run_id:path}", name="run")
@on_threads
def run(request: Request, caller: CallerDep, services: ServicesDep, dag_id: str, run_id: str) -> Response:
    found = services.seen_runs.run(caller, dag_id, run_id) if forms.is_run_id(run_id) else None
    if found is None:
        raise NotVisible("The run")
    visible = caller.viewer.visible
    line = board_line(services, found.clinic_id) if found.clinic_id is not None else None
    made = undo = source = None
    if found.clinic_id is not None and dag_id == BACKUP:
        made = services.history.of_run(found.clinic_id, run_id, visible)
    if found.result and isinstance(found.result.get("undo"), str):
        undo = services.history.by_id(found.result["undo"], visible)
    backup_id = found.plan.backup_id if found.plan else found.conf.get("backup_id")
    if isinstance(backup_id, str):
        source = services.history.by_id(backup_id, visible)
    return show(
        request,
        "run.html",
        caller,
        services,
        found.clinic_id,
        run=found,
        line=line,
        steps=steps_of(found),
        made=made,
        undo=undo,
        source=source,
        approval_hours=services.settings.approval_hours,
    )


@ui.get("/audit", name="audit")
@on_threads
def audit(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    params = request.query_params
    wanted = {"clinic": forms.words(params, "clinic"), "actor": forms.words(params, "actor")}
    found = services.audit.page(
        visible=caller.viewer.clinics_where("audit"),
        clinic_id=clinic_in_query(params, "clinic"),
        actor=wanted["actor"] or None,
        page=forms.page_of(params),
    )
    link = render.PageLinks.of(request)
    kept = {name: value for name, value in wanted.items() if value}
    return show(
        request,
        "audit.html",
        caller,
        services,
        audit=found,
        wanted=wanted,
        pager_link=lambda page: link("audit", query=kept | {"page": str(page)}),
    )


@ui.get("/dag/{dag_id}", name="dag")
@on_threads
def dag(request: Request, caller: CallerDep, services: ServicesDep, dag_id: str) -> Response:
    known = {"visible": caller.viewer.visible, **services.objectives()}
    return show(
        request,
        "dag.html",
        caller,
        services,
        ours=dag_id.startswith("clinic_"),
        counts=services.board.counts(**known),
        lines=services.board.page(**known, per_page=WORST).lines,
        next_run=next_backups(services.seen_runs.next_run(), services.settings, known["now"])(None),
        objective_hours=known["objective_hours"],
    )


@ui.get("/static/{name}", name="static")
async def static(request: Request, name: str) -> Response:
    found = render.static_file(name)
    if found is None:
        raise NotVisible("The file")
    content, media_type, version = found
    fresh = request.query_params.get("v") == version
    kept = "private, max-age=31536000, immutable" if fresh else "private, max-age=300"
    return Response(content, media_type=media_type, headers={"Cache-Control": kept})


ui.include_router(page_actions.router)
ui.include_router(export_pages.router)
router.include_router(ui)


def render_error(request: Request, status: int, title: str, message: str, hint: str) -> HTMLResponse:
    """The page of an error, with a plain text and the program's own. It needs no catalog and no right settings.

    :param title: the status, used if the texts have none for it. Title, message and hint are in the page's language.
    """
    root = request.scope.get("root_path", "")
    return render.page(
        request,
        "error.html",
        zone=UTC_ZONE,
        words=words_of(request),
        status=status,
        http_status=status,
        title=title,
        message=message,
        hint=hint,
        back=_came_from(request, f"{root}/ui/"),
    )


def _came_from(request: Request, prefix: str) -> str:
    """The page of this application that led here; empty if there is none."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return ""
    ours = parts.netloc == request.headers.get("host") and parts.path.startswith(prefix)
    return parts.path if ours and re.fullmatch(r"[!-~]+", parts.path) else ""


def _restored(restores: list[RunView]) -> Mapping[str, RunView]:
    """The newest successful restore of each backup, by backup id."""
    return {run.plan.backup_id: run for run in reversed(restores) if run.plan and run.state == "success"}
