"""Sends queries of the view's model to a connection of its own, if the catalog is in another database."""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS

from clinic_backups_django.conf import conf

LABEL = "clinic_backups_django"


class RespaldosRouter:
    """``DATABASE_ROUTERS = ["clinic_backups_django.router.RespaldosRouter"]``."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Read the view from ``DATABASE``. Clinics and users are read where the project has them."""
        if model._meta.app_label == LABEL:
            return conf().database
        instance = hints.get("instance")
        return DEFAULT_DB_ALIAS if instance is not None and instance._meta.app_label == LABEL else None

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool | None:
        """A backup belongs to a clinic, whatever connections both come from."""
        return True if LABEL in (one._meta.app_label, other._meta.app_label) else None
