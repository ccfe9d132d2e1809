"""Renders pages from templates. Text of others can never become mark-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from babel import Locale
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from clinic_backups.archive import by_hand
from clinic_backups.base.backup_id import moment_of
from clinic_backups.base.clinic_id import clinic_id_of, component_of
from clinic_backups.base.plain import iso
from clinic_backups.base.tenant_word import TenantWords
from clinic_backups.base.version import program_version
from clinic_backups.notify.formats import FILTERS, Formats
from clinic_backups.stores.kinds import name_of
from clinic_backups.web import charts
from clinic_backups.web.actions import DAG_OF
from clinic_backups.web.forms import FLASHES, choice
from clinic_backups.web.language import Texts, negotiate, tidy

FOLDER = Path(__file__).parent
STATIC_TYPES = {
    "style.css": "text/css",
    "app.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}
LONGEST_NAME = 120


def page(
    request: Request, template: str, *, zone: ZoneInfo, words: TenantWords, status: int = 200, **facts: object
) -> HTMLResponse:
    """A page in the browser's language.

    :param zone: the time zone of shown times.
    :param words: what a clinic is called.
    :param facts: the values for the template. Texts are escaped and shown on one line.
    """
    language = negotiate(request.headers.get("accept-language", ""))
    environment = _environment(language, zone.key, words)
    links = PageLinks.of(request)
    known = {
        "link": links,
        "program_version": program_version(),
        "static": _static_links(links),
        "flash": choice(request.query_params, "done", FLASHES),
    }
    html = environment.get_template(template).render(known | facts)
    headers = {"Content-Language": language, "Vary": "Accept-Language"}
    return HTMLResponse(html, status_code=status, headers=headers)


@dataclass(frozen=True)
class PageLinks:
    """Addresses of pages, below the application's mount point."""

    root: str

    @classmethod
    def of(cls, request: Request) -> PageLinks:
        """The addresses for an answer to this request."""
        return cls(request.scope.get("root_path", ""))

    def __call__(self, *parts: object, query: Mapping[str, str] | None = None) -> Markup:
        """``link("clinics", 7)``. Each argument becomes one part of the path."""
        return escape(self.url(*parts, query=query))

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> Markup:
        """The page of a task in Airflow itself, with its log."""
        parts = ["dags", dag_id, "runs", run_id, "tasks", task_id, *(["mapped", map_index] if map_index >= 0 else [])]
        path = "/".join(quote(str(part), safe="") for part in parts)
        return escape(f"{self.root.removesuffix('/backups')}/{path}")

    def url(self, *parts: object, query: Mapping[str, str] | None = None) -> str:
        """The same without HTML escapes."""
        if parts[:1] == ("clinics",):  # the route reads one part, whatever characters the id has
            parts = ("clinics", *(component_of(clinic_id_of(part)) for part in parts[1:2]), *parts[2:])
        path = "/".join(quote(str(part), safe="") for part in parts)
        return f"{self.root}/ui/{path}" + (f"?{urlencode(query)}" if query else "")


def archive_path(request: Request, number: int) -> str:
    """The path at which this server sends an archive. Without a host, because a proxy may have changed it."""
    return f"{PageLinks.of(request).root}/respaldos/{number}/archivo/"


def whole_path(request: Request, number: int) -> str:
    """The path at which this server sends an archive with its chain."""
    return f"{PageLinks.of(request).root}/respaldos/{number}/completo/"


def static_file(name: str) -> tuple[bytes, str, str] | None:
    """A static file of the pages: content, type and version mark; none if there is no such file."""
    if name not in STATIC_TYPES:
        return None
    return _content(name), STATIC_TYPES[name], _version(name)


@cache
def _content(name: str) -> bytes:
    return (FOLDER / "static" / name).read_bytes()


@cache
def _version(name: str) -> str:
    return sha256(_content(name)).hexdigest()[:12]


def _static_links(links: PageLinks) -> dict[str, Markup]:
    """Addresses that change with the file's content, so that browsers may cache it."""
    return {name: links("static", name, query={"v": _version(name)}) for name in STATIC_TYPES}


@cache
def _environment(language: str, zone: str, words: TenantWords) -> Environment:
    formats = Formats(Locale.parse(language), ZoneInfo(zone))
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Only our own texts are mark-up. Plain texts come from a database or a browser.
        finalize=lambda value: tidy(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters.update({name: _marked(getattr(formats, name)) for name in (*FILTERS, "clock", "weekday")})
    environment.filters.update(
        backup_at=moment_of, iso=iso, in_words=words.message, short=lambda text: tidy(text, LONGEST_NAME)
    )
    environment.globals.update(dag_of=DAG_OF, by_hand=by_hand, store_name=name_of)
    environment.globals.update(
        t=Texts(language, formats, words), lang=language, trend=charts.trend, places=charts.places
    )
    environment.globals["values_of"] = lambda points, what: [(point.day, getattr(point, what)) for point in points]
    return environment


def _marked(show: Callable[..., str]) -> Callable[..., Markup]:
    """A format's own text is kept with its spaces, which do not break. Lists show the same figures and times again."""
    return lru_cache(maxsize=4096)(lambda *values: escape(show(*values)))
