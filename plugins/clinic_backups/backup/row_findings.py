"""The preflight's comparison of the rows of all clinics with the extracts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from psycopg2 import sql

from clinic_backups.backup.row_report import RowReport, TableRows
from clinic_backups.backup.sample import Sample
from clinic_backups.base.errors import ClinicBackupsError, SettingsError
from clinic_backups.base.findings import Report
from clinic_backups.base.table import Table
from clinic_backups.tenant import at_once, declarations
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.every_clinic import for_every_clinic
from clinic_backups.tenant.extract import PARENTS, SqlFolder
from clinic_backups.tenant.parent_checks import ParentChecks
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.row_checks import RowChecks, RowCount
from clinic_backups.tenant.row_sql import BackupRows
from clinic_backups.tenant.tenant_db import Snapshot
from clinic_backups.tenant.value_checks import ValueChecks

Answer = TypeVar("Answer")


class RowFindings:
    """Compares rows in the preflight's snapshot, table by table.

    :param clinics_query: the text of ``all_clinics.sql``.
    :param type_: the type of the clinics' numbers, see :func:`clinic_backups.tenant.every_clinic.number_type`.
    :param within_seconds: the longest time of each of the queries about one table.
    :param rows: gets what is known of each table's rows, and an example of each problem.
    :param shared: whether the shared data are backed up.
    :param sample: the clinics of the query, if they are not all. Then rows in no backup are not counted.
    """

    def __init__(
        self, snapshot: Snapshot, coverage: Coverage, folder: SqlFolder, report: Report, clinics_query: str,
        *, type_: str, within_seconds: float, rows: RowReport | None = None,
        sample: Sample | None = None, shared: bool = True,
    ) -> None:  # fmt: skip
        self._snapshot, self._coverage, self._folder, self._report = snapshot, coverage, folder, report
        self._clinics_query, self._type, self._within_seconds = clinics_query, type_, within_seconds
        self._rows, self._sample, self._shared = rows, sample, shared
        if rows is not None:
            rows.shared = shared

    def check(self, wanted: Collection[Table], templates: Mapping[str, str]) -> frozenset[str]:
        """Check that each row of a clinic is in its backup exactly once.

        Tables that cannot be counted give a warning.

        :param templates: the text of each table's extract.
        :returns: the tables whose rows were compared in full, without a finding. Of the others nothing is known, so
            each clinic's backup compares them.
        """
        extracts: dict[str, str] = {}
        for table in wanted:
            try:
                folder = PARENTS if table.name in self._coverage.parents.names else "extract"
                extracts[table.name] = for_every_clinic(
                    templates[table.name], name=f"{folder}/{table.name}", type_=self._type
                )
            except SettingsError as error:
                self._report.warn("rows", error.message, error.hint)
        tables = {table.name: table for table in wanted if table.name in extracts}
        links, structure = self._coverage.links(), self._coverage.structure
        rows = BackupRows(extracts, self._clinics_query, tables.values())
        rows.hasten(partial(at_once.faster, self._snapshot))
        checks = RowChecks(self._snapshot, structure, tables, rows, links, self._folder)
        values = ValueChecks(self._snapshot, structure, rows, self._folder)
        # A link to a table whose extract does not run here is not compared.
        half = {link.table for link in links if link.parent not in tables}
        counted: list[tuple[Table, RowCount]] = []
        compared: set[str] = set()
        for table in tables.values():
            ask = partial(values.problems, table, within_seconds=self._within_seconds)
            for problem in self._in_time(table.name, "compared with their values", ask) or ():
                self._report.error(problem.check, problem.reason, problem.remedy)
            if table.name in self._coverage.parents.names:
                continue
            if self._sample is not None:
                if self._check_rows_of_sample(table, checks) and table.name not in half:
                    compared.add(table.name)
                continue
            count = self._in_time(
                table.name, "counted", partial(checks.count, table, within_seconds=self._within_seconds)
            )
            if count is not None:
                counted.append((table, count))
                if self._check_rows_of(table, checks, count) and table.name not in half:
                    compared.add(table.name)
        if self._sample is not None:
            self._report.note("rows", self._sample.said(len(compared)))
        self._say_compared(counted)
        compared |= self._check_parents(tables, rows)
        if self._rows is not None:
            self._report_rows(self._rows, tables, rows, counted)
        return frozenset(compared)

    def _report_rows(
        self, report: RowReport, tables: Mapping[str, Table], rows: BackupRows,
        counted: Sequence[tuple[Table, RowCount]],
    ) -> None:  # fmt: skip
        declared = self._folder.declarations()
        for table, count in counted:
            held = count.in_table - count.left_out
            why = declared.rows.get(table.name, "") if count.left_out else ""
            shared = count.left_out if self._shared and table.name not in declared.rows else 0
            report.tables[table.name] = TableRows(
                table.name, "tenant", count.in_table, held, count.left_out - shared, why, count.too_many, shared
            )
        for name in sorted(self._coverage.parents.names & tables.keys()):
            if tables[name].primary_key:
                report.count_parent(self._snapshot, tables[name], rows.of(name))
        report.count_others(self._snapshot, self._coverage, declared)

    def _found(self, problem: Problem, query: sql.Composable) -> None:
        if self._rows is not None:
            self._rows.violated(self._snapshot, problem, query)

    def _check_parents(self, tables: Mapping[str, Table], rows: BackupRows) -> frozenset[str]:
        """Compare the rows of parent tables. Returns those without a finding."""
        of_parents = ParentChecks(self._snapshot, self._coverage.parents, tables, rows, self._folder)
        names = of_parents.comparable()
        if not names:
            return frozenset()
        said = ", ".join(names)
        ask = partial(of_parents.problems, names, within_seconds=self._within_seconds)
        problems = self._in_time(said, "compared with those that refer to them", ask)
        for problem in problems or ():
            self._report.error(problem.check, problem.reason, problem.remedy)
        if problems != []:
            return frozenset()
        others = "" if self._folder.declarations().rows.keys() & set(names) else ", and no others"
        whose = "Each clinic's backup" if self._sample is None else "Each of these clinics' backups"
        self._report.note("rows", f"{whose} holds the rows of {said} that its rows refer to{others}.")
        return frozenset(names)

    def _say_compared(self, counted: Sequence[tuple[Table, RowCount]]) -> None:
        """Report what was compared, leaving out what was not."""
        if not counted or any(item.check == "rows" and item.level == "error" for item in self._report.findings):
            return
        bare, declared = sum(not table.primary_key for table, _ in counted), self._folder.declarations().rows
        how = [f"{len(counted) - bare} by their primary keys"] if bare < len(counted) else []
        how += [f"{bare} without one by whole rows and their number"] if bare else []
        rows = sum(count.in_table for _, count in counted)
        meant, others = (
            sum(count.left_out for table, count in counted if (table.name in declared) == is_meant)
            for is_meant in (True, False)
        )
        left = [f"{meant:,} are left out on purpose"] if meant else []
        left += [f"{others:,} belong to no clinic"] if others else []
        self._report.note(
            "rows",
            f"{len(counted)} tables were compared with the backups of all clinics, {' and '.join(how)}:"
            f" {', '.join([f'{rows - meant - others:,} rows are in one backup each', *left])}.",
        )

    def _in_time(self, name: str, what: str, ask: Callable[[], Answer | None]) -> Answer | None:
        """The answer. ``None``: it took longer than ``within_seconds``, and a warning says so."""
        try:
            answer = ask()
        except ClinicBackupsError as error:
            self._report.warn("rows", f"The rows of {name} were not {what}: {error.message}", error.hint)
            return None
        if answer is None:
            self._report.warn(
                "rows",
                f"The rows of {name} were not {what} within {self._within_seconds:g} s.",
                "Each backup compares its own clinic's rows. EXPLAIN shows why the query is slow: an extract that is"
                " not a plain join runs once for each clinic.",
            )
        return answer

    def _check_rows_of(self, table: Table, checks: RowChecks, count: RowCount) -> bool:
        """Whether the rows were compared in full, without a finding."""
        too_many = count.too_many > 0
        if too_many:
            self._report.error(
                "rows",
                f"{table.name}: the backups of all clinics would hold {count.too_many} rows too many. Rows are in the"
                " backups of several clinics, or twice in one backup.",
                "Correct the extract: each row belongs to one clinic, and a join must not multiply it.",
            )
        # The expensive query runs only if the count shows that there is something to find.
        ask = partial(
            checks.problems, [table.name], within_seconds=self._within_seconds, missing=count.left_out > 0,
            twice=too_many, several=too_many, in_part=count.left_out > 0, on_found=self._found,
        )  # fmt: skip
        problems = self._in_time(table.name, "compared with the rows that they refer to", ask)
        for problem in problems or ():
            self._report.error(problem.check, problem.reason, problem.remedy)
        self._say_left_out(table.name, count.left_out, count.in_table)
        return problems == [] and not too_many

    def _check_rows_of_sample(self, table: Table, checks: RowChecks) -> bool:
        """The same for the backups of some clinics. A row in none of them may be in another one's."""
        ask = partial(checks.problems, [table.name], within_seconds=self._within_seconds, several=True)
        problems = self._in_time(table.name, "compared with the rows that they refer to", ask)
        for problem in problems or ():
            self._report.error(problem.check, problem.reason, problem.remedy)
        return problems == []

    def _say_left_out(self, name: str, left_out: int, in_table: int) -> None:
        reason = self._folder.declarations().rows.get(name)
        if left_out and reason is not None:
            self._report.note("rows", f"{name}: {left_out} of {in_table} rows are left out on purpose: {reason}.")
        elif left_out and self._shared:
            self._report.note(
                "rows",
                f"{name}: {left_out} of {in_table} rows belong to no clinic. The backup of the shared data holds them.",
            )
        elif left_out:
            self._report.warn(
                "rows",
                f"{name}: {left_out} of {in_table} rows belong to no clinic and are in no backup.",
                "If they are the SaaS's own, nothing needs to be done. If they are a clinic's, correct the extract."
                f" To declare them, add `{declarations.spelled(name)}: rows, reason` to"
                f" {self._folder.path / declarations.FILE}.",
            )
