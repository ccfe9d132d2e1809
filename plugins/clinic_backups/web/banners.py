"""The banners above the board's figures: why backups or restores do not run although every clinic looks well."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Literal

from clinic_backups.base.clinic import Clinic
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.errors import ClinicBackupsError
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.approvals import Approval
from clinic_backups.web.runs import BACKUP, Runs

Kind = Literal["unknown", "paused", "no_pool", "no_slots", "failed", "unseen", "database", "waiting"]
"""unknown: Airflow does not know the DAG. paused: it is paused. no_pool, no_slots: backups wait for ever for a pool.
failed: the newest run for all clinics failed before it backed one up. unseen: active clinics that no run has seen yet.
database: nobody can be asked for the clinics. waiting: restores wait for somebody's approval."""
SHOWN = 10


@dataclass(frozen=True)
class Banner:
    """One thing that is wrong, or that waits for somebody.

    :param count: the number of clinics or restores.
    :param names: the names of the first of them.
    :param error: the program's own error text, with its ``hint``.
    :param runs: DAG and run id of the runs.
    """

    kind: Kind
    count: int = 1
    names: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    runs: tuple[tuple[str, str], ...] = ()

    @property
    def tone(self) -> str:
        return "late" if self.kind in ("unseen", "waiting") else "failed"


def of_airflow(runs: Runs, settings: Settings) -> list[Banner]:
    """Banners from Airflow's data: the DAG, its pool, and its newest run for all clinics."""
    found, state = [], runs.schedule(BACKUP, settings)
    if not state.known:
        found.append(Banner("unknown"))
    elif state.paused:
        found.append(Banner("paused"))
    if state.slots is None:
        found.append(Banner("no_pool"))
    elif state.slots == 0:
        found.append(Banner("no_slots"))
    if state.last is not None and state.last.state == "failed" and not state.last.has_begun("back_up"):
        last = state.last
        found.append(Banner("failed", error=last.error, hint=last.hint, runs=((last.dag_id, last.run_id),)))
    return found


def of_clinics(active: Callable[[], Sequence[Clinic]], seen: Container[ClinicId]) -> list[Banner]:
    """A banner about active clinics that no run has seen, and that the board therefore does not count."""
    try:
        unseen = [f"{clinic.id} {clinic.name}" for clinic in active() if clinic.id not in seen]
    except ClinicBackupsError as error:
        return [Banner("database", error=error.message, hint=error.hint)]
    return [Banner("unseen", len(unseen), tuple(unseen[:SHOWN]))] if unseen else []


def of_approvals(waiting: Sequence[Approval]) -> list[Banner]:
    """A banner about restores whose plan waits for an answer."""
    runs = tuple(("clinic_restore", found.run_id) for found in waiting if found.run_id is not None)
    return [Banner("waiting", len(waiting), runs=runs[:SHOWN])] if waiting else []
