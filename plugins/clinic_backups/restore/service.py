"""Plans and applies the restore of one clinic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg2 import sql

from clinic_backups.archive_reader import Manifest
from clinic_backups.connections import Connection
from clinic_backups.errors import ClinicBackupsError, PermanentError, SettingsError
from clinic_backups.extract import SqlExtract, SqlFolder
from clinic_backups.model import RestoreMode, Table
from clinic_backups.restore import checks
from clinic_backups.restore.apply import Applier
from clinic_backups.restore.archives import Archives, OnStep, Source, Wanted
from clinic_backups.restore.diff import TableDiff, compute
from clinic_backups.restore.model import Refusal, RestorePlan, TablePlan, Target, digest_of
from clinic_backups.restore.shape import Shape, fit
from clinic_backups.restore.staging import Staged, Staging, WantedLoader
from clinic_backups.restore.target import ask, require_primary, target_of
from clinic_backups.restore.workspace import Workspace
from clinic_backups.settings import Settings
from clinic_backups.tenant_db import Snapshot


class ClinicChanged(PermanentError):
    """The clinic is not as it was when the plan was approved."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of it: see :class:`~clinic_backups.restore.model.RestoreRequest`."""

    mode: RestoreMode = "exact"
    tables: tuple[str, ...] = ()
    ignore_dropped: bool = False
    other_database: bool = False


Save = Callable[[str, Mapping[str, int]], object]
"""Saves the present state: it is told the name of the exported snapshot that the plan was made in, and how many rows
each table has in it, as the plan counted them."""


