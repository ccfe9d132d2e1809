"""The two states of a clinic in one workspace: what differs, what stands in the way, and the writing of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg2 import sql

from clinic_backups.base.connections import Connection
from clinic_backups.base.database import is_conflict, refusal_of
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.listening import Listener
from clinic_backups.base.model import Table
from clinic_backups.restore import sequences
from clinic_backups.restore.adopt import Left, adopt
from clinic_backups.restore.archives import Wanted
from clinic_backups.restore.casts import convert, fill_nulls
from clinic_backups.restore.checks import Checks
from clinic_backups.restore.choosing import Choice
from clinic_backups.restore.derived import Derived, in_the_way
from clinic_backups.restore.diff import TableDiff, compute
from clinic_backups.restore.kept import KeptColumns
from clinic_backups.restore.live import again, digest_of_moment, leave_changed, moment_of
from clinic_backups.restore.migrated import Migrated
from clinic_backups.restore.model import Refusal, RestorePlan, TablePlan, Target, Wish, digest_of
from clinic_backups.restore.proof import Proof, counted, definitions, only_planned, require_unchanged
from clinic_backups.restore.quiet import Quiet, decide
from clinic_backups.restore.references import ReferenceProof
from clinic_backups.restore.rehearsal import explain, of_untold
from clinic_backups.restore.rules import Reference, TableRules
from clinic_backups.restore.shape import Shape
from clinic_backups.restore.staging import Staged, Staging, WantedLoader
from clinic_backups.restore.ways import Ways
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.write import Writer, Writes
from clinic_backups.tenant.drift import FILE
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.outside import Outside


@dataclass(frozen=True)
class Present:
    """What a restore saw before it writes.

    :param snapshot: the name of the exported snapshot.
    :param rows: how many rows of the clinic each table has in it.
    :param outside: those of them that no extract gives.
    """

    snapshot: str
    rows: Mapping[str, int]
    outside: Mapping[str, Outside]


class Collided(PermanentError):
    """A constraint forbids what was rehearsed well: somebody has written at the same moment. Nothing was changed."""


class Comparison:
    """One restore, from its tables to its writing; see :class:`~clinic_backups.restore.service.ClinicRestore`.

    :param connection: the workspace's, for a second transaction.
    :param migrated: the backup, under the names of now.
    :param queries: the extract of each table, rendered for the clinic.
    :param target: the database, as its server says; ``refusals`` are what is wrong with it.
    :param folder: the SQL folder: also what somebody said of tables and columns in ``not_backed_up.txt``.
    :param ways: how rows lead to the clinic.
    :param as_text: every value of the backup was loaded as a text.
    :param since: of the mode ``live``: the plan that was approved. What changed since is left as it is.
    """

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
    ) -> None:
        self._since, self._target, self._ways = since, target, ways
        self.workspace, self.queries, self.manifest, self._migrated = workspace, queries, migrated.manifest, migrated
        self._connection, self._wish, self._as_text = connection, wish, as_text
        self._folder, self._declared = folder, folder.declarations()
        self._shapes: dict[str, Shape] = {}
        self._staged: dict[str, Staged] = {}
        self._refusals: list[Refusal] = [*refusals]
        self._outside: dict[str, Outside] = {}
        self._notes: dict[str, list[str]] = {}
        self._tables: dict[str, Table] = {}
        self._rules: dict[str, TableRules] = {}
        self._references: tuple[Reference, ...] = ()
        self._derived: list[Derived] = []
        self._sequences = sequences.Found()
        self._quiet = Quiet("nothing")
        self._parts: dict[str, str] = {}
        self._moment: dict[str, Any] = {}
        self.diffs: dict[str, TableDiff] = {}

    def choose(self) -> None:
        """Which tables take part, and how their columns fit."""
        choice = Choice(self.workspace, self._migrated, self._wish, self.queries, self._target, self._ways)
        choice.choose()
        self._refusals += choice.refusals
        self._notes, self._shapes, self._tables = choice.notes, choice.shapes, choice.tables
        self._rules, self._references = choice.rules, choice.references

    def stage(self, staging: Staging, read_archives: Callable[[Wanted], object]) -> None:
        """Load what differs."""
        for index, (name, shape) in enumerate(self._shapes.items()):
            self._staged[name] = staging.stage_present(index, shape, self.manifest.tables[name])
        with WantedLoader(self.workspace, self._staged) as wanted:
            read_archives(wanted)

    def compare(self) -> None:
        """Compute what is to be written, and what stands in the way."""
        converted: dict[str, Staged] = {}
        for name, staged in self._staged.items():
            if unfit := convert(self.workspace, staged, as_text=self._as_text):
                self._refusals += unfit
                continue
            for note in fill_nulls(self.workspace, staged):
                self._note(name, note)
            converted[name] = staged
        self._adopt(converted)
        for name, staged in converted.items():
            self.diffs[name] = compute(self.workspace, staged, self._wish.mode, self._references)
            self._note_filled(self.diffs[name])
            self._note_beside(self.diffs[name])
            if self._since is not None:
                self._leave_changed(name, self._since)
        if self._since is not None:
            self._leave_impossible()
        self._look_around()

    def _adopt(self, staged: Mapping[str, Staged]) -> None:
        for name, found in adopt(self.workspace, staged, self._ways, self._loose, self._wish.mode):
            if isinstance(found, Refusal):
                self._refusals.append(found)
                continue
            if isinstance(found, Left):
                self._note(name, _not_told(found.rows))
                continue
            if found.rows:
                self._outside[name] = self._outside.get(name, Outside()) + found
            if found.changed:
                self._note(name, _adopted(found.changed, self._wish.mode, left_out=name in self._loose))

    @property
    def _loose(self) -> set[str]:
        """Tables of which the extract does not give all rows of the clinic: as somebody says, or the backup itself."""
        return {
            name for name, content in self.manifest.tables.items() if name in self._declared.rows or content.outside
        }

    def _note_filled(self, diff: TableDiff) -> None:
        count, names = diff.plan.insert, [column for column, _ in diff.staged.shape.filled]
        if count and names:
            rows = "1 row that comes back gets" if count == 1 else f"{count:,} rows that come back get"
            self._note(diff.name, f"{rows} the values of {FILE} in: {', '.join(names)}.")

    def _note_beside(self, diff: TableDiff) -> None:
        """Without a key nothing tells that a row which the extract leaves out is one that comes back."""
        count = diff.plan.insert
        if count and not diff.staged.shape.key and diff.name in self._declared.rows:
            rows = "1 row that comes back" if count == 1 else f"{count:,} rows that come back"
            self._note(
                diff.name,
                f"{rows} may stand beside the same rows as they are now: the table has no primary key, and its extract"
                " leaves rows out.",
            )

    def _leave_changed(self, name: str, since: RestorePlan) -> None:
        self.diffs[name], left = leave_changed(
            self.workspace, self.diffs[name], since.moment, since.parts.get(name), self._references
        )
        if left:
            self._note(name, f"{left:,} row{'s' if left > 1 else ''} changed since the plan: left as they are now.")

    def _leave_impossible(self) -> None:
        """What was possible at the plan, and is not beside rows that were left, is left too."""
        left: Counter[str] = Counter()
        while found := self._checks().leave():
            left += found
            for name in found:
                self.diffs[name] = again(self.workspace, self.diffs[name], self._references)
        for name, count in left.items():
            self._note(
                name,
                f"{count:,} row{'s need' if count > 1 else ' needs'} others that changed since the plan, or that others"
                " hold now: left as they are now.",
            )

    def _checks(self) -> Checks:
        # What refers to a table that is refused itself is only a consequence of that.
        refused = {refusal.table for refusal in self._refusals} - self.diffs.keys()
        references = [each for each in self._references if not {each.child, each.parent} & refused]
        return Checks(self.workspace, self.diffs, self._tables, references, self._declared, self._ways,
                      where=self._target.name)  # fmt: skip

    def _look_around(self) -> None:
        workspace, diffs, references = self.workspace, self.diffs, self._references
        self._refusals += self._checks().run()
        self._sequences = sequences.find(workspace, diffs)
        for table, note in self._sequences.notes:
            self._note(table, note)
        self._refusals += sequences.refusals(self._sequences.uses, workspace.role())
        self._derived = list(in_the_way(workspace, diffs, references, self._declared.derived))
        for derived in self._derived:
            self._note(
                derived.table,
                f"{derived.rows:,} rows that refer to deleted ones are deleted too: the table is declared as derived,"
                " and is made anew by others.",
            )
        self._quiet = decide(workspace, diffs, self._rules, references, self._derived)
        self._refusals += self._quiet.refusals()
        for name, note in self._quiet.notes().items():
            self._note(name, note)
        if self._wish.mode == "live":
            self._moment = moment_of(workspace, diffs)
        self._parts = (
            {name: diff.digest for name, diff in diffs.items()}
            | {"backup": self.manifest.backup_id, "mode": self._wish.mode, "target": self._target.identity}
            | {f"derived {derived.table}": str(derived.rows) for derived in self._derived}
            | {f"refusal {number}": refusal.message for number, refusal in enumerate(self._refusals)}
            | ({"moment": digest_of_moment(self._moment)} if self._moment else {})
            | {f"shape {name}": shape.digest for name, shape in self._shapes.items()}
        )

    def present(self) -> Present:
        """What the copy of the present state has to hold."""
        rows = {
            name: staged.matched
            + self.workspace.rows(
                sql.SQL("SELECT count(*) FROM {}").format(staged.present), None, f"counting the rows of {name}"
            )[0][0]
            for name, staged in self._staged.items()
        }
        return Present(self.workspace.export(), rows, self._outside)

    @property
    def writes(self) -> int:
        """Rows that would be written."""
        return sum(diff.plan.writes for diff in self.diffs.values())

    def rehearse(self) -> None:
        """Write, prove and take it back. What fails becomes a refusal.

        Where somebody writes the same rows at this moment it is not finished, and the plan says so.

        :raises TransientError: it may pass by itself, as a lock of somebody else does.
        """
        if self._refusals:
            return
        try:
            with self.workspace.savepoint():
                before = sequences.positions(self.workspace) if self.writes else {}
                if self.writes:
                    self._write()
                self._proof.written(fired=self._quiet.how == "fire")
                hidden = self._proof.not_given()
                moved = sequences.moved(self.workspace, before) if self.writes else {}
            self._notes_of_sequences(moved)
            for name, count in hidden.items():
                rows = (
                    "1 row that the extract leaves out now comes"
                    if count == 1
                    else (f"{count:,} rows that the extract leaves out now come")
                )
                self._note(name, f"{rows} back: a restore of the copy that is made before does not take them away.")
        except PermanentError as error:
            untold = of_untold(self.workspace, self.diffs, self._references)
            self._refusals.append(untold or explain(self.workspace, self.diffs, error))
        except TransientError as error:
            if not is_conflict(error):
                raise
            written = next(name for name, diff in self.diffs.items() if diff.plan.writes)
            self._note(written, "The rehearsal was not finished: somebody wrote the same rows at that moment.")

    def write(self, listener: Listener) -> Writes:
        """Write for good, prove it, and move the sequences. The caller commits.

        :raises ClinicBackupsError: a constraint, or the proof, forbids it.
        """
        done: Writes = Writes()
        if self.writes:
            done = self._write_or_explain()
        listener.step("reading the clinic again")
        self._proof.whole()
        if self.writes:
            sequences.advance(self.workspace, self._sequences.numbered)
        return done

    def _write_or_explain(self) -> Writes:
        """:raises Collided: a constraint forbids it, which it did not when the plan was rehearsed."""
        try:
            with self.workspace.attempt():
                return self._write()
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or not refused.state.startswith("23"):
                raise
            refusal = explain(self.workspace, self.diffs, error)
            raise Collided(refusal.message, hint=refusal.hint) from None

    def _write(self) -> Writes:
        workspace, run = self.workspace, self.workspace.execute
        self._proof.require_counts()
        own_proof = None
        if self._quiet.how == "replica":
            own_proof = ReferenceProof(workspace, self._connection, self.diffs, self._references)
            own_proof.begin()
        kept = KeptColumns(workspace, self.diffs)
        kept.begin()
        # The application's own triggers and constraints expect the role's own search path.
        run("SET LOCAL search_path TO DEFAULT", "setting the search path")
        run("SET CONSTRAINTS ALL DEFERRED", "deferring constraints")
        self._quiet.begin(workspace)
        before, defined = counted(workspace), definitions(workspace)
        done = Writer(workspace, self.diffs, self._references, self._quiet, self._derived).write()
        run("SET CONSTRAINTS ALL IMMEDIATE", "checking the constraints")
        only_planned(workspace, done, counted(workspace) - before)
        require_unchanged(defined, definitions(workspace))
        self._quiet.end(workspace)
        run("SET LOCAL search_path = pg_catalog", "setting the search path")
        kept.prove()
        if own_proof is not None:
            own_proof.prove()
        return done

    @property
    def _proof(self) -> Proof:
        return Proof(self.workspace, self._wish.mode, self.diffs, self.manifest.tables, self.queries, loose=self._loose)

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
            digest=digest_of(self._parts),
            parts=self._parts,
            moment=self._moment,
            target=self._target,
        )

    def _notes_of_sequences(self, moved: Mapping[str, int]) -> None:
        """A sequence takes no number back, not even of what was rolled back."""
        written = [name for name, diff in self.diffs.items() if diff.plan.writes]
        for sequence, numbers in moved.items():
            self._note(
                written[0],
                f"The sequence {sequence} went on by {numbers:,} while this plan was rehearsed, and goes on when it is"
                " applied: a trigger or a default takes numbers from it, or somebody else did.",
            )

    def _note(self, table: str, note: str) -> None:
        self._notes.setdefault(table, []).append(note)


def _not_told(count: int) -> str:
    one = count == 1
    return (
        f"{count:,} row{'' if one else 's'} without a way to a clinic {'is' if one else 'are'} like rows that the"
        f" clinic lacks: whose {'it is' if one else 'they are'} cannot be told without a primary key, and"
        f" {'it stays as it is' if one else 'they stay as they are'}."
    )


def _adopted(count: int, mode: str, *, left_out: bool) -> str:
    many = count > 1
    lost = "lost the way to it (a foreign key is NULL, or no extract gives its parent)"
    why = "that the extract leaves out now" if left_out else lost
    rows = (
        f"{count:,} row{'s' if many else ''} of the clinic {why}{', and differ' + 's' * (not many) if left_out else ''}"
    )
    if mode == "missing":
        return f"{rows}: the mode `missing` changes no row, use `exact` to get them back."
    return f"{rows}: {'they are' if many else 'it is'} set again. The safety backup holds what is there now."
