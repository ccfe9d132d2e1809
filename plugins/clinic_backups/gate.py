"""The gate before every backup: nothing is left out silently, whoever asks for the backup and by whichever way.

See docs/decisions/0011-what-is-in-a-backup.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from clinic_backups import structure
from clinic_backups.coverage import Coverage, Problem
from clinic_backups.errors import PermanentError
from clinic_backups.extract import SqlFolder
from clinic_backups.model import BackupRequest, Gap, Table
from clinic_backups.row_checks import RowChecks, one_clinic, rows_behind
from clinic_backups.tenant_db import Snapshot

WITHIN_SECONDS = 60
"""Longest time that comparing one clinic's rows may take before its backup."""
SHOWN = 20
"""Gaps that an error names; the preflight names all."""
MAX_GAPS = 200
"""Gaps that a backup's record names."""

OnUnchecked = Callable[[str], object]


def problems_of_tables(
    snapshot: Snapshot, coverage: Coverage, extracts: Mapping[str, str], *, within_seconds: float = WITHIN_SECONDS
) -> list[Problem]:
    """What PostgreSQL's catalog and the SQL folder say: one query, and a few more only where a table needs them.

    :param extracts: rendered for one clinic.
    """
    return [*coverage.problems(), *rows_behind(snapshot, coverage, extracts, within_seconds=within_seconds)]


def passed(
    snapshot: Snapshot,
    folder: SqlFolder,
    request: BackupRequest,
    queries: Mapping[str, str],
    on_unchecked: OnUnchecked = lambda message: None,
) -> tuple[dict[str, Table], tuple[Gap, ...]]:
    """The tables that a backup reads, and what it will lack: nothing, unless the request allows gaps.

    :param queries: the SELECT of each table for this clinic.
    :param on_unchecked: called with a sentence when the clinic's rows could not be compared in time.
    :raises PermanentError: the backup would be incomplete, and the request does not allow that.
    """
    facts = structure.read(snapshot)
    coverage = Coverage(facts, folder, queries)
    found = [problem for problem in problems_of_tables(snapshot, coverage, queries) if problem.is_gap]
    _require(found, request)
    tables = snapshot.tables(sorted(queries))
    if not request.rows_compared:
        checks = RowChecks(
            snapshot, facts, tables, queries, one_clinic(request.clinic.id), coverage.links(), folder, materialized=True
        )  # fmt: skip
        rows = checks.problems(list(tables), within_seconds=WITHIN_SECONDS)
        if rows is None:
            on_unchecked(
                f"The rows of clinic {request.clinic.id} were not compared with its extracts within {WITHIN_SECONDS} s."
                " The preflight compares the rows of all clinics, table by table."
            )
        found += rows or ()
        _require(found, request)
    return tables, gaps(found)


def gaps(problems: Iterable[Problem]) -> tuple[Gap, ...]:
    """What a record and an envelope keep of them."""
    return tuple(dict.fromkeys(Gap(problem.table, problem.reason) for problem in problems))[:MAX_GAPS]


def _require(found: Sequence[Problem], request: BackupRequest) -> None:
    if not found or request.allow_gaps:
        return
    lines = [line for item in found[:SHOWN] for line in (item.reason, f"  HINT: {item.remedy}")]
    more = [f"And {len(found) - SHOWN} more: see `clinic-backups check`."] if len(found) > SHOWN else []
    count = f"{len(found)} reason{'s' if len(found) > 1 else ''}"
    raise PermanentError(
        "\n".join([f"The backup of clinic {request.clinic.id} would be incomplete, for {count}.", *lines, *more]),
        hint="Nothing was stored. To back up what can be backed up, and mark the backup as incomplete, use"
        ' `clinic-backups backup --allow-gaps` or the conf {"allow_gaps": true}.',
    )
