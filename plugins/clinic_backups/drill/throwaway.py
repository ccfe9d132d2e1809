"""A PostgreSQL server for one run of drills. Everything of it lies in one folder, which is gone at the end.

The server listens only on a socket in that folder, which is closed to all other users of the machine. Its rows belong
to a role that is not a superuser: code that came out of an archive runs with the rights of that role.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.errors import PermanentError, SettingsError
from clinic_backups.base.postgres_tools import find_tool
from clinic_backups.drill.place import Server
from clinic_backups.recovery.session import Session

FOLDER = "clinic-backups-drill-"
SERVER_USER = "nobody"
"""Runs the server if this process is root: PostgreSQL refuses to run as root."""
SUPERUSER, ROLE = "clinic_backups_admin", "clinic_backups_drill"
"""Not ``postgres``: that name is left for a role of the definitions, which here has no power."""
START_SECONDS = 60
PORT = 5432
"""The number in the socket's name. Nothing listens on a port."""
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "", "max_connections": "40", "shared_buffers": "64MB", "max_wal_size": "2GB", "jit": "off",
    "wal_level": "minimal", "max_wal_senders": "0", "timezone": "UTC", "autovacuum": "off",
    # The server lives for one run, and is made anew after a crash.
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
    # No row in a log.
    "log_min_error_statement": "panic", "log_error_verbosity": "terse", "log_min_messages": "fatal",
}  # fmt: skip


class Throwaway(Server):
    """The embedded :class:`~clinic_backups.drill.place.Place`."""

    def __init__(self, superuser: Connection, password: str) -> None:
        self._superuser = superuser
        self._run(
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB BYPASSRLS PASSWORD {}").format(
                sql.Identifier(ROLE), sql.Literal(password)
            )
        )
        super().__init__(replace(superuser, login=ROLE, password=password), "embedded")

    def prepare(self, roles: Mapping[str, Any]) -> None:
        """Make the roles of the definitions, without any power, and let the drills' role own things for them."""
        with Session(self._superuser) as session:
            there = session.roles()
        for role in roles.get("roles", ()):
            name = str(role["name"])
            if name not in there and not name.startswith("pg_"):
                self._run(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
                self._run(sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), sql.Identifier(ROLE)))

    def _run(self, statement: sql.Composable) -> None:
        with Session(self._superuser) as session:
            session.run(statement, doing="preparing the server for drills")
            session.commit("preparing the server for drills")


@contextmanager
def throwaway(*, at_least: int, tools: Path | None, parent: Path | None = None) -> Iterator[Throwaway]:
    """A server while the block lasts. Before that, what a dead process left behind is removed.

    :param at_least: the major version of the server that was backed up.
    :param tools: the folder of PostgreSQL's programs, if it is not to be looked for.
    :param parent: where the folder is made; by default where temporary files are.
    :raises SettingsError: there are no programs that are new enough.
    :raises PermanentError: the server does not start.
    """
    place = parent or Path(tempfile.gettempdir())
    remove_left(place, tools)
    initdb = find_tool("initdb", at_least=at_least, folder=tools)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=place))
    try:
        with _held(folder):
            programs = _Programs(initdb.path.parent, folder)
            try:
                password = secrets.token_urlsafe(24)
                programs.start(password, initdb.version)
                connection = Connection(
                    "the drills' server", "postgres", str(programs.socket), PORT, SUPERUSER, password, "postgres"
                )
                yield Throwaway(connection, secrets.token_urlsafe(24))
            finally:
                programs.stop()
    finally:
        shutil.rmtree(folder)


def remove_left(place: Path, tools: Path | None = None) -> list[Path]:
    """Stop the servers, and remove the folders, of runs whose process died. Returns the folders."""
    found = []
    for folder in place.glob(f"{FOLDER}*"):
        about = folder.lstat()
        # Anybody may make a folder of this name where temporary files are.
        if folder.is_symlink() or not folder.is_dir() or about.st_uid not in _users():
            continue
        # A run that has just begun has no lock yet.
        if not (folder / "lock").exists() and time.time() - about.st_mtime < START_SECONDS:
            continue
        with suppress(BlockingIOError), _held(folder):
            if (pid := _server_in(folder)) is not None:
                _end(pid)
            shutil.rmtree(folder)
            found.append(folder)
    return found


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder is this process's while the block lasts, and nobody's once the process is dead.

    :raises BlockingIOError: a living process has it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class _Programs:
    """Runs initdb and pg_ctl on one folder, and never as root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._cluster, self.socket = folder / "cluster", folder / "s"
        self._as = _drop_root() if os.geteuid() == 0 else []

    def start(self, password: str, version: int) -> None:
        self.socket.mkdir(mode=0o700)
        file = self._folder / "password"
        file.touch(mode=0o600)
        file.write_text(password)
        if self._as:
            for path in (self._folder, self.socket, file):
                shutil.chown(path, SERVER_USER)
        # By code point, by PostgreSQL itself: the same order on every machine. Before 17 it could not do that itself.
        order = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._run(
            "initdb", "-D", self._cluster, "-U", SUPERUSER, f"--pwfile={file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--no-sync", *(order if version >= 17 else ("--locale=C.UTF-8",)),
        )  # fmt: skip
        file.unlink()
        with (self._cluster / "postgresql.conf").open("a", encoding="utf-8") as conf:
            for name, value in SETTINGS.items():
                conf.write(f"{name} = '{value}'\n")
            conf.write(f"port = {PORT}\nunix_socket_directories = '{self.socket}'\nunix_socket_permissions = 0700\n")
        log = self._cluster / "server.log"
        self._run("pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", self._cluster, "-l", log)

    def stop(self) -> None:
        if (pid := _server_in(self._folder)) is not None:
            with suppress(PermanentError):
                self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._cluster)
            _end(pid)

    def _run(self, tool: str, *args: str | Path) -> None:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        done = subprocess.run(
            [*self._as, str(self._programs / tool), *map(str, args)], cwd="/", env=environment, text=True,
            capture_output=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise PermanentError(
                f"{tool} failed: {said[-1][:300]}",
                hint=f"Drills make a PostgreSQL server below {self._folder.parent}. Is there space, and may"
                f" {SERVER_USER if self._as else 'this user'} run {self._programs / 'postgres'}?",
            )


def _server_in(folder: Path) -> int | None:
    """The process of the server on a folder; none if none runs there."""
    try:
        pid = int((folder / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])
        # The file outlives a crash, and the number may be another process's by now.
        where = Path(f"/proc/{pid}/cwd").readlink()
    except (OSError, ValueError):
        return None
    return pid if where == folder / "cluster" else None


def _end(pid: int) -> None:
    """End a server at once, and wait until it is gone. Its children end with it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def _users() -> set[int]:
    own = {os.geteuid()}
    return own | {pwd.getpwnam(SERVER_USER).pw_uid} if os.geteuid() == 0 else own


def _drop_root() -> list[str]:
    if shutil.which("setpriv") is None:
        raise SettingsError(
            "root cannot run PostgreSQL, and setpriv is not installed.",
            hint="Run drills as another user than root, or install util-linux.",
        )
    user = pwd.getpwnam(SERVER_USER)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--inh-caps=-all"]
