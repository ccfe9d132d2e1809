"""The package's Airflow plugin. Airflow loads it once in each of its processes: by the entry point of the installed
package, or by the file in the plugins folder.

Loading it must never fail. A part that cannot be imported is left out and named under Admin → Plugins, and backups and
restores continue without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)
problems: dict[str, str] = {}
"""The errors of parts that could not be loaded, by part."""


def _load(part: str, load: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return load()
    except Exception as error:
        log.exception("Clinic backups: %s cannot be loaded.", part)
        problems[part] = f"{type(error).__name__}: {error}"
        return otherwise


def _listeners() -> list[Any]:
    from clinic_backups.operators import pool, preload

    return [pool, preload]


def _timetables() -> list[Any]:
    from clinic_backups.operators.timetable import OnTimeTimetable

    return [OnTimeTimetable]


def _priorities() -> list[Any]:
    from clinic_backups.operators.priority import ByHandFirst

    return [ByHandFirst]


def _base_path() -> str:
    from clinic_backups.operators.airflow_internals import conf

    # Airflow may be mounted below a path, and its UI uses these addresses unchanged.
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


_PAGES = _load("the address of the pages", _base_path, "") + "/backups/ui"


class ClinicBackupsPlugin(AirflowPlugin):
    """Registers the listeners, the DAGs' timetable and priorities, and the page with its API."""

    name = "clinic_backups"
    listeners = _load("the listener that makes the pool", _listeners, [])
    timetables = _load("the timetable", _timetables, [])
    priority_weight_strategies = _load("the order of tasks", _priorities, [])
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Backups",
            "href": f"{_PAGES}/",
            "destination": "nav",
            "url_route": "backups",
            "nav_top_level": True,
            "icon": f"{_PAGES}/static/icon.svg",
            "icon_dark_mode": f"{_PAGES}/static/icon-dark.svg",
        },
        {"name": "Backups", "href": _PAGES + "/dag/{DAG_ID}", "destination": "dag", "url_route": "backups-health"},
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override] # asked for by the API server alone
        """The application. Workers load this file too, but import nothing of it."""
        return [
            {"app": _load("the page", _app, None) or _substitute(), "url_prefix": "/backups", "name": "Clinic backups"}
        ]


class ClinicBackupsProblems(AirflowPlugin):
    """Fails to load if a part of the plugin failed, so that Airflow's list of plugins shows the error."""

    name = "clinic_backups_problems"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """:raises ImportError: a part could not be loaded."""
        if problems:
            raise ImportError("; ".join(f"{part}: {why}" for part, why in problems.items()))


def _app() -> Any:
    from clinic_backups.web.application import make_app

    return make_app()


def _substitute() -> Any:
    """A page that says why the Backups page is missing."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    why = problems["the page"]
    try:
        from clinic_backups.operators.airflow_internals import get_import_errors

        get_import_errors()["clinic_backups: the page"] = why
    except Exception:
        log.exception("Airflow's list of plugins does not name the problem.")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    text = (
        f"The Backups page cannot be shown: {why}\n\nOnly the page is affected. Backups and restores continue.\n"
        "Check that the README names this version of Airflow. The API server's log has the whole error.\n"
    )

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def instead(path: str) -> PlainTextResponse:
        return PlainTextResponse(text, status_code=503, headers={"Cache-Control": "no-store"})

    return app
