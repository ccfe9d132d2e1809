"""Explains Azure's error codes: the cause in a sentence, the remedy, and whether renewed credentials help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit

MOST_SKEW = timedelta(minutes=15)
"""Older requests are refused: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
_RIGHTS = {"GET": "r and l (read, list)", "HEAD": "r (read)", "PUT": "c and w (create, write)", "DELETE": "d and x"}
_CREDENTIALS = "Correct the account key or SAS token of the connection."
_SAS = "Make a SAS token that allows it, or use the account's key or a role."
_CAUSES = {
    "AccountIsDisabled": ("The account is disabled", "Enable it at the provider."),
    "AuthorizationProtocolMismatch": ("The SAS token is for https only", "Use https in the connection's host."),
    "AuthorizationResourceTypeMismatch": ("The SAS token is not for containers and objects", _SAS),
    "AuthorizationServiceMismatch": ("The SAS token is not for blobs", _SAS),
    "AuthorizationSourceIPMismatch": ("The SAS token is not for this machine's address", _SAS),
    "KeyBasedAuthenticationNotPermitted": (
        "The account does not accept account keys",
        "Give this machine a managed identity, or set tenant_id, client id and secret in the connection.",
    ),
    "NoAuthenticationInformation": ("The request has no credentials", "Set login and password of the connection."),
    "PublicAccessNotPermitted": ("The request has no credentials", "Set login and password of the connection."),
}
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_ENTRA = {
    "7000215": ("The client secret is wrong", "Correct the client secret (password) of the connection."),
    "7000222": ("The client secret has expired", "Make a new client secret, and put it into the connection."),
    "700016": ("The application is not known in that tenant", "Correct the client id (login) or tenant_id."),
    "90002": ("The tenant is not known", "Correct tenant_id in the connection's extra."),
}


@dataclass(frozen=True)
class Meaning:
    """:param renewable: the credentials have expired, and renewing them is enough."""

    cause: str
    hint: str
    renewable: bool = False


_WRONG_KEY = Meaning(
    "The account key does not belong to the account", "Correct the account key (password) of the connection."
)
_WRONG_SAS = Meaning("The SAS token's signature is wrong, or its key was renewed", "Make a new SAS token.")
_KEPT_OUT = Meaning(
    "The account's firewall blocks this machine, or the account key (password) or the SAS token is wrong",
    "Allow this machine's address under Networking of the account, and in the SAS token; then compare the password or"
    " the SAS token of the connection with the provider's.",
)


def meaning_of(code: str, status: int, *, method: str, url: str, date: str, text: str, now: datetime) -> Meaning:
    """Explain an answer.

    :param url: the service's URL, with the SAS token if there is one.
    :param date: the header ``Date`` of the answer.
    :param text: the error's own text. It is searched for codes, and never shown.
    """
    entra = re.search(r"AADSTS(\d+)", text)
    if entra and entra[1] in _ENTRA:
        return Meaning(*_ENTRA[entra[1]])
    if code in _CAUSES:
        return Meaning(*_CAUSES[code])
    if code == "AuthorizationPermissionMismatch" or code == "InsufficientAccountPermissions":
        return Meaning(
            f"The credentials are valid, but lack the right for this {method or 'request'}",
            f"Grant Storage Blob Data Contributor, or in the SAS token {_RIGHTS.get(method, 'r, l, c, w and d')};"
            " to delete versions, Storage Blob Data Owner, or the permission x.",
        )
    if code in ("AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo") or status == 401:
        found = _of_credentials(url, date, text, now)
        return _KEPT_OUT if code == "AuthorizationFailure" and found in (_WRONG_KEY, _WRONG_SAS) else found
    if status == 403:
        return Meaning("", f"{_CREDENTIALS} Or grant Storage Blob Data Contributor; to delete versions, Owner.")
    return Meaning("", "Check the container, the connection and its permissions.")


def _of_credentials(url: str, date: str, text: str, now: datetime) -> Meaning:
    signed = parse_qs(urlsplit(url).query)
    ends, begins = (_moment(signed.get(name, [""])[0]) for name in ("se", "st"))
    there = _date(date)
    if there is not None and abs(there - now) > MOST_SKEW:
        return Meaning(
            f"This machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC, that of the service {there:%Y-%m-%d %H:%M:%S} UTC",
            "Correct this machine's clock (NTP).",
        )
    if ends is not None and ends <= (there or now):
        return Meaning(
            f"The SAS token expired at {ends:%Y-%m-%d %H:%M} UTC",
            "Put a new SAS token into the connection: the next try reads it again.",
            renewable=True,
        )
    if begins is not None and begins > (there or now):
        return Meaning(f"The SAS token is valid from {begins:%Y-%m-%d %H:%M} UTC", "Wait, or make another one.")
    if "sig" in signed:
        return _WRONG_SAS
    if "expired" in text.lower():
        return Meaning("The access token has expired", "The next try asks for a new one.", renewable=True)
    return _WRONG_KEY


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None
