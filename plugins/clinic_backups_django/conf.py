"""The setting ``CLINIC_BACKUPS`` of the Django project."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True)
class Conf:
    """The contents of ``settings.CLINIC_BACKUPS``.

    :param clinic_model: the model whose rows are the clinics, as ``app.Model``.
    :param db_table: the view. With its schema, and quoted, it needs no ``search_path``.
    :param database: the alias of the connection that reads the view.
    :param url: Airflow's address, as a browser has it: ``https://airflow.example``.
    :param token: a bearer token of a service's user in Airflow; or its ``username`` and ``password``.
    :param rules: the class that says who may do what, see :mod:`clinic_backups_django.rules`.
    :param wait_seconds: how long a request for a backup waits: 201 if the backup ends in time, otherwise 202.
    :param timeout_seconds: the longest wait for an answer of Airflow.
    """

    clinic_model: str
    db_table: str = '"clinic_backups"."respaldo"'
    database: str = "default"
    url: str = ""
    token: str = ""
    username: str = ""
    password: str = ""
    rules: str = "clinic_backups_django.rules.Rules"
    wait_seconds: float = 15
    timeout_seconds: float = 30


def conf() -> Conf:
    """The project's settings. :raises ImproperlyConfigured: a setting is missing, or its name is unknown."""
    given: dict[str, Any] = getattr(settings, "CLINIC_BACKUPS", {})
    known = {field.name.upper() for field in fields(Conf)}
    if unknown := sorted(given.keys() - known):
        raise ImproperlyConfigured(
            f"CLINIC_BACKUPS has no setting {', '.join(unknown)}. There are {', '.join(sorted(known))}."
        )
    if "CLINIC_MODEL" not in given:
        raise ImproperlyConfigured(
            "CLINIC_BACKUPS names no CLINIC_MODEL. Set it to the model of the clinics, for instance"
            ' CLINIC_BACKUPS = {"CLINIC_MODEL": "comun.Clinica"}.'
        )
    return Conf(**{name.lower(): value for name, value in given.items()})
