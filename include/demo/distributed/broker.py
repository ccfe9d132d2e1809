"""Redis, which hands the tasks to the workers: the distribution's program, with a password, on loopback."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from include.demo.environment import HOST
from include.demo.layout import DemoError, write_private


class Broker:
    """One Redis server and its configuration.

    :param folder: made when missing.
    """

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.url = f"redis://:{password}@{HOST}:{port}/0"
        self._folder, self._port, self._password = folder, port, password

    def command(self) -> list[str]:
        """The command that starts it. The password is in a file: arguments can be seen in the list of processes.

        :raises DemoError: it is not installed.
        """
        program = shutil.which("redis-server")
        if program is None:
            raise DemoError("redis-server is not installed.\nHINT: apt-get install redis-server")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        configuration = self._folder / "redis.conf"
        # As in docker-compose.yaml: nothing is kept. Airflow queues again what was lost.
        lines = (f"bind {HOST}", f"port {self._port}", f"requirepass {self._password}", 'save ""', "appendonly no")
        write_private(configuration, "\n".join((*lines, f"dir {self._folder}")) + "\n")
        return [program, str(configuration)]

    def answers(self, password: str | None = None) -> bool:
        """Whether it takes this password, by default the right one."""
        try:
            with socket.create_connection((HOST, self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password if password is None else password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False
