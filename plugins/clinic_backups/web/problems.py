"""What goes wrong for somebody who uses the API or the pages: RFC 9457 problems, each with its remedy."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from clinic_backups.base.errors import ClinicBackupsError, ObjectNotFound, PermanentError
from clinic_backups.web import spanish

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


class Problem(ClinicBackupsError):
    """An error that is the answer to a request.

    :param retry_after_seconds: when it is worth another try.
    """

    status = 500

    def __init__(self, message: str, *, hint: str = "", retry_after_seconds: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds

    @property
    def title(self) -> str:
        """What its status means."""
        return TITLES.get(self.status) or HTTPStatus(self.status).phrase

    def body(self, language: str = "en") -> dict[str, Any]:
        """The problem as https://www.rfc-editor.org/rfc/rfc9457 has it, with the member ``remedy``."""
        title, detail, remedy = self.title, self.message, self.hint
        if language == "es":
            title = spanish.TITLES.get(self.status, title)
            detail, remedy = spanish.sentence(detail), spanish.sentence(remedy)
        return {"type": "about:blank", "title": title, "status": self.status, "detail": detail, "remedy": remedy}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


class Denied(Problem):
    """This person may see the clinic, and may not do that."""

    status = 403


class CrossSite(Denied):
    """The request came from a page of somebody else's."""


class NotVisible(Problem):
    """There is no such thing, or none for this person: the two must not be told apart."""

    status = 404

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was not found.", hint="It may belong to a clinic that you may not see.")


class Conflict(Problem):
    """It cannot be done as things stand."""

    status = 409


class WrongValue(Problem):
    """A value that no form of ours sends."""

    status = 422


class TooLarge(Problem):
    """A body that nothing of ours is so long as."""

    status = 413


class TooMany(Problem):
    """This person has done too much in too short a time."""

    status = 429


class Unavailable(Problem):
    """The catalog, the clinics' database or Airflow does not answer now."""

    status = 503


def of_error(error: ClinicBackupsError, *, in_full: bool) -> Problem:
    """What to answer when the core failed.

    :param in_full: the person runs the system, and may read names of servers and settings.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, ObjectNotFound):
        return NotVisible("The file in the store")
    if in_full:
        return Unavailable(error.message, hint=error.hint, retry_after_seconds=10)
    lasting = isinstance(error, PermanentError)
    return Unavailable(
        "The backups' page is not set up right." if lasting else "The backups' catalog or store cannot be reached now.",
        hint="Try again in a minute. The operator finds the cause in the log of Airflow's API server.",
        retry_after_seconds=10,
    )
