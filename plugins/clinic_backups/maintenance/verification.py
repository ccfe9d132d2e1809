"""Checks that each copy of one backup and of its chain is still what was stored. This needs no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from clinic_backups.base.errors import ClinicBackupsError, PermanentError, TransientError
from clinic_backups.base.listening import nobody
from clinic_backups.base.model import BackupRecord, ChainArchive, Condition, Loss
from clinic_backups.catalog.copies import Copies
from clinic_backups.catalog.records import Catalog
from clinic_backups.maintenance.inventory import Inventory, StoreCheck, Task
from clinic_backups.notify.losses import LossAlarm
from clinic_backups.stores.configured import Stores


@dataclass(frozen=True)
class CheckedCopy:
    """The present condition of one copy.

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

    :param copies: the copies of the backup first, then those of its chain.
    :param losses: copies that were recorded as lost, with the backups built on them; the operator's mail is in the
        outbox.
    :param problems: other problems that were not corrected.
    """

    backup_id: str
    clinic_id: int
    copies: list[CheckedCopy] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    problems: list[ClinicBackupsError] = field(default_factory=list)

    @property
    def bad(self) -> list[CheckedCopy]:
        """The missing or damaged copies."""
        return [copy for copy in self.copies if copy.condition in ("missing", "damaged")]

    def require_intact(self) -> None:
        """Raise an error if a copy is bad or could not be checked.

        :raises PermanentError: a copy is bad. The message names each.
        :raises ClinicBackupsError: no copy is bad, but some could not be checked: a :class:`TransientError` if
        that may pass.
        """
        # Several copies may have the same error.
        errors = list(dict.fromkeys([copy.error for copy in self.copies if copy.error] + self.problems))
        errors.sort(key=lambda error: not isinstance(error, TransientError))
        raised: ClinicBackupsError
        if self.bad:
            names = "; ".join(f"{copy.backup_id} is {copy.condition} in {copy.store_url}" for copy in self.bad)
            raised = PermanentError(
                f"Of {len(self.copies)} copies that backup {self.backup_id} needs, {len(self.bad)} are bad: {names}.",
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
        elsewhere = {copy.backup_id for copy in self.copies if copy.condition == "intact"}
        unknown = {copy.backup_id for copy in self.copies if copy.condition is None}
        gone = {copy.backup_id: None for copy in self.bad if copy.backup_id not in elsewhere | unknown}
        if gone:
            return (
                f"No copy of {', '.join(gone)} is left. Put the archive back where it was and verify again, or make a"
                f' new backup: clinic_backup with {{"clinic_id": {self.clinic_id}}}. Find out who changed the store.'
            )
        return (
            "Another store has it: `clinic-backups replicate`, or the DAG clinic_backup_retention, copies it from"
            " there. Find out who changed the store."
        )


class Verifier:
    """Reads all copies of a backup and its chain, in each store that should have them, and records the result.

    Missing and damaged copies are recorded, also for the backups that are built on them, together with the operator's
    mail. A copy that is back counts again.

    :param check: reads and records.
    :param now: the clock.
    :param on_copy: called with each copy when its store is done.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        stores: Stores,
        check: StoreCheck,
        now: Callable[[], datetime],
        on_copy: Callable[[CheckedCopy], object] = nobody,
    ) -> None:
        self._catalog, self._stores, self._check, self._on_copy = catalog, stores, check, on_copy
        self._places, self._alarm = Copies(catalog.database), LossAlarm(now)

    def run(self, backup_id: str) -> Verification:
        """Verify one backup. A store that fails does not stop the others.

        :raises PermanentError: there is no such completed backup.
        """
        record = self._catalog.require(backup_id)
        if record.state not in ("completed", "lost"):
            raise PermanentError(
                f"Backup {backup_id} is {record.state}: there is no archive to verify.",
                hint=f"See clinic-backups list --clinic {record.clinic_id} --state completed",
            )
        done = Verification(backup_id, record.clinic_id)
        needed = [record.archive, *record.chain]
        places = self._places.of_clinic(record.clinic_id)
        done.problems += [_homeless(archive) for archive in needed if not places.get(archive.backup_id)]
        for url in self._urls(places, needed):
            here = {archive: states[url] for archive in needed if url in (states := places.get(archive.backup_id, {}))}
            self._in_store(record, url, here, done)
        # Also if no condition changed, because the record may have been written without regard to its chain.
        ids = [archive.backup_id for archive in needed]
        done.losses += self._places.settle(ids, self._stores.primary.url, self._alarm)
        order = {archive.backup_id: number for number, archive in enumerate(needed)}
        done.copies.sort(key=lambda copy: order[copy.backup_id])
        return done

    def _urls(self, places: Mapping[str, Mapping[str, Condition]], needed: Sequence[ChainArchive]) -> list[str]:
        """The stores of the settings, then other stores that hold a copy or should."""
        known = {url for archive in needed for url in places.get(archive.backup_id, {})}
        return [url for url in self._stores.urls if url in known] + sorted(known - set(self._stores.urls))

    def _in_store(
        self, record: BackupRecord, url: str, here: Mapping[ChainArchive, Condition], done: Verification
    ) -> None:
        task = Task(record=True, read=True, only=frozenset(archive.backup_id for archive in here))
        try:
            found = self._check.run(self._stores.at(url), task, clinic_id=record.clinic_id)
            places = self._places.of_clinic(record.clinic_id)
        except ClinicBackupsError as error:
            copies = [CheckedCopy(each.backup_id, url, each.size_bytes, None, error=error) for each in here]
        else:
            copies = [
                _copy(archive, url, before, places.get(archive.backup_id, {}).get(url), found, record.clinic_id)
                for archive, before in here.items()
            ]
            told = {id(copy.error) for copy in copies}
            done.problems += [error for _, error in found.problems if id(error) not in told]
            done.losses += found.losses
        done.copies += copies
        for copy in copies:
            self._on_copy(copy)


def _copy(
    archive: ChainArchive, url: str, before: Condition, now: Condition | None, found: Inventory, clinic_id: int
) -> CheckedCopy:
    """The condition on which the reading and the catalog agree. If they differ, the copy changed in between."""
    read = found.read.get(archive.backup_id)
    about = {archive.key, f"clinic {clinic_id}"}
    error = next((error for what, error in found.problems if what in about), None)
    condition: Condition | None = None
    if now == "intact" and read == "intact":
        condition = "intact"
    elif now is not None and now != "intact" and read != "intact" and (read is not None or error is None):
        condition = now
    if condition is not None:
        return CheckedCopy(archive.backup_id, url, archive.size_bytes, condition, is_news=now != before)
    changed = TransientError(
        f"{archive.backup_id} in {url} was deleted or copied again while it was read.", hint="Verify it again."
    )
    return CheckedCopy(archive.backup_id, url, archive.size_bytes, None, error=error or changed)


def _homeless(archive: ChainArchive) -> PermanentError:
    return PermanentError(
        f"No store is known to hold {archive.backup_id}.",
        hint="Run `clinic-backups catalog rebuild`: it takes over backups that the catalog does not know.",
    )
