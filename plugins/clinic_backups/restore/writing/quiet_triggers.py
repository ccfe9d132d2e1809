"""Keeps the application's triggers from firing while a restore writes.

``session_replication_role = replica`` turns off all ordinary triggers of this session and blocks nobody. Foreign keys
are triggers too, so :mod:`clinic_backups.restore.writing.references` proves them instead. A role that may not set it
but owns the tables disables the triggers that would fire, one by one. Others then cannot write to these tables until
the restore ends. In all other cases the triggers fire, and the plan says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.base.database_errors import refusal_of
from clinic_backups.base.errors import PermanentError, TransientError
from clinic_backups.base.text import in_sql, table_in_sql
from clinic_backups.restore.diff import TableDiff
from clinic_backups.restore.plan import Refusal
from clinic_backups.restore.table_rules import NO_ACTION, Reference, TableRules, cascading
from clinic_backups.restore.workspace import Workspace, row_text
from clinic_backups.restore.writing.derived import Derived
from clinic_backups.restore.writing.trigger_words import named, remedy
from clinic_backups.tenant.pg_catalog import catalog_query

MANY_ROWS = 20_000
"""From this number of rows on, all foreign keys are proven at once if the role may: it takes half the time."""
LOCK_MOMENT_MS = 250
"""A restore waits this long for the lock that turns triggers off, and then lets others go first."""
How = Literal["nothing", "replica", "disable", "fire"]
EVENTS = {"insert": 4, "delete": 8, "update": 16}  # bits of pg_trigger.tgtype
_STATES = {"O": "ENABLE", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True)
class Trigger:
    """A trigger that the writing would fire.

    :param table: the restored or derived table. ``relation`` is the same, or the partition that has the trigger.
    :param state: ``pg_trigger.tgenabled``: O origin, A always, R replica, D disabled.
    :param kind: TRIGGER, or RULE: a rule that writes something else is treated like a trigger.
    :param definition: a digest of what it does.
    """

    table: str
    relation: str
    name: str
    events: int
    state: str
    may: bool
    kind: Literal["TRIGGER", "RULE"] = "TRIGGER"
    definition: str = ""


@dataclass(frozen=True)
class Quiet:
    """The triggers that would fire, and how they are kept from firing."""

    how: How
    triggers: tuple[Trigger, ...] = ()
    hindrance: str = ""
    """Why ``session_replication_role`` cannot be used even if this role might set it; empty if it can."""
    acting: tuple[Reference, ...] = ()
    """Foreign keys that act on rows which refer to a deleted value, although a row with the same value comes back."""

    def notes(self) -> dict[str, str]:
        """A sentence for each table that has such triggers."""
        does = {
            "replica": "do not fire meanwhile (session_replication_role)",
            "disable": "are turned off meanwhile; others cannot write to the table until the restore ends",
            "fire": "will fire: this role may not turn them off",
        }
        tables = dict.fromkeys(trigger.table for trigger in self.triggers)
        rules = {trigger.table for trigger in self.triggers if trigger.kind == "RULE"}
        return {
            table: f"The table's triggers{' and rules' if table in rules else ''} {does[self.how]}: "
            + ", ".join(dict.fromkeys(trigger.name for trigger in self.triggers if trigger.table == table))
            + "."
            for table in tables
        }

    def may_change(self, table: str) -> bool:
        """Whether a trigger or a rule of the table fires while it is written."""
        firing = ("A", "R") if self.how == "replica" else ("O", "A")
        return any(trigger.table == table and trigger.state in firing for trigger in self.triggers)

    def loud(self) -> tuple[str, str]:
        """A sentence names the triggers that fire although they should not. A second one says what ends that.

        Both are empty if no trigger fires.
        """
        if self.how != "fire":
            return "", ""
        names = named((trigger.name, trigger.relation) for trigger in self.triggers)
        return (
            f"Meanwhile triggers or rules fire, because the role of restore_db may not turn them off: {names}.",
            self._remedy(self.triggers),
        )

    def _remedy(self, triggers: Iterable[Trigger]) -> str:
        return remedy((each.relation for each in triggers if not each.may), owner_only=bool(self.hindrance))

    @property
    def remedy_for_keys(self) -> str:
        """What keeps foreign keys from acting while rows are deleted and inserted again."""
        if self.hindrance:
            return f"The restore cannot keep foreign keys from acting here, because {self.hindrance}."
        return (
            "GRANT SET ON PARAMETER session_replication_role TO the role of restore_db: foreign keys then do not act"
            " meanwhile."
        )

    def refusals(self) -> Iterator[Refusal]:
        """Rules and foreign keys that cannot be turned off.

        PostgreSQL refuses such a statement on a table with a rule, and a rule writes rows that nobody planned.
        """
        for key in self.acting if self.how != "replica" else ():
            columns = ", ".join(key.parent_columns)
            yield Refusal(
                key.parent,
                f"Rows of {key.parent} are to be deleted and rows with the same {columns} inserted. At the deletion the"
                f" foreign key {key.name} would change or forbid rows of {key.child} that refer to them.",
                f"{self.remedy_for_keys} Or first change the primary keys of the present rows of {key.parent} to those"
                " of the backup.",
            )
        for trigger in self.triggers:
            if trigger.kind == "RULE" and self.how == "fire":
                yield Refusal(
                    trigger.table,
                    f"The rule {trigger.name} of {trigger.relation} changes what is written, and the role of restore_db"
                    " may not turn it off.",
                    f"ALTER TABLE {table_in_sql(trigger.relation)} DISABLE RULE {in_sql(trigger.name)}; for the time"
                    f" of the restore. Or: {self._remedy([trigger])}",
                )

    def begin(self, workspace: Workspace) -> None:
        """Call this just before the writing."""
        if self.how == "replica":
            _set_replica(workspace)
        elif self.how == "disable":
            _without_making_others_wait(workspace, lambda: self._alter_all(workspace, lambda trigger: "DISABLE"))

    def end(self, workspace: Workspace) -> None:
        """Call this just after the writing: each trigger gets its former state back."""
        if self.how == "replica":
            workspace.execute("SET LOCAL session_replication_role = origin", "ending the quiet of triggers")
        elif self.how == "disable":
            self._alter_all(workspace, lambda trigger: _STATES[trigger.state])

    def _alter_all(self, workspace: Workspace, how: Callable[[Trigger], str]) -> None:
        for trigger in self.triggers:
            _alter(workspace, trigger, how(trigger))


def decide(
    workspace: Workspace,
    diffs: Mapping[str, TableDiff],
    rules: Mapping[str, TableRules],
    references: Sequence[Reference],
    derived: Sequence[Derived] = (),
) -> Quiet:
    """Find the triggers that the planned writes would fire, and choose what this role can do about them.

    :param derived: rows of derived tables that are deleted too. PostgreSQL checks their own foreign keys.
    """
    written = [name for name, diff in diffs.items() if diff.plan.writes]
    masks = {name: _mask(diffs[name]) for name in written} | {each.table: EVENTS["delete"] for each in derived}
    found = [
        Trigger(*row)
        for row in workspace.rows(catalog_query("triggers"), {"names": list(masks)}, "reading the triggers")
    ]
    hit = [trigger for trigger in found if trigger.events & masks[trigger.table]]
    firing = tuple(trigger for trigger in hit if trigger.state in _STATES)
    acting = tuple(key for key in references if _acts_in_vain(workspace, diffs, key))
    stuck = acting or any(diffs[name].moving and cascading(references, name) is not None for name in written)
    if not firing and not stuck and sum(diffs[name].plan.writes for name in written) < MANY_ROWS:
        return Quiet("nothing")
    hindrance = _hindrance(hit, [name for name in written if rules[name].is_deferrable], derived)
    hindrance = hindrance or _unprovable(diffs, references) or _parents_not_locked(rules, written, references)
    if not hindrance and may_replica(workspace):
        return Quiet("replica", firing)
    if not firing:
        return Quiet("nothing", (), hindrance, acting)
    how: How = "disable" if all(trigger.may for trigger in firing) else "fire"
    return Quiet(how, firing, hindrance, acting)


def _hindrance(hit: Sequence[Trigger], deferrable: Sequence[str], derived: Sequence[Derived]) -> str:
    """Why the replica role cannot be used for these tables; empty if it can."""
    for trigger in hit:
        if trigger.state in ("A", "R"):
            state = "ENABLE ALWAYS" if trigger.state == "A" else "ENABLE REPLICA"
            return f"the trigger {trigger.name} of {trigger.relation} would fire then ({state}): disable it meanwhile"
    if deferrable:
        return f"a unique key of {deferrable[0]} is DEFERRABLE: restore without this table first"
    return f"rows of the derived table {derived[0].table} are deleted too" if derived else ""


def _acts_in_vain(workspace: Workspace, diffs: Mapping[str, TableDiff], key: Reference) -> bool:
    """Whether rows refer to a value that goes with one row and comes back with another one.

    Keys to the primary key are left out: a row with the same primary key is updated.
    """
    parent = diffs.get(key.parent)
    if parent is None or key.on_delete == NO_ACTION or not (key.child_readable and parent.plan.delete):
        return False
    shape = parent.staged.shape
    if not (parent.plan.insert and shape.key and set(key.parent_columns) <= set(shape.columns) - set(shape.key)):
        return False
    query = sql.SQL("""
        SELECT EXISTS (SELECT FROM {ops} AS d JOIN {present} AS g ON {deleted} JOIN {child} AS c ON {refers}
                         JOIN {wanted} AS w ON {same} JOIN {ops} AS i ON {inserted}
                        WHERE d.op = 'delete' AND i.op = 'insert')""").format(
        ops=parent.ops,
        present=parent.staged.present,
        deleted=shape.is_of("d", "g"),
        child=qualified(key.child),
        refers=key.refers("c", "g"),
        wanted=parent.staged.wanted,
        same=sql.SQL("{} = {}").format(row_text(key.parent_columns, "w"), row_text(key.parent_columns, "g")),
        inserted=parent.joins("w", "i"),
    )
    ((found,),) = workspace.rows(query, None, f"comparing what {key.name} refers to")
    return bool(found)


def _without_making_others_wait(workspace: Workspace, lock: Callable[[], None]) -> None:
    """Take a lock with many short attempts, because everybody else waits behind a session that waits for a lock.

    :raises TransientError: the lock was not free within the lock timeout.
    """
    ((timeout, seconds),) = workspace.rows(
        "SELECT current_setting('lock_timeout'), extract(epoch FROM current_setting('lock_timeout')::interval)::float",
        None,
        "asking for the lock timeout",
    )
    deadline = time.monotonic() + (seconds or 60)
    while True:
        try:
            with workspace.attempt():
                workspace.execute(f"SET LOCAL lock_timeout = '{LOCK_MOMENT_MS}ms'", "setting the lock timeout")
                lock()
                workspace.rows(
                    "SELECT set_config('lock_timeout', %(time)s, true)", {"time": timeout}, "setting it back"
                )
                return
        except TransientError as error:
            refused = refusal_of(error)
            if refused is None or refused.state != "55P03" or time.monotonic() > deadline:
                raise
            time.sleep(4 * LOCK_MOMENT_MS / 1000)


def _mask(diff: TableDiff) -> int:
    """The events that writing a table causes. Rows that move are deleted and inserted."""
    plan = diff.plan
    counts = {"insert": plan.insert + diff.moving, "delete": plan.delete + diff.moving, "update": plan.update}
    return sum(EVENTS[event] for event, count in counts.items() if count)


def _unprovable(diffs: Mapping[str, TableDiff], references: Sequence[Reference]) -> str:
    """Which foreign key of the written rows the restore itself cannot prove; empty if it can prove all."""
    for reference in references:
        child, parent = diffs.get(reference.child), diffs.get(reference.parent)
        if not any(diff is not None and diff.plan.writes for diff in (child, parent)):
            continue
        known = reference.plain and reference.child_readable and reference.parent_readable
        if child is not None and not set(reference.columns) <= set(child.staged.shape.columns):
            known = False  # added since the backup: restored rows get its default
        if parent is not None:
            shape = parent.staged.shape
            known = known and bool(shape.key) and set(reference.parent_columns) <= {*shape.columns, *shape.key}
        if not known:
            return f"it could not prove the foreign key {reference.name} of {reference.child} itself"
    return ""


def _parents_not_locked(
    rules: Mapping[str, TableRules], written: Iterable[str], references: Sequence[Reference]
) -> str:
    """Why the role may not lock the referenced rows of others, as PostgreSQL's own check does; empty if it may."""
    tables = set(written)
    for name in sorted({reference.parent for reference in references if reference.child in tables}):
        if name not in rules or "UPDATE" in rules[name].missing_rights:
            return f"its role has no UPDATE on {name}, which it needs to lock the rows that are referred to"
    return ""


def may_replica(workspace: Workspace) -> bool:
    """Whether this role may set ``session_replication_role``, found out by setting it.

    A superuser may. Since PostgreSQL 15, so may a role that was granted SET on the parameter.
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
    # DISABLE RULE has no ONLY, because a rule belongs to a single relation.
    statement = sql.SQL("ALTER TABLE {} {} {} {} {}").format(
        sql.SQL("ONLY" if trigger.kind == "TRIGGER" else ""),
        qualified(trigger.relation),
        sql.SQL(how),
        sql.SQL(trigger.kind),
        sql.Identifier(trigger.name),
    )
    what = f"turns triggers of {trigger.relation} off and on"
    workspace.define_for_good(statement, f"changing the triggers of {trigger.relation}", what)
