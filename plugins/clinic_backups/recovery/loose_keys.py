"""Foreign keys that PostgreSQL has not proven for the rows that are there."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg2 import sql

from clinic_backups.base.database import qualified
from clinic_backups.recovery.session import Session

_KEYS = """
SELECT n.nspname || '.' || t.relname, k.conname, m.nspname || '.' || r.relname,
       (SELECT array_agg(a.attname::text ORDER BY o.place) FROM unnest(k.conkey) WITH ORDINALITY AS o (number, place)
          JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = o.number),
       (SELECT array_agg(a.attname::text ORDER BY o.place) FROM unnest(k.confkey) WITH ORDINALITY AS o (number, place)
          JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = o.number)
  FROM pg_constraint AS k
  JOIN pg_class AS t ON t.oid = k.conrelid
  JOIN pg_namespace AS n ON n.oid = t.relnamespace
  JOIN pg_class AS r ON r.oid = k.confrelid
  JOIN pg_namespace AS m ON m.oid = r.relnamespace
 WHERE k.contype = 'f' AND NOT k.convalidated AND k.conparentid = 0
 ORDER BY 1, 2
"""


def unproven_keys(session: Session) -> Iterator[tuple[str, str, str]]:
    """Table, name, and the query of the rows that refer to nothing, of each key that is ``NOT VALID``."""
    for table, name, referred, columns, keys in session.rows(_KEYS, doing="looking for foreign keys"):
        pairs = list(zip(columns, keys, strict=True))
        query = sql.SQL("SELECT t.* FROM {} AS t WHERE {} AND NOT EXISTS (SELECT FROM {} AS r WHERE {})").format(
            qualified(table),
            sql.SQL(" AND ").join(sql.SQL("t.{} IS NOT NULL").format(sql.Identifier(own)) for own, _ in pairs),
            qualified(referred),
            sql.SQL(" AND ").join(
                sql.SQL("r.{} = t.{}").format(sql.Identifier(key), sql.Identifier(own)) for own, key in pairs
            ),
        )
        yield table, name, session.text(query)
