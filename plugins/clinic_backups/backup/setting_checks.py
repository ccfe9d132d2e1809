"""Evaluates the settings for every clinic before a run, so that a wrong one fails here and not after an upload."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from clinic_backups.archive.encryption import parse_recipients, public_keys
from clinic_backups.base.clinic_id import ClinicId, in_order, order_of
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.findings import Report
from clinic_backups.base.setting_fields import PREFIX
from clinic_backups.base.settings import Settings
from clinic_backups.notify.templates import FALLBACK_LANGUAGE, Templates

NO_CLINIC = ""
"""The settings with exceptions for single clinics. All other clinics have the general values."""
OF_CLINICS = ("clinic_recipients", "clinic_retention", "clinic_notify_success")


def check_settings(settings: Settings, report: Report, now: datetime) -> None:
    """Compute everything that a backup computes from settings."""
    with report.check("settings"):
        settings.require_store_url()
    with report.check("settings"):
        parse_recipients(settings.recipients_of(NO_CLINIC))
    for clinic_id, recipients in sorted(settings.clinic_recipients.items(), key=lambda pair: order_of(pair[0])):
        with report.check("settings", f"{PREFIX}CLINIC_RECIPIENTS, clinic {clinic_id}: "):
            parse_recipients(recipients)
    with report.check("settings"):
        Templates(settings.email_dir, settings.zone).check()
    for clinic_id in (NO_CLINIC, *settings.clinic_retention):
        keep_days = settings.retention_of(clinic_id).keep_days
        settings.lock_end(now + timedelta(days=keep_days))
    with report.check("settings"):
        _look_at_language(settings, report)
    with report.check("settings"):
        _require_own_key(settings)
    # Drills run where the secret key is, and only there.
    if settings.identity_file is not None and settings.certificate_key_file is None:
        report.note(
            "settings",
            "Certificates of drills are not signed. `clinic-backups certificate keygen` makes a key, and"
            f" {PREFIX}CERTIFICATE_KEY_FILE names it where drills run.",
        )
    count = len(settings.recipients)
    report.ok("settings", f"Backups are encrypted to {count} public key{'s' if count > 1 else ''}.")


def _look_at_language(settings: Settings, report: Report) -> None:
    templates, wanted = Templates(settings.email_dir, settings.zone), settings.operator_language
    if templates.folder_for(wanted) is None:
        report.warn(
            "settings",
            f"{PREFIX}OPERATOR_LANGUAGE is {wanted}, but {settings.email_dir} has no such folder: mails are in"
            f" {FALLBACK_LANGUAGE}.",
            f"Choose one of {', '.join(templates.languages())}, or add a folder.",
        )


def _require_own_key(settings: Settings) -> None:
    """If the secret key is available, check that it opens the coming backups.

    :raises SettingsError: it does not open them, or the file cannot be used.
    """
    if settings.identity_file is None or not settings.recipients:
        return
    own = set(public_keys(settings.identity_file))
    if not own & {" ".join(key.split()[:2]) for key in settings.recipients_of(NO_CLINIC)}:
        raise SettingsError(
            f"The secret key of {PREFIX}IDENTITY_FILE belongs to none of the keys in {PREFIX}RECIPIENTS: it would not"
            " open the backups.",
            hint=f"Perhaps {PREFIX}RECIPIENTS is somebody else's key. `clinic-backups keygen` printed the public key"
            " that belongs to the secret key.",
        )


def check_clinics_of_settings(settings: Settings, clinic_ids: Iterable[ClinicId], report: Report) -> None:
    """Check that each clinic in a setting exists, because a wrong number would have no effect and go unnoticed."""
    known = set(clinic_ids)
    for name in OF_CLINICS:
        if unknown := in_order(set(getattr(settings, name)) - known):
            report.warn(
                "settings",
                f"{PREFIX}{name.upper()} names clinics that do not exist: {', '.join(map(str, unknown))}.",
                "Correct the numbers, or remove them.",
            )
