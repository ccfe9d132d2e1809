"""Checks the setting ``CLINIC_BACKUPS`` in ``manage.py check``, before somebody's button fails."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from clinic_backups_django.client import client
from clinic_backups_django.conf import conf


@register()
def settings_are_complete(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """An error if nothing can work, a warning if backups can only be listed."""
    try:
        conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="clinic_backups_django.E001")]
    try:
        client()
    except ImproperlyConfigured as error:
        hint = "Backups can be listed. Making, downloading and restoring them answers 503 until it is set."
        return [Warning(str(error), hint=hint, id="clinic_backups_django.W001")]
    return []
