"""Shows a plan to people: as lines for a log or terminal, and as the page for the approver."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence

from clinic_backups.base.backup_record import BackupRecord
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line, shown_line
from clinic_backups.catalog.restores import RestoreMode, RestoreRecord
from clinic_backups.restore.plan import RestorePlan, TablePlan, Target
from clinic_backups.restore.request import RestoreRequest
from clinic_backups.tenant.declarations import spelled

NOT_COMPARED = (
    "It was not compared with the database that backups are read from: the connection clinic_db is not defined here"
)
_STOPS = "Exactly this plan is applied, once and in this database. If the clinic changes in between, the restore stops."
_MODES: Mapping[RestoreMode, tuple[str, str]] = {
    "exact": ("is to become what backup {} holds", _STOPS),
    "missing": (
        "is to get back the rows that are gone, and nothing else is changed or deleted, from what backup {} holds",
        _STOPS,
    ),
    "rows": (
        "is to get back named rows and what hangs on them, and nothing else is changed or deleted, from what backup {}"
        " holds",
        _STOPS,
    ),
    "live": (
        "is to become what backup {} holds, except rows that people change after this plan",
        "This plan is applied once, and in this database. Rows that people change in between stay as these people leave"
        " them, and the restore's record says which.",
    ),
}
"""For each mode: what it does with the clinic, and what happens if the clinic changes after the plan."""


def as_lines(plan: RestorePlan) -> Iterator[str]:
    """The plan in lines of plain text. Names of tables and columns may be an attacker's."""
    return map(shown_line, _lines(plan))


def _lines(plan: RestorePlan) -> Iterator[str]:
    yield f"target: {_target(plan.target)}"
    clinic = f"{plan.clinic_id} {one_line(plan.clinic_name)!r}"
    yield f"Clinic {clinic} from backup {plan.backup_id}, as of {iso(plan.snapshot_at.replace(microsecond=0))}"
    yield from (f"Attention: {note}" for note in plan.notes)
    for table in plan.tables:
        if table.writes or table.notes:
            yield f"{spelled(table.table)}: {_counts(table)}"
            yield from (f"  {note}" for note in table.notes)
    if plan.writes:
        yield f"{plan.writes:,} rows would be written."
    elif not plan.refusals:
        yield "Nothing differs: there is nothing to write."
    yield from (f"Refused: {refusal.message} HINT: {refusal.hint}" for refusal in plan.refusals)


def left_as_they_are(record: RestoreRecord) -> Iterator[str]:
    """The rows that a restore in the mode ``live`` did not touch, table by table."""
    if record.mode == "live":
        for table in RestorePlan.from_json(record.plan).tables:
            yield from (one_line(f"{spelled(table.table)}: {note}") for note in table.notes)


def undo_command(record: RestoreRecord, request: RestoreRequest) -> str:
    """The command that undoes the restore: of the restored tables, in the same database."""
    words = ["clinic-backups", "restore", "--clinic", str(record.clinic_id)]
    for table in record.tables:
        words += ["--table", spelled(table)]
    if request.other_database:
        words.append("--other-database")
    return one_line(shlex.join([*words, "--backup", str(record.safety_backup_id)]))


def undo_conf(record: RestoreRecord, request: RestoreRequest) -> str:
    """The same as a conf of ``clinic_restore``."""
    conf: dict[str, object] = {"clinic_id": record.clinic_id, "backup_id": record.safety_backup_id}
    if record.tables:
        conf["tables"] = list(record.tables)
    if request.other_database:
        conf["other_database"] = True
    return json.dumps(conf)


def as_markdown(plan: RestorePlan, *, requested_by: str, notes: str) -> str:
    """The page that Airflow shows to the approver. Names are escaped, because they are data and not markup."""
    does, between = _MODES[plan.mode]
    lines = [
        f"**{_escape(plan.clinic_name)}** (clinic {_escape(str(plan.clinic_id))})"
        f" {does.format(f'`{plan.backup_id}`')}, as of"
        f" **{iso(plan.snapshot_at.replace(microsecond=0))}**. Mode `{plan.mode}`. Requested by"
        f" {_escape(requested_by)}."
    ]
    lines.append(f"**Target:** {_escape(_target(plan.target))}")
    if notes:
        lines.append(f"Notes: {_escape(notes)}")
    lines += [f"**Attention:** {_escape(note)}" for note in plan.notes]
    lines += [f"**Refused:** {_escape(refusal.message)} {_escape(refusal.hint)}" for refusal in plan.refusals]
    if not plan.writes and plan.refusals:
        pass
    elif not plan.writes:
        lines.append("**Nothing differs: there is nothing to write.**")
    else:
        rows = [table for table in plan.tables if table.writes]
        lines.append(
            "\n".join(
                [
                    "| table | insert | update | delete | unchanged | columns that differ | some keys |",
                    "| --- | ---: | ---: | ---: | ---: | --- | --- |",
                    *(_row(table) for table in rows),
                ]
            )
        )
    lines += [f"- `{_code(table.table)}`: {_escape(note)}" for table in plan.tables for note in table.notes]
    lines.append(
        f"{between} The present state is backed up before the first row is written, and restoring that backup undoes"
        " this."
    )
    return "\n\n".join(lines)


