"""What the clinics' users did."""

from django.conf import settings
from django.db import models


class Bitacora(models.Model):
    accion = models.CharField(max_length=50)
    modelo = models.CharField(max_length=100)
    objeto_id = models.CharField(max_length=64)
    ip = models.GenericIPAddressField(null=True)
    agente_usuario = models.TextField()
    cambios = models.JSONField(null=True)
    ocurrido_en = models.DateTimeField(auto_now_add=True)
    usuario = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
