"""The heartbeat reports whether all is well, and never shows its address, which is a secret."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from clinic_backups.base.errors import SettingsError, TransientError
from clinic_backups.base.load_settings import load
from clinic_backups.maintenance import watch
from clinic_backups.maintenance.watch import ping
from tests.servers import HOST


@pytest.fixture
def switch() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and the paths that were asked of it; ``/broken`` fails and ``/moved`` leads elsewhere."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            code = 500 if self.path.startswith("/broken") else 302 if self.path.startswith("/moved") else 200
            self.send_response(code)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_it_is_told_how_it_is(switch: tuple[str, list[str]]) -> None:
    url, asked = switch
    ping(f"{url}/uuid", well=True)
    ping(f"{url}/uuid", well=False)
    ping(f"{url}/uuid/", well=False)
    ping(f"{url}/moved", well=True)
    assert asked == ["/uuid", "/uuid/fail", "/uuid/fail", "/moved"]


def test_a_failure_is_an_error_that_does_not_show_the_address(switch: tuple[str, list[str]]) -> None:
    for url in (f"{switch[0]}/broken/geheim", f"http://{HOST}:1/geheim"):
        with pytest.raises(TransientError) as caught:
            ping(url, well=True)
        assert "geheim" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_the_setting_is_a_web_address_and_kept_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_BACKUPS_HEARTBEAT_URL", "file:///etc/geheim")
    with pytest.raises(SettingsError, match="CLINIC_BACKUPS_HEARTBEAT_URL") as caught:
        load()
    assert "geheim" not in str(caught.value)
    monkeypatch.setenv("CLINIC_BACKUPS_HEARTBEAT_URL", "https://example.org/geheim")
    assert "geheim" not in repr(load())


def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LONGEST_SECONDS", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/geheim"

        def drip() -> None:
            with closing(listener.accept()[0]) as line, suppress(OSError):
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(20):
                    line.sendall(b"x")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(TransientError, match="no whole answer within") as caught:
            watch.ping(url, well=True)
        assert "geheim" not in str(caught.value)
