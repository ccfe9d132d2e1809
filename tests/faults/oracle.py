"""Checks what must be true after each step.

Uses only PostgreSQL, SeaweedFS, age, zstd and tar, not the package's code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tests.faults import clinics
from tests.faults.archives import Archive, NotReadable, content, open_archive
from tests.faults.clinics import Version
from tests.faults.world import World

_BACKUPS = """
    SELECT backup_id, clinic_id::bigint AS clinic_id, state, archive_key, sha256, size_bytes, rows, chain, safety_of,
           suspect, hold_reason
      FROM clinic_backups.backup ORDER BY data_time, started_at, backup_id
"""
_REPLICAS = "SELECT backup_id, store_url, state FROM clinic_backups.backup_replica"
_ERASURES = "SELECT id, clinic_id::bigint, finished_at, remaining FROM clinic_backups.erasure"
GONE = ("deleting", "deleted")


class Violation(Exception):
    """Something is not as it was promised."""


@dataclass(frozen=True)
class Step:
    """One step, as the oracle has to know it.

    :param may_delete: clinics whose backups may go. :param keeps_good: of these, the newest good one may not.
    :param written: the clinic that may be another one afterwards.
    :param targets: what that clinic may be afterwards, beside what it was.
    :param copied_from: new backups hold the rows of this one.
    :param forgets: the catalog was lost, and need not know everything again yet.
    """

    may_delete: frozenset[int] = frozenset()
    keeps_good: frozenset[int] = frozenset()
    written: int | None = None
    target: str | None = None
    must_be_target: bool = False
    copied_from: str | None = None
    forgets: bool = False


@dataclass
class Oracle:
    """Remembers all rows after each change, and what each backup must hold."""

    world: World
    now: dict[int, Version] = field(default_factory=dict)
    before: dict[int, Version] = field(default_factory=dict)
    """As the step began; ``now`` follows the changes of the application while it lasts."""
    holds: dict[str, list[Version]] = field(default_factory=dict)
    """What each backup may hold: the rows at the moments at which its snapshot can have been taken."""
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The completed backups of the step before."""
    checked: int = 0

    def __post_init__(self) -> None:
        self._opened: dict[str, Archive] = {}
        self._contents: dict[str, Version] = {}
        self._hashes: dict[tuple[str, str, str], str] = {}
        self.now = self.before = self.read()

    def read(self) -> dict[int, Version]:
        """All clinics' rows."""
        with closing(self.world.database.connect()) as db:
            return clinics.read(db)

    def begin(self) -> None:
        """A step begins."""
        self.before = self.now

    def changed(self, statement: str) -> None:
        """The application does this, and nobody else writes meanwhile but a restore of another clinic."""
        self.world.execute(statement)

    def check(self, step: Step, mid: Mapping[int, Version] | None = None) -> None:
        """:raises Violation: with the first thing that is wrong.

        :param mid: the rows after the application's change during the step.
        """
        moments = [self.before, *([dict(mid)] if mid else [])]
        self._rows(step, moments[-1])
        backups = {row["backup_id"]: row for row in self.world.rows(_BACKUPS)}
        objects = self.world.objects()
        replicas: dict[str, dict[str, str]] = {}
        for row in self.world.rows(_REPLICAS):
            replicas.setdefault(row["backup_id"], {})[row["store_url"]] = row["state"]
        for backup in backups.values():
            self._remember(step, backup, moments)
        for backup in backups.values():
            self._backup(backup, backups, replicas.get(backup["backup_id"], {}), objects)
        self._erasures(backups, objects)
        if step.forgets:
            return
        self._nothing_vanished(step, backups)
        self.known = {name: row for name, row in backups.items() if row["state"] == "completed"}

    def _rows(self, step: Step, expected: Mapping[int, Version]) -> None:
        self.now = self.read()
        for clinic in sorted({*expected, *self.now}):
            was, is_now = expected.get(clinic), self.now.get(clinic)
            if was is None or is_now is None:
                raise Violation(f"clinic {clinic} has no rows any more, or did not have any")
            difference = is_now.difference(was)
            if clinic == step.written and step.target is not None:
                wanted = [each for each in self.holds[step.target] if not _differs(each, is_now)]
                if not wanted and (difference or step.must_be_target):
                    both = [_differs(each, is_now) for each in self.holds[step.target]]
                    raise Violation(
                        f"clinic {clinic} is neither as backup {step.target} (differs: {both}) nor as before"
                        f" (differs: {difference})"
                    )
            elif difference:
                raise Violation(f"rows of clinic {clinic} changed without a reason: {difference}")

    def _remember(self, step: Step, backup: Mapping[str, Any], moments: list[dict[int, Version]]) -> None:
        name = backup["backup_id"]
        if name in self.holds:
            return
        if step.copied_from is not None:
            self.holds[name] = self.holds[step.copied_from]
        else:
            self.holds[name] = [moment[backup["clinic_id"]] for moment in moments if backup["clinic_id"] in moment]

    def _backup(
        self, backup: Mapping[str, Any], backups: Mapping[str, Mapping[str, Any]], replicas: Mapping[str, str],
        objects: Mapping[str, Mapping[str, str]],
    ) -> None:  # fmt: skip
        name, key, state = backup["backup_id"], backup["archive_key"], backup["state"]
        if state == "deleted" and (left := [url for url in objects if _stem(key) in map(_stem, objects[url])]):
            raise Violation(f"{name} is recorded as deleted, and objects of it are in {left}")
        if state == "lost":
            raise Violation(f"{name} is recorded as lost, and nobody took it")
        for url, replica in replicas.items():
            good = key in objects.get(url, {}) and self._hash(url, key, objects) == backup["sha256"]
            if replica != "present" and good:
                raise Violation(f"{name} is recorded as {replica} in {url}, and it is there and intact")
            if replica == "present" and state == "completed":
                self._replica(backup, url, good, objects)
        if state != "completed":
            return
        if "present" not in replicas.values():
            raise Violation(f"{name} is completed, and no store is recorded to hold it")
        try:
            found = self._content(backup, backups, next(url for url in replicas if replicas[url] == "present"))
        except (NotReadable, KeyError, ValueError) as error:
            raise Violation(f"{name} cannot be opened: {error}") from error
        differences = [found.difference(each) for each in self.holds[name]]
        if all(differences):
            raise Violation(f"{name} does not hold the rows of its moment: {differences}")
        counted = {f"public.{table}": len(lines) for table, lines in found.rows.items()}
        if counted != {table: count for table, count in backup["rows"].items() if count}:
            raise Violation(f"{name} is recorded with other numbers of rows than it holds")

    def _replica(
        self, backup: Mapping[str, Any], url: str, good: bool, objects: Mapping[str, Mapping[str, str]]
    ) -> None:
        name, key = backup["backup_id"], backup["archive_key"]
        if not good:
            state = "is another one" if key in objects.get(url, {}) else "is not there"
            raise Violation(f"{name} is recorded as present in {url}, and its archive {state}")
        envelope = key.removesuffix(".tar.zst.age") + ".json"
        if envelope not in objects[url]:
            raise Violation(f"{name} has no envelope in {url}")
        said = json.loads(self.world.bytes_of(url, envelope))
        if (said["backup_id"], said["archive"]["sha256"]) != (name, backup["sha256"]):
            raise Violation(f"the envelope of {name} in {url} is that of another archive")

    def _hash(self, url: str, key: str, objects: Mapping[str, Mapping[str, str]]) -> str:
        known = (url, key, objects[url][key])
        if known not in self._hashes:
            self._hashes[known] = hashlib.sha256(self.world.bytes_of(url, key)).hexdigest()
        return self._hashes[known]

    def _content(self, backup: Mapping[str, Any], backups: Mapping[str, Mapping[str, Any]], url: str) -> Version:
        """The rows of a backup; an archive is opened once, and known again by its SHA-256."""
        if backup["sha256"] not in self._contents:
            archive = self._archive(backup, url)
            others = {}
            for name in archive.manifest["archives"][1:]:
                parent = backups.get(name)
                if parent is None or parent["state"] != "completed":
                    raise NotReadable(f"it is built on {name}, which is {parent['state'] if parent else 'unknown'}")
                others[name] = self._archive(parent, url)
            self._contents[backup["sha256"]] = content(archive, others)
            self.checked += 1
        for link in backup["chain"]:
            parent = backups.get(link["backup_id"])
            if parent is None or parent["state"] != "completed":
                raise NotReadable(f"it is built on {link['backup_id']}, which is not completed any more")
        return self._contents[backup["sha256"]]

    def _archive(self, backup: Mapping[str, Any], url: str) -> Archive:
        digest = backup["sha256"]
        if digest not in self._opened:
            folder = self.world.folder / "opened"
            archive = open_archive(self.world.bytes_of(url, backup["archive_key"]), self.world.identity, folder)
            if archive.manifest["backup_id"] != backup["backup_id"]:
                raise NotReadable(f"its manifest is that of {archive.manifest['backup_id']}")
            self._opened[digest] = archive
        return self._opened[digest]

    def _nothing_vanished(self, step: Step, backups: Mapping[str, Mapping[str, Any]]) -> None:
        """A completed backup is still completed, or was removed by a step that may do so."""
        for clinic in step.keeps_good:
            good = [name for name, was in self.known.items() if was["clinic_id"] == clinic and _is_good(was)]
            if good and not (good[-1] in backups and backups[good[-1]]["state"] == "completed"):
                raise Violation(f"{good[-1]} was the last good backup of clinic {clinic}, and was let go")
        for name, was in self.known.items():
            state = backups[name]["state"] if name in backups else None
            may_go = was["clinic_id"] in step.may_delete and not was["hold_reason"]
            # Of a clinic that is erased not even the record stays.
            if state == "completed" or (may_go and (state in GONE or state is None)):
                continue
            raise Violation(f"{name} was completed, and is {state or 'in no record'} now")

    def _erasures(self, backups: Mapping[str, Mapping[str, Any]], objects: Mapping[str, Mapping[str, str]]) -> None:
        """An erased clinic has no backups, except those that are known to be there."""
        kept = {_stem(row["archive_key"]) for row in backups.values() if row["state"] not in GONE}
        for row in self.world.rows(_ERASURES):
            if row["finished_at"] is None or row["remaining"]:
                continue
            for url, keys in objects.items():
                left = [
                    key for key in keys if key.startswith(f"backups/{row['clinic_id']}/") and _stem(key) not in kept
                ]
                if left:
                    raise Violation(f"clinic {row['clinic_id']} is erased, and {url} has {len(left)} objects of it")


def _is_good(backup: Mapping[str, Any]) -> bool:
    return backup["safety_of"] is None and backup["suspect"] is None


def _stem(key: str) -> str:
    """The common part of the keys of a backup's objects, including the files that a folder keeps beside each."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.removeprefix('.~').partition('.')[0]}"


def _differs(target: Version, is_now: Version) -> str:
    """The differences between a restored clinic and its backup, in the columns that both have."""
    columns = {
        table: tuple(name for name in names if name in is_now.columns.get(table, ()))
        for table, names in target.columns.items()
    }
    return is_now.of_columns(columns).difference(target.of_columns(columns))
