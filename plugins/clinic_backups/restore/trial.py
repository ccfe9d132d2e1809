"""Finds what could never be restored, before the first loss: writes one row of each table and rolls it back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from clinic_backups.base.connections import Connection
from clinic_backups.base.findings import Finding, Report
from clinic_backups.base.settings import Settings
from clinic_backups.base.text import table_in_sql
from clinic_backups.restore import hooks
from clinic_backups.restore.sequences import find_sequences
from clinic_backups.restore.table_rules import (
    Reference,
    TableRules,
    cascading,
    read_references,
    read_rules,
    with_row_key,
)
from clinic_backups.restore.trial_row import TrialRow, Tried
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.quiet_triggers import EVENTS, How, Quiet, Trigger, may_replica
from clinic_backups.restore.writing.rehearsal import told_by, untold
from clinic_backups.restore.writing.shut_out import shut_out_strangers
from clinic_backups.restore.writing.trigger_words import remedy
from clinic_backups.tenant.extract import SqlExtract, SqlFolder
from clinic_backups.tenant.people import read_clinics
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.strangers import refuse, strangers_code, strangers_of_folder
from clinic_backups.tenant.tenant_db import Snapshot

CHECK = "restore"
INSERTING = ("SELECT", "INSERT")
"""The rights on a parent table that a restore needs."""


def findings(settings: Settings, connection: Connection | None) -> list[Finding]:
    """The findings of :func:`try_tables`. Without the connection, the finding is that nothing was tried."""
    report = Report()
    if connection is None:
        report.warn(
            CHECK,
            "Nobody tried whether the tables can be restored: connection 'restore_db' is not defined here.",
            "Run `clinic-backups check` also where restores run.",
        )
    else:
        try_tables(settings, connection, report)
    return report.findings


def try_tables(settings: Settings, connection: Connection, report: Report, *, write: bool = True) -> None:
    """Delete, update and insert one row of each table with the restoring role, and roll it back.

    :param write: otherwise nothing is written, and only rights, triggers and sequences are looked at.

    Only a gap in a sequence may remain. If a table is empty, only the rights on it are checked. The last finding says
    what was not done.
    """
    folder = SqlFolder(settings.sql_dir)
    with report.check(CHECK), Workspace(connection, **settings.timeouts) as workspace:
        names = sorted(folder.queries())
        references = read_references(workspace, names)
        if _strangers(report, workspace, folder, names):
            return
        clinics = read_clinics(workspace, folder, "all_clinics.sql").clinics
        tables = workspace.tables([name for name in names if name in workspace.relations()])
        rules = _of_parents(read_rules(workspace, sorted(tables)), folder.parents())
        role, replica = workspace.role(), may_replica(workspace)
        shut_out = _shut_out(workspace, connection, folder, names)
        done: dict[Tried, list[str]] = defaultdict(list)
        for name, table in tables.items():
            rules[name] = with_row_key(rules[name], table, references)
            triggers = _triggers(workspace, name)
            quiet = _quiet_rules(report, name, triggers, replica=replica)
            trial = TrialRow(workspace, table, rules[name], references, shut_out, replica=replica, quiet=quiet)
            _check_told(report, name, trial.key, references)
            _check_rights(report, name, rules[name], role)
            _check_triggers(report, name, triggers, replica=replica)
            if rules[name].missing_rights or quiet == "fire" or (not trial.key and cascading(references, name)):
                continue
            if not write:
                continue
            tried: Tried | None = "parent" if name in folder.parents() else "nothing"
            for clinic in clinics if tried == "nothing" else ():
                query, tried = SqlExtract().rendered(folder, clinic.id)[name], None
                with report.check(CHECK, f"{name}: "):
                    tried = trial.try_row(query)
                if tried != "nothing":
                    break
            if tried is not None:
                done[tried].append(name)
        for name in sorted({each.child for each in references} & set(folder.declarations().derived) - set(tables)):
            _check_triggers(report, name, _triggers(workspace, name), replica=replica, derived=True)
        _check_sequences(report, workspace, sorted(tables), role)
        for clinic in clinics[:1] if write else ():
            with report.check(CHECK):
                hooks.try_hooks(connection, folder, clinic.id)
        if said := list(_sentences(done)):
            report.ok(CHECK, " ".join(said))
        elif not write:
            report.ok(CHECK, f"The role {role} has a restore's rights on {len(tables)} tables. Nothing was written.")


def _sentences(done: dict[Tried, list[str]]) -> Iterator[str]:
    """What was tried, without a word about tables that have an error."""
    if names := done["all"]:
        many = f"each of {len(names)} tables" if len(names) > 1 else names[0]
        yield f"One row of {many} was deleted, changed and inserted, and rolled back."
    if names := done["no key"]:
        yield f"Where rows have no key, a row was only deleted and inserted, as a restore does: {', '.join(names)}."
    if names := done["changed"]:
        yield (
            "Where other rows' foreign keys would act on a deletion (ON DELETE), a row was only changed:"
            f" {', '.join(names)}."
        )
    if names := done["nothing"]:
        yield f"Nothing was written to {', '.join(names)}: no clinic has a row there. Only the rights were checked."
    if names := done["parent"]:
        yield (
            f"Nothing was written to {', '.join(names)}: a restore only inserts missing rows of a parent table. Only"
            " the rights were checked."
        )
    if names := done["rules"]:
        yield (
            f"Nothing was written to {', '.join(names)}: a restore turns off rules there first. The check does not,"
            " because nobody else could write meanwhile. Only the rights were checked."
        )


def _of_parents(rules: dict[str, TableRules], parents: Collection[str]) -> dict[str, TableRules]:
    """The same, without the rights that no restore needs: rows of parent tables are neither changed nor deleted."""
    return {
        name: replace(found, missing_rights=tuple(each for each in found.missing_rights if each in INSERTING))
        if name in parents
        else found
        for name, found in rules.items()
    }


def _check_rights(report: Report, name: str, rules: TableRules, role: str) -> None:
    if rules.missing_rights:
        rights = ", ".join(rules.missing_rights)
        report.error(CHECK, f"The role {role} of connection restore_db may not {rights} in {name}.",
                     f"GRANT {rights} ON {table_in_sql(name)} TO {role};")  # fmt: skip


def _check_told(report: Report, name: str, key: Sequence[str], references: tuple[Reference, ...]) -> None:
    """Check whether changed rows can be identified.

    Without a key they are deleted and inserted, which affects referring rows.
    """
    found = None if key else cascading(references, name)
    if found is not None:
        report.error(CHECK, untold(name, found), told_by(name, found))


def _triggers(workspace: Workspace, name: str) -> list[Trigger]:
    """The triggers and rules of a table."""
    found = workspace.rows(catalog_query("triggers"), {"names": [name]}, "reading the triggers")
    return [Trigger(*row) for row in found]


def _check_triggers(
    report: Report, name: str, triggers: Iterable[Trigger], *, replica: bool, derived: bool = False
) -> None:
    """Check whether triggers would fire. Rows of a derived table are only deleted, and never in the replica role."""
    firing = [
        each
        for each in triggers
        if each.state in ("O", "A") and not each.may and (each.events & EVENTS["delete"] or not derived)
    ]
    always = any(each.state == "A" for each in firing)
    if firing and (derived or always or not replica):
        names = ", ".join(sorted({each.name for each in firing}))
        report.warn(
            CHECK,
            f"Triggers or rules of {name} would fire during a restore: the role of restore_db may not turn them off"
            f" ({names}).",
            remedy((each.relation for each in firing), owner_only=derived or always),
        )


def _quiet_rules(report: Report, name: str, triggers: Iterable[Trigger], *, replica: bool) -> How:
    """How a restore keeps the table's rules from changing what is written. It is an error if it cannot."""
    rules = [each for each in triggers if each.kind == "RULE" and each.relation == name and each.state != "D"]
    firing = tuple(each for each in rules if each.state != "R")
    if not firing:
        return "nothing"
    if replica and all(each.state == "O" for each in rules):
        return "replica"
    if all(each.may for each in firing):
        return "disable"
    for refusal in Quiet("fire", firing).refusals():
        report.error(CHECK, refusal.message, refusal.hint)
    return "fire"


