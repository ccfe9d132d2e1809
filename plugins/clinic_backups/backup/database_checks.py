"""Checks the clinics' database and the SQL folder against each other, before the first backup starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from clinic_backups.backup.row_findings import RowFindings
from clinic_backups.backup.row_report import RowReport
from clinic_backups.backup.sample import Sample
from clinic_backups.backup.server_checks import check_locks
from clinic_backups.backup.setting_checks import check_clinics_of_settings
from clinic_backups.backup.shared_checks import check_shared
from clinic_backups.base.clinic_id import ClinicId, in_order
from clinic_backups.base.compared_rows import ComparedRows
from clinic_backups.base.errors import SettingsError
from clinic_backups.base.findings import Report
from clinic_backups.base.settings import Settings
from clinic_backups.base.table import Table
from clinic_backups.tenant import (
    declarations,
    drift,
    gate,
    lost_lines,
    masks,
    people,
    search_columns,
    source_database,
    structure,
)
from clinic_backups.tenant.clinic_key_check import require_key
from clinic_backups.tenant.coverage import Coverage
from clinic_backups.tenant.every_clinic import number_type, of_type
from clinic_backups.tenant.extract import SqlFolder, render, require_user_columns
from clinic_backups.tenant.mask_rules import mask_facts, mask_problems, of_a_part
from clinic_backups.tenant.operator_checks import operator_problems
from clinic_backups.tenant.problems import Problem
from clinic_backups.tenant.strangers import strangers_of_folder
from clinic_backups.tenant.structure import Structure
from clinic_backups.tenant.tenant_db import Snapshot

COUNT_TIMEOUT_SECONDS = 60
"""The longest time of each of two queries about one table's rows. A table that needs more is not counted."""
SHOWN_TABLES = 20
OnCompared = Callable[[ComparedRows], object]


