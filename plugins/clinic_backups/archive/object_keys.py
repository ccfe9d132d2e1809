"""The keys of backups' objects in a store, below its prefix: ``backups/<clinic>/<year>/<month>/<name>``."""

from __future__ import annotations

import base64
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from uuid import uuid4

from clinic_backups.archive.codec import CODEC
from clinic_backups.archive.encryption import ENCRYPTION
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId, component_of, from_component, name_of

ROOT = "backups/"
"""All keys of backups begin with it."""
EXPORTS = "exports/"
"""Files for people lie below it, each clinic's in a folder of its own. Nobody takes them for backups."""
PROBES = "preflight/"
"""Probe objects lie below it, and are deleted again."""
SUFFIX = f".tar{CODEC.SUFFIX}{ENCRYPTION.SUFFIX}"
"""The suffix of archives. It names the tools that open them without this package."""


def prefix_of(clinic_id: ClinicId) -> str:
    """The prefix of all keys of one clinic."""
    return f"{ROOT}{component_of(clinic_id)}/"


def exports_of(clinic_id: ClinicId) -> str:
    """The prefix of all exports of one clinic."""
    return f"{EXPORTS}{component_of(clinic_id)}/"


def export_key_of(clinic_id: ClinicId, made_at: datetime, suffix: str) -> str:
    """A new export's key. It ends with 128 random bits, so that nobody can guess or occupy it."""
    return f"{exports_of(clinic_id)}{made_at.astimezone(UTC):%Y%m%d_%H%M%S}_{_random()}{suffix}"


def slug(name: str) -> str:
    """ASCII letters, digits and single underscores: ``Clínica D'Ávila`` becomes ``clinica_d_avila``; never empty."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")[:60].rstrip("_") or "clinica"


def new_probe() -> str:
    """A key for a probe object."""
    return f"{PROBES}{uuid4()}"


def archive_key_of(clinic: Clinic, started_at: datetime) -> str:
    """A new archive's key; times in UTC: ``backups/7/2026/11/backup_sonrisas_7_20261126_020003_….tar.zst.age``.

    It ends with 128 random bits, so that nobody can occupy it in advance.
    """
    utc = started_at.astimezone(UTC)
    name = f"backup_{slug(clinic.name)}_{name_of(clinic.id)}_{utc:%Y%m%d_%H%M%S}_{_random()}{SUFFIX}"
    return f"{prefix_of(clinic.id)}{utc:%Y}/{utc:%m}/{name}"


def _random() -> str:
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


_FOLDER = re.compile(ROOT + r"([^/]+)/[0-9]{4}/[0-9]{2}/(?=backup_)")
# Keys of earlier versions end with the time.
_FILE = r"backup_[a-z0-9_]+_{}_([0-9]{{8}}_[0-9]{{6}})(?:_[a-z2-7]{{26}})?(?=\.)"
_ENDINGS = {SUFFIX: "archive", ".json": "envelope", ".hold.json": "hold"}


@dataclass(frozen=True)
class KeyParts:
    """The parts of an object's key: its clinic, the archive it belongs to, its kind, and when it was begun."""

    clinic_id: ClinicId
    archive_key: str
    part: str
    """archive, envelope or hold"""
    began: str
    """As ``yyyymmdd_hhmmss``."""

    @property
    def began_at(self) -> datetime | None:
        """The same as a datetime; none if it is not a valid time."""
        try:
            return datetime.strptime(self.began, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            return None


def parse_key(key: str) -> KeyParts | None:
    """The reverse of :func:`archive_key_of` and its neighbours; none for a key of any other form."""
    folder = _FOLDER.match(key)
    clinic_id = from_component(folder[1]) if folder else None
    if folder is None or clinic_id is None:
        return None
    found = _files_of(clinic_id).match(key, folder.end())
    part = _ENDINGS.get(key[found.end() :]) if found else None
    return KeyParts(clinic_id, key[: found.end()] + SUFFIX, part, found[1]) if found and part else None


@lru_cache(maxsize=4096)
def _files_of(clinic_id: ClinicId) -> re.Pattern[str]:
    """The names of one clinic's files, up to their endings."""
    return re.compile(_FILE.format(re.escape(name_of(clinic_id))))


def hold_key_of(archive_key: str) -> str:
    """The key of the hold note beside an archive. A hold must survive the loss of the catalog."""
    return archive_key.removesuffix(SUFFIX) + ".hold.json"


def envelope_key_of(archive_key: str) -> str:
    """The key of the envelope, which lies beside its archive."""
    return archive_key.removesuffix(SUFFIX) + ".json"


def keys_beside(archive_key: str) -> tuple[str, ...]:
    """All objects of one backup, in the order in which they are deleted."""
    return archive_key, envelope_key_of(archive_key), hold_key_of(archive_key)
