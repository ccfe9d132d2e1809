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
          JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = o.number),
       k.confmatchtype = 'f', t.relkind = 'r', r.relkind = 'r'
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
    for table, name, referred, columns, keys, is_full, *alone in session.rows(_KEYS, doing="looking for foreign keys"):
        pairs = list(zip(columns, keys, strict=True))
        # As PostgreSQL looks at them: without the rows of heirs, on both sides.
        child, parent = (
            sql.SQL("ONLY {}" if is_alone else "{}").format(qualified(each))
            for each, is_alone in zip((table, referred), alone, strict=True)
        )
        given = [sql.SQL("t.{} IS NOT NULL").format(sql.Identifier(own)) for own, _ in pairs]
        some, every = sql.SQL(" OR ").join(given), sql.SQL(" AND ").join(given)
        text = "SELECT t.* FROM {child} AS t WHERE {every} AND NOT EXISTS (SELECT FROM {parent} AS r WHERE {same})"
        if is_full and len(given) > 1:  # MATCH FULL: all columns of a row are NULL, or none
            text = (
                "SELECT t.* FROM {child} AS t WHERE ({some})"
                " AND NOT ({every} AND EXISTS (SELECT FROM {parent} AS r WHERE {same}))"
            )
        query = sql.SQL(text).format(
            child=child,
            parent=parent,
            some=some,
            every=every,
            same=sql.SQL(" AND ").join(
                sql.SQL("r.{} = t.{}").format(sql.Identifier(key), sql.Identifier(own)) for own, key in pairs
            ),
        )
        yield table, name, session.text(query)
