"""Plans and applies the restore of one clinic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from clinic_backups.archive.manifest import Manifest
from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import is_conflict, refusal_of
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.kept_connections import KeptConnections
from clinic_backups.base.listening import NOBODY, Listener, nobody
from clinic_backups.base.settings import Settings
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.restore import parent_tables
from clinic_backups.restore.archives import Archives, Fetched, Source
from clinic_backups.restore.columns.migrated import Migrated, PresentNumbers, migrated
from clinic_backups.restore.comparison import Comparison, Present
from clinic_backups.restore.find_backup import only_taken_back
from clinic_backups.restore.hooks import hooked, require_no_strangers_in_hooks, try_hooks
from clinic_backups.restore.loss import LossComparison, LossRehearsal
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.plan import RestorePlan, TablePlan, digest_of
from clinic_backups.restore.plan_digest import hooks, otherwise, unplanned
from clinic_backups.restore.request import Wish
from clinic_backups.restore.rights import lacking_right
from clinic_backups.restore.staging import Staging, Unfit
from clinic_backups.restore.table_rules import read_rules
from clinic_backups.restore.target import ask, of_another, require_primary, target_of
from clinic_backups.restore.unit_sql import SharedFolder, folder_of, unit_sql
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.live import digest_of_moment
from clinic_backups.restore.writing.write_and_prove import Collided
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.source_database import elsewhere, identity_of, is_same
from clinic_backups.tenant.structure import column_numbers, table_oids
from clinic_backups.tenant.tenant_db import Snapshot

__all__ = ["ClinicChanged", "ClinicRestore", "Wish", "refused"]

T = TypeVar("T")
C = TypeVar("C", bound=Comparison)
SHOWN_PARTS = 5
PARTS_IN_WORDS = {
    "target": "the database to which restore_db leads (target)",
    "forgotten": "which rows must not come back (forgotten)",
}
_SHAPE = "shape "
TRIES = 3
"""How often a restore compares again after somebody else wrote the same rows at the same moment."""


class ClinicChanged(PermanentError):
    """The clinic has changed since the plan was approved."""


Save = Callable[[Present], object]
"""Backs up the present state, as the plan saw it."""


class ClinicRestore:
    """Restores clinics into one database.

    Planning and applying are the same up to the writing: read and check the archive, load the rows that differ into
    temporary tables, compare. So no patient data wait anywhere between the two, and what is applied was computed just
    before.

    :param restore_db: a role that may read and write the clinics' tables.
    :param clinic_db: the database that backups are read from; none if it is not defined.
    :param archives: reads and checks the backups.
    :param listener: told which step begins.
    :param forgotten: asks the catalog which rows of a clinic must not come back; none without a catalog.
    :param unknown_requests: asks a store for requests that the catalog does not have, as notes for the plan.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        restore_db: Connection,
        archives: Archives,
        clinic_db: Connection | None = None,
        listener: Listener = NOBODY,
        forgotten: Callable[[ClinicId], ForgottenOfClinic] | None = None,
        unknown_requests: Callable[[ClinicId], tuple[str, ...]] | None = None,
    ) -> None:
        self._forgotten, self._unknown_requests = forgotten, unknown_requests
        self.settings, self.database, self.listener, self.archives = settings, restore_db, listener, archives
        self.clinic_db = clinic_db

    def forgotten_of(self, clinic_id: ClinicId) -> ForgottenOfClinic | None:
        """Which rows of a clinic must not come back; none if there is no catalog to ask."""
        found = self._forgotten(clinic_id) if self._forgotten else None
        notes = self._unknown_requests(clinic_id) if self._unknown_requests else ()
        return replace(found, notes=notes) if found is not None else None

    def plan(self, source: Source, wish: Wish) -> RestorePlan:
        """Make the plan. It is written, proven and rolled back, to find out whether it can be applied.

        Meanwhile the rows that it would write are locked.
        """

        def rehearse(comparison: Comparison) -> RestorePlan:
            self.listener.step("rehearsing")
            with suppress(TransientError):  # a hook that waits for somebody says nothing against the plan
                try_hooks(self.database, comparison.folder, source.clinic_id)
            comparison.rehearse()
            return comparison.plan

        return self._compared(source, wish, rehearse, Comparison)

    def rehearse_loss(self, source: Source) -> LossRehearsal:
        """Delete all rows of the clinic, restore and prove the backup, and roll everything back.

        Meanwhile the clinic's rows are locked.
        """

        def rehearse(comparison: LossComparison) -> LossRehearsal:
            self.listener.step("rehearsing the loss of all rows")
            return comparison.rehearse_loss()

        return self._compared(source, Wish(), rehearse, LossComparison)

    def apply(
        self,
        source: Source,
        wish: Wish,
        *,
        approved: str,
        plan: RestorePlan | None = None,
        save: Save | None = None,
        on_commit: Callable[[str], object] = nobody,
    ) -> RestorePlan:
        """Apply the plan in one transaction, which is proven before it commits. Returns the plan as it was applied.

        :param approved: the digest of the plan that somebody has approved.
        :param plan: that plan. The mode ``live`` needs it; otherwise it only makes the error clearer.
        :param save: called before the first row is written, unless nothing is to be written. If it raises, the restore
            ends.
        :param on_commit: called with the transaction's number just before it commits.
        :raises ClinicChanged: the plan would be another one by now.
        :raises PermanentError: the plan has refusals, or a constraint forbids it; nothing was changed.
        :raises IntegrityError: the result would not be what was planned; nothing was changed.
        :raises TransientError: others wrote the same rows at the same moment, three times; nothing was changed.
        """

        since, committing = None, list[str]()
        if wish.mode == "live":
            since = _require_plan(plan, approved)

        def write(comparison: Comparison) -> RestorePlan:
            now = comparison.plan
            if now.refusals:
                raise refused(now)
            if since is None and now.digest != approved:
                raise _changed(source.clinic_id, now, plan)
            if since is not None and (new := unplanned(now.parts, since.parts)):
                raise _otherwise(source.clinic_id, new)
            if now.writes and save is not None:
                self.listener.step("saving the present state")
                save(comparison.present())
            if now.writes:
                self.listener.step(f"writing {now.writes:,} rows")
            comparison.write(self.listener)
            if now.writes:
                # Reading, saving and writing take minutes. A request of meanwhile must not be passed over.
                if self._forgotten and self._forgotten(source.clinic_id).digest != now.parts.get("forgotten", ""):
                    raise _otherwise(source.clinic_id, ["forgotten"])
                ((xid,),) = comparison.workspace.rows("SELECT pg_current_xact_id()::text", None, "asking for the id")
                on_commit(str(xid))
                committing.append(str(xid))
                comparison.workspace.commit()
            return now

        folder = folder_of(self.settings, source.clinic_id)
        if plan is not None:
            _require_hooks(folder, plan)
        trusted = self.settings.trusted_owners
        with hooked(self.database, folder, source.clinic_id, self.listener, trusted_owners=trusted):
            try:
                return self._compared(source, wish, write, Comparison, since=since)
            except TransientError as error:
                raise _interrupted(error, committing) from None

    def _compared(
        self,
        source: Source,
        wish: Wish,
        use: Callable[[C], T],
        kind: type[C],
        *,
        since: RestorePlan | None = None,
    ) -> T:
        """See :meth:`_compared_again`. :raises PermanentError: the role lacks a right; names role and database."""
        try:
            return self._compared_again(source, wish, use, kind, since=since)
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or refused.state != "42501":
                raise
            raise lacking_right(self.database, error) from None

    def _compared_again(
        self, source: Source, wish: Wish, use: Callable[[C], T], kind: type[C], *, since: RestorePlan | None
    ) -> T:
        """Compare and continue.

        If somebody wrote at the same moment, compare again. If a type does not accept the values, load them as texts.
        """
        with Snapshot(self.database, **self.settings.timeouts) as looking:
            require_primary(ask(looking))  # before a large archive is fetched
        backup, tries, as_text = self.archives.fetch(source), 1, False
        while True:
            try:
                with self._comparison(backup, source, wish, kind, as_text=as_text, since=since) as comparison:
                    return use(comparison)
            except Unfit:
                if as_text:
                    raise
                self.listener.step("loading the values as texts: a type does not take all of them")
                as_text = True
            except Collided as error:
                if tries == TRIES:
                    raise ClinicChanged(
                        f"Somebody has written since the plan was made: {error.message}",
                        hint=f"Nothing was changed. {error.hint} Then make a new plan and approve it.",
                    ) from None
                tries += 1
                self.listener.step("somebody wrote at the same moment: comparing again")
            except TransientError as error:
                if not is_conflict(error) or tries == TRIES:
                    raise
                tries += 1
                self.listener.step("somebody wrote the same rows: comparing again")

    @contextmanager
    def _comparison(
        self, backup: Fetched, source: Source, wish: Wish, kind: type[C], *, as_text: bool, since: RestorePlan | None
    ) -> Iterator[C]:
        folder, queries = unit_sql(self.database, self.settings, source.clinic_id)
        drift = folder.drift()
        timeouts = self.settings.timeouts
        # Before anything is locked, because it asks a store.
        forgotten = self.forgotten_of(source.clinic_id)
        begun = time.monotonic()
        kept = KeptConnections()
        with kept.keeping():
            with Snapshot(self.database, kept=kept, **timeouts) as looking:
                identity = identity_of(looking)
                backup_now = _under_names_of_now(backup.manifest, drift, looking, identity)
                names = [name for name in backup_now.manifest.tables if name in queries]
                rules = read_rules(looking, names)
            # A table that the role may not read cannot be locked either. The plan refuses it.
            compared = {name: queries[name] for name in names
                        if name in rules and "SELECT" not in rules[name].missing_rights}  # fmt: skip
            of_clinics = {name: query for name, query in queries.items() if name not in folder.parents()}
            with Workspace(self.database, reads=compared, beside=kept, **timeouts) as workspace:
                target, refusals = target_of(workspace, self.clinic_db, other_database=wish.other_database)
                read_elsewhere = elsewhere(backup.manifest.database, identity)
                of_itself = [read_elsewhere] if read_elsewhere else []
                if read_elsewhere and not wish.other_database:
                    refusals = (*refusals, of_another(read_elsewhere, is_undo=source.is_undo))
                # The safety backup of a restore of some tables brings back only these.
                chosen = () if wish.tables else backup_now.now(backup.manifest.chosen)
                of_itself += [only_taken_back(chosen)] if chosen else []
                of_itself += forgotten.notes if forgotten else ()
                if isinstance(folder, SharedFolder):
                    of_itself.append(parent_tables.OF_SHARED)
                elif source.is_undo and parent_tables.of_backup(backup_now.manifest.tables, folder.parents()):
                    of_itself.append(parent_tables.STAY)
                comparison = kind(
                    workspace,
                    self.database,
                    backup_now,
                    replace(
                        wish,
                        tables=chosen or backup_now.now(wish.tables),
                        rows=backup_now.named(wish.rows),
                    ),
                    queries,
                    target=target,
                    refusals=refusals,
                    folder=folder,
                    ways=Ways(workspace, folder, of_clinics, source.clinic_id),
                    as_text=as_text,
                    since=since,
                    of_itself=of_itself,
                    read_elsewhere=bool(read_elsewhere),
                    forgotten=forgotten,
                )
                require_no_strangers_in_hooks(workspace, folder, source.clinic_id)
                comparison.choose()
                self.listener.step("reading the clinic as it is")
                # A session that waits for our locks delays the reader too, so both together have one lock timeout.
                left = timeouts["lock_timeout_seconds"] - (time.monotonic() - begun)
                patience = timeouts | {"lock_timeout_seconds": max(1, int(left))}
                with Snapshot(self.database, same_as=workspace.export(), kept=workspace.beside, **patience) as reader:
                    staging = Staging(workspace, reader, queries, as_text=as_text)
                    read = self.archives.read
                    comparison.stage(staging, lambda wanted: read(backup, backup_now.taker(wanted)))
                    reader.require_settings("the clinic was read")
                workspace.renew_settings(code_ran=False)
                workspace.prove()
                self.listener.step("comparing")
                comparison.compare()
                workspace.require_settings("comparing the clinic with the backup")
                yield comparison


