"""Turns the text of an environment variable into the value of a setting, and checks its bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from math import ceil
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_settings import NoDecode

from clinic_backups.base import given_values
from clinic_backups.base.clinic_id import ClinicId, clinic_id_of, in_order
from clinic_backups.base.retention_rules import RetentionPolicy, no_truth
from clinic_backups.base.strict_json import once
from clinic_backups.base.tenant_word import english, spanish

YEAR_HOURS = 366 * 24
LONGEST_MILLISECONDS = 2**31 - 1
"""The largest timeout that PostgreSQL accepts."""


def _words(value: object) -> object:
    """Split ``"age1a, age1b age1c"`` at commas and white space."""
    return tuple(word for word in re.split(r"[\s,]+", value) if word) if isinstance(value, str) else value


_KEY = re.compile(r"(ssh-[\w@.-]+\s+[^\s,]+)(?:[ \t]+[^\s,]+@[^\s,]+)?|([^\s,]+)")
"""A public key. In an SSH key the type comes first, and a comment may follow."""


def _keys(value: object) -> object:
    """Split ``"age1a, ssh-ed25519 AAAA ana@host"`` into keys."""
    if not isinstance(value, str):
        return value
    return tuple(" ".join((ssh or other).split()) for ssh, other in _KEY.findall(value))


def _json(value: object) -> object:
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
        raise ValueError("not readable JSON") from None


_LIKE_A_NUMBER = re.compile(r"[\s+-]*[0-9][0-9.\s]*")


def _by_clinic(value: object) -> object:
    """A JSON object whose names are clinics' ids. One that looks like another form of a number is a mistake."""
    data = _json(value)
    if isinstance(data, dict) and not all(_is_id(name) for name in data):
        raise ValueError('its names are the numbers of clinics, such as "7", or their other ids')
    return data


def _by_clinic_or_class(value: object) -> object:
    """A JSON object whose names are clinics' ids, or classes of clinics."""
    data = _json(value)
    if isinstance(data, dict) and not all(_is_id(name) and " " not in name for name in data):
        raise ValueError(
            'its names are the numbers of clinics or their classes, such as "7" or "premium", or other ids'
        )
    return data


def _is_id(name: object) -> bool:
    try:
        return isinstance(clinic_id_of(name), int) or _LIKE_A_NUMBER.fullmatch(str(name)) is None
    except ValueError:
        return False


def _none_without_key(value: dict[ClinicId, tuple[str, ...]]) -> dict[ClinicId, tuple[str, ...]]:
    if without := in_order(clinic_id for clinic_id, keys in value.items() if not keys):
        raise ValueError(f"no key is given for clinic {', '.join(map(str, without))}: remove it, or give a key")
    return value


def _one_name(value: str) -> str:
    """Airflow's workers take a list of queues apart at its commas, so no worker would serve such a queue."""
    name = value.strip()
    if "," in name or any(map(str.isspace, name)):
        raise ValueError("it is one name, without commas and blanks")
    return name


def _without_blanks(value: str) -> str:
    if value != value.strip():
        raise ValueError("it begins or ends with a blank")
    return value


def _mail_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"[^@\s<>]+@[^@\s<>.]+(\.[^@\s<>.]+)*", address) for address in value):
        raise ValueError("not e-mail addresses, separated by spaces")
    return value


def _path_or_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _connection_ids(value: dict[str, str]) -> dict[str, str]:
    if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name) and name != "backup_store" for name in value):
        raise ValueError("its names must be Airflow connections other than backup_store")
    for url in value.values():
        _without_blanks(url)
    return value


def _web_address(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value.get_secret_value()):
        raise ValueError("not an http(s) address")
    return value


def _known_zone(value: str) -> str:
    try:
        if value in ("localtime", "posixrules", "Factory"):  # these name the machine's own setting, not a zone
            raise ValueError(value)
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not an IANA time zone such as America/La_Paz") from None
    return value


