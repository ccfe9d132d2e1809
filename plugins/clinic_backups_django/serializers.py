"""The data that the clinics' front ends get and send."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from clinic_backups_django.models import Respaldo

NOT_A_CHARACTER = "El texto tiene un carácter incompleto (U+{code_point:X}). Escríbalo de nuevo."


class RespaldoSerializer(serializers.ModelSerializer):
    """One backup. Its place in the store and the full error are only for the operator."""

    tamano_legible = serializers.CharField(read_only=True)
    creado_por_nombre = serializers.SerializerMethodField()

    class Meta:
        model = Respaldo
        fields = (
            "id", "clinica", "clinica_nombre", "tipo", "estado", "nombre_archivo", "tamano_bytes", "tamano_legible",
            "tablas_respaldadas", "registros_totales", "tiempo_ejecucion", "fecha_creacion", "fecha_expiracion",
            "creado_por", "creado_por_nombre", "notas",
        )  # fmt: skip
        read_only_fields = fields

    def get_creado_por_nombre(self, respaldo: Respaldo) -> str:
        """The user's full name; otherwise the catalog's text, for instance ``scheduled``."""
        names: dict[int, Any] = self.context.get("users", {})
        user = names.get(respaldo.creado_por_id)
        return str(user.get_full_name() or user.get_username() if user else respaldo.creado_por_nombre)


class TextoField(serializers.CharField):
    """A note. Django REST Framework has no Spanish text for an incomplete character."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Each field has instances of its own, but the message may belong to the class.
        for validator in self.validators:
            if isinstance(validator, ProhibitSurrogateCharactersValidator):
                validator.message = NOT_A_CHARACTER


class NuevoRespaldoSerializer(serializers.Serializer):
    """What to back up. A user who sees only one clinic may leave ``clinica`` out."""

    clinica = serializers.IntegerField(required=False, min_value=0)
    tipo = serializers.ChoiceField(("auto", "completo", "incremental"), default="auto")
    notas = TextoField(required=False, allow_blank=True, default="", max_length=500)


class RestauracionSerializer(serializers.Serializer):
    """How to restore. ``exact``: as the backup. ``missing``: only rows that are gone. ``live``: while people work.
    ``rows``: only ``registros`` (keys by table) and what hangs on them, or with ``solo`` these alone.

    ``clinica`` may name the clinic of the backup; it is then compared.
    """

    clinica = serializers.IntegerField(required=False, min_value=0)
    modo = serializers.ChoiceField(("exact", "missing", "live", "rows"), default="exact")
    registros = serializers.DictField(
        child=serializers.ListField(child=TextoField(max_length=200), allow_empty=False), default=dict
    )
    solo = serializers.BooleanField(default=False)
    tablas = serializers.ListField(child=TextoField(max_length=300), default=list)
    notas = TextoField(required=False, allow_blank=True, default="", max_length=500)
