"""Recovers the whole service into an empty database, step by step. Each step is noted in the target when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg2 import sql

from clinic_backups.archive.bounds import RATIO
from clinic_backups.archive.reader import Manifest
from clinic_backups.base.clinic_id import ClinicId, in_shell
from clinic_backups.base.connections import Connection
from clinic_backups.base.database import qualified
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import NOBODY, Listener
from clinic_backups.base.plain import iso
from clinic_backups.base.shared_unit import SEQUENCES, SQL, is_shared, named
from clinic_backups.base.table import Table
from clinic_backups.recovery import duplicates, finishing, locales, notes, old_rows, target
from clinic_backups.recovery.choice import Choice, Chooser, Plan
from clinic_backups.recovery.definition import Definition
from clinic_backups.recovery.duplicates import Replaced
from clinic_backups.recovery.files import deleted_before, require_usable, without_backup
from clinic_backups.recovery.fitting import Described, changes
from clinic_backups.recovery.load import Loaded
from clinic_backups.recovery.proof import sql_folder
from clinic_backups.recovery.proofs import Proof
from clinic_backups.recovery.report import Report
from clinic_backups.recovery.session import Session, Unfinished
from clinic_backups.recovery.work import Work
from clinic_backups.restore.archives import Archives, Fetched, Source
from clinic_backups.restore.leaving_out import Leaving, leaving_out
from clinic_backups.restore.requests_in_stores import NOTHING, Forgetful
from clinic_backups.restore.table_rules import Reference
from clinic_backups.tenant.drift import Drift
from clinic_backups.tenant.extract import SqlFolder

_ROWS = "rows"


class Recovery:
    """One recovery. A context manager: it holds the target's lock.

    :param connection: the target.
    :param jobs: how many units, tables and sessions of pg_restore are worked on at once.
    :param tools: the folder of PostgreSQL's programs, if it is not to be looked for.
    :param definition: a file with the definition, if the archive has none.
    :param sql_dir: the SQL folder, if the archive has none.
    :param forgotten: says what must not come back.
    :ivar begun: what an interrupted run wanted.
    """

    def __init__(
        self, connection: Connection, archives: Archives, *, jobs: int, tools: Path | None = None,
        definition: Path | None = None, sql_dir: Path | None = None, unpack_ratio: int = RATIO,
        listener: Listener = NOBODY, forgotten: Forgetful = NOTHING,
    ) -> None:  # fmt: skip
        self._connection, self._archives, self._jobs = connection, archives, jobs
        self._tools, self._given, self._sql_dir, self._ratio = tools, definition, sql_dir, unpack_ratio
        self._listener, self._forgotten = listener, forgotten
        self._leaving: dict[ClinicId, Leaving] = {}
        self._drift, self._described = Drift(), Described()
        self._keys: Sequence[Reference] = ()
        self._manifests: dict[ClinicId, Manifest] = {}
        self._positions: dict[ClinicId, bytes] = {}
        self._known_tables: dict[Table, Table] = {}
        self._work = Work(connection, jobs, listener)
        self._failed: dict[ClinicId, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._locked = stack.enter_context(Session(self._connection))
            self._version = target.require_primary(self._locked)
            notes.lock(self._locked)
            self.begun = notes.begun(self._locked)
            if self.begun is None:
                target.require_empty(self._locked)
            else:
                target.end_leftovers(self._locked)
            self._locked.commit("looking at the target")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def loaded(self) -> frozenset[str]:
        """The units that an interrupted run has loaded."""
        if self.begun is None:
            return frozenset()
        with Session(self._connection) as session:
            return frozenset(notes.units(session)) & self.begun.backups.keys()

    def run(
        self, plan: Plan, chooser: Chooser, *, only: Iterable[ClinicId] = (), allow_missing: bool = False
    ) -> Report:
        """Recover. :raises PermanentError: something is missing and not allowed to be; then nothing was touched."""
        self._check(plan, chooser)
        files: Mapping[str, bytes] = {}
        of_shared: Manifest | None = None
        if plan.shared.envelope is not None:
            of_shared = self._archives.fetch(self._source(plan.shared)).manifest
            files = of_shared.files
            require_usable(files, plan.shared.envelope.backup_id)
        only = list(only)
        missing = [*plan.missing(), *self._forgotten.problems, *(() if only else without_backup(files, plan))]
        if missing and not allow_missing:
            raise PermanentError(
                "The service cannot be recovered whole:",
                *(f"- {problem}" for problem in missing),
                hint="Nothing was changed. With --allow-missing the next older backup is taken, or none.",
            )
        self._require_same(plan)
        with ExitStack() as stack:
            definition = stack.enter_context(
                Definition.opened(files, folder=self._tools, at_least=self._version, instead=self._given)
            )
            target.require_version(self._version, definition.dump.server_version)
            with Session(self._connection) as session:
                noted = locales.require_same(session, locales.Locale.in_dump(definition.dump.database()))
            no_folder = SQL not in files and self._sql_dir is not None
            folder = SqlFolder(self._sql_dir) if no_folder and self._sql_dir else stack.enter_context(sql_folder(files))
            self._drift = folder.drift()
            self._described = Described.of(of_shared if self._given is None else None, self._drift)
            self._keys = definition.foreign_keys() if self._forgotten.records else ()
            report = self._recover(plan, definition, folder, [str(unit) for unit in only], missing, allow_missing)
            report.left += [*noted, *(Unfinished(text) for text in deleted_before(files, plan))]
            return report

    def finish(self) -> None:
        """Remove the notes: nothing can go on afterwards. To be called when somebody has the report."""
        self._removing.commit("removing the notes of the recovery")

    def _recover(
        self, plan: Plan, definition: Definition, folder: SqlFolder, only: list[str], missing: list[str],
        allow_missing: bool,
    ) -> Report:  # fmt: skip
        with Session(self._connection) as session:
            report = Report(session.database(), plan, missing=missing, forgotten=list(self._forgotten.said))
        left = self._work.step(
            "definitions", lambda session: self._definitions(session, definition, plan, only, allow_missing)
        )
        self._work.step("checks that call functions", old_rows.take_away_calling)
        self._work.timed(_ROWS, lambda: self._rows(plan, allow_missing))
        report.replaced = self._work.timed("rows that came twice", self._duplicates)
        left += self._work.step(
            "columns that may not be NULL", lambda session: _json(old_rows.make_not_nulls_again(session))
        )
        left += self._work.step(
            "indexes and constraints",
            lambda session: _json(
                [*definition.make_after(self._connection, self._jobs), *old_rows.make_checks_again(session)]
            ),
        )
        report.sequences = self._work.step(
            "sequences", lambda session: definition.set_sequences(session, self._positions.values())
        )
        newer = [self._positions.get(each.unit) for each in plan.taken if plan.is_newer_than_shared(each)]
        left += self._work.step(
            "sequences of no column", lambda session: _json(definition.uncertain_sequences(session, newer))
        )
        unmade = [each["sql"] for each in left]
        left += self._work.step("materialized views", lambda session: _json(finishing.refresh_views(session, unmade)))
        report.left = [Unfinished(**each) for each in left]
        report.left += self._work.timed("columns that were changed since", self._changes)
        with Session(self._connection) as session:
            kinds, loaded = finishing.tables(session), notes.units(session)
        report.tables = dict(
            zip(kinds, self._work.timed("statistics", lambda: self._work.at_once(self._analyze, kinds)), strict=True)
        )
        proof = Proof(
            self._connection, folder, self._manifests, report.replaced, self._failed, self._leaving, self._listener
        )
        report.units = self._work.timed("proof", lambda: proof.of_all(plan.taken, self._work.at_once))
        for unit in report.units:
            unit.seconds = loaded.get(str(unit.choice.unit), 0.0)
        report.empty, report.problems = proof.empty(name for name, is_view in kinds.items() if not is_view)
        report.steps = self._work.seconds
        self._removing = self._stack.enter_context(Session(self._connection))
        report.left += finishing.remove_notes(self._removing)
        return report

    def _check(self, plan: Plan, chooser: Chooser) -> None:
        """Read all archives that are not loaded yet, before anything is touched."""
        loaded = self.loaded()

        def check(choice: Choice) -> None:
            while choice.envelope is not None:
                try:
                    self._archives.require_stored(self._source(choice))
                    return
                except PermanentError as error:
                    chooser.next_best(plan, choice, error.message)

        waiting = [choice for choice in plan.taken if str(choice.unit) not in loaded]
        self._work.timed("checking the archives", lambda: self._work.at_once(check, waiting))

    def _require_same(self, plan: Plan) -> None:
        """:raises PermanentError: an interrupted run wanted other backups."""
        if self.begun is None or self.begun.backups == plan.ids:
            return
        differing = sorted(
            unit for unit in self.begun.backups.keys() | plan.ids
            if self.begun.backups.get(unit) != plan.ids.get(unit)
        )  # fmt: skip
        first = differing[0]
        raise PermanentError(
            f"An interrupted recovery of this database used other backups, for {len(differing)} units. For {first} it"
            f" used {self.begun.backups.get(first, 'none')}, and this one would use {plan.ids.get(first, 'none')}.",
            hint=f"Run it with the same options as before: it was as of {self.begun.as_of}"
            + (f", of the clinics {', '.join(self.begun.only)}" if self.begun.only else "")
            + ". To begin anew, make a new database.",
        )

    def _definitions(
        self, session: Session, definition: Definition, plan: Plan, only: list[str], allow_missing: bool
    ) -> list[dict[str, Any]]:  # fmt: skip
        notes.begin(session, notes.Begun(iso(plan.as_of), only, plan.ids))
        left = definition.make_before(session)
        if not allow_missing:
            wanted = {name for choice in plan.taken if choice.envelope for name, n in choice.envelope.rows.items() if n}
            target.require_tables(session, wanted, [each.what for each in left if each.is_problem])
        held = {name for choice in plan.taken if choice.envelope for name in choice.envelope.rows}
        target.empty_tables_of_extensions(session, held)
        return _json(left)

    def _rows(self, plan: Plan, allow_missing: bool) -> None:
        """Load all units, the largest first. Nothing is loaded after the step was noted: triggers would fire."""
        with Session(self._connection) as session:
            done, noted = notes.units(session), notes.steps(session).get(_ROWS)
        given_up = noted[1] if noted else {}
        self._failed = {
            choice.unit: given_up[str(choice.unit)] for choice in plan.taken if str(choice.unit) in given_up
        }
        largest = sorted(plan.taken, key=lambda choice: sum(choice.envelope.rows.values()) if choice.envelope else 0)
        count = 0

        def one(choice: Choice) -> None:
            nonlocal count
            began = time.monotonic()
            fetched = self._fetched(choice)
            self._leave_out_and_load(
                choice, fetched, began, allow_missing, is_done=noted is not None or str(choice.unit) in done
            )
            count += 1
            self._listener.step(f"loaded {named(choice.unit)}, {count} of {len(largest)}")

        self._work.at_once(one, reversed(largest))
        if noted is None:
            with Session(self._connection) as session:
                notes.note_step(session, _ROWS, 0, {str(unit): why for unit, why in self._failed.items()})
                session.commit("noting that the rows are loaded")

    def _leave_out_and_load(
        self, choice: Choice, fetched: Fetched, began: float, allow_missing: bool, *, is_done: bool
    ) -> None:  # fmt: skip
        source = self._source(choice)

        def note(session: Session, loaded: Loaded) -> None:
            assert choice.envelope is not None  # noqa: S101 - only such choices are loaded
            notes.note_unit(
                session, str(choice.unit), choice.envelope.backup_id, choice.data_at, loaded.transaction,
                dict(loaded.rows), time.monotonic() - began,
            )  # fmt: skip

        try:
            requests = self._forgotten.of_clinic(choice.unit)
            leaving = leaving_out(self._archives, fetched, requests, self._drift, links=self._keys)
            if leaving is not None:
                self._leaving[choice.unit] = leaving
            if not is_done:
                self._described.require_fitting(self._manifests[choice.unit])
                old_rows.load_as_far(self._connection, self._archives, fetched, note=note, leaving=leaving)
        except PermanentError as error:
            if not allow_missing:
                raise
            self._failed[choice.unit] = (
                f"Nothing of it was loaded. {error.message} Restore it afterwards: clinic-backups restore --clinic"
                f" {in_shell(choice.unit)} --archive {source.archive.key}"
            )

    def _changes(self) -> list[Unfinished]:
        loaded = [manifest for unit, manifest in self._manifests.items() if unit not in self._failed]

        def rows(manifest: Manifest, table: str) -> int:
            leaving = self._leaving.get(manifest.clinic.id)
            return manifest.tables[table].rows - (leaving.rows.get(table, 0) if leaving else 0)

        with Session(self._connection) as session:
            return changes(session, loaded, self._described, rows)

    def _fetched(self, choice: Choice) -> Fetched:
        fetched = self._archives.fetch(self._source(choice))
        manifest = fetched.manifest
        require_usable(manifest.files, manifest.backup_id)
        # The definitions of tables are the same in most backups: each is kept once.
        tables = {
            name: replace(content, table=self._known_tables.setdefault(content.table, content.table))
            for name, content in manifest.tables.items()
        }
        if SEQUENCES in manifest.files and not is_shared(choice.unit):
            self._positions[choice.unit] = manifest.files[SEQUENCES]
        self._manifests[choice.unit] = replace(manifest, tables=tables, files={})
        return fetched

    def _source(self, choice: Choice) -> Source:
        assert choice.envelope is not None  # noqa: S101 - only such choices are read
        return Source.of(choice.envelope, self._ratio)

    def _duplicates(self) -> list[Replaced]:
        keys: dict[str, tuple[str, ...]] = {}
        units: dict[str, int] = {}
        rows: dict[str, int] = {}
        for manifest in self._manifests.values():
            for name, content in manifest.tables.items():
                if content.rows and content.table.primary_key:
                    keys[name] = tuple(content.table.primary_key)
                    units[name] = units.get(name, 0) + 1
                    rows[name] = rows.get(name, 0) + content.rows

        def one(name: str) -> list[Replaced]:
            found = self._work.noted(
                f"rows of {name} that came twice",
                lambda session: [each.to_json() for each in duplicates.keep_newest(session, name, keys[name])],
            )
            replaced = [Replaced(**each) for each in found]
            if duplicates.is_much(replaced, rows[name]):
                self._work.noted(f"{name} is written anew", lambda _: self._write_anew(name))
            return replaced

        several = [name for name in keys if units[name] > 1]
        return [each for found in self._work.at_once(one, several) for each in found]

    def _write_anew(self, table: str) -> None:
        with Session(self._connection) as session:
            session.run_alone(sql.SQL("VACUUM (FULL) {}").format(qualified(table)), f"writing {table} anew")

    def _analyze(self, table: str) -> int:
        with Session(self._connection) as session:
            return finishing.analyze(session, table)


def _json(left: list[Unfinished]) -> list[dict[str, Any]]:
    return [each.to_json() for each in left]
