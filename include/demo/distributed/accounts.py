"""The users as whom the workers run: two that exist nowhere else, if this machine lets the caller choose."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_UID = 47_000


@dataclass(frozen=True)
class Account:
    """A user of the system, known by its number alone. :param uid: ``None``: the caller's own."""

    uid: int | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """The command as this user, without any right of the caller's."""
        if self.uid is None:
            return list(command)
        who = [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return ["setpriv", *who, "--inh-caps=-all", "--no-new-privs", "--", *command]

    def own(self, folder: Path) -> None:
        """Give the folder, with everything in it, to this user, and close it to all others."""
        folder.chmod(0o700)
        if self.uid is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def run(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str]:
        """Run a short program as this user; returns its exit code, and all that it wrote."""
        done = subprocess.run(
            self.command(command),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


def different(count: int) -> tuple[list[Account], str]:
    """Users that have no other process and no file; none, and the reason, where the caller may not choose."""
    if os.geteuid() != 0:
        return [], "only root can start processes as other users"
    if shutil.which("setpriv") is None:
        return [], "setpriv (util-linux) is not installed"
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = [uid for uid in range(FIRST_UID, FIRST_UID + 1000) if uid not in taken]
    return [Account(uid) for uid in free[:count]], ""
