"""Reads JSON bodies after the caller's rights were checked, so that 403 comes before 422."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.web.clinic_values import possible_clinic

Model = TypeVar("Model", bound=BaseModel)
NOT_JSON: dict[str, Any] = {
    "type": "json_invalid",
    "loc": ("body",),
    "msg": "JSON decode error",
    "ctx": {},
    "input": None,
}


async def json_body(request: Request) -> object:
    """The body's JSON; an empty body is an empty object. If it is not JSON, :func:`read_body` refuses it."""
    content = await request.body()
    if not content:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        return NOT_JSON
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return NOT_JSON


def read_body(model: type[Model], given: object) -> Model:
    """The body as a model. :raises RequestValidationError: it does not fit the model."""
    if given is NOT_JSON:
        raise RequestValidationError([NOT_JSON])
    try:
        return model.model_validate({} if given is None else given)
    except ValidationError as error:
        found = [dict(each) | {"loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def clinic_named(given: object) -> ClinicId | None:
    """The clinic's id in a body, before anything else in it is checked; ``None`` if there is no possible id."""
    return possible_clinic(given.get("clinica")) if isinstance(given, dict) else None
