"""The list's filters: ``clinica``, ``tipo``, ``estado``, ``desde``, ``hasta``."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django import forms
from django.forms.utils import from_current_timezone
from django.utils.dateparse import parse_date
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from clinic_backups_django.models import Respaldo

LOOKUPS = {
    "clinica": "clinica_id", "tipo": "tipo__in", "estado": "estado__in",
    "desde": "fecha_creacion__gte", "hasta": "fecha_creacion__lte",
}  # fmt: skip


class UntilField(forms.DateTimeField):
    """A moment. A day without a time means the whole day."""

    def to_python(self, value: Any) -> Any:
        """:raises ValidationError: the value is no moment."""
        given = str(value or "").strip()
        try:
            day = parse_date(given) if len(given) == len("2026-08-02") else None
        except ValueError:
            day = None
        return super().to_python(value) if day is None else from_current_timezone(datetime.combine(day, time.max))


class Wanted(forms.Form):
    """The filters' values. ``tipo`` and ``estado`` may be repeated."""

    clinica = forms.IntegerField(required=False)
    tipo = forms.MultipleChoiceField(required=False, choices=Respaldo.Tipo.choices)
    estado = forms.MultipleChoiceField(required=False, choices=Respaldo.Estado.choices)
    desde = forms.DateTimeField(required=False)
    hasta = UntilField(required=False)


class RespaldoFilter(BaseFilterBackend):
    """Filters the list without a further package."""

    def filter_queryset(self, request: Request, queryset: Any, view: Any) -> Any:
        """:raises ValidationError: a filter has an impossible value."""
        asked = request.query_params.copy()
        for name in ("tipo", "estado"):  # "all" in a form's list is an empty value
            asked.setlist(name, [value for value in asked.getlist(name) if value.strip()])
        wanted = Wanted(asked)
        if not wanted.is_valid():
            raise ValidationError(wanted.errors)
        given = {LOOKUPS[name]: value for name, value in wanted.cleaned_data.items() if value not in (None, [])}
        return queryset.filter(**given)
