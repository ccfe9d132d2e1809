"""The pages on which a clinic asks for its data as a file, and gets it."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from clinic_backups.archive.encryption import seal_text
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.exports import FORMATS, Format
from clinic_backups.catalog.paging import BIGINT
from clinic_backups.web import forms
from clinic_backups.web.access import CallerDep
from clinic_backups.web.clinic_values import ClinicPath
from clinic_backups.web.problems import Conflict, NotVisible
from clinic_backups.web.services import ServicesDep, entry_of
from clinic_backups.web.showing import chosen_of, follow, line_of, show
from clinic_backups.web.threads import file_response, on_threads

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""None that is easily taken for another one."""
GROUPS, LETTERS_OF_GROUP = 5, 4
"""31 ^ 20 passwords: 99 bits."""

router = APIRouter(include_in_schema=False)


@router.get("/clinics/{clinic_id}/export", name="export_dialog")
@on_threads
def dialog(
    request: Request, caller: CallerDep, services: ServicesDep, clinic_id: Annotated[ClinicId, ClinicPath]
) -> Response:
    """Choose a backup and a format."""
    caller.require("export", clinic_id)
    line = line_of(caller, services, clinic_id)
    moments = services.history.moments(clinic_id)
    chosen = chosen_of(moments, request)
    return show(
        request, "export.html", caller, services, clinic_id, line=line, moments=moments, chosen=chosen,
        formats=FORMATS, has_keys=bool(services.settings.clinic_recipients.get(clinic_id)),
        days=services.settings.export_days,
    )  # fmt: skip


@router.post("/clinics/{clinic_id}/export")
@on_threads
def ask(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    clinic_id: Annotated[ClinicId, ClinicPath],
    backup: Annotated[int, Form()],
    output_format: Annotated[Format, Form(alias="format")] = "xlsx",
    notes: forms.Line = "",
) -> Response:
    """Start the run. Without keys of the clinic, a password is made and shown once."""
    caller.require("export", clinic_id)
    entry = entry_of(services, caller, backup)
    if entry.record.clinic_id != clinic_id:
        raise NotVisible(f"Backup {backup}")
    settings = services.settings
    if settings.clinic_recipients.get(clinic_id):
        return follow(request, services.actions.export(caller, entry, output_format, notes=notes), "exporting")
    if not settings.recipients:
        raise Conflict(
            "The page cannot encrypt the password of the file: the API server has no CLINIC_BACKUPS_RECIPIENTS.",
            hint="The operator sets it there too. It holds public keys only.",
        )
    password = new_password()
    started = services.actions.export(
        caller, entry, output_format, sealed_password=seal_text(password, settings.recipients), notes=notes
    )
    # Shown in the answer itself: nothing keeps it, and no address leads to it.
    return show(
        request, "export_password.html", caller, services, clinic_id, line=line_of(caller, services, clinic_id),
        password=password, started=started,
    )  # fmt: skip


@router.get("/exports/{number}/download")
@on_threads
def download(caller: CallerDep, services: ServicesDep, number: int) -> Response:
    """The file, or a link to it."""
    record = services.exports.get(number) if 0 < number < BIGINT else None
    if record is None or not caller.viewer.may("see", record.clinic_id):
        raise NotVisible("The file")
    url, content = services.downloads.export(caller, record)
    if url is not None:
        return RedirectResponse(url, status_code=303)
    assert record.file_name is not None and record.size_bytes is not None  # noqa: S101 - a file that is there has both
    return file_response(content, record.file_name, record.size_bytes, media_type="application/octet-stream")


def new_password() -> str:
    """A password that a person can type: ``k7mq-…``."""
    groups = ("".join(secrets.choice(LETTERS) for _ in range(LETTERS_OF_GROUP)) for _ in range(GROUPS))
    return "-".join(groups)
