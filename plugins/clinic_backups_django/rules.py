"""Says who may see and do what. A project with other rules names a subclass in ``CLINIC_BACKUPS["RULES"]``."""

from __future__ import annotations

from typing import Any, Literal

from django.utils.module_loading import import_string

from clinic_backups_django.conf import conf

Action = Literal["back_up", "download", "restore"]


class Rules:
    """The rules for the application's user model: ``is_superuser``, ``clinica_id``, ``tipo``."""

    def clinics(self, user: Any) -> set[int] | None:
        """The clinics whose backups the user may see; ``None`` means all."""
        if user.is_superuser:
            return None
        own = getattr(user, "clinica_id", None)
        return set() if own is None else {own}

    def may(self, action: Action, user: Any, clinic_id: int) -> bool:
        """Whether the user may do this in a clinic."""
        seen = self.clinics(user)
        return seen is None or (clinic_id in seen and getattr(user, "tipo", "") == "administrador")


def rules() -> Rules:
    """The rules of the project."""
    found: Rules = import_string(conf().rules)()
    return found
