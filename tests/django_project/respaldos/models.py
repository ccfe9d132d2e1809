"""The application's own models of the view: one for each rule of what happens when a clinic or a user is deleted."""

from typing import Any

from django.conf import settings
from django.db import models

from tests.django_project.comun.models import Clinica


class Base(models.Model):
    tipo = models.CharField(max_length=20)
    estado = models.CharField(max_length=20)
    nombre_archivo = models.CharField(max_length=255)
    ruta_nube = models.CharField(max_length=500)
    tamano_bytes = models.BigIntegerField(default=0)
    hash_md5 = models.CharField(max_length=32, blank=True)
    tablas_respaldadas = models.JSONField(default=list)
    registros_totales = models.IntegerField(default=0)
    tiempo_ejecucion = models.DurationField(null=True)
    fecha_creacion = models.DateTimeField(auto_now_add=True)
    fecha_expiracion = models.DateTimeField(null=True)
    notas = models.TextField(blank=True)
    error_mensaje = models.TextField(blank=True)

    class Meta:
        abstract = True
        managed = False
        db_table = '"clinic_backups"."respaldo"'


def _users(on_delete: Any) -> Any:
    return models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=on_delete, null=True, related_name="+")


class Anulado(Base):
    clinica = models.ForeignKey(Clinica, on_delete=models.SET_NULL, null=True, related_name="+")
    creado_por = _users(models.SET_NULL)


class EnCascada(Base):
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE, related_name="+")
    creado_por = _users(models.CASCADE)


class Intacto(Base):
    clinica = models.ForeignKey(Clinica, on_delete=models.DO_NOTHING, related_name="+")
    creado_por = _users(models.DO_NOTHING)
