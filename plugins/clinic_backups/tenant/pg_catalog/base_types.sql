-- The type of each column of a table, without modifiers. A domain counts as the type that it is made of.
WITH RECURSIVE made_of AS (
    SELECT a.attname::text AS name, a.atttypid AS type
      FROM pg_attribute a
     WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT m.name, t.typbasetype FROM made_of m JOIN pg_type t ON t.oid = m.type WHERE t.typtype = 'd'
)
SELECT m.name, format_type(m.type, NULL) FROM made_of m JOIN pg_type t ON t.oid = m.type WHERE t.typtype <> 'd'
