"""Sends one request to Airflow over HTTP. Any failure becomes one error, and its cause is logged."""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

BROKEN = (HTTPException, OSError, ValueError, RecursionError)
"""A server's answer may cause an error in each layer of the client: sockets, TLS, HTTP, JSON."""
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 64 * 1024
log = logging.getLogger("clinic_backups_django")


class NoAnswer(Exception):
    """Airflow did not give a usable answer. The log says why.

    :param secret_is_wrong: the token cannot even be sent.
    """

    def __init__(self, *, secret_is_wrong: bool = False) -> None:
        super().__init__("no answer")
        self.secret_is_wrong = secret_is_wrong


@dataclass(frozen=True)
class Answer:
    """Airflow's answer.

    :param told: the JSON object; ``{}`` if an answer that is not a success has none.
    """

    status: int
    told: dict[str, Any]
    retry_after: str | None = None


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect, because it would send the token to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = build_opener(_NoRedirects)


def exchange(method: str, url: str, body: dict[str, Any] | None, bearer: str, until: float) -> Answer:
    """Send a request and return the answer.

    :param until: the moment of ``time.monotonic()`` at which the wait ends, however slowly bytes arrive.
    :raises NoAnswer: there is no answer in time, or it is incomplete or no JSON object.
    """
    if bearer and not re.fullmatch(r"[\x21-\x7e]+", bearer):
        log.error("The token for Airflow holds a blank, a line break or a letter that no token has. Correct"
                  " CLINIC_BACKUPS['TOKEN'].")  # fmt: skip
        raise NoAnswer(secret_is_wrong=True)
    asked = f"{method} {urlsplit(url).path}"
    came: list[Answer | Exception] = []
    # The socket's timeout starts again with each piece, and does not limit the lookup of the name.
    thread = threading.Thread(target=_ask, args=(method, url, body, bearer, until, came), daemon=True)
    thread.start()
    thread.join(max(0.0, until - time.monotonic()))
    found = came[0] if came else TimeoutError("no complete answer within TIMEOUT_SECONDS")
    if isinstance(found, Answer):
        if found.status >= 400:
            log.warning("%s: Airflow answered %s.", asked, found.status)
        return found
    _log_cause(asked, url, found, bearer, str((body or {}).get("password") or ""))
    raise NoAnswer from None


def _ask(
    method: str, url: str, body: dict[str, Any] | None, bearer: str, until: float, came: list[Answer | Exception]
) -> None:
    try:
        came.append(_answer(method, url, body, bearer, until))
    except BROKEN as error:
        came.append(error)


def _answer(method: str, url: str, body: dict[str, Any] | None, bearer: str, until: float) -> Answer:
    headers = {"Accept": "application/json", "Accept-Language": "es", "Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    content = json.dumps(body).encode() if body is not None else None
    request = Request(url, content, headers, method=method)  # noqa: S310 - the client looked at the scheme
    try:
        with _opener.open(request, timeout=max(0.01, until - time.monotonic())) as answer:
            return Answer(answer.status, _object(_read(answer, until)))
    except HTTPError as error:
        with error:
            wait = error.headers.get("Retry-After", "")
            try:
                told = _object(_read(error, until))
            except BROKEN:
                told = {}
            return Answer(error.code, told, wait if re.fullmatch(r"[0-9]{1,6}", wait) else None)


def _read(answer: HTTPResponse | HTTPError, until: float) -> bytes:
    """The whole body. :raises ValueError: it is too long or incomplete."""
    content = b""
    while piece := answer.read1(PIECE_BYTES):
        content += piece
        if len(content) > LARGEST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
        if time.monotonic() > until:
            raise TimeoutError("the answer is too slow")
    if getattr(answer, "length", None):
        raise ValueError("the answer is cut")
    return content


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object in a body. :raises ValueError: there is none.

    :raises ValueError: it is no JSON object.
    """
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")
    return found


def _log_cause(asked: str, url: str, error: Exception, *secrets: str) -> None:
    """Log the cause for whoever runs the application, without the token and the password."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        log.error(
            "%s: the certificate of %s is not accepted: %s. Correct CLINIC_BACKUPS['URL'], or let this machine trust"
            " who issued it (SSL_CERT_FILE).",
            asked, urlsplit(url).hostname, cause.verify_message,
        )  # fmt: skip
        return
    # JSON and HTTP errors may quote the answer. The texts of network errors come from the system.
    words = str(cause) if isinstance(cause, OSError) or type(cause) is ValueError else ""
    for secret in filter(None, secrets):
        words = words.replace(secret, "…")
    log.warning("%s: Airflow gave no answer that can be used: %s: %s", asked, type(cause).__name__, words)
