"""How the text of an environment variable becomes the value of a setting, and within which bounds."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from clinic_backups.retention import RetentionPolicy
from clinic_backups.strict_json import once

YEAR_HOURS = 366 * 24
LONGEST_MILLISECONDS = 2**31 - 1
"""What PostgreSQL takes as a timeout."""


def _words(value: Any) -> Any:
    """Split ``"age1a, age1b age1c"`` at commas and white space."""
    return tuple(word for word in re.split(r"[\s,]+", value) if word) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    """Read a JSON object; its text is never part of an error."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return {}
    try:
        return json.loads(value, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read") from None


def _connection_ids(value: dict[str, str]) -> dict[str, str]:
    if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name) and name != "backup_store" for name in value):
        raise ValueError("its names are those of Airflow connections, others than backup_store")
    return value


def _web_address(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not re.match(r"https?://[^\s/]+", value.get_secret_value()):
        raise ValueError("not an http(s) address")
    return value


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not an IANA time zone such as America/La_Paz") from None
    return value


def _language(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", value):
        raise ValueError("not the name of a folder in the folder of the mails' texts, such as es")
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Separated by spaces or commas."""
Frequency = Literal["each", "weekly", "never"]
ClinicKeys = Annotated[dict[int, tuple[str, ...]], NoDecode, BeforeValidator(_json)]
ClinicPolicies = Annotated[dict[int, RetentionPolicy], NoDecode, BeforeValidator(_json)]
ClinicFrequencies = Annotated[dict[int, Frequency], NoDecode, BeforeValidator(_json)]
Replicas = Annotated[dict[str, str], NoDecode, BeforeValidator(_json), AfterValidator(_connection_ids)]
ZoneName = Annotated[str, AfterValidator(_known_zone)]
Language = Annotated[str, AfterValidator(_language)]
WebAddress = Annotated[SecretStr, AfterValidator(_web_address)]
Percent = Annotated[int, Field(ge=1, le=100)]
Timeout = Annotated[int, Field(ge=1, le=LONGEST_MILLISECONDS // 1000)]
"""Seconds that PostgreSQL waits."""
