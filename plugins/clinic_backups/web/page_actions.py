"""The forms of the pages. Each does one thing and leads to a page that shows its progress."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from clinic_backups.base.backup_request import WantedKind
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.restores import RestoreMode
from clinic_backups.web import forms
from clinic_backups.web.access import CallerDep
from clinic_backups.web.clinic_values import ClinicPath
from clinic_backups.web.problems import NotVisible, WrongValue
from clinic_backups.web.render import PageLinks, archive_path, whole_path
from clinic_backups.web.runs import RESTORE
from clinic_backups.web.services import ServicesDep, entry_of
from clinic_backups.web.showing import follow
from clinic_backups.web.threads import on_threads

Sure = Annotated[bool, Form()]


router = APIRouter(include_in_schema=False)
"""The routes that change something or send a backup."""


@router.post("/clinics/{clinic_id}/back-up")
@on_threads
def back_up(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    clinic_id: Annotated[ClinicId, ClinicPath],
    kind: Annotated[WantedKind, Form()] = "auto",
    notes: forms.Line = "",
) -> Response:
    return follow(request, services.actions.back_up(caller, clinic_id, kind=kind, notes=notes), "backing_up")


@router.post("/clinics/{clinic_id}/restore")
@on_threads
def restore(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    clinic_id: Annotated[ClinicId, ClinicPath],
    backup: Annotated[int, Form()],
    mode: Annotated[RestoreMode, Form()] = "exact",
    tables: Annotated[list[forms.TableName], Form(max_length=forms.MOST_TABLES)] = [],  # noqa: B006
    rows_table: Annotated[forms.TableName | Literal[""], Form()] = "",
    rows_keys: Annotated[str, Form(max_length=forms.LONGEST_KEYS)] = "",
    only: Annotated[bool, Form()] = False,
    notes: forms.Line = "",
) -> Response:
    caller.require("restore", clinic_id)
    entry = entry_of(services, caller, backup)
    if entry.record.clinic_id != clinic_id:
        raise NotVisible(f"Backup {backup}")
    keys = [key for each in re.split(r"[,\s]+", rows_keys) if (key := each.strip())]
    # The fields of the other modes are in the form too, and are empty or without meaning there.
    rows = {rows_table: keys} if mode == "rows" and rows_table else {}
    started = services.actions.restore(
        caller, entry, mode=mode, tables=() if mode == "rows" else tuple(tables), rows=rows,
        only=only and mode == "rows", notes=notes,
    )  # fmt: skip
    return follow(request, started, "planning")


@router.post("/runs/clinic_restore/{run_id:path}/answer")
@on_threads
def answer(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    run_id: str,
    approve: Annotated[bool, Form()],
    sure: Sure = False,
    plan: Annotated[str, Form(max_length=200)] = "",
    reason: forms.Line = "",
) -> Response:
    if not forms.is_run_id(run_id):
        raise NotVisible("The restore")
    _require_sure(sure or not approve)
    services.actions.answer(caller, run_id, approve=approve, plan_digest=plan, reason=reason)
    flash = "approved" if approve else "rejected"
    return RedirectResponse(PageLinks.of(request).url("runs", RESTORE, run_id, query={"done": flash}), status_code=303)


@router.post("/backups/{number}/hold")
@on_threads
def hold(request: Request, caller: CallerDep, services: ServicesDep, number: int, reason: forms.Line = "") -> Response:
    return follow(request, services.actions.hold(caller, entry_of(services, caller, number), reason), "holding")


@router.post("/backups/{number}/release")
@on_threads
def release(request: Request, caller: CallerDep, services: ServicesDep, number: int, sure: Sure = False) -> Response:
    entry = entry_of(services, caller, number)
    caller.require("release", entry.record.clinic_id)
    _require_sure(sure)
    return follow(request, services.actions.release(caller, entry), "releasing")


@router.post("/backups/{number}/verify")
@on_threads
def verify(request: Request, caller: CallerDep, services: ServicesDep, number: int) -> Response:
    return follow(request, services.actions.verify(caller, entry_of(services, caller, number)), "verifying")


# A link instead of a form, because a form may not lead to another host such as a store (CSP, form-action).
@router.get("/backups/{number}/download")
@on_threads
def download(request: Request, caller: CallerDep, services: ServicesDep, number: int) -> Response:
    link = services.downloads.link(caller, entry_of(services, caller, number))
    # A folder cannot sign links.
    return RedirectResponse(link.url or archive_path(request, number), status_code=303)


@router.get("/backups/{number}/download-whole")
@on_threads
def download_whole(request: Request, caller: CallerDep, services: ServicesDep, number: int) -> Response:
    caller.require("download", entry_of(services, caller, number).record.clinic_id)
    return RedirectResponse(whole_path(request, number), status_code=303)


def _require_sure(sure: bool) -> None:
    """Check the box beside the button, for browsers without script. :raises WrongValue: it is not ticked."""
    if not sure:
        raise WrongValue("The box beside the button was not ticked.", hint="Read its text, tick it, and try again.")
