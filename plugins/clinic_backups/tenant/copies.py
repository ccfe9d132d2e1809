"""Schemas that hold a copy of one clinic's backup, as ``restore-into`` makes them. No backup holds their tables."""

from __future__ import annotations

from collections.abc import Iterable

from clinic_backups.base.copy_schema import MADE_BY_US
from clinic_backups.tenant.extract import SqlFolder
from clinic_backups.tenant.pg_catalog import catalog_query
from clinic_backups.tenant.problems import schema_of
from clinic_backups.tenant.tenant_db import Snapshot


def schemas(snapshot: Snapshot) -> list[str]:
    """The schemas with :data:`MADE_BY_US`."""
    found = snapshot.rows(catalog_query("copies"), {"copy": MADE_BY_US}, "looking for copies of backups")
    return sorted(name for (name,) in found)


def left_out(copies: Iterable[str], folder: SqlFolder) -> list[str]:
    """The copies among the schemas, without those that the SQL folder names: the application works in these.

    :param copies: from :func:`schemas`.
    """
    worked_in = {schema_of(name) for name in (folder.clinic_table, *folder.queries())}
    return sorted(set(copies) - worked_in)
