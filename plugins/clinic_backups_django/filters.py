"""The list's filters: ``clinica``, ``tipo``, ``estado``, ``desde``, ``hasta``."""

from __future__ import annotations

from typing import Any

from django import forms
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from clinic_backups_django.models import Respaldo

LOOKUPS = {
    "clinica": "clinica_id", "tipo": "tipo__in", "estado": "estado__in",
    "desde": "fecha_creacion__gte", "hasta": "fecha_creacion__lte",
}  # fmt: skip


class Wanted(forms.Form):
    """What may be asked for; ``tipo`` and ``estado`` may be repeated."""

    clinica = forms.IntegerField(required=False)
    tipo = forms.MultipleChoiceField(required=False, choices=Respaldo.Tipo.choices)
    estado = forms.MultipleChoiceField(required=False, choices=Respaldo.Estado.choices)
    desde = forms.DateTimeField(required=False)
    hasta = forms.DateTimeField(required=False)


class RespaldoFilter(BaseFilterBackend):
    """Filters without a further package."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        """:raises ValidationError: a value cannot be."""
        wanted = Wanted(request.query_params)
        if not wanted.is_valid():
            raise ValidationError(wanted.errors)
        given = {LOOKUPS[name]: value for name, value in wanted.cleaned_data.items() if value not in (None, [])}
        return queryset.filter(**given)
