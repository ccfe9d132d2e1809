"""On which days completed backups lack replicas: the catalog's own counts tell it, however many backups there are.

They only tell where to look. What lacks a replica is then asked of the records themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from sqlalchemy import ColumnElement, Connection, and_, or_, text

from clinic_backups.catalog.backup_counts import DAY
from clinic_backups.catalog.tables import backup

_MOST_PERIODS = 50
_DAYS = text("""
    WITH completed AS (
        SELECT day, sum(n) AS n FROM clinic_backups.backup_count
         WHERE day IS NOT NULL AND state = 'completed' GROUP BY day),
    held AS (
        SELECT store_url, day, sum(n) AS n FROM clinic_backups.replica_count
         WHERE store_url = ANY(CAST(:urls AS text[])) GROUP BY store_url, day)
    SELECT DISTINCT c.day
      FROM completed AS c CROSS JOIN unnest(CAST(:urls AS text[])) AS w (store_url)
      LEFT JOIN held AS h ON h.store_url = w.store_url AND h.day = c.day
     WHERE c.n <> coalesce(h.n, 0)
     ORDER BY c.day""")


def lacking(db: Connection, store_urls: Sequence[str]) -> ColumnElement[bool] | None:
    """The condition for backups of the days on which a store holds more or fewer replicas than there are backups.

    None: there is no such day, and so no store lacks one.
    """
    periods = _periods([day for (day,) in db.execute(_DAYS, {"urls": list(store_urls)})])
    if not periods:
        return None
    if len(periods) > _MOST_PERIODS:
        periods = [(periods[0][0], periods[-1][1])]
    return or_(*(and_(backup.c.started_at >= begins, backup.c.started_at < ends) for begins, ends in periods))


def _periods(days: Sequence[date]) -> list[tuple[datetime, datetime]]:
    """Days in order, those that follow each other as one period."""
    found: list[tuple[datetime, datetime]] = []
    for day in days:
        begins = datetime.combine(day, time(), UTC)
        if found and found[-1][1] == begins:
            begins = found.pop()[0]
        found.append((begins, datetime.combine(day, time(), UTC) + DAY))
    return found
