"""Settings of the project. The tests put the databases' names and the address of the API in."""

from typing import Any

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.django_project.urls"
AUTH_USER_MODEL = "usuarios.Usuario"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "es"
TIME_ZONE = "UTC"  # Django gives this zone to the whole process
USE_TZ = True
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "tests.django_project.comun",
    "tests.django_project.usuarios",
    "tests.django_project.profesionales",
    "tests.django_project.inventario",
    "tests.django_project.citas",
    "tests.django_project.historial_clinico",
    "tests.django_project.sistema_pagos",
    "tests.django_project.auditoria",
    "tests.django_project.respaldos",
    "clinic_backups_django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django.db.backends.postgresql", "NAME": "clinica"},
    # The same view over a connection of its own.
    "respaldos": {"ENGINE": "django.db.backends.postgresql", "NAME": "clinica"},
}
DATABASE_ROUTERS = ["clinic_backups_django.router.RespaldosRouter"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 50,
}
CLINIC_BACKUPS = {"CLINIC_MODEL": "comun.Clinica", "URL": "http://127.0.0.1:1", "TOKEN": "none"}
