"""The clinics' stock."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tests.django_project.comun.models import Clinica


class Inventario(models.Model):
    codigo = models.CharField(max_length=20)
    nombre = models.CharField(max_length=200)
    cantidad = models.PositiveIntegerField()
    precio_unitario = models.DecimalField(max_digits=10, decimal_places=2)
    caducidad = models.DateField(null=True)
    etiquetas = ArrayField(models.TextField(null=True), null=True)
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE)

    class Meta:
        unique_together = (("clinica", "codigo"),)
