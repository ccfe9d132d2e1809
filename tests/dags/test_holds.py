"""Who may end a hold, as the DAG's task asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from clinic_backups.base.settings import Settings


class Asked:
    """Holds that note what was asked of them."""

    def __init__(self) -> None:
        self.released: list[tuple[str, str]] = []

    def release(self, backup_id: str, by: str) -> None:
        self.released.append((backup_id, by))


@pytest.mark.parametrize(
    ("approvers", "who", "may"), [(("jefa",), "jefa", True), (("jefa",), "otro", False), ((), "otro", True)]
)
def test_only_approvers_release(
    approvers: tuple[str, ...], who: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from clinic_backups.operators import retention_tasks

    asked, run = Asked(), SimpleNamespace(conf={"backup_id": "1-x", "release": True}, triggering_user_name=who)
    parts: Any = SimpleNamespace(settings=Settings(approvers=approvers), holds=lambda: asked)
    monkeypatch.setattr(retention_tasks, "AirflowParts", lambda: parts)
    monkeypatch.setattr(retention_tasks, "get_current_context", lambda: {"dag_run": run})
    if may:
        assert retention_tasks.hold_or_release.function() == "1-x"
    else:
        with pytest.raises(AirflowFailException, match="may not release holds"):
            retention_tasks.hold_or_release.function()
    assert asked.released == ([("1-x", who)] if may else [])