def _under_names_of_now(manifest: Manifest, drift: Drift, looking: Snapshot, identity: str) -> Migrated:
    columns = column_numbers(looking)
    same = is_same(manifest.database, identity)
    return migrated(manifest, drift, columns, PresentNumbers(table_oids(looking), columns) if same else None)


def _require_plan(plan: RestorePlan | None, approved: str) -> RestorePlan:
    """The approved plan, if it matches its digest."""
    if (
        plan is None
        or plan.digest != approved
        or digest_of(plan.parts) != approved
        or plan.parts.get("moment") != digest_of_moment(plan.moment)
    ):
        raise PermanentError(
            "The plan is not the one that was approved.", hint="Nothing was changed. Make a new plan and approve it."
        )
    return plan


def _require_hooks(folder: SqlFolder, plan: RestorePlan) -> None:
    """:raises ClinicChanged: a hook is not the one of the plan. The first one runs before anything is compared."""
    planned = {key: value for key, value in plan.parts.items() if key.startswith("hook ")}
    if plan.parts and (found := otherwise(hooks(folder), planned)):
        raise _otherwise(plan.clinic_id, found)


def _interrupted(error: TransientError, committing: Sequence[str]) -> TransientError:
    """The error for a restore that was cut off: the clinic's state, and how to find it out."""
    refused = refusal_of(error)
    if refused is None or (refused.state and not refused.state.startswith(("08", "57", "58"))):
        return error
    if not committing:
        told = TransientError(
            f"{error.message} The restore was not committed: nothing was changed.",
            hint=error.hint,
        )
    else:
        told = TransientError(
            f"{error.message} That was during the commit, and it is not known whether the restore was committed. The"
            " clinic is either as before or completely restored.",
            hint="Plan the same restore again: if there is nothing to write, it was done."
            f" Until its next restart, the server knows: SELECT pg_xact_status('{committing[-1]}');",
        )
    told.refused = refused  # type: ignore[attr-defined]
    return told


