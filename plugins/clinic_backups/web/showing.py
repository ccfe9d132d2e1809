"""Shows a page with what every page needs to know, or leads to another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.backup_list import Moment
from clinic_backups.catalog.board import BoardLine
from clinic_backups.web import forms, render
from clinic_backups.web.actions import Started
from clinic_backups.web.caller import Caller
from clinic_backups.web.problems import NotVisible
from clinic_backups.web.services import Services
from clinic_backups.web.viewer import Action


def show(
    request: Request,
    template: str,
    caller: Caller,
    services: Services,
    clinic_id: ClinicId | None = None,
    **facts: object,
) -> HTMLResponse:
    """Render a page, with the actions that the caller may do with that clinic."""
    now, zone, words = services.now(), services.settings.zone, services.settings.tenant_words
    may = {action: clinic_id is not None and caller.viewer.may(action, clinic_id) for action in get_args(Action)}
    known: dict[str, Any] = {"viewer": caller.viewer, "may": may, "now": now, "today": now.astimezone(zone).date()}
    return render.page(request, template, zone=zone, words=words, **known | facts)


def follow(request: Request, started: Started, flash: str) -> Response:
    """Redirect to the page of the run. With 303, reloading that page does not repeat the action."""
    url = render.PageLinks.of(request).url("runs", started.dag_id, started.run_id, query={"done": flash})
    return RedirectResponse(url, status_code=303)


def chosen_of(moments: Sequence[Moment], request: Request) -> Moment | None:
    """The backup that the address names; if it names none of these, the newest regular one."""
    wanted = forms.number(request.query_params, "backup")
    usual = next((moment for moment in moments if moment.is_regular), None)
    return next((moment for moment in moments if moment.number == wanted), usual)


def line_of(caller: Caller, services: Services, clinic_id: ClinicId) -> BoardLine:
    """The clinic's line of the board. :raises NotVisible: it does not exist or is not visible to this person."""
    line = board_line(services, clinic_id) if caller.viewer.may("see", clinic_id) else None
    if line is None:
        raise NotVisible(f"Clinic {clinic_id}")
    return line


def board_line(services: Services, clinic_id: ClinicId) -> BoardLine | None:
    """The clinic's line of the board, whoever asks; none if it does not exist."""
    return services.board.clinic(clinic_id, **services.objectives())
