"""Compares two states of a clinic in one workspace: finds differences and obstacles, and writes the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg2 import sql

from clinic_backups.archive.writer import PARENT
from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import is_taken
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.table import Table
from clinic_backups.catalog.forgotten import ForgottenOfClinic
from clinic_backups.restore import former_parts, parent_tables, plan_digest, table_notes
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.called_functions import CalledFunction, called_functions
from clinic_backups.restore.choose_tables import ChosenTables
from clinic_backups.restore.columns import row_keys
from clinic_backups.restore.columns.casts import Converted, convert, fill_nulls
from clinic_backups.restore.columns.migrated import Migrated
from clinic_backups.restore.columns.shape import Shape
from clinic_backups.restore.diff import TableDiff, compute, seal
from clinic_backups.restore.forgotten_rows import Forgetting
from clinic_backups.restore.links_between import LinksBetween
from clinic_backups.restore.links_inside import links_inside
from clinic_backups.restore.ownership.adopt import Left, adopt
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.picked_rows import PickedRows
from clinic_backups.restore.plan import Refusal, RestorePlan, TablePlan, Target, digest_of
from clinic_backups.restore.read_settings import settings_read
from clinic_backups.restore.refusals import Checks
from clinic_backups.restore.request import Wish, digest_of_rows
from clinic_backups.restore.row_sets import ReadArchives
from clinic_backups.restore.sequences import find_sequences
from clinic_backups.restore.staging import Staged, Staging, WantedLoader, compute_keys
from clinic_backups.restore.table_rules import Reference, TableRules
from clinic_backups.restore.unit_sql import SharedFolder
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.derived import Derived, in_the_way
from clinic_backups.restore.writing.live import again, digest_of_moment, leave_changed, moment_of
from clinic_backups.restore.writing.proof import Proof
from clinic_backups.restore.writing.quiet_triggers import Quiet, decide
from clinic_backups.restore.writing.rehearsal import explain, of_untold
from clinic_backups.restore.writing.write_and_prove import Writing
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.outside import Outside
from clinic_backups.tenant.strangers import strangers_code
from clinic_backups.tenant.tenant_db import Snapshot


@dataclass(frozen=True)
class Present:
    """The present state that a restore saw before it wrote.

    :param snapshot: the name of the exported snapshot.
    :param rows: the number of the clinic's rows that each table has in it.
    :param outside: those of them that no extract returns.
    :param chosen: the restored tables, if they are not all.
    """

    snapshot: str
    rows: Mapping[str, int]
    outside: Mapping[str, Outside]
    chosen: Sequence[str] = ()


class Comparison:
    """One restore, from its tables to its writing; see :class:`~clinic_backups.restore.clinic_restore.ClinicRestore`.

    :param connection: the workspace's connection data, for a second transaction.
    :param migrated: the backup under the present names.
    :param queries: the extract of each table, rendered for the clinic.
    :param target: the database, as its server describes it; ``refusals`` say what is wrong with it.
    :param folder: the SQL folder, with the declarations in ``not_backed_up.txt``.
    :param ways: how rows lead to the clinic.
    :param as_text: every value of the backup was loaded as a text.
    :param since: for the mode ``live``: the approved plan. Rows that changed since then are left as they are.
    :param of_itself: notes about the backup that people need.
    :param read_elsewhere: the backup was read from another database.
    :param forgotten: the rows that must not come back; none if there is no catalog that knows them.
    """

    WHOLE = False
    """Whether all rows of both sides are loaded, and not only those that differ."""

    def __init__(
        self,
        workspace: Workspace,
        connection: Connection,
        migrated: Migrated,
        wish: Wish,
        queries: Mapping[str, str],
        *,
        target: Target,
        refusals: Sequence[Refusal] = (),
        folder: SqlFolder,
        ways: Ways,
        as_text: bool = False,
        since: RestorePlan | None = None,
        of_itself: Sequence[str] = (),
        read_elsewhere: bool = False,
        forgotten: ForgottenOfClinic | None = None,
    ) -> None:
        self._of_itself, self._read_elsewhere = tuple(of_itself), read_elsewhere
        self._since, self._target, self._ways = since, target, ways
        self.workspace, self.queries, self.manifest, self._migrated = workspace, queries, migrated.manifest, migrated
        self._connection, self._wish, self._as_text = connection, wish, as_text
        self.folder, self._declared = folder, folder.declarations()
        self._parents = parent_tables.of_backup(self.manifest.tables, folder.parents())
        self._shapes: dict[str, Shape] = {}
        self._staged: dict[str, Staged] = {}
        self._refusals: list[Refusal] = [*refusals]
        self._outside: dict[str, Outside] = {}
        self._notes: dict[str, list[str]] = {}
        self._tables: dict[str, Table] = {}
        self._rules: dict[str, TableRules] = {}
        self._references: tuple[Reference, ...] = ()
        self._between = LinksBetween(workspace, migrated.manifest.tables, ways, migrated.names, migrated.named_then)
        self._links: tuple[Reference, ...] = ()
        """Foreign keys of the chosen tables, those that they had in the backup, and columns named like one."""
        self._for_forgotten: tuple[Reference, ...] = ()
        """Further links, which count only for rows that must not come back."""
        self._former: former_parts.Former = {}
        self._derived: list[Derived] = []
        self._sequences = find_sequences.FoundSequences()
        self._quiet = Quiet("nothing")
        self._require_no_strangers: Callable[[Snapshot], object]
        self._read_archives: ReadArchives
        self._converted: dict[str, Converted] = {}
        self._parts: dict[str, str] = {}
        self._moment: dict[str, Any] = {}
        self._picked_parts: dict[str, str] = {}
        self._inside: frozenset[Reference] = frozenset()
        """Foreign keys by which the written rows refer only to rows that come back with them."""
        self._rewritten: set[str] = set()
        """Parent tables some of whose rows get NULL in a column."""
        self._forgetting = Forgetting(forgotten or ForgottenOfClinic({}), migrated)
        self._kept: dict[str, int] = {}
        """For each parent table, how many rows are there with other values."""
        self.diffs: dict[str, TableDiff] = {}

    def choose(self) -> None:
        """Choose the tables that the restore includes, and match their columns."""
        reached = self._between.reached(
            self._wish.rows, only=self._wish.only, parents=self._parents, declared=self._declared.columns
        )
        if reached and self._forgetting.parts:
            reached = self._forgetting.with_needed(reached, self._between.every())
        wish = replace(self._wish, tables=self._wish.tables or reached)
        choice = ChosenTables(self.workspace, self._migrated, wish, self.queries, self._target, self._ways, self.folder)
        choice.choose()
        self._refusals += choice.refusals
        self._notes, self._shapes, self._tables = choice.notes, choice.shapes, choice.tables
        self._rules, self._references, self._former = choice.rules, choice.references, choice.former
        for name in sorted(self._parents & self._shapes.keys()):
            if not self._shapes[name].key:
                self._refusals.append(parent_tables.without_key(name))
                del self._shapes[name]
                continue
            if isinstance(self.folder, SharedFolder):
                continue  # it is said once, of all tables
            for note in parent_tables.notes(name, self.manifest.tables[name], self.folder.parents()):
                self._note(name, note)
        self._require_no_strangers = choice.require_no_strangers
        others = (*self._ways.named, *self._between.former(self._references))
        self._links = self._between.followed(self._references, self._shapes)
        if self._forgetting.parts:
            self._for_forgotten = self._between.for_forgotten(self._links, self._shapes)
        named = (*others, *self._for_forgotten)
        self._refusals += self._forgetting.look(self.workspace, self._shapes, named)

    def stage(self, staging: Staging, read_archives: Callable[[Wanted], object]) -> None:
        """Load the rows that differ, or all of them."""
        self._read_archives = read_archives
        for index, (name, shape) in enumerate(self._shapes.items()):
            self._staged[name] = staging.stage_present(
                index,
                shape,
                self.manifest.tables[name],
                whole=self._is_whole or name in self._parents | self._forgetting.concerned,
            )
        with WantedLoader(self.workspace, self._staged) as wanted:
            read_archives(wanted)
        self._staged = {name: staging.finish(staged) for name, staged in self._staged.items()}
        self.workspace.seals.keep(*(staged.wanted for staged in self._staged.values()))

    @property
    def _is_whole(self) -> bool:
        """Rows that did not change may lead from a named row to one that is missing."""
        return self.WHOLE or bool(self._wish.rows)

    def compare(self) -> None:
        """Compute the operations and the obstacles."""
        converted = self._convert()
        links = (*self._links, *self._for_forgotten)
        self._forgetting.take_out(self.workspace, converted, links, self._note)
        if any(self._forgetting.left_out.values()):
            self._note_generic(converted, table_notes.FORGET_TOO)
        sides = [(side, each.shape.key) for each in converted.values() for side in (each.wanted, each.present)]
        self.workspace.analyze("analyzing both sides of the comparison", *sides)
        self._adopt({name: staged for name, staged in converted.items() if name not in self._parents})
        self.workspace.seals.require()
        if self._wish.rows:
            converted = self._pick(converted)
        for name, staged in converted.items():
            self._compute(name, staged)
        for name in sorted(self._parents & self.diffs.keys()):
            outside = self._declared.columns
            for note in parent_tables.empty_outside(self.workspace, self.diffs, name, self._references, outside):
                self._note(name, note)
                self._rewritten.add(name)
        if self._since is not None:
            for name in self.diffs:
                self._leave_changed(name, self._since)
        # All at once: what code of the database did to one meanwhile is in the server's counts.
        seal(self.workspace, self.diffs.values())
        if self._since is not None:
            self._keep_derived(self._since)
            self._leave_impossible()
        self._look_around()

    def _convert(self) -> dict[str, Staged]:
        """Give the backup's rows the present types. Returns the tables that can be compared."""
        converted: dict[str, Staged] = {}
        for name, staged in self._staged.items():
            self._converted[name] = convert(self.workspace, staged, as_text=self._as_text)
            if self._converted[name].refusals:
                self._refusals += self._converted[name].refusals
                continue
            for note in (*self._converted[name].notes, *fill_nulls(self.workspace, staged)):
                self._note(name, note)
            compute_keys(self.workspace, staged.wanted, staged.shape)
            if untold := list(row_keys.refusals(self.workspace, staged)):
                self._refusals += untold
                continue
            converted[name] = staged
        return converted

    def _compute(self, name: str, staged: Staged) -> None:
        if name in self._parents:
            self.diffs[name], self._kept[name] = parent_tables.compute(self.workspace, staged)
        else:
            self.diffs[name] = compute(self.workspace, staged, self._wish.mode, self._references)
        self._note(name, table_notes.filled(self.diffs[name]))
        if self.diffs[name].plan.insert and not staged.shape.key and name in self._declared.rows:
            self._note(name, table_notes.beside(self.diffs[name]))
        elif self.diffs[name].plan.insert and not staged.shape.key and self._wish.rows:
            self._note(name, table_notes.beside_changed())

    def _pick(self, staged: Mapping[str, Staged]) -> dict[str, Staged]:
        """The tables of the named rows and of what hangs on them, with these rows alone."""
        rows = {name: keys for name, keys in self._wish.rows.items() if name in staged}
        if len(rows) < len(self._wish.rows):
            return {}  # a refusal says why
        links = self._between.for_named(self._links, self._shapes, self._declared.columns)
        picked = PickedRows(self.workspace, staged, links, self._parents, self._between.heirs)
        found, refusals = picked.pick(rows, only=self._wish.only, note=self._note)
        self._refusals += refusals
        self._picked_parts = picked.parts
        for link in self._between.not_followed(links, self._declared.columns):
            if link.child in found or (link.parent in found and not self._wish.only):
                self._note(link.child, table_notes.only_named(link.child, link.parent, link.columns))
        if not self._wish.only:
            self._note_generic(self.manifest.tables.keys() - self._parents, table_notes.NAME_TOO)
        return found

    def _note_generic(self, names: Collection[str], what: str) -> None:
        """Name the tables with links that nobody can follow, so that a plan does not look complete."""
        for name in sorted(names):
            for pair in self._between.generic(name):
                self._note(name, table_notes.named_by_type(name, pair, what))

    def _adopt(self, staged: Mapping[str, Staged]) -> None:
        for name, found in adopt(self.workspace, staged, self._ways, self._references):
            if isinstance(found, Left):
                if not self._wish.rows:
                    self._note(name, table_notes.not_told(found.rows))
                continue
            self._outside[name] = self._outside.get(name, Outside()) + found
            if found.changed and not self._wish.rows:
                self._note(name, table_notes.adopted(found.changed, self._wish.mode, left_out=name in self._loose))

    @property
    def _loose(self) -> set[str]:
        """Tables whose extract does not return all rows of the clinic, by declaration or by the backup itself."""
        return {
            name
            for name, content in self.manifest.tables.items()
            if name not in self._parents and (name in self._declared.rows or content.outside)
        }

    def _leave_changed(self, name: str, since: RestorePlan) -> None:
        self.diffs[name], left = leave_changed(
            self.workspace, self.diffs[name], since.moment, since.parts.get(name), self._references,
            converted=bool(self._converted[name].how),
        )  # fmt: skip
        if left:
            self._note(name, table_notes.left_changed(left))

    def _keep_derived(self, since: RestorePlan) -> None:
        """Treat a derived table as any other if the plan does not delete such rows, or some were written since then."""
        found = in_the_way(
            self.workspace, self.diffs, self._references, self._declared.derived, str(since.moment["snapshot"])
        )
        kept = {each.table for each in found if not each.is_in(since.parts)}
        if kept:
            derived = {table: why for table, why in self._declared.derived.items() if table not in kept}
            self._declared = replace(self._declared, derived=derived)

    def _leave_impossible(self) -> None:
        """Leave out operations that were possible in the plan, but are not because of rows that were left out."""
        left: Counter[str] = Counter()
        while found := self._checks().leave():
            left += found
            for name in found:
                self.diffs[name] = again(self.workspace, self.diffs[name], self._references)
            seal(self.workspace, [self.diffs[name] for name in found])
        for name, count in left.items():
            self._note(name, table_notes.left_impossible(count))

    def _checks(self) -> Checks:
        # A refusal because of a reference to a refused table is only a consequence, and is not listed.
        refused = {refusal.table for refusal in self._refusals} - self.diffs.keys()
        references = [each for each in self._references if not {each.child, each.parent} & refused]
        return Checks(self.workspace, self.diffs, self._tables, references, self._declared, self._ways, self._former,
                      where=self._target.name, parents=self._parents, inside=self._inside)  # fmt: skip

    def _look_around(self) -> None:
        workspace, diffs, references = self.workspace, self.diffs, self._references
        self._inside = links_inside(workspace, diffs, references)
        refusals = list(self._checks().run())
        if refusals and self._inside:
            # A row that stands in the way may be referred to as well, and all of it is listed.
            self._inside = frozenset()
            refusals = list(self._checks().run())
        self._refusals += refusals
        for table, note in former_parts.notes(workspace, diffs, self._former):
            self._note(table, note)
        for table in former_parts.unknown(workspace, diffs, self._migrated):
            self._note(table, table_notes.unknown_parts())
        self._sequences = find_sequences.find(workspace, diffs)
        for table, note in self._sequences.notes:
            self._note(table, note)
        self._refusals += find_sequences.refusals(self._sequences.uses, workspace.role())
        self._derived = list(in_the_way(workspace, diffs, references, self._declared.derived))
        for derived in self._derived:
            self._note(derived.table, table_notes.derived_too(derived))
        self._quiet = decide(workspace, diffs, self._rules, references, self._derived)
        self._refusals += self._quiet.refusals()
        for name, note in self._quiet.notes().items():
            self._note(name, note)
        written = [*(name for name, diff in diffs.items() if diff.plan.writes), *(each.table for each in self._derived)]
        called = called_functions(workspace, written, self._quiet.triggers)
        self._say_whose_code(called)
        if self._wish.mode == "live" and self._since is None:
            self._moment = moment_of(workspace, diffs, {name for name in diffs if self._converted[name].how})
        self._parts = (
            plan_digest.said(self._notes, self._target)
            | plan_digest.triggers(self._quiet)
            | plan_digest.functions(called)
            | plan_digest.settings(settings_read(workspace, written, called) if written else {})
            | plan_digest.moved_sequences(self._sequences)
            | plan_digest.conversions(workspace, diffs, self._converted)
            | plan_digest.extracts(diffs, self.queries)
            | plan_digest.hooks(self.folder)
            | {name: diff.digest for name, diff in diffs.items()}
            | {"backup": self.manifest.backup_id, "mode": self._wish.mode, "target": self._target.identity}
            | {part: value for derived in self._derived for part, value in derived.parts.items()}
            | {f"moved past {sequence}": str(number) for sequence, number in self._sequences.past.items()}
            | {f"refusal {number}": refusal.message for number, refusal in enumerate(self._refusals)}
            | ({"rows": digest_of_rows(self._wish)} if self._wish.rows else {})
            | self._forgetting.parts
            | self._picked_parts
            | ({"moment": digest_of_moment(self._moment)} if self._moment else {})
            | {f"shape {name}": shape.digest for name, shape in self._shapes.items()}
            | {f"class {name}": PARENT for name in diffs if name in self._parents}
        )
        for name, count in self._kept.items():
            self._note(name, parent_tables.differing(count) if count else "")
        for table, note in self._sequences.beside:
            self._note(table, note)

    def _say_whose_code(self, called: Sequence[CalledFunction]) -> None:
        """Tell which functions of strangers are called by name only: their owner may have put them in the way."""
        runs = [each.oid for each in called if each.kind == "function" and not each.is_trigger]
        if not runs:
            return
        for each in strangers_code(self.workspace, self.queries, self.folder.clinic_table, functions=runs):
            self._note(next(iter(self.diffs)), each.noted)

    def present(self) -> Present:
        """The contents that the safety backup must have."""
        rows = {
            name: staged.matched
            + self.workspace.rows(
                sql.SQL("SELECT count(*) FROM {}").format(staged.present), None, f"counting the rows of {name}"
            )[0][0]
            for name, staged in self._staged.items()
        }
        # What people change in other tables is nobody's to take back.
        written = [name for name, diff in self.diffs.items() if diff.plan.writes] if self._wish.rows else []
        return Present(
            self.workspace.export(), rows, self._outside, tuple(dict.fromkeys([*self._wish.tables, *written]))
        )

    @property
    def writes(self) -> int:
        """Rows that would be written."""
        return sum(diff.plan.writes for diff in self.diffs.values())

    def rehearse(self) -> None:
        """Write, prove and roll back. A failure becomes a refusal.

        If somebody writes or holds the same rows at this moment, the rehearsal is not finished, and the plan says so.

        :raises TransientError: a later attempt may succeed.
        """
        if self._refusals:
            return
        written = [name for name, diff in self.diffs.items() if diff.plan.writes]
        try:
            rehearsed = self._writing.rehearse()
        except PermanentError as error:
            untold = of_untold(self.workspace, self.diffs, self._references)
            self._refusals.append(untold or explain(self.workspace, self.diffs, error, self._quiet))
        except TransientError as error:
            if not is_taken(error):
                raise
            self._note(written[0], table_notes.not_finished())
        else:
            for sequence, numbers in rehearsed.moved.items():
                self._note(written[0], table_notes.went_on(sequence, numbers))
            for name, count in rehearsed.hidden.items():
                self._note(name, table_notes.hidden(count))

    def write(self, listener: Listener) -> None:
        """See :meth:`Writing.write`."""
        self._writing.write(listener)

    @property
    def _writing(self) -> Writing:
        tables, loose = self.manifest.tables, self._loose
        return Writing(
            self.workspace,
            self._connection,
            self.diffs,
            self._references,
            quiet=self._quiet,
            derived=self._derived,
            found=self._sequences,
            require_no_strangers=self._require_no_strangers,
            inside=self._inside,
            proof=Proof(
                self.workspace,
                self._wish.mode,
                self.diffs,
                tables,
                self.queries,
                self._read_archives,
                loose=loose,
                parents=self._parents,
                with_extract=self._parents - self.folder.parents().keys(),
                rewritten=self._rewritten | self._forgetting.unlinked,
                left_out=self._forgetting.left_out,
            ),
        )

    @property
    def plan(self) -> RestorePlan:
        """The plan."""
        tables = tuple(
            replace(diff.plan, notes=(*diff.plan.notes, *self._notes.get(name, ())), is_parent=name in self._parents)
            for name, diff in self.diffs.items()
        ) + tuple(
            TablePlan(name, notes=tuple(notes), is_parent=name in self._parents)
            for name, notes in self._notes.items()
            if name not in self.diffs
        )
        return RestorePlan(
            clinic_id=self.manifest.clinic.id,
            clinic_name=self.manifest.clinic.name,
            backup_id=self.manifest.backup_id,
            snapshot_at=self.manifest.snapshot_at,
            mode=self._wish.mode,
            tables=tables,
            refusals=tuple(self._refusals),
            digest=digest_of(self._parts),
            parts=self._parts,
            moment=self._moment,
            target=self._target,
            notes=(
                *self._of_itself,
                *self._foreign_keys_elsewhere(),
                *self._parents_elsewhere(),
                *self._without_a_table(),
            ),
        )

    def _foreign_keys_elsewhere(self) -> list[str]:
        """In another database, rows of tables that no backup holds may have other keys."""
        if not self._read_elsewhere:
            return []
        written = {name for name, diff in self.diffs.items() if diff.plan.insert or diff.plan.update}
        parents = {each.parent for each in self._references if each.child in written} - self.manifest.tables.keys()
        return [table_notes.keys_of_elsewhere(sorted(parents))] if parents else []

    def _without_a_table(self) -> list[str]:
        """What the hints of refusals mean if rows are named: tables cannot be chosen then."""
        hints = [refusal.hint for refusal in self._refusals if "estore without" in refusal.hint]
        return [table_notes.WITHOUT_A_TABLE] if self._wish.rows and hints else []

    def _parents_elsewhere(self) -> list[str]:
        there = [name for name, diff in self.diffs.items() if name in self._parents and diff.plan.unchanged]
        return [parent_tables.there_elsewhere(there)] if there and self._read_elsewhere else []

    def _note(self, table: str, note: str) -> None:
        if note:
            self._notes.setdefault(table, []).append(note)