def copy_as_markdown(
    backup: BackupRecord, schema: str, target: Target, *, facts: Sequence[str], changes: Sequence[str],
    requested_by: str, notes: str,
) -> str:  # fmt: skip
    """The page for the approver of a copy in a new schema.

    :param facts: what people need to know of the backup.
    :param changes: what the copy masks and leaves out.
    """
    lines = [
        f"A copy of backup `{backup.backup_id}` of **{_escape(backup.clinic_name)}**"
        f" (clinic {_escape(str(backup.clinic_id))}, {backup.rows_total:,} rows) is to be made in the new schema"
        f" `{schema}`, in {_escape(target.name)}."
        f" Requested by {_escape(requested_by)}.",
        "The clinic itself is not touched. The copy holds patients' data: whoever may read that schema may read them.",
        *(f"**{_escape(change)}**" for change in changes),
        *map(_escape, facts),
    ]
    return "\n\n".join([*lines, *([f"Notes: {_escape(notes)}"] if notes else [])])


def export_as_markdown(
    backup: BackupRecord, output_format: str, keys: int, *, days: int, facts: Sequence[str], requested_by: str,
    notes: str,
) -> str:  # fmt: skip
    """The page for the approver of an export.

    :param keys: how many public keys of the clinic it is encrypted to; 0: a password protects it.
    :param days: how long it can be downloaded.
    :param facts: what people need to know of the backup.
    """
    opened = f"It is encrypted to {keys} public keys of the clinic" if keys else "It needs a password"
    who = "" if keys else f", which the page has shown to {_escape(requested_by)} and to nobody else"
    lines = [
        f"Backup `{backup.backup_id}` of **{_escape(backup.clinic_name)}** (clinic {_escape(str(backup.clinic_id))},"
        f" {backup.rows_total:,} rows, data of {iso(backup.data_time.replace(microsecond=0))}) is to be written as a"
        f" file in the format `{output_format}`. Requested by {_escape(requested_by)}.",
        f"{opened}{who}. Administrators of the clinic can download it for {days} days.",
        "It holds patients' data. Approve only if you know that this person may have them. Nothing is changed.",
        *map(_escape, facts),
    ]
    return "\n\n".join([*lines, *([f"Notes: {_escape(notes)}"] if notes else [])])


def is_on_page(fact: str, page: str) -> bool:
    """Whether :func:`copy_as_markdown` has written the fact into the page."""
    return _escape(fact) in page


def _target(target: Target | None) -> str:
    """The database that is written to, and how it differs from the one that backups are read from."""
    if target is None:
        return "not known"
    if not target.compared:
        return f"{target.name} (PostgreSQL {target.version.split()[0]}). {NOT_COMPARED}"
    return f"{target.name} (PostgreSQL {target.version.split()[0]}). {target.difference}".rstrip().removesuffix(".")


def _row(table: TablePlan) -> str:
    columns = ", ".join(f"{_escape(name)} ({count:,})" for name, count in table.columns.items())
    keys = "; ".join(f"{operation}: {', '.join(values)}" for operation, values in table.keys.items())
    counts = " | ".join(f"{count:,}" for count in (table.insert, table.update, table.delete, table.unchanged))
    return f"| `{_code(table.table)}` | {counts} | {columns} | {_escape(keys)} |"


def _counts(table: TablePlan) -> str:
    changed = f" ({', '.join(table.columns)})" if table.columns else ""
    return f"{table.insert:,} to insert, {table.update:,} to update{changed}, {table.delete:,} to delete"


def _code(name: str) -> str:
    """A name between backticks, inside a table."""
    return one_line(name).replace("`", "'").replace("|", "\\|")


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>()#+!|" else character for character in one_line(text))
