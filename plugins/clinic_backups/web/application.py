"""The FastAPI application that the plugin mounts below ``/backups`` in Airflow's API server."""

from __future__ import annotations

import logging
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.tenant_word import TenantWords
from clinic_backups.base.text import one_line
from clinic_backups.web import api, api_errors, pages
from clinic_backups.web.access import caller
from clinic_backups.web.language import negotiate, of_api
from clinic_backups.web.problems import MEDIA_TYPE, HttpProblem, TooLarge, WrongValue, of_error
from clinic_backups.web.services import Services, words_of

log = logging.getLogger(__name__)
PREFIX = "/backups"
LARGEST_BODY_BYTES = 64 * 1024
HEADERS = {
    # Airflow may show the pages in a frame. They may load only their own script and style.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app(services: Services | None = None) -> FastAPI:
    """Make the application. It reads nothing before its first request."""
    app = FastAPI(
        title="Clinic backups",
        version="1",
        description="Backups of the clinics: list, make, download, restore. Log in as for Airflow's own API: a bearer "
        "token of POST /auth/token, or the cookie of its web page. A clinic that you may not see gives 404.",
        # Airflow mounts plugins without any authentication, so this applies to every route, even the description.
        dependencies=[Depends(caller)],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services or Services()
    app.include_router(api.router)
    app.include_router(pages.router)
    app.exception_handler(HTTPException)(_on_http_error)
    app.exception_handler(RequestValidationError)(_on_wrong_values)
    app.exception_handler(ClinicBackupsError)(_on_our_error)
    app.exception_handler(Exception)(_on_bug)
    app.add_middleware(Guard)
    return app


class Guard:
    """Adds security headers to every answer, and refuses large bodies before it reads them.

    The caller is not yet known at that moment.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > LARGEST_BODY_BYTES:
            accepted = headers.get(b"accept-language")
            language = of_api(None if accepted is None else accepted.decode("latin-1"))
            problem = TooLarge("The request's body is too large, or has no length.")
            answer = _as_json(problem, language, words_of(Request(scope)))
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _as_json(problem: HttpProblem, language: str, words: TenantWords, **more: object) -> Response:
    """An answer of the type application/problem+json."""
    body = problem.body(language, words) | more
    headers = problem.headers | {"Content-Language": language, "Vary": "Accept-Language"}
    return JSONResponse(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _answer(request: Request, problem: HttpProblem, **more: object) -> Response:
    language, words = _language(request), words_of(request)
    if not _is_page(request):
        return _as_json(problem, language, words, **more)
    said = problem.body(language, words) | more
    page = pages.render_error(request, problem.status, said["title"], said["detail"], said["remedy"])
    page.headers.update(problem.headers)
    return page


def _language(request: Request) -> str:
    """The language in which this request is answered."""
    accepted = request.headers.get("accept-language")
    return negotiate(accepted or "") if _is_page(request) else of_api(accepted)


def _is_page(request: Request) -> bool:
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return path in ("/", "/ui") or path.startswith("/ui/")


async def _on_our_error(request: Request, error: ClinicBackupsError) -> Response:
    problem = of_error(error, in_full=getattr(request.state, "runs_the_system", False))
    if problem.status >= 500:
        # The caller may see only a part of the error, so all of it is logged here.
        notes = getattr(error, "__notes__", ())
        said = " ".join((error.message, f"HINT: {error.hint}" if error.hint else "", *notes))
        log.error("%s %s: %s", request.method, one_line(request.url.path), one_line(said))
    return _answer(request, problem)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    """Errors of Airflow's login and of the router."""
    # Airflow answers 403 for a token that it did not make, for instance one from before its secret was changed.
    status = 401 if error.status_code == 403 else error.status_code
    if status == 401 and _is_page(request) and request.method == "GET":
        # Airflow's own login page, which leads back to this address. Without a host, because a proxy may have changed
        # it.
        root = request.scope.get("root_path", "").removesuffix(PREFIX)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{root}/api/v2/auth/login?next={quote(wanted, safe='')}", status_code=303)
    hints = {
        401: "Log in to Airflow, or send a bearer token of POST /auth/token.",
        404: "Check the address.",
        405: "The API's description, openapi.json, has the methods.",
    }
    problem = HttpProblem(str(error.detail), hint=hints.get(status, ""))
    problem.status = status
    # The messages of the framework and of Airflow are English, and say no more than the status.
    texts = api_errors.of(_language(request), words_of(request))
    own = {"detail": f"{texts.titles[status]}."} if texts and status in texts.titles else {}
    answer = _answer(request, problem, **own)
    answer.headers.update(error.headers or {})
    return answer


async def _on_wrong_values(request: Request, error: RequestValidationError) -> Response:
    """Name the wrong values, but never their contents."""
    texts = api_errors.of(_language(request), words_of(request))
    wrong = [
        {
            "where": ".".join(map(str, item["loc"])),
            "what": texts.wrong_value(item["type"], item.get("ctx", {})) if texts else item["msg"],
        }
        for item in error.errors()
    ]
    said = "; ".join(f"{item['where']}: {item['what']}" for item in wrong)
    problem = WrongValue(said, hint="Correct these and send it again.")
    return _answer(request, problem, errors=wrong, **({"detail": said} if texts else {}))


async def _on_bug(request: Request, error: Exception) -> Response:
    """The answer to an unexpected error. Starlette logs the traceback; the answer does not contain it."""
    problem = HttpProblem("Something went wrong in the server.", hint="The log of Airflow's API server has the cause.")
    answer = _answer(request, problem)
    answer.headers.update(HEADERS)  # this handler runs outside of the guard
    return answer
