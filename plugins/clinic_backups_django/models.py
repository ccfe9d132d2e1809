"""The view ``respaldo`` as a model: it can only be read."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import NotSupportedError, models

from clinic_backups_django.conf import conf
from clinic_backups_django.words import age, size

READ_ONLY = "Los respaldos solo se pueden leer: los crea y los borra clinic_backups."


class RespaldoQuerySet(models.QuerySet):
    """Rows that cannot be changed by mistake. The database refuses changes too."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotSupportedError(READ_ONLY)

    delete = update = create = bulk_create = bulk_update = get_or_create = update_or_create = _refuse
    _refuse.alters_data = True  # type: ignore[attr-defined]
    _refuse.queryset_only = False  # type: ignore[attr-defined]


class Respaldo(models.Model):
    """One backup of one clinic."""

    class Tipo(models.TextChoices):
        COMPLETO = "completo", "Completo"
        INCREMENTAL = "incremental", "Incremental"
        MANUAL = "manual", "Manual"

    class Estado(models.TextChoices):
        EN_PROCESO = "en_proceso", "En proceso"
        COMPLETADO = "completado", "Completado"
        FALLIDO = "fallido", "Fallido"

    id = models.BigIntegerField("número", primary_key=True)
    # No on_delete rule, because a backup outlives its clinic and its user. With null=True Django joins them with
    # LEFT JOIN, so that no list loses the backups of clinics that are gone.
    clinica = models.ForeignKey(
        conf().clinic_model, models.DO_NOTHING, null=True, db_constraint=False, related_name="+",
        verbose_name="clínica",
    )  # fmt: skip
    tipo = models.CharField(max_length=20, choices=Tipo.choices)
    estado = models.CharField(max_length=20, choices=Estado.choices)
    nombre_archivo = models.CharField("archivo", max_length=255)
    ruta_nube = models.CharField("ruta en la nube", max_length=500)
    tamano_bytes = models.BigIntegerField("tamaño en bytes", default=0)
    hash_md5 = models.CharField("MD5", max_length=32, blank=True)
    tablas_respaldadas = models.JSONField("tablas", default=list)
    registros_totales = models.BigIntegerField("registros", default=0)
    tiempo_ejecucion = models.DurationField("duración", null=True)
    fecha_creacion = models.DateTimeField("fecha")
    fecha_expiracion = models.DateTimeField("vence", null=True)
    notas = models.TextField(blank=True)
    error_mensaje = models.TextField("error", blank=True)
    creado_por = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, null=True, db_constraint=False, related_name="+",
        verbose_name="creado por",
    )  # fmt: skip
    clinica_nombre = models.CharField("clínica", max_length=500)
    creado_por_nombre = models.CharField("pedido por", max_length=500)

    objects = RespaldoQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = conf().db_table
        ordering = ("-fecha_creacion", "-id")
        verbose_name = "respaldo"
        verbose_name_plural = "respaldos"

    def __str__(self) -> str:
        return f"Respaldo {self.id} de {self.clinica_nombre}"

    @property
    def tamano_legible(self) -> str:
        """``11,8 MB``; empty as long as nothing is stored."""
        return size(self.tamano_bytes) if self.tamano_bytes else ""

    @property
    def antiguedad(self) -> str:
        """``hace 3 horas``."""
        return age(self.fecha_creacion)

    def save(self, *_: Any, **__: Any) -> NoReturn:
        """:raises NotSupportedError: always."""
        raise NotSupportedError(READ_ONLY)

    delete = save
