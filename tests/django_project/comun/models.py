"""The clinics."""

from django.db import models


class Clinica(models.Model):
    nombre = models.CharField(max_length=200)
    direccion = models.TextField()
    telefono = models.CharField(max_length=30)
    correo = models.EmailField()
    idioma = models.CharField(max_length=5, default="es")
    activa = models.BooleanField(default=True)
    configuracion = models.JSONField(default=dict)
    creada_en = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "clínica"

    def __str__(self) -> str:
        return self.nombre
