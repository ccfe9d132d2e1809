"""Backups in Django's admin, read-only and in Spanish."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from clinic_backups_django.models import Respaldo
from clinic_backups_django.rules import rules

COLOURS = {"completado": "#1a7f37", "en_proceso": "#9a6700", "fallido": "#cf222e"}

NO_BREAK = "\u00a0"


@admin.register(Respaldo)
class RespaldoAdmin(admin.ModelAdmin):
    """Backups. Nobody can add, change or delete them here."""

    list_display = ("id", "clinica_nombre", "tipo", "con_estado", "tamano", "antiguedad", "vence", "quien")
    list_filter = ("estado", "tipo", "fecha_creacion")
    search_fields = ("clinica_nombre", "nombre_archivo", "notas")
    date_hierarchy = None
    actions = None
    fields = ("id", "clinica_nombre", "tipo", "con_estado", "fecha_creacion", "antiguedad", "tiempo_ejecucion", "vence",
              "tamano", "registros_totales", "tablas", "nombre_archivo", "ruta_nube", "hash_md5", "quien", "notas",
              "error_mensaje")  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: Any) -> Any:
        """The backups of the clinics that the user may see, as in the API."""
        seen, every = rules().clinics(request.user), super().get_queryset(request)
        return every if seen is None else every.filter(clinica_id__in=seen)

    @admin.display(description="estado", ordering="estado")
    def con_estado(self, respaldo: Respaldo) -> SafeString:
        """The state in words, in its colour."""
        return format_html(
            '<strong style="color: {}">{}</strong>',
            COLOURS.get(respaldo.estado, "inherit"),
            respaldo.get_estado_display(),
        )

    @admin.display(description="tamaño", ordering="tamano_bytes")
    def tamano(self, respaldo: Respaldo) -> str:
        """The archive's size."""
        return respaldo.tamano_legible.replace(" ", NO_BREAK) or "—"

    @admin.display(description="antigüedad", ordering="fecha_creacion")
    def antiguedad(self, respaldo: Respaldo) -> str:
        """The backup's age."""
        return respaldo.antiguedad.replace(" ", NO_BREAK)

    @admin.display(description="vence", ordering="fecha_expiracion")
    def vence(self, respaldo: Respaldo) -> Any:
        """The day until which it is kept."""
        return respaldo.fecha_expiracion or "—"

    @admin.display(description="pedido por")
    def quien(self, respaldo: Respaldo) -> str:
        """Who asked for it, or that the schedule did."""
        return "programado" if respaldo.creado_por_nombre == "scheduled" else respaldo.creado_por_nombre

    @admin.display(description="tablas")
    def tablas(self, respaldo: Respaldo) -> str:
        """The names of its tables."""
        return ", ".join(respaldo.tablas_respaldadas) or "—"

    def has_add_permission(self, request: Any) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Never."""
        return False
