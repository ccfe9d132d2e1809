"""Explains Google's answers: the cause in a sentence, and the remedy."""

from __future__ import annotations

import re
from typing import Any

BUSY = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
"""Reasons of a 403 that pass by themselves."""
_PERMISSION = re.compile(r"\bstorage\.[a-z]+\.[a-zA-Z]+\b")
_REASONS = {
    "accountDisabled": ("The project's billing is disabled", "Enable billing for the bucket's project."),
    "accessNotConfigured": ("The project has no Cloud Storage API", "Enable storage.googleapis.com in the project."),
    "SERVICE_DISABLED": ("The project has no Cloud Storage API", "Enable storage.googleapis.com in the project."),
    "userProjectMissing": ("The bucket's requester pays for requests", "Turn requester pays off."),
    "domainPolicy": ("A policy of the organization forbids it", "Ask the administrators of the organization."),
}
_KEY_HINT = "Make a new key of the service account, and put it into keyfile_dict or key_path of the connection's extra."


def reasons_of(error: Any) -> set[str]:
    """The machine-readable reasons in an answer."""
    found = {str(item.get("reason")) for item in getattr(error, "errors", ()) or () if isinstance(item, dict)}
    return found | {str(getattr(error, "reason", "") or "")}


def cause_of(error: Any, status: int) -> tuple[str, str]:
    """The cause, a sentence without its full stop that may be empty, and the remedy."""
    if status == 401:
        return "The access token is refused: the service account's key is disabled or deleted", _KEY_HINT
    for reason in reasons_of(error):
        if reason in _REASONS:
            return _REASONS[reason]
    if status == 403:
        needed = _PERMISSION.search(str(getattr(error, "message", "")))
        grant = "Grant the account roles/storage.objectUser on the bucket (and the bucket's service agent the KMS key)."
        if needed:
            return f"The credentials are valid, but lack {needed[0]}", f"{grant} {needed[0]} was denied."
        return "The credentials are valid, but lack a right", grant
    if status == 412:
        return "", "The state of the bucket or the object forbids it."
    return "", "Check the bucket, the connection and its permissions."


def cause_of_refresh(error: Any) -> tuple[str, str]:
    """Why Google gave no access token. Its description is read but never shown, because it may contain anything."""
    about = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
    code, said = str(about.get("error") or error.args[0] if error.args else ""), str(about.get("error_description"))
    said = f"{said} {error.args[0] if error.args else ''}".lower()
    if "iat" in said or "short-lived" in said or "timeframe" in said:
        return "invalid_grant: this machine's clock and Google's differ", "Correct this machine's clock (NTP)."
    if "signature" in said:
        return "invalid_grant: the service account does not know this key", _KEY_HINT
    if "account not found" in said or "account_not_found" in said or "disabled" in said:
        return "invalid_grant: the service account is deleted or disabled", "Use another service account, or enable it."
    if code.startswith("invalid_grant"):
        return "invalid_grant: the key or the grant has expired, or was revoked", _KEY_HINT
    return (
        "no working credentials were found",
        "Set keyfile_dict or key_path in the connection's extra, or give this machine a service account.",
    )
