"""The settings of one process, and what follows from them for a clinic, a store or a connection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal, TypedDict, TypeVar
from zoneinfo import ZoneInfo

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.retention_rules import PERIODS, RetentionPolicy
from clinic_backups.base.setting_fields import PREFIX, SettingFields
from clinic_backups.base.setting_types import objective_of
from clinic_backups.base.tenant_word import TenantWords, english, spanish

Own = TypeVar("Own")
LONGEST_RETRY_DELAY = timedelta(minutes=30)


class Timeouts(TypedDict):
    """Time limits for the clinics' database."""

    statement_timeout_seconds: int
    lock_timeout_seconds: int
    standby_of_primary: bool
    trusted_owners: tuple[str, ...]


class StoreOptions(TypedDict):
    """Encryption and locks that a store is asked for."""

    encryption: tuple[Literal["none", "AES256", "kms"], str]
    lock_mode: Literal["governance", "compliance"]


class Settings(SettingFields):
    """All settings of one process; frozen."""

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone of the schedules."""
        return ZoneInfo(self.time_zone)

    @cached_property
    def tenant_words(self) -> TenantWords:
        """The words for a tenant that people read."""
        return TenantWords(spanish(self.tenant_word_es), english(self.tenant_word_en))

    @property
    def bytes_per_second(self) -> float | None:
        """How fast a backup may read; none: no limit."""
        return self.throttle_mb_s * 1_000_000 or None

    @property
    def timeouts(self) -> Timeouts:
        """The limits of a :class:`~clinic_backups.tenant.tenant_db.Snapshot`, as its arguments."""
        return {
            "statement_timeout_seconds": self.statement_timeout_seconds,
            "lock_timeout_seconds": self.lock_timeout_seconds,
            "standby_of_primary": self.standby_of_primary,
            "trusted_owners": self.trusted_owners,
        }

    @property
    def longest_retrying(self) -> timedelta:
        """The time after which no task retries the work of a dead process any more."""
        return timedelta(hours=1) + self.retries * LONGEST_RETRY_DELAY

    @property
    def encryption_at_store(self) -> tuple[Literal["none", "AES256", "kms"], str]:
        """The store's own encryption: the kind, and the key id if the kind is ``kms``."""
        value = self.server_side_encryption.strip()
        if value.lower() in ("", "none"):
            return "none", ""
        return ("AES256", "") if value.upper() == "AES256" else ("kms", value)

    def lock_end(self, now: datetime) -> datetime | None:
        """The end of the lock of an archive that is stored now; none: no lock.

        Later backups that are built on the archive need it until their own locks end.
        """
        days = self.lock_days + self.full_every_days
        return now.replace(microsecond=0) + timedelta(days=days) if self.lock_days else None

    def store_options(self, url: str) -> StoreOptions:
        """The options for the store at a URL. Only the primary store gets a KMS key: other providers do not know it."""
        encryption = self.encryption_at_store
        if encryption[0] == "kms" and url != self.store_url:
            encryption = ("AES256", "")
        return {"encryption": encryption, "lock_mode": self.lock_mode}

    def retention_of(self, clinic_id: ClinicId) -> RetentionPolicy:
        """The policy of a clinic: its own values, and the general ones where it has none."""
        periods = {period: getattr(self, f"keep_{period}") for period, _ in PERIODS}
        fleet = RetentionPolicy(keep_days=self.keep_days, **periods)
        own = self.clinic_retention.get(clinic_id, fleet)
        return fleet.model_copy(update=own.model_dump(exclude_unset=True))

    @property
    def schedules(self) -> tuple[str, ...]:
        """All schedules of backups: the general one, and those of clinics and classes."""
        return (self.schedule, *self.clinic_schedule.values())

    def schedule_of(self, clinic: Clinic) -> str:
        """The cron expression of a clinic: of its number, of its class, or the general one; or ``none``."""
        return self.own_schedule_of(clinic) or self.schedule

    def own_schedule_of(self, clinic: Clinic) -> str | None:
        """The same; ``None`` if it is the general one."""
        return _own(self.clinic_schedule, clinic)

    def rpo_hours_of(self, clinic: Clinic) -> int | None:
        """The objective of a clinic that has one of its own, or a schedule of its own; ``None``: the general one."""
        if own := _own(self.clinic_rpo_hours, clinic):
            return own
        schedule = self.own_schedule_of(clinic)
        return objective_of(schedule) if schedule else None

    def recipients_of(self, clinic_id: ClinicId) -> tuple[str, ...]:
        """Public keys for one clinic's backups, without duplicates. :raises SettingsError: there are none."""
        own = self.clinic_recipients.get(clinic_id, ())
        found = tuple(dict.fromkeys(own if own and self.own_keys_only else self.recipients + own))
        if not found:
            raise SettingsError(
                "No recipient is configured, and a backup is never written unencrypted.",
                hint=f"Make a key pair with `clinic-backups keygen` and set {PREFIX}RECIPIENTS to its public key.",
            )
        return found

    def require_store_url(self) -> str:
        """The store's URL. :raises SettingsError: it is not set."""
        if not self.store_url:
            raise SettingsError(
                "No store is configured.", hint=f"Set {PREFIX}STORE_URL, for instance to s3://my-bucket/clinics"
            )
        return self.store_url


def _own(values: Mapping[str, Own], clinic: Clinic) -> Own | None:
    """The value of a clinic, or of its class."""
    return values.get(str(clinic.id)) or values.get(clinic.clinic_class)