class DatabaseChecks:
    """The checks of the clinics' database, all in one snapshot."""

    def __init__(self, snapshot: Snapshot, settings: Settings, report: Report, on_compared: OnCompared) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._folder = SqlFolder(settings.sql_dir)
        self._report = report
        self._on_compared = on_compared
        self._clinic_ids: frozenset[ClinicId] = frozenset()
        """The clinics that ``all_clinics.sql`` returns."""
        self._clinic_id: ClinicId = 0
        """The clinic that the extracts are tried with."""
        self._tables: list[Table] = []
        """The tables whose extract runs."""
        self._clinics_query: str | None = None
        """The text of ``all_clinics.sql``, after it was run."""

    @cached_property
    def _extracts(self) -> dict[str, str]:
        return self._folder.queries()

    @cached_property
    def _structure(self) -> Structure:
        return structure.read(self._snapshot, gate.names_of(self._folder), self._folder.clinic_table)

    @cached_property
    def _coverage(self) -> Coverage:
        return Coverage(self._structure, self._folder, self._extracts)

    def check_key(self) -> None:
        """Check the type of the clinics' key."""
        self._clinic_id = self._folder.clinic_key.sample
        require_key(self._snapshot, self._folder)

    def check_owners(self) -> None:
        """Check that reading the tables runs no code of strangers. The tables that extracts only join count too."""
        try:
            found = strangers_of_folder(self._snapshot, self._folder, self._clinic_id)
        except SettingsError:
            return  # the check of the extracts reports it
        for each in found:
            self._report.error("owners", each.said, each.remedy)
        self._report.ok("owners", "Reading the clinics' tables runs no code of other roles.")

    def check_clinics(self) -> None:
        """Check the queries of the clinics and their administrators."""
        report, snapshot, folder = self._report, self._snapshot, self._folder
        with report.check("extracts"):
            with snapshot.savepoint():
                found = people.read_clinics(snapshot, folder, "all_clinics.sql")
            clinics, unusable = found.clinics, found.unusable
            self._clinic_id = clinics[0].id if clinics else self._clinic_id
            self._clinic_ids = frozenset(clinic.id for clinic in clinics)
            self._clinics_query = folder.text("all_clinics.sql")
            if unusable:
                self._clinics_query = people.without(self._clinics_query, unusable)
            check_clinics_of_settings(self._settings, [clinic.id for clinic in clinics], report)
            with snapshot.savepoint():
                found = people.read_clinics(snapshot, folder, "active_clinics.sql")
            active = found.clinics
            for key in people.each_once((*unusable, *found.unusable)):
                report.error("clinics", key.error.message, key.error.hint)
            if unknown := in_order({clinic.id for clinic in active} - {clinic.id for clinic in clinics}):
                report.error(
                    "extracts",
                    f"active_clinics.sql returns clinics that all_clinics.sql lacks: {', '.join(map(str, unknown))}.",
                    f"Correct {folder.path / 'all_clinics.sql'}: it must return every clinic.",
                )
            elif not active:
                report.warn(
                    "extracts",
                    f"active_clinics.sql returns no clinic (all_clinics.sql {len(clinics)}): nothing is backed up.",
                    f"If clinics should be backed up, correct {folder.path / 'active_clinics.sql'}.",
                )
        with report.check("extracts"), snapshot.savepoint():
            admins = folder.rendered("clinic_admins.sql", self._clinic_id)
            snapshot.rows(
                f"{people.admins_query(admins)} LIMIT 1",
                None,
                "trying clinic_admins.sql, which must return the columns email and name",
                source="file",
            )
        with report.check("extracts"), snapshot.savepoint():
            self._check_user_clinics()

    def _check_user_clinics(self) -> None:
        """Check that it returns two or three columns of the right types."""
        who, query = {"email": "", "name": ""}, self._folder.user_clinics()
        doing = "trying user_clinics.sql, which must return clinic_id and role, and may return user_id"
        # Joined to one row, so that columns can be counted even if the query returns no row.
        counted = (
            "SELECT count(*) FROM json_object_keys((SELECT row_to_json(r) FROM"  # noqa: S608
            f" (SELECT q.* FROM (SELECT) AS one LEFT JOIN (\n{query}\n) AS q ON true LIMIT 1) AS r))"
        )
        ((columns,),) = self._snapshot.rows(counted, who, doing, source="file")
        require_user_columns(columns)
        names = [f"clinic_id::{self._folder.clinic_key.sql_type}", "role::text", "user_id::bigint"][:columns]
        wanted, called = ", ".join(names), ", ".join(name.partition("::")[0] for name in names)
        self._snapshot.rows(
            f"SELECT {wanted} FROM (\n{query}\n) AS r ({called})",  # noqa: S608
            who, doing, source="file",
        )  # fmt: skip

    def check_extracts(self) -> None:
        """Check that each table exists and can be read, and that its extract runs and returns all columns."""
        for name in self._extracts:
            relation = self._structure.relations.get(name)
            if relation is not None and relation.kind not in "rp":
                continue  # check_coverage reports views
            with self._report.check("extracts"), self._snapshot.savepoint():
                table = self._snapshot.tables([name])[name]
                self._snapshot.probe(table, self._rendered(name))
                self._tables.append(table)
        self._report.ok("extracts", f"{len(self._tables)} extracts run.")

    def _rendered(self, name: str) -> str:
        """The query of one table, for the clinic that the queries are tried with."""
        return render(self._extracts[name], self._clinic_id, name=f"extract/{name}", key=self._folder.clinic_key)

    def check_locks(self) -> None:
        """Check that the server has room for the locks of a backup."""
        check_locks(self._snapshot, self._extracts, self._report)

    def check_coverage(self, *, require_classes: bool) -> None:
        """Check that no table of clinics is left out without a reason, and that extracts read supported tables."""
        report, running = self._report, {table.name for table in self._tables}
        extracts = {name: self._rendered(name) for name in self._extracts if name in running}
        for problem in gate.problems_of_tables(
            self._snapshot, self._coverage, extracts, within_seconds=COUNT_TIMEOUT_SECONDS
        ):
            if problem.is_gap:
                report.error(problem.check, problem.reason, problem.remedy)
            else:
                report.warn(problem.check, problem.reason, problem.remedy)
        for problem in self._operators_of_files():
            report.error("extracts", problem.reason, problem.remedy)
        report.ok("coverage", f"All {len(self._coverage.chains)} tables that lead to a clinic are accounted for.")
        if others := self._coverage.unclassed():
            more = f" and {len(others) - SHOWN_TABLES} more" if len(others) > SHOWN_TABLES else ""
            names = ", ".join(others[:SHOWN_TABLES]) + more
            said = f"These tables lead to no clinic and are in no backup: {names}."
            if require_classes:
                report.error(
                    "coverage",
                    f"{said} Nobody has said whose rows they hold.",
                    f"For each one, write an extract, or a line in {self._folder.path / declarations.FILE}:"
                    f" `{declarations.spelled(others[0])}: shared, reason` if the rows serve all clinics, and"
                    f" `{declarations.spelled(others[0])}: reason` if they may be lost.",
                )
            else:
                report.note("coverage", said)

    def _operators_of_files(self) -> list[Problem]:
        """The problems of the queries that name clinics and their people.

        ``user_clinics.sql`` is not among them: it runs with the search path of its role.
        """
        templates = {name: self._folder.text(name) for name in ("all_clinics.sql", "active_clinics.sql")}
        admins = self._folder.rendered("clinic_admins.sql", self._clinic_id)
        return operator_problems(self._structure, templates | {"clinic_admins.sql": admins}, what="The query of")

    def check_shared(self) -> None:
        """Check the backup of the shared data, unless something is wrong that was found before."""
        if self._report.has_errors("extracts"):
            return
        check_shared(self._snapshot, self._settings, self._folder, self._report)

    def check_drift(self) -> None:
        """Check that ``drift.txt`` is valid and leads to existing columns. Backups do not need it, so it only warns."""
        hint = f"Correct {self._folder.path / drift.FILE}: restores of older backups need it."
        try:
            lines = self._folder.drift()
        except SettingsError as error:
            self._report.warn("drift", error.message, f"{hint} {error.hint}")
            return
        if lines:
            for sentence in lost_lines.lost(lines, structure.column_numbers(self._snapshot)):
                self._report.warn("drift", sentence, hint)

    def check_search_columns(self) -> None:
        """Check that ``search.txt`` names columns of backed-up tables. Only ``find`` needs it, so it only warns."""
        place = self._folder.path / search_columns.FILE
        try:
            lines = self._folder.search_columns().tables
        except SettingsError as error:
            self._report.warn("search", error.message, error.hint)
            return
        known = {table.name: {column.name for column in table.stored_columns} for table in self._tables}
        for name, columns in lines.items():
            for column in columns:
                if column not in known.get(name, set()):
                    self._report.warn(
                        "search",
                        f"{place.name} names {name}.{column}, which no backup has.",
                        f"Correct the line in {place}, or remove it.",
                    )

    def check_masks(self) -> None:
        """Check that ``masks.txt`` names columns that its rules fit. Only copies need it, so it only warns."""
        place = self._folder.path / masks.FILE
        hint = f"Correct the line in {place}: otherwise no masked copy can be made."
        try:
            rules = self._folder.masks().tables
        except SettingsError as error:
            self._report.warn("masks", error.message, error.hint)
            return
        if not rules:
            return
        there = self._snapshot.relations()
        with self._report.check("masks"), self._snapshot.savepoint():
            known = {table.name: table for table in self._tables}
            known |= self._snapshot.tables(sorted((rules.keys() & there.keys()) - known.keys()))
            facts, extracted = mask_facts(self._snapshot, rules), {table.name for table in self._tables}
            for said in mask_problems(rules, known, facts):
                self._report.warn("masks", said, hint)
            for name in rules.keys() - extracted:
                if said := of_a_part(name, rules[name], rules, extracted & {*facts.wholes.get(name, ())}):
                    self._report.warn("masks", said, hint)

    def check_indexes(self) -> None:
        """Check that each foreign key to the clinic has an index. Without one, every backup reads the whole table."""
        for table in self._tables:
            wanted = {
                key.columns: key.references
                for key in table.foreign_keys
                if key.references in self._coverage.chains and not key.indexed
            }
            for columns, references in wanted.items():
                partitioned = self._structure.relations[table.name].kind == "p"
                self._report.warn(
                    "indexes",
                    f"{table.name} has no index on its foreign key ({', '.join(columns)}) to {references}.",
                    self._snapshot.create_index(table.name, columns, partitioned=partitioned),
                )
        if self._tables:
            self._report.ok("indexes", "All foreign keys that lead to a clinic have an index.")

    def check_rows(self, rows: RowReport | None, turn: int) -> None:
        """Compare the rows of all clinics with the extracts, and hand on which tables were compared.

        The report of a person who asks where all rows are is of all clinics, also if a night compares only some.
        """
        if self._clinics_query is None:
            return
        nights = self._settings.compare_nights if rows is None else 1
        sample, query = Sample.of_night(self._clinic_ids, nights, turn), self._clinics_query
        if sample is not None:
            query = people.only(query, sample.clinics, self._folder.clinic_key)
        type_ = number_type(self._clinic_ids, self._folder.clinic_key)
        found = RowFindings(
            self._snapshot, self._coverage, self._folder, self._report, query, type_=type_,
            within_seconds=COUNT_TIMEOUT_SECONDS, rows=rows, sample=sample, shared=self._settings.shared,
        )  # fmt: skip
        compared = found.check(self._tables, self._extracts)
        source, folder = source_database.identity_of(self._snapshot), self._folder.digest()
        clinics = of_type(self._clinic_ids, type_)
        self._on_compared(ComparedRows(source, self._snapshot.definitions(), folder, compared, clinics))
