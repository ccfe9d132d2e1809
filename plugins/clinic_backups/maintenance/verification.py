"""Checks that each replica of one backup and of its chain is still what was stored. This needs no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from clinic_backups.base.backup_facts import ChainArchive
from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.clinic_id import ClinicId, in_json, in_shell
from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.listening import nobody
from clinic_backups.base.replica import Condition, Loss
from clinic_backups.catalog.records import Catalog
from clinic_backups.catalog.replicas import Replicas
from clinic_backups.maintenance.store_check import StoreCheck
from clinic_backups.maintenance.store_comparison import Inventory, Task
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores.configured import Stores


@dataclass(frozen=True)
class CheckedReplica:
    """The present condition of one replica.

    :param condition: none if ``error`` says why it is unknown. Nothing was recorded of it then.
    :param is_news: whether the catalog had another condition before.
    """

    backup_id: str
    store_url: str
    size_bytes: int
    condition: Condition | None
    is_news: bool = False
    error: ClinicBackupsError | None = None

    def __str__(self) -> str:
        text = f"{self.backup_id} in {self.store_url}: "
        if self.error:
            return f"{text}not known: {self.error}"
        return f"{text}{self.condition}{', which is recorded now' if self.is_news else ''}"


@dataclass
class Verification:
    """The result of a verification.

    :param replicas: the replicas of the backup first, then those of its chain.
    :param losses: replicas that were recorded as lost, with the backups built on them; the operator's mail is in the
        outbox.
    :param problems: other problems that were not corrected.
    """

    backup_id: str
    clinic_id: ClinicId
    replicas: list[CheckedReplica] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    problems: list[ClinicBackupsError] = field(default_factory=list)

    @property
    def bad(self) -> list[CheckedReplica]:
        """The missing or damaged replicas."""
        return [replica for replica in self.replicas if replica.condition in ("missing", "damaged")]

    def require_intact(self) -> None:
        """Raise an error if a replica is bad or could not be checked.

        :raises PermanentError: a replica is bad. The message names each.
        :raises ClinicBackupsError: no replica is bad, but some could not be checked: a :class:`TransientError` if
        that may pass.
        """
        # Several replicas may have the same error.
        errors = list(dict.fromkeys([replica.error for replica in self.replicas if replica.error] + self.problems))
        errors.sort(key=lambda error: not isinstance(error, TransientError))
        raised: ClinicBackupsError
        if self.bad:
            names = "; ".join(
                f"{replica.backup_id} is {replica.condition} in {replica.store_url}" for replica in self.bad
            )
            raised = PermanentError(
                f"Of {len(self.replicas)} replicas that backup {self.backup_id} needs, {len(self.bad)} are bad:"
                f" {names}.",
                hint=self._remedy(),
            )
        elif errors:
            first = errors.pop(0)
            kind = TransientError if isinstance(first, TransientError) else PermanentError
            raised = kind(f"Backup {self.backup_id} was not fully verified: {first.message}", hint=first.hint)
        else:
            return
        for error in errors:
            raised.add_note(f"And: {error}")
        raise raised

    def _remedy(self) -> str:
        elsewhere = {replica.backup_id for replica in self.replicas if replica.condition == "intact"}
        unknown = {replica.backup_id for replica in self.replicas if replica.condition is None}
        gone = {replica.backup_id: None for replica in self.bad if replica.backup_id not in elsewhere | unknown}
        if gone:
            return (
                f"No replica of {', '.join(gone)} is left. Put the archive back where it was and verify again, or make"
                f' a new backup: clinic_backup with {{"clinic_id": {in_json(self.clinic_id)}}}. Find out who'
                " changed the store."
            )
        return (
            "Another store has it: `clinic-backups replicate`, or the DAG clinic_backup_retention, makes it again from"
            " there. Find out who changed the store."
        )


class Verifier:
    """Reads all replicas of a backup and its chain, in each store that should have them, and records the result.

    Missing and damaged replicas are recorded, also for the backups that are built on them, together with the operator's
    mail. A replica that is back counts again.

    :param check: reads and records.
    :param now: the clock.
    :param on_replica: called with each replica when its store is done.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        stores: Stores,
        check: StoreCheck,
        now: Callable[[], datetime],
        on_replica: Callable[[CheckedReplica], object] = nobody,
    ) -> None:
        self._catalog, self._stores, self._check, self._on_replica = catalog, stores, check, on_replica
        self._replicas, self._alarm = Replicas(catalog.database), LossAlarm(now)

    def run(self, backup_id: str) -> Verification:
        """Verify one backup. A store that fails does not stop the others.

        :raises PermanentError: there is no such completed backup.
        """
        record = self._catalog.require(backup_id)
        if record.state not in ("completed", "lost"):
            raise PermanentError(
                f"Backup {backup_id} is {record.state}: there is no archive to verify.",
                hint=f"See clinic-backups list --clinic {in_shell(record.clinic_id)} --state completed",
            )
        done = Verification(backup_id, record.clinic_id)
        needed = [record.archive, *record.chain]
        recorded = self._replicas.of_clinic(record.clinic_id)
        done.problems += [_homeless(archive) for archive in needed if not recorded.get(archive.backup_id)]
        for url in self._urls(recorded, needed):
            here = {
                archive: states[url] for archive in needed if url in (states := recorded.get(archive.backup_id, {}))
            }
            self._in_store(record, url, here, done)
        # Also if no condition changed, because the record may have been written without regard to its chain.
        ids = [archive.backup_id for archive in needed]
        done.losses += self._replicas.settle(ids, self._stores.primary.url, self._alarm)
        order = {archive.backup_id: number for number, archive in enumerate(needed)}
        done.replicas.sort(key=lambda replica: order[replica.backup_id])
        return done

    def _urls(self, recorded: Mapping[str, Mapping[str, Condition]], needed: Sequence[ChainArchive]) -> list[str]:
        """The stores of the settings, then other stores that hold a replica or should."""
        known = {url for archive in needed for url in recorded.get(archive.backup_id, {})}
        return [url for url in self._stores.urls if url in known] + sorted(known - set(self._stores.urls))

    def _in_store(
        self, record: BackupRecord, url: str, here: Mapping[ChainArchive, Condition], done: Verification
    ) -> None:
        task = Task(record=True, read=True, only=frozenset(archive.backup_id for archive in here))
        try:
            found = self._check.run(self._stores.at(url), task, clinic_id=record.clinic_id)
            recorded = self._replicas.of_clinic(record.clinic_id)
        except ClinicBackupsError as error:
            replicas = [CheckedReplica(each.backup_id, url, each.size_bytes, None, error=error) for each in here]
        else:
            replicas = [
                _checked(archive, url, before, recorded.get(archive.backup_id, {}).get(url), found, record.clinic_id)
                for archive, before in here.items()
            ]
            told = {id(replica.error) for replica in replicas}
            done.problems += [error for _, error in found.problems if id(error) not in told]
            done.losses += found.losses
        done.replicas += replicas
        for replica in replicas:
            self._on_replica(replica)


def _checked(
    archive: ChainArchive, url: str, before: Condition, now: Condition | None, found: Inventory, clinic_id: ClinicId
) -> CheckedReplica:
    """The condition on which the reading and the catalog agree. If they differ, the replica changed in between."""
    read = found.read.get(archive.backup_id)
    about = {archive.key, f"clinic {clinic_id}"}
    error = next((error for what, error in found.problems if what in about), None)
    condition: Condition | None = None
    if now == "intact" and read == "intact":
        condition = "intact"
    elif now is not None and now != "intact" and read != "intact" and (read is not None or error is None):
        condition = now
    if condition is not None:
        return CheckedReplica(archive.backup_id, url, archive.size_bytes, condition, is_news=now != before)
    changed = TransientError(
        f"{archive.backup_id} in {url} was deleted or made again while it was read.", hint="Verify it again."
    )
    return CheckedReplica(archive.backup_id, url, archive.size_bytes, None, error=error or changed)


def _homeless(archive: ChainArchive) -> PermanentError:
    return PermanentError(
        f"No store is known to hold {archive.backup_id}.",
        hint="Run `clinic-backups catalog rebuild`: it takes over backups that the catalog does not know.",
    )
