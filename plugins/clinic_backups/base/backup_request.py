"""The request for one backup, and the options in it that a run's conf may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from clinic_backups.base import conf_values
from clinic_backups.base.backup_facts import Trigger
from clinic_backups.base.clinic import Clinic
from clinic_backups.base.compared_rows import ComparedRows

WantedKind = Literal["auto", "full", "incremental"]
KINDS: tuple[WantedKind, ...] = get_args(WantedKind)


@dataclass(frozen=True, kw_only=True)
class BackupOptions:
    """What the conf of ``clinic_backup`` may ask of each backup. Each field is a key of the conf."""

    kind: WantedKind = "auto"
    notes: str = ""
    allow_gaps: bool = False
    """Whether gaps are allowed. The backup is then marked as incomplete."""

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> BackupOptions:
        """Read them from a conf, which has other keys too. :raises SettingsError: a value is wrong."""
        return cls(
            kind=_kind(conf.get("kind")),
            notes=conf_values.notes(conf),
            allow_gaps=conf_values.flag(conf, "allow_gaps"),
        )


OPTION_KEYS = tuple(option.name for option in fields(BackupOptions))


@dataclass(frozen=True)
class BackupRequest(BackupOptions):
    """A request for one backup of one clinic."""

    clinic: Clinic
    trigger: Trigger = "manual"
    requested_by: str = ""
    run_id: str | None = None
    """Airflow's run id: a retry with the same one continues the same record."""
    retries_left: bool = False
    """Whether a transient failure will be retried. If so, nobody is notified yet."""
    compared: ComparedRows | None = None
    """What the preflight of the same run has compared, so that this backup need not do it again."""
    safety_of: str | None = None
    """For a safety backup: the id of the backup that will be restored."""
    read_from: str | None = None
    """For a backup of a point in time: the connection that it is read from."""
    chosen: tuple[str, ...] = ()
    """For a safety backup: the tables that will be restored, if that is not all."""

    @property
    def is_regular(self) -> bool:
        """As :attr:`BackupFacts.is_regular`."""
        return self.safety_of is None and self.read_from is None

    def with_options(self, options: BackupOptions) -> BackupRequest:
        """The same request with all of these options."""
        return replace(self, **{key: getattr(options, key) for key in OPTION_KEYS})


def _kind(value: object) -> WantedKind:
    if value is None or value == "":
        return "auto"
    for kind in KINDS:
        if value == kind:
            return kind
    raise conf_values.unknown_word("kind", value, KINDS)
