"""Errors of the API and the pages: RFC 9457 problems, each with its remedy."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError
from clinic_backups.base.tenant_word import TenantWords
from clinic_backups.web import api_errors

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Wrong values",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}


class HttpProblem(ClinicBackupsError):
    """An error that is the answer to a request.

    :param retry_after_seconds: the time after which a retry may succeed.
    """

    status = 500

    def __init__(self, message: str, *, hint: str = "", retry_after_seconds: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds

    @property
    def title(self) -> str:
        """The meaning of its status."""
        return TITLES.get(self.status) or HTTPStatus(self.status).phrase

    def body(self, language: str, words: TenantWords) -> dict[str, Any]:
        """The problem as https://www.rfc-editor.org/rfc/rfc9457 has it, with the member ``remedy``."""
        if texts := api_errors.of(language, words):
            title = texts.titles.get(self.status, self.title)
            detail, remedy = texts.sentence(self.message), texts.sentence(self.hint)
        else:
            title = self.title
            detail, remedy = api_errors.in_english(self.message, words), api_errors.in_english(self.hint, words)
        return {"type": "about:blank", "title": title, "status": self.status, "detail": detail, "remedy": remedy}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


class Denied(HttpProblem):
    """The person may see the clinic but may not do this."""

    status = 403


class CrossSite(Denied):
    """The request came from a page of another site."""


class NotVisible(HttpProblem):
    """The thing does not exist or is not visible to this person. The answer must not tell which."""

    status = 404

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was not found.", hint="It may belong to a clinic that you may not see.")


class Conflict(HttpProblem):
    """The present state does not allow it."""

    status = 409


class WrongValue(HttpProblem):
    """A value that is not valid."""

    status = 422


class TooLarge(HttpProblem):
    """The request body is larger than any that this API accepts."""

    status = 413


class TooMany(HttpProblem):
    """The person has started too many actions in too short a time."""

    status = 429


class Unavailable(HttpProblem):
    """The catalog, the clinics' database or Airflow does not answer now."""

    status = 503


def of_error(error: ClinicBackupsError, *, in_full: bool) -> HttpProblem:
    """The answer to an error of the core.

    :param in_full: the person is an operator and may read names of servers and settings.
    """
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, ObjectNotFound):
        return NotVisible("The file in the store")
    if in_full:
        return Unavailable(error.message, hint=error.hint, retry_after_seconds=10)
    lasting = isinstance(error, PermanentError)
    return Unavailable(
        "The backups' page is not configured correctly."
        if lasting
        else "The backups' catalog or store cannot be reached now.",
        hint="Try again in a minute. The operator finds the cause in the log of Airflow's API server.",
        retry_after_seconds=10,
    )
