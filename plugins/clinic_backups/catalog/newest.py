"""The newest good backup of each unit, as the catalog knows it: the stores should hold at least these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from clinic_backups.base.clinic_id import ClinicId, clinic_id_of
from clinic_backups.catalog.catalog_database import CatalogDatabase

# The units as the index has them, one step for each: the records of all of them are many more.
_NEWEST = text("""
    WITH RECURSIVE unit (clinic_id) AS (
        (SELECT b.clinic_id FROM clinic_backups.backup AS b ORDER BY b.clinic_id LIMIT 1)
         UNION ALL
        SELECT (SELECT b.clinic_id FROM clinic_backups.backup AS b
                 WHERE b.clinic_id > u.clinic_id ORDER BY b.clinic_id LIMIT 1)
          FROM unit AS u WHERE u.clinic_id IS NOT NULL)
    SELECT b.clinic_id, b.backup_id, b.archive_key, b.data_time,
           ARRAY(SELECT link ->> 'key' FROM jsonb_array_elements(b.chain) AS link) AS chain,
           ARRAY(SELECT r.store_url FROM clinic_backups.backup_replica AS r
                  WHERE r.backup_id = b.backup_id AND r.state = 'present') AS stores,
           coalesce((SELECT k.active FROM clinic_backups.clinic AS k WHERE k.clinic_id = b.clinic_id), true) AS active
      FROM unit AS c
     CROSS JOIN LATERAL (
           SELECT n.clinic_id, n.backup_id, n.archive_key, n.data_time, n.chain
             FROM clinic_backups.backup AS n
            WHERE n.clinic_id = c.clinic_id AND n.good AND n.data_time <= :until
            ORDER BY n.started_at DESC, n.id DESC LIMIT 1) AS b""")


@dataclass(frozen=True)
class NewestBackup:
    """One unit's newest good backup.

    :param data_time: the moment of its rows.
    :param keys: its archive and those that it is built on.
    :param stores: the URLs of the stores that should have it.
    """

    clinic_id: ClinicId
    backup_id: str
    data_time: datetime
    keys: tuple[str, ...]
    stores: frozenset[str]
    is_active: bool = True
    """False of a clinic that is closed."""


def newest_good(database: CatalogDatabase, until: datetime) -> list[NewestBackup]:
    """Of each unit that the catalog knows, the shared one too. :param until: no backup has rows that are later."""
    with database.transaction("reading the newest backups") as db:
        rows = db.execute(_NEWEST, {"until": until}).all()
    return [
        NewestBackup(clinic_id_of(of), backup_id, at, (key, *chain), frozenset(stores), is_active)
        for of, backup_id, key, at, chain, stores, is_active in rows
    ]
