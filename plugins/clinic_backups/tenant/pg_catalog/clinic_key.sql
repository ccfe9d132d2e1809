-- The type of a column of the clinics' table, for a domain its base type, and whether equal texts are the same texts.
WITH RECURSIVE of (type, collation_id, is_domain) AS (
    SELECT a.atttypid, a.attcollation, t.typtype = 'd'
      FROM pg_attribute AS a
      JOIN pg_class AS c ON c.oid = a.attrelid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_type AS t ON t.oid = a.atttypid
     WHERE n.nspname || '.' || c.relname = %(table)s AND a.attname = %(column)s AND a.attnum > 0
    UNION ALL
    SELECT d.typbasetype, of.collation_id, b.typtype = 'd'
      FROM of
      JOIN pg_type AS d ON d.oid = of.type
      JOIN pg_type AS b ON b.oid = d.typbasetype
     WHERE of.is_domain)
SELECT format_type(of.type, NULL), coalesce(l.collisdeterministic, true)
  FROM of LEFT JOIN pg_collation AS l ON l.oid = of.collation_id
 WHERE NOT of.is_domain
