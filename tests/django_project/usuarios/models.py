"""The clinics' people and patients."""

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models

from tests.django_project.comun.models import Clinica


class Usuario(AbstractUser):
    class Tipo(models.TextChoices):
        ADMINISTRADOR = "administrador"
        ODONTOLOGO = "odontologo"
        RECEPCIONISTA = "recepcionista"
        AUDITOR = "auditor"

    tipo = models.CharField(max_length=20, choices=Tipo.choices, default=Tipo.RECEPCIONISTA)
    preferencias = models.JSONField(null=True, blank=True)
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE, null=True, blank=True)


class Paciente(models.Model):
    nombres = models.CharField(max_length=100)
    apellidos = models.CharField(max_length=100)
    cedula = models.CharField(max_length=20)
    fecha_nacimiento = models.DateField()
    sexo = models.CharField(max_length=1)
    telefono = models.CharField(max_length=30)
    correo = models.EmailField(null=True)
    direccion = models.TextField()
    alergias = ArrayField(models.TextField(), default=list)
    contacto_emergencia = models.JSONField(null=True)
    notas = models.TextField(null=True)
    creado_en = models.DateTimeField(auto_now_add=True)
    clinica = models.ForeignKey(Clinica, on_delete=models.CASCADE)
    responsable = models.ForeignKey("self", on_delete=models.SET_NULL, null=True)

    class Meta:
        unique_together = (("clinica", "cedula"),)
