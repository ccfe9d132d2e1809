"""What keeps triggers and rules from firing in a restore, for plans and for ``check``."""

from __future__ import annotations

from collections.abc import Iterable

from clinic_backups.base.text import in_sql, table_in_sql


def remedy(relations: Iterable[str], *, owner_only: bool) -> str:
    """What lets a restore turn off the triggers of these tables or partitions.

    :param owner_only: the restore could not use the replica role there, even if it might.
    """
    tables = [table_in_sql(name) for name in sorted(set(relations))]
    if owner_only:
        return " ".join(f"ALTER TABLE {table} OWNER TO the role of restore_db;" for table in tables)
    return (
        "GRANT SET ON PARAMETER session_replication_role TO the role of restore_db, or make it the owner of"
        f" {' and '.join(tables)}."
    )


def named(triggers: Iterable[tuple[str, str]]) -> str:
    """Triggers and rules, each given by its name and the table or partition that has it."""
    return ", ".join(dict.fromkeys(f"{in_sql(name)} of {table_in_sql(relation)}" for name, relation in triggers))
