"""Invoices and payments."""

import uuid

from django.conf import settings
from django.db import models

from tests.django_project.citas.models import Consulta


class Factura(models.Model):
    numero = models.CharField(max_length=30, unique=True)
    subtotal = models.DecimalField(max_digits=12, decimal_places=2)
    impuesto = models.DecimalField(max_digits=12, decimal_places=2)
    emitida_en = models.DateTimeField(auto_now_add=True)
    anulada = models.BooleanField(default=False)
    lineas = models.JSONField(default=list)
    consulta = models.ForeignKey(Consulta, on_delete=models.CASCADE)


class Pago(models.Model):
    monto = models.DecimalField(max_digits=12, decimal_places=2)
    metodo = models.CharField(max_length=20)
    fecha = models.DateField()
    referencia = models.CharField(max_length=100, null=True)
    factura = models.ForeignKey(Factura, on_delete=models.CASCADE)
    recibido_por = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)


class PagoEnLinea(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    pasarela = models.CharField(max_length=30)
    respuesta = models.JSONField(default=dict)
    comision = models.FloatField()
    confirmado_en = models.DateTimeField(null=True)
    pago = models.OneToOneField(Pago, on_delete=models.CASCADE)
