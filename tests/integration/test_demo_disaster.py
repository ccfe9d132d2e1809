"""``make demo-disaster``: the demo's server is deleted, and everything is compared with what was before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.demo.disaster import Disaster
from include.demo.layout import Layout, Secrets
from include.demo.stack import Stack
from include.demo.state import State
from tests.postgres_fixtures import server_folder


@pytest.fixture
def stack() -> Iterator[Stack]:
    with server_folder() as folder:
        layout = Layout(folder)
        folder.mkdir()
        layout.make()
        layout.root.chmod(0o711)  # when root runs the tests, the server's unprivileged user has to get through
        made = Stack(layout, State.load(layout), Secrets.load(layout), print)
        try:
            made.start_database(2, 10)
            yield made
        finally:
            made.stop()


class Story:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        self.text += text + "\n"


def test_everything_comes_back_and_the_demo_can_go_on(stack: Stack) -> None:
    story = Story()
    folder = stack.layout.postgres.stat().st_ino
    assert Disaster(stack, story).play(), story.text
    assert stack.layout.postgres.stat().st_ino != folder
    assert "The service is what it was." in story.text
    assert stack.command("doctor", "--json")
    stack.stop()
    stack.start_database()  # the demo's data are known as what was loaded, and are not loaded again
    assert Disaster(stack, story).play(), story.text


def test_a_row_that_does_not_come_back_is_told(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    story, command = Story(), stack.command

    def lossy(*words: str) -> str:
        said = command(*words)
        if words[0] == "recover":
            stack.execute("UPDATE public.auth_group SET name = name || '.' WHERE id = 1")
        return said

    monkeypatch.setattr(stack, "command", lossy)
    assert not Disaster(stack, story).play()
    assert "public.auth_group DIFFERS" in story.text
    assert "The service is NOT what it was." in story.text
