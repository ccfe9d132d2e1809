"""What the scheduler prepares for its tasks."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from clinic_backups.base.settings import Settings
from clinic_backups.notify import templates
from clinic_backups.notify.templates import Templates
from clinic_backups.operators import preload


class Job:
    """What Airflow hands over when a scheduler starts. It has no type yet."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the templates that are compiled, in a process that has compiled none before."""
    names, really = list[str](), jinja2.Environment.compile

    def counted(self: Any, source: Any, name: Any = None, *more: Any, **options: Any) -> Any:
        names.append(name)
        return really(self, source, name, *more, **options)

    templates._compiled.cache_clear()
    monkeypatch.setattr(jinja2.Environment, "compile", counted)
    return names


def read_all() -> None:
    settings = Settings()
    Templates(settings.email_dir, settings.zone, words=settings.tenant_words).check()


def test_tasks_need_not_compile_the_mails_that_the_scheduler_has_compiled(compiled: list[str]) -> None:
    preload.on_starting(Job())
    assert "success.jinja" in compiled
    compiled.clear()
    read_all()
    assert compiled == []


def test_the_api_server_prepares_nothing(compiled: list[str]) -> None:
    preload.on_starting(object())
    assert compiled == []


def test_a_wrong_template_does_not_keep_the_scheduler_from_starting(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLINIC_BACKUPS_EMAIL_DIR", str(tmp_path))
    preload.on_starting(Job())
    assert compiled == []
    assert "has no folder 'es'" in caplog.text
