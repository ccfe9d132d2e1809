"""Reads single values of a run's conf. Each function raises :class:`SettingsError` for a value that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinic_backups.base.errors import SettingsError
from clinic_backups.base.given_values import WRITE_TRUTH, is_given, truth
from clinic_backups.base.text import is_line

MAX_NOTES = 500
_SHOWN = 40
"""The most characters of a wrong value that an error repeats."""


def require_known_keys(conf: Mapping[str, Any], known: Sequence[str]) -> None:
    """:raises SettingsError: a key is unknown. A misspelt key must not mean "all clinics"."""
    if unknown := sorted(set(conf) - set(known)):
        raise SettingsError(
            f"The conf has unknown keys: {', '.join(map(repr, unknown))}.", hint=f"Use only {', '.join(known)}."
        )


def flag(conf: Mapping[str, Any], key: str) -> bool:
    """The value of a true-or-false key; false if it is missing or empty."""
    return told(conf, key) or False


def told(conf: Mapping[str, Any], key: str) -> bool | None:
    """The same; ``None`` if it is missing or empty."""
    value = conf.get(key)
    try:
        return truth(value) if is_given(value) else None
    except ValueError as error:
        raise SettingsError(f"{key} is {error}.", hint=f"{WRITE_TRUTH} Or leave it out.") from None


def unknown_word(key: str, value: object, known: Sequence[str]) -> SettingsError:
    """The error for a value that is not one of the known words."""
    return SettingsError(f"{key}: {str(value)[:_SHOWN]!r} is unknown.", hint=f"Use one of {', '.join(known)}.")


def notes(conf: Mapping[str, Any]) -> str:
    """The line that is stored with a backup or a restore; empty if it is missing."""
    value = conf.get("notes")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NOTES or not is_line(value):
        raise SettingsError(
            f"notes is not one line of at most {MAX_NOTES} characters.", hint="Shorten it. Leave out patients' data."
        )
    return value