class ClinicRestore:
    """Restores clinics into one database.

    Planning and applying do the same up to the writing: fetch and check the archive, load what differs into temporary
    tables, compare. So nothing of a patient waits anywhere between the two, and what is applied was just computed.

    :param restore_db: a role that may read and write the clinics' tables.
    :param clinic_db: where backups are read from; none where it is not defined.
    :param archives: fetches and checks the backups.
    :param on_step: told what is being done.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        restore_db: Connection,
        archives: Archives,
        clinic_db: Connection | None = None,
        on_step: OnStep = lambda step: None,
    ) -> None:
        self.settings, self.database, self.on_step, self.archives = settings, restore_db, on_step, archives
        self.clinic_db = clinic_db

    def plan(self, source: Source, wish: Wish) -> RestorePlan:
        """What the restore would do. Writes nothing but temporary tables, and locks nobody out."""
        with self._compared(source, wish) as comparison:
            return comparison.plan

    def apply(
        self,
        source: Source,
        wish: Wish,
        *,
        approved: str,
        save: Save = lambda snapshot, rows: None,
        on_commit: Callable[[str], object] = lambda xid: None,
    ) -> RestorePlan:
        """Do it, in one transaction that is proven before it is committed; returns the plan as it was applied.

        :param approved: the digest of the plan that somebody has seen.
        :param save: called before the first row is written, unless nothing is to be written; what it raises ends it.
        :param on_commit: called with the transaction's number just before it is committed.
        :raises ClinicChanged: the plan would be another one by now.
        :raises PermanentError: the plan has refusals, or a constraint forbids it; nothing was changed.
        :raises IntegrityError: the result would not be what was planned; nothing was changed.
        """
        with self._compared(source, wish) as comparison:
            plan = comparison.plan
            if plan.refusals:
                raise refused(plan)
            if plan.digest != approved:
                raise ClinicChanged(
                    f"Clinic {source.clinic_id} has changed since the plan was made: {_summary(plan)} now.",
                    hint="Nothing was changed. Make a new plan, look at it and approve it.",
                )
            applier = Applier(comparison.workspace, comparison.diffs, comparison.order)
            if plan.writes:
                self.on_step("saving the present state")
                save(comparison.workspace.export(), comparison.rows_now)
                self.on_step(f"writing {plan.writes:,} rows")
                applier.write(comparison.quiet_tables)
            self.on_step("reading the clinic again")
            applier.prove(wish.mode, comparison.manifest.tables, comparison.queries)
            if plan.writes:
                ((xid,),) = comparison.workspace.rows("SELECT pg_current_xact_id()::text", None, "asking for the id")
                on_commit(str(xid))
            comparison.workspace.commit()
            return plan

    @contextmanager
    def _compared(self, source: Source, wish: Wish) -> Iterator[_Comparison]:
        with Snapshot(self.database, **self.settings.timeouts) as looking:
            require_primary(ask(looking))  # before a large archive is fetched
        backup = self.archives.fetch(source)
        queries = SqlExtract().rendered(SqlFolder(self.settings.sql_dir), source.clinic_id)
        timeouts = self.settings.timeouts
        with Workspace(self.database, **timeouts) as workspace:
            target, refusals = target_of(workspace, self.clinic_db, other_database=wish.other_database)
            comparison = _Comparison(workspace, backup.manifest, wish, queries, target, refusals)
            comparison.choose()
            self.on_step("reading the clinic as it is")
            with Snapshot(self.database, same_as=workspace.export(), **timeouts) as reader:
                comparison.stage(Staging(workspace, reader, queries), lambda wanted: self.archives.read(backup, wanted))
            self.on_step("comparing")
            comparison.compare()
            yield comparison


class _Comparison:
    """The two states of a clinic, in one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        manifest: Manifest,
        wish: Wish,
        queries: Mapping[str, str],
        target: Target,
        refusals: Sequence[Refusal],
    ) -> None:
        self.workspace, self.queries, self.manifest, self._wish = workspace, queries, manifest, wish
        self._target = target
        self._shapes: dict[str, Shape] = {}
        self._staged: dict[str, Staged] = {}
        self._refusals: list[Refusal] = [*refusals]
        self._notes: dict[str, list[str]] = {}
        self._tables: dict[str, Table] = {}
        self.diffs: dict[str, TableDiff] = {}
        self.order: list[str] = []
        self.quiet_tables: list[str] = []

    def choose(self) -> None:
        """Which tables take part, and how their columns fit."""
        contents = self.manifest.tables
        if unknown := sorted(set(self._wish.tables) - set(contents)):
            raise SettingsError(
                f"The backup has no table {', '.join(unknown)}.", hint=f"It has {', '.join(sorted(contents))}."
            )
        wanted = [name for name in contents if not self._wish.tables or name in self._wish.tables]
        there = self.workspace.relations()
        for name in wanted:
            if name not in there:
                self._refuse(name, f"{name} is in the backup, and there is no such table now.", "Make the table again.")
            elif name not in self.queries:
                self._refuse(
                    name,
                    f"{name} is in the backup, and has no extract now.",
                    f"Bring include/sql/extract/{name.removeprefix('public.')}.sql back, or restore without the table.",
                )
        for name in sorted(set(self.queries) - set(contents)):
            if not self._wish.tables:
                self._notes[name] = [f"{name} was added since the backup: its rows are left as they are."]
        wanted = [name for name in wanted if name in there and name in self.queries]
        children = {child for child, parent in self.workspace.references() if parent in wanted}
        self._tables = self.workspace.tables(sorted({*wanted, *children}))
        for name in wanted:
            shape = fit(contents[name].table, self._tables[name], ignore_dropped=self._wish.ignore_dropped)
            if isinstance(shape, Refusal):
                self._refusals.append(shape)
            else:
                self._shapes[name] = shape

    def stage(self, staging: Staging, read_archives: Callable[[Wanted], object]) -> None:
        """Load what differs."""
        for index, (name, shape) in enumerate(self._shapes.items()):
            self._staged[name] = staging.stage_present(index, shape, self.manifest.tables[name])
        with WantedLoader(self.workspace, self._staged) as wanted:
            read_archives(wanted)

    def compare(self) -> None:
        """Compute what is to be written, and what stands in the way."""
        for name, staged in self._staged.items():
            if self._cast(staged):
                self.diffs[name] = compute(self.workspace, staged, self._wish.mode)
        self.order, cycles = checks.order(self.diffs, self._tables)
        self._refusals += cycles
        self._refusals += checks.Checks(self.workspace, self.diffs, self._tables).run()
        for name, (triggers, may) in checks.triggers(self.workspace, self.diffs).items():
            how = "are turned off meanwhile" if may else "will fire: this role may not turn them off"
            self._notes.setdefault(name, []).append(f"The table's triggers {how}: {', '.join(triggers)}.")
            if may:
                self.quiet_tables.append(name)

    @property
    def plan(self) -> RestorePlan:
        """What came out."""
        tables = tuple(
            replace(diff.plan, notes=(*diff.plan.notes, *self._notes.get(name, ())))
            for name, diff in self.diffs.items()
        ) + tuple(TablePlan(name, notes=tuple(notes)) for name, notes in self._notes.items() if name not in self.diffs)
        return RestorePlan(
            clinic_id=self.manifest.clinic.id,
            clinic_name=self.manifest.clinic.name,
            backup_id=self.manifest.backup_id,
            snapshot_at=self.manifest.snapshot_at,
            mode=self._wish.mode,
            tables=tables,
            refusals=tuple(self._refusals),
            digest=digest_of(
                {name: diff.digest for name, diff in self.diffs.items()}
                | {"backup": self.manifest.backup_id, "mode": self._wish.mode, "target": self._target.identity}
                | {f"refusal {number}": refusal.message for number, refusal in enumerate(self._refusals)}
            ),
            target=self._target,
        )

    @property
    def rows_now(self) -> dict[str, int]:
        """How many rows the clinic has in each table that is compared."""
        return {
            name: staged.matched
            + self.workspace.rows(
                sql.SQL("SELECT count(*) FROM {}").format(staged.present), None, f"counting the rows of {name}"
            )[0][0]
            for name, staged in self._staged.items()
        }

    def _cast(self, staged: Staged) -> bool:
        """Give retyped columns their new types; returns whether all their values can be."""
        types = {column.name: column.type for column in staged.shape.now.columns}
        for name in staged.shape.retyped:
            statement = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING {column}::{type}").format(
                table=staged.wanted, column=sql.Identifier(name), type=sql.SQL(types[name])
            )
            try:
                with self.workspace.attempt():
                    self.workspace.execute(statement, f"casting {staged.shape.name}.{name} to {types[name]}")
            except ClinicBackupsError as error:
                self._refuse(
                    staged.shape.name,
                    f"Values of {staged.shape.name}.{name} in the backup are no {types[name]}: {error.message}",
                    "Change the column's type back for the time of the restore.",
                )
                return False
        return True

    def _refuse(self, table: str, message: str, hint: str) -> None:
        self._refusals.append(Refusal(table, message, hint))


def refused(plan: RestorePlan) -> PermanentError:
    """Every refusal of a plan as one error."""
    lines = [f"- {refusal.message}\n  HINT: {refusal.hint}" for refusal in plan.refusals]
    return PermanentError(
        "\n".join([f"The restore of clinic {plan.clinic_id} from {plan.backup_id} is not possible:", *lines]),
        hint="Nothing was changed.",
    )


def _summary(plan: RestorePlan) -> str:
    def total(operation: Callable[[TablePlan], int]) -> int:
        return sum(map(operation, plan.tables))

    return (
        f"{total(lambda table: table.insert)} rows to insert, {total(lambda table: table.update)} to update,"
        f" {total(lambda table: table.delete)} to delete"
    )