PRESETS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
"""Airflow's names of schedules, as cron expressions."""
BY_HAND = "none"
BETWEEN_RUNS = timedelta(hours=2)
"""How late a backup may be before the objective is missed, where the objective follows from the schedule."""
_COUNTED_TIMES, _COUNTED_DAYS = 2_000, 3 * 366


def _schedule(value: str) -> str:
    value = " ".join(value.split())
    cron = PRESETS.get(value, value)
    if value.lower() == BY_HAND:
        return BY_HAND
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise ValueError(f"neither a cron expression of five fields, nor {', '.join(PRESETS)}, nor {BY_HAND}")
    return cron


@cache
def objective_of(cron: str) -> int | None:
    """The hours within which a clinic with this schedule gets a new backup; ``None``: it says nothing of that.

    That is the longest time between two runs of the next years, and ``BETWEEN_RUNS``.
    """
    if cron == BY_HAND:
        return None
    start = last = datetime(2027, 1, 1, tzinfo=UTC)
    longest, times = timedelta(0), croniter(cron, start)
    for _ in range(_COUNTED_TIMES):
        following = times.get_next(datetime)
        longest, last = max(longest, following - last), following
        if last - start > timedelta(days=_COUNTED_DAYS):
            break
    return ceil((longest + BETWEEN_RUNS) / timedelta(hours=1))


def _language(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", value):
        raise ValueError("not the name of a folder in the folder of the mails' texts, such as es")
    return value


def _word_of(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Check a word for a tenant, and keep its text: the settings' values are texts."""

    def check(value: str) -> str:
        parse(value)
        return value

    return check


def _truth(value: object) -> bool:
    try:
        return given_values.truth(value)
    except ValueError as error:
        raise ValueError(f"{error}. {given_values.WRITE_TRUTH.removesuffix('.')}") from None


Flag = Annotated[bool, BeforeValidator(_truth)]
"""True or false."""
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Separated by spaces or commas."""
Frequency = Literal["each", "weekly", "never"]
Keys = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_keys)]
"""Public keys, separated by spaces, commas or line ends."""
Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_mail_addresses)]
StoreUrl = Annotated[str, AfterValidator(_without_blanks)]
OneName = Annotated[str, AfterValidator(_one_name)]
SomePath = Annotated[Path | None, BeforeValidator(_path_or_none)]
NamedClinic = Annotated[ClinicId, PlainValidator(clinic_id_of)]
ClinicKeys = Annotated[
    dict[NamedClinic, tuple[str, ...]], NoDecode, BeforeValidator(_by_clinic), AfterValidator(_none_without_key)
]
ClinicPolicies = Annotated[dict[NamedClinic, RetentionPolicy], NoDecode, BeforeValidator(_by_clinic)]
ClinicFrequencies = Annotated[dict[NamedClinic, Frequency], NoDecode, BeforeValidator(_by_clinic)]
ClinicSchedules = Annotated[
    dict[str, Annotated[str, AfterValidator(_schedule)]], NoDecode, BeforeValidator(_by_clinic_or_class)
]
"""Schedules by a clinic's id, or by the class of clinics."""
ClinicHours = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=YEAR_HOURS), BeforeValidator(no_truth)]],
    NoDecode,
    BeforeValidator(_by_clinic_or_class),
]
FurtherStores = Annotated[dict[str, str], NoDecode, BeforeValidator(_json), AfterValidator(_connection_ids)]
Schedule = Annotated[str, AfterValidator(_schedule)]
"""A cron expression, or ``none``: only by hand."""
ZoneName = Annotated[str, AfterValidator(_known_zone)]
Language = Annotated[str, AfterValidator(_language)]
TenantWordEs = Annotated[str, AfterValidator(_word_of(spanish))]
TenantWordEn = Annotated[str, AfterValidator(_word_of(english))]
WebAddress = Annotated[SecretStr, AfterValidator(_web_address)]
Percent = Annotated[int, Field(ge=1, le=100)]
Timeout = Annotated[int, Field(ge=1, le=LONGEST_MILLISECONDS // 1000)]
"""Seconds within PostgreSQL's limit for timeouts."""
