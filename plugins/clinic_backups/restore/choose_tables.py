"""Chooses the tables of a backup that a restore includes, and matches their columns with today's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg2 import sql

from clinic_backups.base.errors import PermanentError
from clinic_backups.base.table import Table
from clinic_backups.restore.columns.migrated import Migrated
from clinic_backups.restore.columns.proposals import proposed_tables
from clinic_backups.restore.columns.shape import Shape, fit
from clinic_backups.restore.former_parts import FormerPart, former_parts
from clinic_backups.restore.named_tables import Parts, parts_of, require_known
from clinic_backups.restore.ownership.ways import Ways
from clinic_backups.restore.plan import Refusal, Target
from clinic_backups.restore.refusals import missing_rights
from clinic_backups.restore.request import Wish
from clinic_backups.restore.table_rules import (
    Reference,
    TableRules,
    identified,
    linked_tables,
    read_references,
    read_rules,
)
from clinic_backups.restore.unit_sql import SharedFolder
from clinic_backups.restore.workspace import Workspace
from clinic_backups.tenant.drift import FILE, renamed_table
from clinic_backups.tenant.extract import PARENTS, SqlFolder, file_of
from clinic_backups.tenant.strangers import require_no_strangers
from clinic_backups.tenant.tenant_db import Snapshot


class ChosenTables:
    """The tables that the restore includes. Those that cannot be included are in ``refusals``.

    :param migrated: the backup under the present names.
    :param queries: the extract of each table, rendered for the clinic.
    :param ways: how rows lead to the clinic.
    """

    def __init__(
        self,
        workspace: Workspace,
        migrated: Migrated,
        wish: Wish,
        queries: Mapping[str, str],
        target: Target,
        ways: Ways,
        folder: SqlFolder,
    ) -> None:
        self._folder = folder
        self._ways = ways
        self._workspace, self._migrated, self._wish = workspace, migrated, wish
        self._manifest, self._queries, self._target = migrated.manifest, queries, target
        self.refusals: list[Refusal] = []
        self.notes: dict[str, list[str]] = {name: list(notes) for name, notes in migrated.notes.items()}
        self.shapes: dict[str, Shape] = {}
        self.tables: dict[str, Table] = {}
        """PostgreSQL's description of the included tables, and of those that refer to them."""
        self.rules: dict[str, TableRules] = {}
        self.references: tuple[Reference, ...] = ()
        self.former: dict[str, list[FormerPart]] = {}
        """Tables that have left the included ones since the backup."""
        self._wanted: tuple[str, ...] = ()

    def choose(self) -> None:
        """Choose the tables that the restore includes, and match their columns."""
        contents = self._manifest.tables
        require_known({*self._wish.tables, *self._wish.rows}, contents, self._parts)
        wanted = [name for name in contents if not self._wish.tables or name in self._wish.tables]
        self.refusals += [refusal for refusal in self._migrated.refusals if refusal.table in {"", *wanted}]
        wanted = [name for name in wanted if name not in {refusal.table for refusal in self.refusals}]
        there = self._workspace.relations()
        if wanted and not set(wanted) & set(there):
            self._refuse(
                "",
                f"{self._target.name} has none of the {len(wanted)} tables of the backup.",
                "Correct the connection restore_db if it leads to the wrong database, or create the tables first. If"
                f" the tables or their schema were renamed, write `old -> new` for each table into include/sql/{FILE}.",
            )
            return
        gone: list[str] = []
        for name in wanted:
            if name not in there:
                gone.append(name)
            elif name not in self._queries:
                subfolder = PARENTS if contents[name].is_parent else "extract"
                self._refuse(
                    name,
                    f"{name} is in the backup, but has no extract now.",
                    f"Bring include/sql/{subfolder}/{file_of(name)} back, or restore without the table.",
                )
        self._refuse_gone(gone, there)
        for name in sorted(set(self._queries) - set(contents)):
            if not self._wish.tables:
                is_parent = name in self._folder.parents() and not isinstance(self._folder, SharedFolder)
                since = "is a parent table now, and is not in" if is_parent else "was added since"
                self.notes.setdefault(name, []).append(f"{name} {since} the backup. Its rows are left as they are.")
        wanted = [name for name in wanted if name in there and name in self._queries]
        self.references = read_references(self._workspace, wanted)
        # Before any table is read. Those with an extract are locked, and so are those that their extracts join.
        self._wanted = tuple(wanted)
        self.require_no_strangers(self._workspace)
        self.rules = read_rules(self._workspace, sorted({*wanted, *linked_tables(self.references)}))
        readable = {name for name, rules in self.rules.items() if "SELECT" not in rules.missing_rights}
        for name in [name for name in wanted if name not in readable]:
            self.refusals.append(missing_rights(self._workspace.role(), self._target.name, name, ["SELECT"]))
            wanted.remove(name)
        children = {reference.child for reference in self.references}
        self.tables = self._workspace.tables(sorted(readable & {*wanted, *children}))
        self.former = former_parts(self._workspace, self._migrated, {name: self.tables[name] for name in wanted})
        if self.former:
            self.require_no_strangers(self._workspace)
        for name in wanted:
            self._identify(name)
            self._fit(name)

    def _parts(self) -> Parts:
        """The partitions and heirs of the backup's tables and of the named ones, when it was made and now."""
        if not self._wish.rows:
            return {}
        contents, there = self._manifest.tables, {*self._workspace.relations()}
        now = self._workspace.tables(sorted({*contents, *self._wish.rows} & there))
        return parts_of({name: content.table for name, content in contents.items()}, now)

    def require_no_strangers(self, snapshot: Snapshot) -> None:
        """:raises PermanentError: reading and writing these tables would run code of strangers."""
        written = {*self._wanted, *self._folder.declarations().derived}
        # Rows that no extract returns are looked for in the extracts of all clinics.
        lists = [self._folder.text("all_clinics.sql")]
        # Values are converted from their types in the backup, also if no column has that type any more.
        types = {column.type for name in self._wanted for column in self._manifest.tables[name].table.columns}
        former = {part.name for parts in self.former.values() for part in parts}
        require_no_strangers(
            snapshot, self._folder, self._queries, "The restore", tables=former, types=types, unlocked=lists,
            written=written,
        )  # fmt: skip

    def _refuse_gone(self, gone: Sequence[str], there: Collection[str]) -> None:
        """Refuse tables that no longer exist, and name the tables that may have replaced each."""
        new = (self._queries.keys() & set(there)) - self._manifest.tables.keys() if gone else set[str]()
        candidates = self._workspace.tables(sorted(new)) if new else {}
        without = "what hangs on the named rows (only)" if self._wish.rows else "it"
        for name in gone:
            table, known = self._manifest.tables[name].table, self._migrated.renamed.get(name)
            proposed = [renamed_table(name, known)] if known else proposed_tables(table, candidates)
            lines = " or ".join(f"`{line}`" for line in proposed)
            renamed = (
                f"If a migration renamed it, add to include/sql/{FILE}: {lines}. Otherwise make" if lines else "Make"
            )
            self._refuse(
                name,
                f"{name} is in the backup, but no longer exists.",
                f"{renamed} the table again, or restore without {without}.",
            )

    def _identify(self, name: str) -> None:
        """Find what tells the table's rows apart."""
        now = self.tables[name]
        self.tables[name], self.rules[name] = identified(
            self._manifest.tables[name].table, now, self.rules[name], self.references
        )
        if self.tables[name] is not now:
            self.notes.setdefault(name, []).append(
                f"The primary key ({', '.join(now.primary_key)}) is newer than the backup: rows are told apart by"
                f" {', '.join(self.rules[name].row_key)}."
            )

    def _fit(self, name: str) -> None:
        rules = self.rules[name]
        if uncovered := [child for child in rules.children if child not in self._queries]:
            self._refuse(
                name,
                f"Other tables inherit from {name} and have no extract of their own: {', '.join(uncovered)}. Their"
                f" rows would come back in {name}, without their own columns.",
                f"Write an extract for each of them, and FROM ONLY {name} into that of {name}; make a new backup.",
            )
            return
        shape = fit(
            self._manifest.tables[name].table,
            self.tables[name],
            rules,
            ignore_dropped=self._wish.ignore_dropped,
            fills=self._migrated.fills.get(name, {}),
            kept=self._migrated.kept.get(name, ()),
            made_again=self._migrated.made_again.get(name, ()),
            renamed=self._migrated.renamed_columns.get(name),
            same_database=self._migrated.same_database,
        )
        if isinstance(shape, Refusal):
            self.refusals.append(shape)
        elif wrong := [column for column in (*shape.filled, *shape.unnulled) if not self._is(shape.value_of(*column))]:
            self._refuse(
                name,
                f"{FILE} gives a value for {', '.join(column for column, _ in wrong)} of {name} that its type does not"
                " allow.",
                "Correct the line.",
            )
        elif foreign := self._foreign(name, [column for column, _ in (*shape.filled, *shape.unnulled)]):
            self._refuse(
                name,
                f"{FILE} gives one value for {', '.join(foreign)} of {name}, which says to which clinic a row belongs."
                " One value cannot be right for all clinics.",
                "Remove the line and give the column a default for the time of the restore, or restore without this"
                " table.",
            )
        else:
            self.shapes[name] = shape

    def _foreign(self, name: str, filled: Collection[str]) -> list[str]:
        """Those of the columns that name a clinic, or a row that belongs to a clinic."""
        if not filled:
            return []
        keys = {
            column
            for reference in self.references
            if reference.child == name and reference.parent in self._queries
            for column in reference.columns
        }
        return sorted((keys | self._ways.telling(name)) & set(filled))

    def _is(self, value: sql.Composed) -> bool:
        """Whether the database accepts this value for this type."""
        try:
            self._workspace.as_application(sql.SQL("SELECT {}").format(value), 1, "looking at a value")
        except PermanentError:
            return False
        return True

    def _refuse(self, table: str, message: str, hint: str) -> None:
        self.refusals.append(Refusal(table, message, hint))
