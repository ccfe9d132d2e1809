"""A client of the API below ``/backups/``, as the user of a service in Airflow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from django.core.exceptions import ImproperlyConfigured

from clinic_backups_django.conf import conf

LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
UNREACHABLE = "El servicio de respaldos no responde. Intente de nuevo en unos minutos."
NOT_LET_IN = "El servicio de respaldos no acepta la clave de esta aplicación. Avise al equipo de soporte."


class BackupsError(Exception):
    """The API refused, or did not answer.

    :param status: what to answer to whoever asked; 503 where the API cannot be used.
    :param message: what happened and what to do, in Spanish.
    """

    def __init__(self, status: int, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would carry the token to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = build_opener(_NoRedirects)


@dataclass
class BackupsClient:
    """Asks for backups, links and restores.

    :param url: Airflow's address.
    :param token: a bearer token; or ``username`` and ``password``, with which one is got when it is needed.
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
        self, clinic_id: int, *, tipo: str = "auto", notas: str = "", creado_por: int | None = None
    ) -> dict[str, Any]:
        """Ask for a backup now; returns the run. :raises BackupsError: it was refused."""
        asked: dict[str, Any] = {"clinica": clinic_id, "tipo": tipo, "notas": notas}
        if creado_por is not None:
            asked["creado_por"] = creado_por
        return self._call("POST", "respaldos/crear_respaldo_manual/", asked)

    def link(self, number: int) -> dict[str, Any]:
        """A link to a backup's archive. :raises BackupsError: there is none."""
        found = self._call("GET", f"respaldos/{number}/descargar/")
        # Where the store is a folder, Airflow hands the file out itself.
        return found | {name: urljoin(self.url, found[name]) for name in ("url", "url_completo") if name in found}

    def restore(self, number: int, **asked: Any) -> dict[str, Any]:
        """Ask for a restore, which waits for its approval. :raises BackupsError: it was refused."""
        return self._call("POST", f"respaldos/{number}/restaurar/", asked)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return self._send(method, f"backups/{path}", body, self._bearer())
        except BackupsError as error:
            if error.status != 401 or not self.username:
                raise _for_people(error) from None
        self.token = ""
        try:
            return self._send(method, f"backups/{path}", body, self._bearer())
        except BackupsError as error:
            raise _for_people(error) from None

    def _bearer(self) -> str:
        if not self.token:
            login = {"username": self.username, "password": self.password}
            try:
                self.token = str(self._send("POST", "auth/token", login)["access_token"])
            except KeyError:
                raise BackupsError(503, UNREACHABLE) from None
            except BackupsError as error:
                refused = error.status in (400, 401, 403, 422)
                raise BackupsError(503, NOT_LET_IN if refused else error.message) from None
        return self.token

    def _send(self, method: str, path: str, body: dict[str, Any] | None, bearer: str = "") -> dict[str, Any]:
        headers = {"Accept": "application/json", "Accept-Language": "es", "Content-Type": "application/json"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        request = Request(  # noqa: S310 - the scheme was looked at
            f"{self.url.rstrip('/')}/{path}", json.dumps(body).encode() if body is not None else None, headers,
            method=method,
        )  # fmt: skip
        try:
            with _opener.open(request, timeout=self.timeout_seconds) as answer:
                return _object(answer.read(LARGEST_ANSWER_BYTES))
        except HTTPError as error:
            with error:
                told = _object(error.read(LARGEST_ANSWER_BYTES), or_empty=True)
            message = " ".join(str(told[name]) for name in ("detail", "remedy") if told.get(name))
            raise BackupsError(error.code, message or UNREACHABLE, error.headers.get("Retry-After")) from None
        except (URLError, OSError, ValueError):
            raise BackupsError(503, UNREACHABLE) from None


def client() -> BackupsClient:
    """The client of the project's settings."""
    known = conf()
    return BackupsClient(known.url, known.token, known.username, known.password, known.timeout_seconds)


def _for_people(error: BackupsError) -> BackupsError:
    """The same as an answer to somebody who does not know that there is a service: its own login is not theirs."""
    if error.status == 401:
        return BackupsError(503, NOT_LET_IN)
    if error.status == 422:
        return BackupsError(400, error.message)
    if error.status in (403, 404, 409, 429):
        return error
    return BackupsError(503, error.message, error.retry_after)


def _object(content: bytes, *, or_empty: bool = False) -> dict[str, Any]:
    """:raises ValueError: it is no JSON object."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    if or_empty:
        return {}
    raise ValueError("no JSON object")
