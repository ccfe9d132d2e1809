"""Spanish texts for errors of Django REST Framework. Its own translations are incomplete and name models."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions

from clinic_backups_django.words import sentences

TEXTS: tuple[tuple[type[Exception], str], ...] = (
    (Http404, "Ese respaldo no existe, o no es de su clínica."),
    (exceptions.NotFound, "Esa página no existe. Empiece por la primera."),
    (exceptions.ParseError, "El contenido no es JSON válido. Corrija el formato y envíelo de nuevo."),
    (exceptions.UnsupportedMediaType, "Ese tipo de contenido no se acepta. Envíe application/json."),
    (exceptions.NotAcceptable, "La respuesta no existe en ese formato. Pida application/json."),
    (exceptions.MethodNotAllowed, "Esta operación no existe aquí: los respaldos solo se pueden leer, pedir, descargar y"
     " restaurar."),
    (exceptions.NotAuthenticated, "Inicie sesión para ver los respaldos."),
    (exceptions.AuthenticationFailed, "La sesión o la clave no es válida. Inicie sesión de nuevo."),
    (exceptions.Throttled, "Hizo demasiadas solicitudes. Espere un momento e intente de nuevo."),
)  # fmt: skip


def spanish(error: Exception) -> str:
    """The text for an error; empty if Django REST Framework has a Spanish one."""
    if isinstance(error, (PermissionDenied, exceptions.PermissionDenied)):
        return ""
    return next((text for kind, text in TEXTS if isinstance(error, kind)), "")


def text_of(told: Any) -> str:
    """Django REST Framework's description of an error, as one text."""
    if isinstance(told, dict):
        parts = ((name, text_of(value)) for name, value in told.items())
        return sentences(text if name in ("detail", "non_field_errors") else f"{name}: {text}" for name, text in parts)
    return sentences(map(text_of, told)) if isinstance(told, (list, tuple)) else str(told)
