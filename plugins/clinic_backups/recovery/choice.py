"""Which backup of each unit is recovered, from the envelopes in the stores alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from clinic_backups.archive.envelope_checks import harmless
from clinic_backups.archive.object_keys import parse_key
from clinic_backups.base.clinic_id import ClinicId, in_order
from clinic_backups.base.envelope import Envelope
from clinic_backups.base.errors import ClinicBackupsError, IntegrityError, ObjectNotFound, PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.shared_unit import SHARED_ID, is_shared, named
from clinic_backups.base.text import capitalised, one_line
from clinic_backups.catalog.newest import NewestBackup
from clinic_backups.stores import condition, envelopes
from clinic_backups.stores.base import ObjectStore
from clinic_backups.stores.configured import Stores

Doubt = Callable[[Envelope], str]
"""Says why an envelope is not believed; empty if it is."""
CLOCKS_DIFFER = timedelta(minutes=2)
LONGEST_LAG = timedelta(days=1)
OLD = timedelta(days=2)
"""A unit whose newest backup is so much older than the newest of all may be a clinic that left."""


@dataclass
class Choice:
    """One unit: the backup that is taken, and what a person should know of it.

    :param envelope: none if no backup can be taken.
    :param damage: what is damaged or missing, newest first; an older backup is taken instead, or none.
    :param notes: other sentences: newer backups that are not taken, and gaps.
    """

    unit: ClinicId
    name: str = ""
    envelope: Envelope | None = None
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def data_at(self) -> datetime | None:
        """The moment of the rows."""
        return data_at(self.envelope) if self.envelope else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        of = self.envelope
        return {
            "unit": self.unit, "name": self.name, "backup_id": of.backup_id if of else None,
            "kind": of.kind if of else None, "data_at": iso(data_at(of)) if of else None,
            "rows": sum(of.rows.values()) if of else None, "archive_key": of.archive.key if of else None,
            "sha256": of.archive.sha256 if of else None, "damage": self.damage, "notes": self.notes,
        }  # fmt: skip


@dataclass
class Plan:
    """All units, the shared one first, then the clinics in order of their ids.

    :param as_of: no backup has rows that are later.
    :param belief: how far the archives are believed, as a sentence.
    :param stores: what is wrong with stores, as sentences.
    :param sources: which stores have the backups, as sentences.
    """

    as_of: datetime
    choices: list[Choice]
    belief: str = ""
    stores: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def shared(self) -> Choice:
        """The shared unit."""
        return self.choices[0]

    @property
    def taken(self) -> list[Choice]:
        """The units that have a backup."""
        return [choice for choice in self.choices if choice.envelope is not None]

    def is_newer_than_shared(self, choice: Choice) -> bool:
        """Whether a backup has later rows than that of the shared data, which has the positions of sequences."""
        told, at = self.shared.data_at, choice.data_at
        return told is not None and at is not None and at > told

    @property
    def moments(self) -> list[datetime]:
        """The moments of all backups that are taken, the earliest first."""
        return sorted(at for choice in self.taken if (at := choice.data_at) is not None)

    @property
    def apart_seconds(self) -> float:
        """How far apart the moments are."""
        return (self.moments[-1] - self.moments[0]).total_seconds() if self.moments else 0.0

    @property
    def ids(self) -> dict[str, str]:
        """The backup of each unit."""
        return {str(choice.unit): choice.envelope.backup_id for choice in self.taken if choice.envelope}

    def missing(self) -> list[str]:
        """What is damaged or missing, as sentences."""
        found = []
        for choice in self.choices:
            found += choice.damage
            if choice.envelope is None:
                found.append(f"{capitalised(named(choice.unit))} has no backup that can be restored.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "as_of": iso(self.as_of), "apart_seconds": self.apart_seconds, "belief": self.belief,
            "stores": self.stores,
            "sources": self.sources, "units": [choice.to_json() for choice in self.choices], "missing": self.missing(),
        }  # fmt: skip


def data_at(envelope: Envelope) -> datetime:
    """The moment of a backup's rows."""
    return envelope.data_at or envelope.started_at


@dataclass
class _Stored:
    """One backup in the stores.

    :param sizes: the sizes that its archive has, by store, the primary first.
    :param stores: the stores with an envelope of it, the primary first. Without one it is no backup.
    """

    archive_key: str
    sizes: dict[str, int] = field(default_factory=dict)
    stores: list[ObjectStore] = field(default_factory=list)

    @property
    def began_at(self) -> datetime:
        """When it was begun, by its key."""
        parts = parse_key(self.archive_key)
        return (parts.began_at if parts else None) or datetime.min.replace(tzinfo=UTC)


