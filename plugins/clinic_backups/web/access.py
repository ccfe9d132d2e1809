"""Identifies the caller: Airflow tells who is logged in, and ``include/sql/user_clinics.sql`` that person's clinics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security.utils import get_authorization_scheme_param

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.search_path import APPLICATION_PATH
from clinic_backups.base.shared_unit import key_of_clinic
from clinic_backups.catalog.catalog_database import CatalogDatabase
from clinic_backups.operators.airflow_internals import GetUserDep
from clinic_backups.tenant.extract import USER_CLINICS, SqlFolder, require_user_columns
from clinic_backups.web.caller import Caller
from clinic_backups.web.problems import CrossSite
from clinic_backups.web.threads import run
from clinic_backups.web.viewer import Role, Viewer

AIRFLOW_ADMIN = "admin"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
RECORDED_ENDINGS = ("/descargar/", "/archivo/", "/completo/", "/download", "/download-whole")
"""GET requests that are recorded in the audit. Pages of other sites may not make them either."""


class Access:
    """Finds out what a person may see.

    :param database: the clinics' database, queried once for each request of a person who is not an Airflow
        administrator.
    :param sql_dir: the folder ``include/sql``. Its file is read for each request.
    """

    def __init__(self, database: Callable[[], CatalogDatabase], sql_dir: Path) -> None:
        self._database, self._sql_dir = database, sql_dir

    def viewer(self, user: Any) -> Viewer:
        """The rights of an Airflow user.

        :raises SettingsError: ``user_clinics.sql`` is missing, or does not return clinic_id and role.
        """
        name, email = str(user.get_name() or ""), str(getattr(user, "email", None) or "").strip()
        if is_airflow_admin(user):
            return Viewer(name, email, superadmin=True)
        query = SqlFolder(self._sql_dir).user_clinics()
        with self._database().transaction("looking up the clinics of a person", source="file") as db:
            # It is the application's SQL, and its operators may be those of an extension, such as citext.
            db.exec_driver_sql(APPLICATION_PATH)
            rows = db.exec_driver_sql(query, {"email": email, "name": name}).all()
        return _viewer(name, email, rows)


def is_airflow_admin(user: Any) -> bool:
    """Whether the user is an Airflow administrator: role ``admin`` of the simple auth manager, or ``Admin`` of FAB's.

    Other auth managers have no such role. With them ``user_clinics.sql`` says who is superadmin.
    """
    roles = [getattr(user, "role", None), *(getattr(role, "name", role) for role in getattr(user, "roles", None) or ())]
    return any(isinstance(role, str) and role.lower() == AIRFLOW_ADMIN for role in roles)


def _viewer(name: str, email: str, rows: Iterable[Any]) -> Viewer:
    clinics: dict[ClinicId, Role] = {}
    users: dict[ClinicId | None, int] = {}
    for row in rows:
        require_user_columns(len(row))
        named, role, user_id = (*row, None)[:3]
        if role == "superadmin":
            return Viewer(name, email, superadmin=True, users={} if user_id is None else {None: int(user_id)})
        if named is None:
            continue
        clinic_id = _clinic(named)
        if user_id is not None:
            users.setdefault(clinic_id, int(user_id))
        known: Role = "administrador" if role == "administrador" else "lector"
        # If a person has two roles in one clinic, the stronger one counts.
        if clinics.get(clinic_id) != "administrador":
            clinics[clinic_id] = known
    return Viewer(name, email, clinics=clinics, users=users)


def _clinic(named: object) -> ClinicId:
    try:
        return key_of_clinic(named)
    except ValueError as error:
        raise SettingsError(
            f"{USER_CLINICS} returns a clinic_id that cannot be one: {error}.",
            hint="Let it return the key of the clinics' table.",
        ) from None


def refuse_other_sites(request: Request) -> None:
    """Stop pages of other sites from acting with the cookie of a person who is logged in here.

    A bearer token is not a cookie: only a program that has it can send it. For other requests, browsers state the
    origin: https://www.w3.org/TR/fetch-metadata/, and older ones the header Origin.

    :raises CrossSite: the request comes from another site, or has no origin.
    """
    changes = request.method not in SAFE_METHODS
    if not changes and not request.url.path.endswith(RECORDED_ENDINGS):
        return
    scheme, credentials = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() == "bearer" and credentials:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site == "same-origin" or (site == "none" and not changes)
    elif origin is not None:
        own = _host(origin) == request.headers.get("host")
    else:
        # Browsers send neither with a GET over plain HTTP, but send the Referer of our own pages.
        own = not changes and _host(request.headers.get("referer", "")) == request.headers.get("host")
    if not own:
        raise CrossSite(
            "This request does not come from a page of this Airflow.",
            hint="Use the page itself; a program sends a bearer token instead of the cookie.",
        )


def _host(address: str) -> str:
    """The host in an address; empty if the address is not valid."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


async def caller(request: Request, user: GetUserDep) -> Caller:
    """The caller, from Airflow and ``user_clinics.sql``. Every route depends on it."""
    request.state.runs_the_system = is_airflow_admin(user)
    refuse_other_sites(request)
    viewer = await run(partial(request.app.state.services.access.viewer, user))
    request.state.runs_the_system = viewer.superadmin
    return Caller(viewer, request.client.host if request.client else "", user)


CallerDep = Annotated[Caller, Depends(caller)]
