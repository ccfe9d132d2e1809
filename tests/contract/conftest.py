"""Fixtures of the stores' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def changed(s3_client: Any) -> Iterator[Callable[..., None]]:
    """``changed(operation, change)``: let something happen to the client's requests of one kind, for one test."""
    events, registered = s3_client.meta.events, []

    def change(event: str, does: Callable[..., Any]) -> None:
        events.register(event, does)
        registered.append((event, does))

    yield change
    for event, does in registered:
        events.unregister(event, does)
