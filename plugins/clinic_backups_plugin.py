"""What the package adds to Airflow itself. Airflow loads this file once in each of its processes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from clinic_backups.operators import pool

# Airflow may lie below a path, and its UI takes these addresses as they are.
_PAGES = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + "/backups/ui"


class ClinicBackupsPlugin(AirflowPlugin):
    """Registers the listener that makes the pool, and the page with its API."""

    name = "clinic_backups"
    listeners = [pool]  # noqa: RUF012 - as Airflow declares it
    external_views = [  # noqa: RUF012
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
        """The application; workers, which load this file too, import nothing of it."""
        from clinic_backups.web.app import PREFIX, make_app

        return [{"app": make_app(), "url_prefix": PREFIX, "name": "Clinic backups"}]
