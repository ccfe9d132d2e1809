"""The app's configuration."""

from django.apps import AppConfig


class ClinicBackupsConfig(AppConfig):
    """``INSTALLED_APPS = [..., "clinic_backups_django"]``."""

    name = "clinic_backups_django"
    verbose_name = "Respaldos en la nube"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks of the settings."""
        from clinic_backups_django import checks  # noqa: F401
