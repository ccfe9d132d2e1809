"""A client of the API below ``/backups/``. It logs in as a service's user in Airflow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from django.core.exceptions import ImproperlyConfigured

from clinic_backups_django.conf import conf
from clinic_backups_django.transport import NoAnswer, exchange
from clinic_backups_django.words import sentences

UNREACHABLE = "El servicio de respaldos no responde. Intente de nuevo en unos minutos."
NOT_LET_IN = "El servicio de respaldos no acepta la clave de esta aplicación. Avise al operador."


class BackupsError(Exception):
    """The API refused, or did not answer.

    :param status: the status to answer with; 503 if the API cannot be used.
    :param message: what happened and what to do, in Spanish.
    """

    def __init__(self, status: int, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


@dataclass
class BackupsClient:
    """Requests backups, links and restores.

    :param url: Airflow's address.
    :param token: a bearer token. Otherwise ``username`` and ``password``: they get a token when it is needed, which is
        kept until it is refused.
    :param timeout_seconds: the longest wait for one request, including its login.
    """

    url: str
    token: str = ""
    username: str = ""
    password: str = ""
    timeout_seconds: float = 30

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ImproperlyConfigured(
                "CLINIC_BACKUPS has no URL. Set it to Airflow's address: https://airflow.example."
            )
        if not self.token and not self.username:
            raise ImproperlyConfigured("CLINIC_BACKUPS has neither TOKEN nor USERNAME and PASSWORD.")

    def back_up(
        self, clinic_id: int | str, *, tipo: str = "auto", notas: str = "", creado_por: int | None = None
    ) -> dict[str, Any]:
        """Request a backup now; returns the run. :raises BackupsError: it was refused."""
        asked: dict[str, Any] = {"clinica": clinic_id, "tipo": tipo, "notas": notas}
        if creado_por is not None:
            asked["creado_por"] = creado_por
        return self._call("POST", "respaldos/crear_respaldo_manual/", asked, needs="run_id")

    def link(self, number: int) -> dict[str, Any]:
        """A link to a backup's archive. :raises BackupsError: there is no archive, or the request was refused."""
        found = self._call("GET", f"respaldos/{number}/descargar/", needs="url")
        try:
            # If the store is a folder, Airflow itself sends the file.
            links = {name: urljoin(self.url, found[name]) for name in ("url", "url_completo") if found.get(name)}
        except (ValueError, TypeError, AttributeError):
            raise BackupsError(503, UNREACHABLE) from None
        return found | links

    def restore(self, number: int, clinic_id: int | str, **asked: Any) -> dict[str, Any]:
        """Ask for a restore, which waits for its approval.

        :raises BackupsError: it was refused, or the backup is of another clinic.
        """
        return self._call("POST", f"respaldos/{number}/restaurar/", {"clinica": clinic_id, **asked}, needs="run_id")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, *, needs: str) -> dict[str, Any]:
        """Send a request. :param needs: the keys that a usable answer has.

        :param needs: what an answer says that is one.
        """
        until = time.monotonic() + self.timeout_seconds
        for attempt in (1, 2):
            token = self._bearer(until)
            try:
                found = self._send(method, f"backups/{path}", body, until, token)
            except BackupsError as error:
                if error.status != 401 or not self.username or attempt == 2:
                    raise _for_people(error) from None
                if self.token == token:  # otherwise another thread has a new one already
                    self.token = ""
                continue
            if not isinstance(found.get(needs), str) or not found[needs]:
                raise BackupsError(503, UNREACHABLE)
            return found
        raise AssertionError("the second attempt returns or raises")

    def _bearer(self, until: float) -> str:
        if token := self.token:
            return token
        login = {"username": self.username, "password": self.password}
        try:
            found = self._send("POST", "auth/token", login, until).get("access_token")
        except BackupsError as error:
            refused = error.status in (400, 401, 403, 422)
            raise BackupsError(503, NOT_LET_IN if refused else UNREACHABLE) from None
        if not isinstance(found, str) or not found:
            raise BackupsError(503, UNREACHABLE)
        self.token = found
        return found

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, until: float, bearer: str = ""
    ) -> dict[str, Any]:
        try:
            answer = exchange(method, f"{self.url.rstrip('/')}/{path}", body, bearer, until)
        except NoAnswer as error:
            raise BackupsError(503, NOT_LET_IN if error.secret_is_wrong else UNREACHABLE) from None
        if 200 <= answer.status < 300:
            return answer.told
        words = [told for name in ("detail", "remedy") if isinstance(told := answer.told.get(name), str)]
        if not any(words) and answer.status != 401:
            # This is not an answer of the API, but of a proxy or another server at this address.
            raise BackupsError(503, UNREACHABLE, answer.retry_after)
        raise BackupsError(answer.status, sentences(words), answer.retry_after)


def client() -> BackupsClient:
    """The client of the project's settings. Each process has one, which keeps its token."""
    known = conf()
    return _client(known.url, known.token, known.username, known.password, known.timeout_seconds)


@lru_cache(maxsize=8)
def _client(url: str, token: str, username: str, password: str, timeout_seconds: float) -> BackupsClient:
    return BackupsClient(url, token, username, password, timeout_seconds)


def _for_people(error: BackupsError) -> BackupsError:
    """The error for a person, who knows nothing of the service. A refused login of the service is not the person's."""
    if error.status == 401:
        return BackupsError(503, NOT_LET_IN)
    if error.status in (400, 422):
        return BackupsError(400, error.message)
    if error.status in (403, 404, 409, 429):
        return error
    return BackupsError(503, error.message if error.status == 503 else UNREACHABLE, error.retry_after)
