"""The id of a clinic as an argument of commands."""

from __future__ import annotations

import typer

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.tenant.given_id import given_id


def clinic_arg(text: str) -> ClinicId:
    """A number or a text. The annotation of such an argument is ``Any``, because Typer accepts no union.

    :raises typer.BadParameter: it cannot be the id of a clinic.
    """
    try:
        return given_id(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text[:40]!r} is not the id of a clinic: {error}.") from None
