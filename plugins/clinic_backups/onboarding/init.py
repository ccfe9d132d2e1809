"""What ``clinic-backups init`` finds and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinic_backups.base.errors import SettingsError
from clinic_backups.onboarding import folder as sql_folder
from clinic_backups.onboarding import polymorphic, rights, texts
from clinic_backups.onboarding.classes import NAMED, Classes, TableChoice, Written
from clinic_backups.onboarding.extract_text import ExtractText
from clinic_backups.onboarding.folder import PlannedFile
from clinic_backups.onboarding.links import is_like_a_key
from clinic_backups.onboarding.parent_text import ParentText
from clinic_backups.onboarding.polymorphic import PolymorphicKey
from clinic_backups.onboarding.schema import Schema, Tenant, read, tenant_of
from clinic_backups.onboarding.sql_parts import escaped
from clinic_backups.tenant import declarations, drift
from clinic_backups.tenant.clinic_key import FILE as CLINIC_TABLE
from clinic_backups.tenant.declarations import Declarations, spelled
from clinic_backups.tenant.extract import SqlFolder, file_of
from clinic_backups.tenant.tenant_db import Snapshot


@dataclass(frozen=True)
class Wanted:
    """What a person says about the tenants.

    :ivar table: ``schema.table`` whose rows are the tenants; ``None``: that of ``clinic_table.txt``.
    :ivar active: a condition in SQL.
    :ivar parents: tables that are no tenant's own although a link leads from them to one.
    """

    table: str | None = None
    key: str | None = None
    name: str | None = None
    active: str = ""
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitPlan:
    """The class of each table, the files, and the lines to add."""

    tenant: Tenant
    choices: tuple[TableChoice, ...]
    files: tuple[PlannedFile, ...]
    lines: tuple[str, ...]
    """Lines for ``not_backed_up.txt``."""
    pairs: Mapping[str, Sequence[str]]
    """For unknown tables: lines for ``polymorphic.txt``, to be completed."""

    @property
    def unknown(self) -> list[TableChoice]:
        """The tables that a person has to classify."""
        return [choice for choice in self.choices if choice.table_class == "unknown"]

    @property
    def is_settled(self) -> bool:
        """Whether every table has a class and the folder says so."""
        return not self.unknown and not self.lines and all(file.state in ("same", "edited") for file in self.files)


def plan(snapshot: Snapshot, folder: Path, wanted: Wanted) -> InitPlan:
    """Classify all tables of the database, and compare with the folder. Writes nothing.

    :raises SettingsError: the tenants' table or its key is unusable, or a file of the folder cannot be read.
    """
    present = SqlFolder(folder) if (folder / CLINIC_TABLE).exists() else None
    table = _tenant_table(present, wanted.table, folder)
    schema = read(snapshot, table)
    key = wanted.key or (present.clinic_key.column if present else None)
    tenant = tenant_of(schema, table, key, wanted.name, wanted.active)
    for parent in wanted.parents:
        if parent not in schema.columns:
            raise SettingsError(f"There is no table {parent}.", hint="Correct --parent: it is schema.table.")
    declared = SqlFolder(folder).declarations() if (folder / declarations.FILE).exists() else Declarations()
    listed = folder / polymorphic.FILE
    written = Written(
        declared,
        sql_folder.persons(folder, "extract"),
        frozenset(sql_folder.persons(folder, "parents")),
        polymorphic.parse(listed.read_text(encoding="utf-8"), schema) if listed.exists() else (),
    )
    named = sql_folder.commented(folder, "parents", NAMED) - written.extracts.keys()
    classes = Classes(schema, tenant, written, {*wanted.parents, *named} & schema.columns.keys())
    choices = classes.all()
    files = sql_folder.plan(
        folder,
        _texts(schema, tenant, classes, choices),
        _once(tenant, is_primary=schema.primary_keys.get(table) == (tenant.key,)),
    )
    unknown = [choice.table for choice in choices if choice.table_class == "unknown"]
    pairs = {each: polymorphic.proposals(schema, each) for each in unknown}
    lines = [
        *_lines(choices, declared), *_named_parents(classes, declared), *_columns(classes, declared),
        *_of_pairs(schema, written.polymorphic, declared),
    ]  # fmt: skip
    return InitPlan(tenant, tuple(choices), tuple(files), tuple(lines), pairs)


def apply(folder: Path, found: InitPlan) -> None:
    """Write the files. :raises SettingsError: the folder cannot be written."""
    sql_folder.write(folder, found.files, {declarations.FILE: found.lines})


def _tenant_table(present: SqlFolder | None, wanted: str | None, folder: Path) -> str:
    """The table that the folder is for, or that somebody wants. :param present: the folder, if it names one."""
    there = present.clinic_table if present else None
    if wanted is None and there is None:
        raise SettingsError(
            f"{folder} does not say which table's rows are the tenants.",
            hint="Name it: clinic-backups init --tenant schema.table",
        )
    if wanted is not None and there is not None and wanted != there:
        raise SettingsError(
            f"The folder {folder} is for the table {there}, and not for {wanted}.",
            hint="Set CLINIC_BACKUPS_SQL_DIR to a new folder for this schema, wherever backups and restores run.",
        )
    table = wanted or there or ""
    if table.count(".") != 1:
        raise SettingsError(
            f"{table!r} is not a table.", hint="Write it as schema.table, such as public.organizations."
        )
    return table


def _texts(schema: Schema, tenant: Tenant, classes: Classes, choices: Sequence[TableChoice]) -> dict[str, str]:
    """The files that follow from the catalog."""
    extracts = ExtractText(schema, tenant, classes.owners)
    parents = ParentText(schema, extracts, classes.referring)
    found = {rights.FILE: rights.grants(schema, tenant, choices, classes.links)}
    for choice in choices:
        comment = f"-- {escaped(choice.reason)}\n"
        if choice.table_class == "tenant":
            found[f"extract/{file_of(choice.table)}"] = comment + extracts.of(choice.table)
        elif choice.table_class == "parent":
            found[f"parents/{file_of(choice.table)}"] = comment + parents.of(choice.table)
    return found


def _once(tenant: Tenant, *, is_primary: bool) -> dict[str, str]:
    """The files that a person completes."""
    return {
        CLINIC_TABLE: texts.clinic_table(tenant, is_primary=is_primary),
        "active_clinics.sql": texts.clinics(tenant, active=True),
        "all_clinics.sql": texts.clinics(tenant, active=False),
        "clinic_admins.sql": texts.ADMINS,
        "user_clinics.sql": texts.user_clinics(tenant),
        declarations.FILE: texts.NOT_BACKED_UP,
        drift.FILE: texts.DRIFT,
        polymorphic.FILE: polymorphic.HEADER,
    }


def _lines(choices: Sequence[TableChoice], declared: Declarations) -> list[str]:
    """The lines for tables that are in no backup, and whose class follows from the catalog."""
    found = []
    for choice in choices:
        if choice.by == "init" and choice.table not in declared.tables:
            if choice.table_class == "shared":
                found.append(f"{spelled(choice.table)}: shared, {choice.reason}")
            elif choice.table_class == "left out":
                found.append(f"{spelled(choice.table)}: {choice.reason}")
    return found


def _columns(classes: Classes, declared: Declarations) -> list[str]:
    """The lines for columns in which a row of a parent table names a tenant's row. It may be any tenant's."""
    return [
        f"{spelled(table, link.columns[-1])}: a row of this parent table serves several tenants, and names one of them"
        for table in sorted(classes.referring)
        for link in classes.links[table]
        if link.parent in classes.owners and f"{table}.{link.columns[-1]}" not in declared.columns
    ]


def _of_pairs(schema: Schema, keys: Sequence[PolymorphicKey], declared: Declarations) -> list[str]:
    """The lines for columns of declared pairs that by their name alone refer to one table: the check goes by names."""
    found = {
        f"{spelled(key.table, key.columns[0])}: {key.type_column} says to which table it refers, see {polymorphic.FILE}"
        for key in keys
        if f"{key.table}.{key.columns[0]}" not in declared.columns and is_like_a_key(schema, key.columns[0])
    }
    return sorted(found)


def _named_parents(classes: Classes, declared: Declarations) -> list[str]:
    """The lines for parents to which columns without a constraint refer: the check knows foreign keys only."""
    found = []
    for table, links in sorted(classes.referring.items()):
        named = sorted({f"{link.table}.{link.columns[0]}" for link in links if not link.enforced})
        if named and table not in declared.rows:
            found.append(f"{spelled(table)}: rows, {', '.join(named)} refer to it by name alone")
    return found
