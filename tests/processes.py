"""Several processes run the tests (``pytest -n 3``, by pytest-xdist), each with servers of its own."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

TOGETHER = (
    "tests/airflow/",
    "tests/dags/",
    "tests/integration/test_faults.py",
    "tests/integration/test_provider_rights.py",
    "tests/integration/test_standby.py",
    "tests/integration/test_targets.py",
)
"""Tests that share servers, or something else that takes seconds to make: one process makes it and runs them all."""
STOP_LIMIT_SECONDS = 120
_working: list[WorkerController] = []


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Whichever process is free takes the next test, or all of a group; one begins with those that need an Airflow."""
    return Groups(config, log)


class Groups(LoadScopeScheduling):
    """The largest group is given out first. A mark of pytest-xdist would not do: pytest 9 ignores it."""

    def _split_scope(self, nodeid: str) -> str:
        return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)


def pytest_testnodeready(node: WorkerController) -> None:
    _working.append(node)


def pytest_testnodedown(node: WorkerController) -> None:
    with suppress(ValueError):
        _working.remove(node)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """After Ctrl-C too the processes are waited for: they would be killed while they stop their servers."""
    for node in _working:
        node.shutdown()
    for node in _working:
        with suppress(OSError, EOFError, node.channel.RemoteError):
            node.channel.waitclose(STOP_LIMIT_SECONDS)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not go through it again and again."""
    gc.freeze()