def _check_sequences(report: Report, workspace: Workspace, names: list[str], role: str) -> None:
    found = find_sequences.examine(workspace, names)
    for refusal in find_sequences.refusals(found.uses, role):
        report.error(CHECK, refusal.message, refusal.hint)
    for said, hint in dict.fromkeys((each.said, each.hint) for each in found.untold):
        report.warn(CHECK, said, hint)


def _strangers(report: Report, workspace: Workspace, folder: SqlFolder, names: Iterable[str]) -> bool:
    """Report whose code would run in a restore, before any of it runs."""
    found = [
        *strangers_of_folder(
            workspace, folder, folder.clinic_key.sample, written={*names, *folder.declarations().derived}
        ),
        *hooks.strangers_of_hooks(workspace, folder, folder.clinic_key.sample),
    ]
    for each in dict.fromkeys(found):
        report.error(CHECK, each.said, each.remedy)
    return bool(found)


def _shut_out(
    workspace: Workspace,
    connection: Connection,
    folder: SqlFolder,
    names: Sequence[str],
) -> Callable[[str], None]:
    """What is called before a table is written, see :func:`shut_out_strangers`."""

    def require(now: Snapshot) -> None:
        refuse(strangers_code(now, names, folder.clinic_table, written=names), "The trial")

    return lambda name: shut_out_strangers(workspace, connection, [name], require)
