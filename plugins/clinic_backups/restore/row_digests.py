"""Digests of rows, computed by the database."""

from __future__ import annotations

from psycopg2 import sql


def digest_of_texts(texts: sql.Composable) -> sql.Composed:
    """SELECT of the SHA-256, in hex, over rows in any order. No text grows long, because it has two steps.

    :param texts: SELECT of one column ``text``, a text for each row.
    """
    return sql.SQL("""
        SELECT COALESCE(encode(sha256(string_agg(part, ''::bytea ORDER BY bucket)), 'hex'), '')
          FROM (SELECT get_byte(line, 0) AS bucket, sha256(string_agg(line, ''::bytea ORDER BY line)) AS part
                  FROM (SELECT sha256(convert_to(r.text, 'UTF8')) AS line FROM ({}) AS r OFFSET 0) AS lines
                 GROUP BY 1) AS parts""").format(texts)
