"""Triggers of the application while a restore writes: which would fire, and how they are kept quiet.

``session_replication_role = replica`` turns off all ordinary triggers of this session, and locks nobody out. Foreign
keys are triggers too, so that :mod:`clinic_backups.restore.references` proves them. A role that may not set it, and
owns the tables, disables the triggers that would fire, one by one, which keeps others from writing to these tables
until the restore ends. Else they fire, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg2 import sql

from clinic_backups.errors import PermanentError
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.rules import Reference, TableRules
from clinic_backups.restore.workspace import Workspace, qualified
from clinic_backups.table_locks import catalog_query

MANY_ROWS = 20_000
"""With so many rows foreign keys are proven for all rows at once, where the role allows it: in half the time."""
How = Literal["nothing", "replica", "disable", "fire"]
_EVENTS = {"insert": 4, "delete": 8, "update": 16}  # bits of pg_trigger.tgtype
_STATES = {"O": "ENABLE", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True)
class Trigger:
    """A trigger that the writing would fire.

    :param table: the restored table; ``relation`` is it, or the partition that has the trigger.
    :param state: ``pg_trigger.tgenabled``: O origin, A always, R replica, D disabled.
    """

    table: str
    relation: str
    name: str
    events: int
    state: str
    may: bool


@dataclass(frozen=True)
class Quiet:
    """What is done about triggers, and about which."""

    how: How
    triggers: tuple[Trigger, ...] = ()

    def notes(self) -> dict[str, str]:
        """A sentence for each table that has some."""
        does = {
            "replica": "do not fire meanwhile (session_replication_role)",
            "disable": "are turned off meanwhile; others cannot write to the table until the restore ends",
            "fire": "will fire: this role may not turn them off",
        }
        tables = dict.fromkeys(trigger.table for trigger in self.triggers)
        return {
            table: f"The table's triggers {does[self.how]}: "
            + ", ".join(dict.fromkeys(trigger.name for trigger in self.triggers if trigger.table == table))
            + "."
            for table in tables
        }

    def begin(self, workspace: Workspace) -> None:
        """Just before the writing."""
        if self.how == "replica":
            _set_replica(workspace)
        elif self.how == "disable":
            for trigger in self.triggers:
                _alter(workspace, trigger, "DISABLE")

    def end(self, workspace: Workspace) -> None:
        """Just after it: each trigger has the state again that it had."""
        if self.how == "replica":
            workspace.execute("SET LOCAL session_replication_role = origin", "ending the quiet of triggers")
        elif self.how == "disable":
            for trigger in self.triggers:
                _alter(workspace, trigger, _STATES[trigger.state])


def decide(
    workspace: Workspace,
    diffs: Mapping[str, TableDiff],
    rules: Mapping[str, TableRules],
    references: Sequence[Reference],
) -> Quiet:
    """Look which triggers the planned writes would fire, and what this role may do about them."""
    written = [name for name, diff in diffs.items() if diff.plan.writes]
    found = [
        Trigger(*row) for row in workspace.rows(catalog_query("triggers"), {"names": written}, "reading the triggers")
    ]
    hit = [trigger for trigger in found if trigger.events & _mask(diffs[trigger.table])]
    firing = tuple(trigger for trigger in hit if trigger.state in _STATES)
    if not firing and sum(diffs[name].plan.writes for name in written) < MANY_ROWS:
        return Quiet("nothing")
    in_replica = [trigger for trigger in hit if trigger.state in ("A", "R")]
    deferrable = [name for name in written if rules[name].is_deferrable]
    if not in_replica and not deferrable and _may_lock_parents(rules, written, references) and may_replica(workspace):
        return Quiet("replica", firing)
    if not firing:
        return Quiet("nothing")
    if all(trigger.may for trigger in firing):
        return Quiet("disable", firing)
    return Quiet("fire", firing)


def _mask(diff: TableDiff) -> int:
    """The events that the writing of a table makes: rows that move are deleted and inserted."""
    plan = diff.plan
    counts = {"insert": plan.insert + diff.moving, "delete": plan.delete + diff.moving, "update": plan.update}
    return sum(_EVENTS[event] for event, count in counts.items() if count)


def _may_lock_parents(rules: Mapping[str, TableRules], written: Iterable[str], references: Sequence[Reference]) -> bool:
    """Rows that others own are locked while something is made to refer to them, as PostgreSQL's own check does."""
    tables = set(written)
    parents = {reference.parent for reference in references if reference.child in tables}
    return all(name in rules and "UPDATE" not in rules[name].missing_rights for name in parents)


def may_replica(workspace: Workspace) -> bool:
    """Whether this role may set ``session_replication_role``: asked by doing it.

    A superuser may, and since PostgreSQL 15 whoever was granted SET on the parameter.
    """
    try:
        with workspace.attempt():
            _set_replica(workspace)
            workspace.execute("SET LOCAL session_replication_role = origin", "trying to keep triggers quiet")
    except PermanentError:
        return False
    return True


def _set_replica(workspace: Workspace) -> None:
    workspace.execute("SET LOCAL session_replication_role = replica", "keeping triggers quiet")


def _alter(workspace: Workspace, trigger: Trigger, how: str) -> None:
    statement = sql.SQL("ALTER TABLE ONLY {} {} TRIGGER {}").format(
        qualified(trigger.relation), sql.SQL(how), sql.Identifier(trigger.name)
    )
    workspace.execute(statement, f"changing the triggers of {trigger.relation}")
