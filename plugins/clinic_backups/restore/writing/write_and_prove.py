"""Writes the result of a comparison and proves it: once as a rehearsal, and once for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from clinic_backups.base.connections import Connection
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError
from clinic_backups.base.listening import Listener
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.sequences import find_sequences
from clinic_backups.restore.sequences.advancing import advance
from clinic_backups.restore.table_rules import Reference
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.changes import Writes
from clinic_backups.restore.writing.derived import Derived
from clinic_backups.restore.writing.kept_columns import KeptColumns
from clinic_backups.restore.writing.only_planned import OnlyPlanned
from clinic_backups.restore.writing.proof import Proof
from clinic_backups.restore.writing.quiet_triggers import Quiet
from clinic_backups.restore.writing.references import ReferenceProof
from clinic_backups.restore.writing.rehearsal import explain
from clinic_backups.restore.writing.shut_out import shut_out_strangers
from clinic_backups.restore.writing.write_statement import Writer
from clinic_backups.tenant.tenant_db import Snapshot

AGAIN = "reading the clinic again"
REHEARSAL_WAIT_SECONDS = 5
"""A rehearsal waits no longer for what others hold."""


class Collided(PermanentError):
    """A constraint forbids what the rehearsal allowed, because somebody has written at the same moment.

    Nothing was changed.
    """


@dataclass(frozen=True)
class Rehearsed:
    """Facts that a rehearsal found.

    :param hidden: by table, the number of restored rows that its extract does not return.
    :param moved: how far sequences moved meanwhile.
    """

    hidden: Mapping[str, int]
    moved: Mapping[str, int]


class Writing:
    """Writes a plan in its workspace.

    :param connection: the workspace's connection data, for a second transaction.
    :param quiet: keeps triggers from firing.
    :param derived: rows of derived tables that are deleted too, because the rows that they were made from are.
    :param found: the sequences of the written columns.
    :param inside: see :func:`~clinic_backups.restore.links_inside.links_inside`.
    :param require_no_strangers: asks again whose code would run, after nobody can add any.
    :param proof: compares the written state with the backup.
    """

    def __init__(
        self,
        workspace: Workspace,
        connection: Connection,
        diffs: Mapping[str, TableDiff],
        references: Sequence[Reference],
        *,
        quiet: Quiet,
        derived: Sequence[Derived],
        found: find_sequences.FoundSequences,
        require_no_strangers: Callable[[Snapshot], object],
        inside: Collection[Reference],
        proof: Proof,
    ) -> None:
        self._workspace, self._connection, self._diffs, self._references = workspace, connection, diffs, references
        self._quiet, self._derived, self._found, self._proof = quiet, derived, found, proof
        self._require_no_strangers, self._inside = require_no_strangers, inside
        self._writes = any(diff.plan.writes for diff in diffs.values())
        self._only_planned = OnlyPlanned(workspace)

    def rehearse(self) -> Rehearsed:
        """Write, prove and roll back.

        :raises PermanentError: it cannot be done.
        :raises TransientError: a later attempt may succeed.
        """
        with self._workspace.savepoint():
            # Meanwhile others wait for the rows that are already written.
            self._workspace.execute(f"SET LOCAL lock_timeout = '{REHEARSAL_WAIT_SECONDS}s'", "setting the lock timeout")
            before = find_sequences.positions(self._workspace, self._found.known) if self._writes else {}
            if self._writes:
                self._write()
            self._workspace.renew_settings(code_ran=self._writes)
            self._proof.written(fired=self._quiet.how == "fire")
            hidden = self._proof.not_given()
            self._workspace.require_settings(AGAIN)
            moved = find_sequences.moved(self._workspace, self._found.known, before) if self._writes else {}
            self._workspace.seals.require()
        return Rehearsed(hidden, moved)

    def lose(self) -> None:
        """Write without a proof: the deletions before a rehearsal of the loss of all rows."""
        if self._writes:
            self._write()

    def write(self, listener: Listener) -> None:
        """Write for good, prove it, and move the sequences. The caller commits.

        :raises ClinicBackupsError: a constraint, or the proof, forbids it.
        """
        done: Writes = self._write_or_explain() if self._writes else Counter()
        listener.step(AGAIN)
        self._workspace.renew_settings(code_ran=self._writes)
        self._proof.whole()
        self._workspace.require_settings(AGAIN)
        if self._writes:
            advance(self._workspace, self._found.numbered, self._found.furthest)
            self._only_planned.require(done)
        self._workspace.seals.require()

    def _write_or_explain(self) -> Writes:
        """:raises Collided: a constraint forbids what the rehearsal allowed."""
        try:
            with self._workspace.attempt():
                return self._write()
        except PermanentError as error:
            refused = refusal_of(error)
            if refused is None or not refused.state.startswith("23"):
                raise
            refusal = explain(self._workspace, self._diffs, error, self._quiet)
            raise Collided(refusal.message, hint=refusal.hint) from None

    def _write(self) -> Writes:
        """Returns the number of written rows."""
        workspace, run = self._workspace, self._workspace.execute
        written = {name for name, diff in self._diffs.items() if diff.plan.writes}
        written |= {each.table for each in self._derived}
        shut_out_strangers(workspace, self._connection, written, self._require_no_strangers)
        own_proof = None
        if self._quiet.how == "replica":
            quiet = {name for name in self._diffs if not self._quiet.may_change(name)}
            inside = {each for each in self._inside if {each.child, each.parent} <= quiet}
            own_proof = ReferenceProof(workspace, self._connection, self._diffs, self._references, inside)
            own_proof.begin()
        kept = KeptColumns(workspace, self._diffs)
        kept.begin()
        writer = Writer(workspace, self._diffs, self._references, self._quiet, self._derived)
        writer.prepare()
        run("SET CONSTRAINTS ALL DEFERRED", "deferring constraints")
        with self._own_definitions():
            self._quiet.begin(workspace)
        workspace.seals.require()
        done = writer.write()
        with workspace.application_path():
            run("SET CONSTRAINTS ALL IMMEDIATE", "checking the constraints")
        self._only_planned.require(done)
        with self._own_definitions():
            self._quiet.end(workspace)
        kept.prove()
        if own_proof is not None:
            own_proof.prove()
        return done

    def _own_definitions(self) -> AbstractContextManager[None]:
        return self._only_planned.own_definitions() if self._quiet.how == "disable" else nullcontext()
