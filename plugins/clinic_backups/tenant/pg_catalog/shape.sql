-- One number for all tables, views, columns and functions of the database. It changes if one is created, renamed or
-- dropped.
SELECT md5(COALESCE(string_agg(of.line, ',' ORDER BY of.line), ''))
  FROM (SELECT concat_ws(':', c.relnamespace, c.relname, a.attnum, a.attname, a.atttypid, a.attisdropped) AS line
          FROM pg_class c
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
         UNION ALL
        SELECT concat_ws(':', f.pronamespace, f.proname, f.proargtypes)
          FROM pg_proc f
         WHERE f.oid >= 16384) AS of
