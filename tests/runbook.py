"""Reads the pages of the runbook, and runs their commands as a reader would: in bash, one block after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 240
_FENCE = re.compile(r"^```(\w*)$")
_MARK = re.compile(r"^<!-- (not run: (?P<reason>.+)|exit (?P<code>\d+)|(?P<airflow>with Airflow)) -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    :ivar part: number of its section, and of its heading below it; 0 before the first.
    :ivar kind: ``sh`` for commands, ``text`` for what the commands before it print.
    :ivar reason: why a test cannot run it; empty if one can.
    :ivar in_airflow: it needs a running Airflow. Then a text is what the tasks' logs print.
    """

    part: tuple[int, int]
    kind: str
    text: str
    reason: str = ""
    code: int = 0
    in_airflow: bool = False


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    found: list[Block] = []
    section = heading = 0
    inside: list[str] | None = None
    kind, mark = "", None
    for line in page.read_text("utf-8").splitlines():
        fence = _FENCE.match(line)
        if inside is not None:
            if fence:
                reason, code = (mark["reason"] or "", int(mark["code"] or 0)) if mark else ("", 0)
                is_in_airflow = mark is not None and bool(mark["airflow"])
                found.append(Block((section, heading), kind, "\n".join(inside), reason, code, is_in_airflow))
                inside, mark = None, None
            else:
                inside.append(line)
        elif fence:
            inside, kind = [], fence[1]
        elif title := re.match(r"## (\d+)\. ", line):
            section, heading = int(title[1]), 0
        elif line.startswith("### "):
            heading += 1
        elif line:
            mark = _MARK.match(line)
    return found


Value = str | Callable[["Shell"], str]


class Shell:
    """The reader's terminal. Variables live on from block to block.

    :param values: what the reader writes instead of the page's values.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str], values: Mapping[str, Value]) -> None:
        self._folder, self._variables, self._values = folder, dict(variables), values
        self.printed = ""
        self.transcript = ""
        """All commands with what they printed and how long they took: where the page's times are from."""
        self._unread = ""

    def last(self, pattern: str) -> str:
        """What a pattern's group found last in all that was printed."""
        return re.findall(pattern, self.printed)[-1]

    def saw(self, text: str) -> None:
        """The reader read this elsewhere, for instance in a log."""
        self.printed += text
        self._unread += text

    def run(self, block: Block) -> None:
        """Run commands, or look whether those since the last look printed these lines."""
        if block.kind == "text":
            self._look(block)
            return
        state = self._folder / ".variables"
        stop = "" if block.code else "set -e\n"
        script = f"{stop}set -uo pipefail\n{self._filled(block.text)}\ncode=$?\nenv -0 > {state}\nexit $code\n"
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", script], env=self._variables, cwd=self._folder, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
        self.printed += done.stdout
        self.transcript += f"{block.text}\n{done.stdout}[{time.monotonic() - began:.1f} s]\n\n"
        self._unread += done.stdout
        assert done.returncode == block.code, f"{block.text}\n\nended with {done.returncode}:\n{done.stdout}"
        self._variables = dict(line.split("=", 1) for line in state.read_text().split("\0") if line)

    def _filled(self, text: str) -> str:
        """The block with the reader's values in its ``export`` lines."""

        def fill(found: re.Match[str]) -> str:
            value = self._values.get(found[1])
            if value is None:
                return found[0]
            return f"{found[1]}={shlex.quote(value if isinstance(value, str) else value(self))}"

        lines = text.split("\n")
        return "\n".join(
            re.sub(r"""\b([A-Z_]+)=("[^"]*"|'[^']*'|\S+)""", fill, line) if line.startswith("export ") else line
            for line in lines
        )

    def _look(self, block: Block) -> None:
        printed = plain(self._unread)
        for line in block.text.splitlines():
            assert plain(line) in printed, f"The page says that {line!r} is printed. It was:\n{self._unread}"
        self._unread = ""


def plain(text: str) -> str:
    """Without what differs from one run to the next: numbers, ids, times, the database; and without lines of tables."""
    text = re.sub(r"\bdemo_\d+", "clinica", text)
    return " ".join(re.sub(r"\d[\d.,:TZ-]*", "#", re.sub("[│┃]", " ", text)).split())
