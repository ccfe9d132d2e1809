"""The id of a clinic in addresses and bodies of requests. Whatever a caller writes there goes through one parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Path
from pydantic import BeforeValidator, Field

from clinic_backups.base.clinic_id import MAX_CHARACTERS, ClinicId, from_component
from clinic_backups.catalog.paging import BIGINT
from clinic_backups.tenant.given_id import given_id
from clinic_backups.web.problems import NotVisible

Clinica = Annotated[
    Annotated[int, Field(ge=0, le=BIGINT - 1)] | Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)],
    BeforeValidator(given_id),
]
"""In a body or a query: a number or a text."""


def possible_clinic(value: object) -> ClinicId | None:
    """The id in a value; ``None`` if it cannot be one."""
    try:
        return given_id(value)
    except ValueError:
        return None


def clinic_in_query(params: Mapping[str, str], name: str) -> ClinicId | None:
    """The id in a page's address."""
    return possible_clinic(params.get(name, "").strip())


def _in_path(clinic_id: Annotated[str, Path()]) -> ClinicId:
    """The id in a page's path, which is encoded as in the paths of a store: one id has one address."""
    found = from_component(clinic_id)
    if found is None:
        raise NotVisible("The clinic")
    return found


ClinicPath: Any = Depends(_in_path)
