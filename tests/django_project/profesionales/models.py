"""Who works in the clinics."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from tests.django_project.comun.models import Clinica


class Odontologo(models.Model):
    especialidad = models.CharField(max_length=100)
    numero_licencia = models.CharField(max_length=50)
    dias_laborables = ArrayField(models.IntegerField(), default=list)
    tarifa_consulta = models.DecimalField(max_digits=10, decimal_places=2)
    duracion_cita = models.DurationField()
    firma = models.BinaryField(null=True)
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE)
    usuario = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)


class Recepcionista(models.Model):
    hora_entrada = models.TimeField()
    hora_salida = models.TimeField()
    extension = models.CharField(max_length=10, null=True)
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE)
    usuario = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