def _changed(clinic_id: ClinicId, now: RestorePlan, plan: RestorePlan | None) -> ClinicChanged:
    where = ""
    if plan is not None and plan.parts:
        found = otherwise(now.parts, plan.parts)
        tables = [table.table for table in now.tables if table.table in found]
        if {"target", "forgotten"} & {*found} or (found and not tables):
            return _otherwise(clinic_id, found)
        if columns := [part for part in found if part.startswith(_SHAPE)]:
            return _otherwise(clinic_id, columns)  # what else differs may be a consequence
        where = f", in {', '.join(tables)}" if tables else ""
    return ClinicChanged(
        f"Clinic {clinic_id} has changed since the plan was made{where}: {_summary(now)} now.",
        hint="Nothing was changed. Make a new plan and approve it. If people keep working, the mode `live` keeps what"
        " they changed since the plan, and include/sql/before_restore.sql can keep them out meanwhile.",
    )


def _otherwise(clinic_id: ClinicId, parts: Sequence[str]) -> ClinicChanged:
    parts = [
        PARTS_IN_WORDS.get(part, part.replace(_SHAPE, "the columns of ", 1) if part.startswith(_SHAPE) else part)
        for part in parts
    ]
    more = f", and {len(parts) - SHOWN_PARTS} more" if len(parts) > SHOWN_PARTS else ""
    return ClinicChanged(
        f"The restore of clinic {clinic_id} would not do what the plan says, because this has changed since the plan"
        f" was made: {'; '.join(parts[:SHOWN_PARTS])}{more}.",
        hint="Nothing was changed. Make a new plan and approve it.",
    )


def refused(plan: RestorePlan) -> PermanentError:
    """All refusals of a plan as one error."""
    lines = [line for each in plan.refusals for line in (f"- {each.message}", f"  HINT: {each.hint}")]
    return PermanentError(
        f"The restore of clinic {plan.clinic_id} from {plan.backup_id} is not possible:",
        *lines,
        hint="Nothing was changed.",
    )


def _summary(plan: RestorePlan) -> str:
    def total(operation: Callable[[TablePlan], int]) -> int:
        return sum(map(operation, plan.tables))

    return (
        f"{total(lambda table: table.insert)} rows to insert, {total(lambda table: table.update)} to update,"
        f" {total(lambda table: table.delete)} to delete"
    )
