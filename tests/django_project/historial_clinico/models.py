"""What was found and done."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tests.django_project.citas.models import Consulta
from tests.django_project.usuarios.models import Paciente


class HistorialClinico(models.Model):
    fecha_apertura = models.DateField()
    grupo_sanguineo = models.CharField(max_length=3, null=True)
    antecedentes = models.JSONField(default=dict)
    observaciones = models.TextField()
    radiografia = models.BinaryField(null=True)
    paciente = models.OneToOneField(Paciente, on_delete=models.CASCADE)


class Tratamiento(models.Model):
    descripcion = models.CharField(max_length=200)
    piezas = ArrayField(models.IntegerField(), default=list)
    materiales = ArrayField(models.TextField(), null=True)
    costo = models.DecimalField(max_digits=10, decimal_places=2)
    terminado = models.BooleanField(default=False)
    fecha = models.DateField()
    detalle = models.JSONField(null=True)
    historial = models.ForeignKey(HistorialClinico, on_delete=models.CASCADE)
    consulta = models.ForeignKey(Consulta, on_delete=models.SET_NULL, null=True)
    anterior = models.ForeignKey("self", on_delete=models.SET_NULL, null=True)
