"""The demo sends its password only to the Airflow that it has started itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from include.demo.environment import Endpoints
from include.demo.layout import DemoError, Layout, Secrets
from include.demo.processes import Process
from include.demo.stack import Stack, listens
from include.demo.state import State
from tests.servers import HOST

LISTENER = (
    "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
    " print(s.getsockname()[1], flush=True); sys.stdin.read()"
)
PARENT = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {LISTENER!r}]))"


@pytest.mark.parametrize("program", [LISTENER, PARENT], ids=["itself", "a child"])
def test_who_listens_at_a_port_is_known(program: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        port = int(process.stdout.readline())
        assert listens(process.pid, port)
        assert not listens(process.pid, port + 1)
        with closing(socket.socket()) as other:
            other.bind((HOST, 0))
            other.listen()
            assert not listens(process.pid, other.getsockname()[1])
        process.stdin.close()
    assert not listens(process.pid, port)


def test_nothing_is_sent_to_a_stranger_who_has_taken_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    with closing(socket.socket()) as stranger:
        stranger.bind((HOST, 0))
        stranger.listen()
        stranger.settimeout(0.2)
        state = State(layout, Endpoints(stranger.getsockname()[1], 1, "", "", "", ""))
        ours = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            state.processes.append(Process("api-server", ours.pid, 0, ""))
            stack = Stack(layout, state, Secrets.__new__(Secrets), print)
            with pytest.raises(DemoError, match="does not listen at http"):
                stack.api()
            with pytest.raises(TimeoutError):
                stranger.accept()
        finally:
            ours.communicate()
