"""The parts of a plan's digest: what decides which values are written, and what the plan says besides.

Some sentences are left out, because other clinics change them all the time: how many values a sequence will give soon,
and how far a sequence moved in the rehearsal. So are sentences about sequences and functions of the whole database
which concern no sequence of the plan: anything that is made beside the restored tables would make each approval void.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from clinic_backups.restore.called_functions import CalledFunction
from clinic_backups.restore.columns.casts import Converted
from clinic_backups.restore.diff import TableDiff, digest_of_values
from clinic_backups.restore.hooks import AFTER, present_hooks
from clinic_backups.restore.plan import Target
from clinic_backups.restore.sequences.find_sequences import FoundSequences
from clinic_backups.restore.workspace import Workspace
from clinic_backups.restore.writing.quiet_triggers import Quiet
from clinic_backups.tenant.extract import SqlFolder

_ALSO_LIVE = (
    "target", "backup", "trigger ", "sequence ", "conversion ", "shape ", "extract ", "hook ", "function ", "view ",
    "type ", "text search configuration ",
    "setting ", "class ", "forgotten",
)  # fmt: skip
"""Parts that have to be as planned in the mode ``live`` too, if they still matter."""
_VALUES = "values "


def triggers(quiet: Quiet) -> dict[str, str]:
    """The triggers that the writing would fire, and what is done about them."""
    return {
        f"trigger {each.relation}: {each.name}": json.dumps([quiet.how, each.kind, each.state, each.definition])
        for each in quiet.triggers
    }


def functions(called: Sequence[CalledFunction]) -> dict[str, str]:
    """What the functions do that the writing calls. The triggers' own functions come with the triggers."""
    return {f"{each.kind} {each.said}": each.definition for each in called if not each.is_trigger}


def settings(read: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that these functions read, by name."""
    return {f"setting {name}": _sha256(json.dumps(value)) for name, value in read.items()}


def moved_sequences(found: FoundSequences) -> dict[str, str]:
    """The sequences that the restore may move, and for which columns."""
    known = {numbered.use for numbered in found.numbered}
    return {
        f"sequence {use.sequence}: {use.table}.{use.column}, {use.how}": json.dumps(
            [use.by, use.expression, use in known]
        )
        for use in found.uses
    }


def conversions(
    workspace: Workspace, diffs: Mapping[str, TableDiff], converted: Mapping[str, Converted]
) -> dict[str, str]:
    """How values become values of today's types, and what they become."""
    parts = {}
    for name, diff in diffs.items():
        if diff.plan.insert + diff.plan.update and (how := converted[name].how):
            parts[f"conversion {name}"] = json.dumps(how, sort_keys=True)
            parts[f"{_VALUES}{name}"] = digest_of_values(workspace, diff)
    return parts


def extracts(diffs: Mapping[str, TableDiff], queries: Mapping[str, str]) -> dict[str, str]:
    """The queries that say which rows are the clinic's."""
    return {f"extract {name}": _sha256(queries[name]) for name, diff in diffs.items() if diff.plan.writes}


def hooks(folder: SqlFolder) -> dict[str, str]:
    """The application's SQL that runs before and after the writing, as far as there is any."""
    return {f"hook {name}": _sha256(folder.text(name)) for name in present_hooks(folder)}


def has_hook(plan: Mapping[str, Any]) -> bool:
    """Whether a plan, as in a restore's record, has a hook that runs after the writing."""
    return f"hook {AFTER}" in plan.get("parts", {})


def said(notes: Mapping[str, Sequence[str]], target: Target) -> dict[str, str]:
    """The sentences of the plan about each table and about the database."""
    by_table = {f"notes of {name}": _sha256(json.dumps(texts)) for name, texts in notes.items()}
    return by_table | {"notes of the target": json.dumps([target.difference, target.compared])}


def otherwise(now: Mapping[str, str], planned: Mapping[str, str]) -> list[str]:
    """The parts that differ between two plans, for people."""
    return sorted(key for key in now.keys() | planned.keys() if now.get(key) != planned.get(key))


def unplanned(now: Mapping[str, str], planned: Mapping[str, str]) -> list[str]:
    """For the mode ``live``: what would happen now and is not in the plan. Less than the plan may happen."""
    return [
        key
        for key in otherwise(now, planned)
        if key in now
        and (key.startswith(_ALSO_LIVE) or _are_of_the_same_rows(key, now, planned))
        and not _is_milder(key, now[key], planned.get(key))
    ]


def _are_of_the_same_rows(key: str, now: Mapping[str, str], planned: Mapping[str, str]) -> bool:
    """Whether these are converted values of a table of which no row was left out."""
    table = key.removeprefix(_VALUES)
    return table != key and now.get(table) == planned.get(table)


def _is_milder(key: str, now: str, planned: str | None) -> bool:
    """Whether a trigger that would fire or be disabled does not fire now."""
    if planned is None or not key.startswith("trigger "):
        return False
    (how, *rest), (_, *were) = json.loads(now), json.loads(planned)
    return bool(how == "replica" and rest == were)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