class Chooser:
    """Chooses among the backups of the stores. Of each unit only as many envelopes are read as are needed.

    :param keys: the public keys that belong to the secret ones. An archive for other keys cannot be opened.
    :param doubt: see :data:`Doubt`.
    :param accepts: says whether somebody has accepted a suspect backup.
    """

    def __init__(
        self, stores: Stores, now: datetime, *, keys: Collection[str], doubt: Doubt,
        accepts: Callable[[Envelope], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        self._stores, self._now, self._keys, self._doubt = stores, now, frozenset(keys), doubt
        self._accepts = accepts
        self._units: dict[ClinicId, dict[str, _Stored]] = {}
        self._kept: dict[str, str] = {}
        self.notes: list[str] = []

    def read(self, listener: Listener = NOBODY) -> None:
        """List all stores. One that does not answer is noted. :raises ClinicBackupsError: none answers."""
        failures = list[ClinicBackupsError]()
        for url in self._stores.urls:
            listener.step(f"listing {url}")
            try:
                self._list(self._stores.at(url))
            except ClinicBackupsError as error:
                failures.append(error)
                self.notes.append(f"{url} cannot be listed: {error.message}")
        if len(failures) == len(self._stores.urls):
            raise failures[0]

    def _list(self, store: ObjectStore) -> None:
        for _, group in condition.by_folder(store):
            for key, parts in condition.by_archive(group).items():
                known = parse_key(key)
                assert known is not None  # noqa: S101 - only such keys were listed
                each = self._units.setdefault(known.clinic_id, {}).setdefault(key, _Stored(key))
                if "archive" in parts:
                    each.sizes[store.url] = parts["archive"].size_bytes
                if "envelope" in parts:
                    each.stores.append(store)

    def plan(
        self, as_of: datetime, only: Collection[ClinicId] = (), kept: Mapping[str, str] | None = None,
        loaded: Collection[str] = (),
    ) -> Plan:  # fmt: skip
        """Choose for each unit the newest good backup that is not later.

        :param only: these clinics, besides the shared unit. None means all.
        :param kept: the backups that an interrupted run has chosen, by unit.
        :param loaded: the units that it has loaded.
        :raises PermanentError: a clinic of ``only`` has nothing in the stores, or no unit has.
        """
        clinics = in_order(unit for unit in self._units if not is_shared(unit))
        if unknown := [unit for unit in only if unit not in clinics]:
            raise PermanentError(
                f"No store has a backup of clinic {', '.join(map(str, unknown))}.",
                hint="`clinic-backups bucket` lists the clinics that the stores have.",
            )
        if not self._units:
            raise PermanentError(
                f"No backup is in {', '.join(self._stores.urls)}.",
                hint="Is CLINIC_BACKUPS_STORE_URL the store that the backups were written to?",
            )
        units, self._kept = [SHARED_ID, *(unit for unit in clinics if not only or unit in only)], dict(kept or {})
        with ThreadPoolExecutor(envelopes.AT_A_TIME, thread_name_prefix="envelopes") as pool:
            choices = list(pool.map(lambda unit: self._choice(unit, as_of, str(unit) in loaded), units))
        plan = Plan(as_of, choices, stores=self.notes)
        newest = max(plan.moments, default=as_of)
        for choice in plan.taken:
            if (at := choice.data_at) is not None and newest - at > OLD:
                choice.notes.append(
                    f"The backup is {(newest - at).days} days older than the newest of all. Has this clinic left?"
                )
        return plan

    def compare(self, plan: Plan, known: Iterable[NewestBackup], only: Collection[ClinicId] = ()) -> None:
        """Name what a catalog knows to be newer than what is taken, and what no store shows: it is missing.

        :param known: of each unit the newest good backup, asked before the stores were listed.
        """
        choices = {choice.unit: choice for choice in plan.choices}
        for each in known:
            if str(each.clinic_id) in self._kept:
                continue  # it was chosen before, when a newer one may have been under way
            choice = choices.get(each.clinic_id)
            if choice is None:
                if only and each.clinic_id not in only:
                    continue
                choice = Choice(each.clinic_id)
                plan.choices.append(choice)
            if choice.envelope is not None and choice.envelope.backup_id == each.backup_id:
                continue
            at = choice.data_at
            is_newer = each.data_time <= plan.as_of and (at is None or each.data_time > at)
            if is_newer and not any(each.backup_id in text or each.keys[0] in text for text in choice.damage):
                is_doubted = any(each.backup_id in text for text in choice.notes)
                why = "what the stores have of it is not that" if is_doubted else "no store that answers has it"
                choice.damage.append(
                    f"By the catalog, {each.backup_id} of {iso(each.data_time)} is the newest backup of"
                    f" {named(each.clinic_id)}, and {why}."
                )

    def read_from(self, plan: Plan) -> list[str]:
        """From which stores the chosen backups would be read first, as sentences."""
        first = Counter[str]()
        for choice in plan.taken:
            assert choice.envelope is not None  # noqa: S101 - it is taken
            of = choice.envelope.archive
            sizes = self._units[choice.unit][of.key].sizes
            first[next(url for url, size in sizes.items() if size == of.size_bytes)] += 1
        return [
            f"{count:,} backup{'' if count == 1 else 's'} would be read from {url}." for url, count in first.items()
        ]

    def next_best(self, plan: Plan, choice: Choice, problem: str) -> None:
        """Give up the backup that was chosen, because of a problem, and choose the next older one."""
        assert choice.envelope is not None  # noqa: S101 - only a backup that was chosen can turn out to be damaged
        choice.damage.append(f"{choice.envelope.backup_id} of {named(choice.unit)} is not usable: {problem}")
        given_up = choice.envelope.archive.key
        choice.envelope = None
        self._choose(choice, plan.as_of, self._candidates(choice.unit, plan.as_of, before=given_up))

    def _choice(self, unit: ClinicId, as_of: datetime, is_loaded: bool) -> Choice:
        choice, kept = Choice(unit), self._kept.get(str(unit))
        for each in self._candidates(unit, as_of) if kept is not None else ():
            envelope = self._envelope(each)
            if isinstance(envelope, Envelope) and envelope.backup_id == kept and data_at(envelope) <= as_of:
                problem = self._problem(unit, envelope)
                if problem and is_loaded:
                    raise PermanentError(
                        f"{kept} of {named(unit)} is loaded already, and cannot be proven: {problem}",
                        hint="Bring the archive back into a store, and run the same command again. Or begin anew in"
                        " another empty database: it takes the next older backup with --allow-missing.",
                    )
                choice.envelope = None if problem else envelope
                break
        if choice.envelope is None:
            self._choose(choice, as_of, self._candidates(unit, as_of))
        choice.name = one_line(choice.envelope.clinic_name) if choice.envelope else ""
        return choice

    def _candidates(self, unit: ClinicId, as_of: datetime, before: str | None = None) -> Sequence[_Stored]:
        """The backups of a unit, the newest first. :param before: only those after this archive in that order."""
        units = self._units.get(unit, {}).values()
        # The rows of a backup from a standby may be older than its beginning.
        found = [each for each in units if each.stores and each.began_at - LONGEST_LAG <= as_of]
        found.sort(key=lambda each: (each.began_at, each.archive_key), reverse=True)
        keys = [each.archive_key for each in found]
        return found[keys.index(before) + 1 :] if before in keys else found

    def _envelope(self, stored: _Stored) -> Envelope | str:
        """The envelope of the first store that has a good one, or what is wrong with it.

        :raises ClinicBackupsError: no store has a good one, and one did not answer.
        """
        problem, found, silent = "", list[Envelope](), list[ClinicBackupsError]()
        for store in stored.stores:
            try:
                found.append(harmless(envelopes.load(stored.archive_key, store, now=self._now)))
            except (IntegrityError, ObjectNotFound) as error:
                problem = problem or error.message
            except ClinicBackupsError as error:
                silent.append(error)
        if silent and not found:
            raise silent[0]
        if any(other.archive != found[0].archive for other in found[1:]):
            self.notes.append(
                f"The stores have different envelopes of {stored.archive_key}. That of {stored.stores[0].url} counts."
            )
        return found[0] if found else problem

    def _choose(self, choice: Choice, as_of: datetime, candidates: Iterable[_Stored]) -> None:
        suspect = list[Envelope]()
        for each in candidates:
            envelope = self._envelope(each)
            if isinstance(envelope, str):
                choice.damage.append(f"The envelope of {each.archive_key} cannot be used: {envelope}")
            elif data_at(envelope) > self._now + CLOCKS_DIFFER:
                choice.notes.append(f"{envelope.backup_id} is not taken: it is dated in the future.")
            elif not envelope.is_regular or data_at(envelope) > as_of:
                pass  # A safety backup holds the state that somebody wanted to undo.
            elif doubt := self._doubt(envelope):
                choice.notes.append(f"{envelope.backup_id} is not taken: {doubt}")
            elif problem := self._problem(choice.unit, envelope):
                choice.damage.append(f"{envelope.backup_id} of {named(choice.unit)} is not usable: {problem}")
            elif envelope.suspect and not self._accepts(envelope):
                suspect.append(envelope)
            else:
                choice.envelope = envelope
                break
        self._tell(choice, suspect)

    def _tell(self, choice: Choice, suspect: Sequence[Envelope]) -> None:
        if choice.envelope is None and suspect:
            choice.envelope = suspect[0]
            choice.notes.append(f"{suspect[0].backup_id} is suspect, and there is no other: {suspect[0].suspect}")
        else:
            choice.notes += [
                f"{each.backup_id} is newer and suspect, so it is not taken: {each.suspect}. If it is right, restore it"
                f" afterwards with `clinic-backups restore --archive {each.archive.key}`."
                for each in suspect
            ]
        if choice.envelope is not None:
            choice.notes += [f"Incomplete: {gap.reason}" for gap in choice.envelope.gaps]

    def _problem(self, unit: ClinicId, envelope: Envelope) -> str:
        for archive in (envelope.archive, *envelope.chain):
            known = self._units.get(unit, {}).get(archive.key)
            sizes = {*known.sizes.values()} if known else set()
            if not sizes:
                return f"the archive {archive.key} is missing."
            if archive.size_bytes not in sizes:
                return f"the archive {archive.key} has {min(sizes):,} bytes instead of {archive.size_bytes:,}."
        if self._keys and envelope.recipients and not self._keys & set(envelope.recipients):
            return f"it was made for other keys ({', '.join(envelope.recipients)[:200]})."
        return ""
