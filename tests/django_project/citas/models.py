"""Visits."""

from django.conf import settings
from django.db import models

from tests.django_project.profesionales.models import Odontologo
from tests.django_project.usuarios.models import Paciente


class Horario(models.Model):
    odontologo = models.ForeignKey(Odontologo, on_delete=models.CASCADE)
    dia_semana = models.SmallIntegerField()
    hora_inicio = models.TimeField()
    hora_fin = models.TimeField()
    sala = models.CharField(max_length=20, null=True)


class Consulta(models.Model):
    fecha = models.DateField()
    hora = models.TimeField()
    duracion = models.DurationField()
    estado = models.CharField(max_length=20, default="programada")
    motivo = models.CharField(max_length=200)
    notas = models.TextField(null=True)
    registrada_en = models.DateTimeField(auto_now_add=True)
    paciente = models.ForeignKey(Paciente, on_delete=models.CASCADE)
    odontologo = models.ForeignKey(Odontologo, on_delete=models.PROTECT)
    registrada_por = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)


class Recordatorio(models.Model):
    canal = models.CharField(max_length=10)
    programado_para = models.DateTimeField()
    enviado = models.BooleanField(default=False)
    consulta = models.ForeignKey(Consulta, on_delete=models.CASCADE)
