"""Findings of the preflight: what was checked, the result, and the remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.text import one_line

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One result of the preflight."""

    check: str
    """settings, store, catalog, database, clock, pool, owners, clinics, extracts, coverage, parents, indexes, rows,
    restore or rehearsal; of the restore side: identity, key, store, catalog, clock, target, restore, programs, room"""
    level: Level
    message: str
    """The finding; never a secret, never a value of a patient's row."""
    hint: str = ""
    """The remedy."""
    transient: bool = False
    """An error that may pass by itself."""

    def __post_init__(self) -> None:
        # Names of a database may be an attacker's.
        object.__setattr__(self, "message", one_line(self.message))
        object.__setattr__(self, "hint", one_line(self.hint))

    def to_json(self) -> dict[str, str]:
        return {"check": self.check, "level": self.level, "message": self.message, "hint": self.hint}


@dataclass
class Report:
    """Collects findings in the order in which they are made."""

    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, message: str) -> None:
        """Add a finding that all is well, if the check found nothing else."""
        if all(finding.check != check or finding.level == "ok" for finding in self.findings):
            self.findings.append(Finding(check, "ok", message))

    def warn(self, check: str, message: str, hint: str) -> None:
        self.findings.append(Finding(check, "warning", message, hint))

    def error(self, check: str, message: str, hint: str, *, transient: bool = False) -> None:
        self.findings.append(Finding(check, "error", message, hint, transient))

    def note(self, check: str, message: str) -> None:
        """Add something that is in order but worth knowing."""
        self.findings.append(Finding(check, "ok", message))

    def has_errors(self, check: str) -> bool:
        """Whether a check found an error."""
        return any(finding.check == check and finding.level == "error" for finding in self.findings)

    @contextmanager
    def check(self, check: str, prefix: str = "") -> Iterator[None]:
        """Turn an error inside the block into a finding, so that the preflight continues."""
        try:
            yield
        except ClinicBackupsError as error:
            transient = isinstance(error, TransientError)
            self.error(check, prefix + error.message, error.hint, transient=transient)


OF_RUN = ("settings", "store", "catalog", "database", "clock", "pool")
"""Checks that every backup of a run depends on. Findings of other checks fail only the affected backups."""
OF_RESTORE = ("identity", "key", "store", "catalog", "clock", "target")
"""Checks that every restore depends on. What else is wrong is said, and the plan refuses what it concerns."""
OF_DRILL = ("identity", "catalog", "clock", "programs")
"""Checks that every drill depends on. What concerns one unit fails only that unit's drill."""


def require(
    findings: Sequence[Finding], *, checks: Collection[str] | None = None, again: str = "clinic-backups check"
) -> None:
    """Return if there is no error. Warnings are accepted.

    :param checks: count only errors of these checks; by default of all.
    :param again: the command that repeats the checks.
    :raises PermanentError: there is an error that does not pass by itself. The message lists all errors with hints.
    :raises TransientError: all errors may pass by themselves.
    """
    errors = [item for item in findings if item.level == "error" and (checks is None or item.check in checks)]
    if not errors:
        return
    lines = [line for item in errors for line in (f"[{item.check}] {item.message}", f"  HINT: {item.hint}")
             if line != "  HINT: "]  # fmt: skip
    kind = TransientError if all(item.transient for item in errors) else PermanentError
    count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
    raise kind(
        f"The preflight found {count}.",
        *lines,
        hint="A retry may help." if kind is TransientError else f"Correct them, then run `{again}` again.",
    )
