"""Reads the settings from ``CLINIC_BACKUPS_*`` environment variables, and says what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.setting_fields import PREFIX
from clinic_backups.base.settings import Settings
from clinic_backups.base.tenant_word import TenantWords

_LIKE_PREFIX = re.compile(r"CLINICS?_?BACKUPS?_?")


def load() -> Settings:
    """Read the settings of this process.

    :raises SettingsError: a value is wrong, or a variable is not a setting. Names each variable and its fault, never
        the value.
    """
    settings, problem = load_usable()
    if problem:
        raise SettingsError(problem, hint="docs/settings.md lists every setting.")
    return settings


def load_usable() -> tuple[Settings, str]:
    """The settings with the default in place of each wrong value, and a text about the wrong values.

    The text is empty if no value is wrong. This is for code that has to work even with wrong settings: the DAG files'
    schedules, and mail to the operator. Nothing is backed up, restored or deleted with these settings.
    """
    problems = _unknown(os.environ)
    defaults: dict[str, Any] = {}
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name, *inside = map(str, item["loc"])
            clinic = f", clinic {inside[0]}" if inside and inside[0].isdecimal() and name != "recipients" else ""
            problems.append(f"{PREFIX}{name.upper()}{clinic}: {item['msg'].removeprefix('Value error, ')}")
            defaults[name] = Settings.model_fields[name].default
        settings = Settings(**defaults)
    return settings, f"Wrong settings: {'; '.join(problems)}." if problems else ""


def for_schedules() -> Settings:
    """Settings for parsing a DAG file, even if some are wrong. Its tasks read the settings again, and fail then."""
    return load_usable()[0]


def in_words(message: str) -> str:
    """A message for people, with this process's word for a clinic. It is known even if other settings are wrong."""
    return words().message(message)


@cache
def words() -> TenantWords:
    """What this process calls a clinic. Reading the settings takes milliseconds, and some lists have many lines."""
    return load_usable()[0].tenant_words


def _unknown(environment: Iterable[str]) -> list[str]:
    """Variables with the package's prefix that are not settings: a misspelt name must not be ignored."""
    known = {name.upper() for name in Settings.model_fields}
    problems = []
    for name in sorted(environment):
        if _LIKE_PREFIX.match(name.upper()) and not name.upper().startswith(PREFIX):
            word = _LIKE_PREFIX.sub("", name.upper())
            if near := get_close_matches(word, known, n=1, cutoff=0.8):
                problems.append(f"{name} is not a setting; did you mean {PREFIX}{near[0]}?")
        word = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and word not in known:
            near = get_close_matches(word, known, n=1)
            problems.append(f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else ""))
    return problems
