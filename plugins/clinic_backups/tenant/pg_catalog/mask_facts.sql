-- For each given table: the columns of its unique keys and indexes, and the tables that it is a partition or an heir of,
-- at any depth.
SELECT n.nspname || '.' || c.relname,
       (SELECT json_agg(DISTINCT a.attname)
          FROM pg_index i
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)
           -- A column of an expression is unique as far as the expression is.
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                          AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.objid = i.indexrelid
                        UNION ALL
                       SELECT FROM pg_constraint k JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
                        WHERE k.conindid = i.indexrelid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                          AND d.refobjsubid = a.attnum)),
       (WITH RECURSIVE above (oid) AS (
            SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid
             UNION
            SELECT h.inhparent FROM above JOIN pg_inherits h ON h.inhrelid = above.oid
        )
        SELECT json_agg(an.nspname || '.' || a.relname ORDER BY a.oid)
          FROM above
          JOIN pg_class a ON a.oid = above.oid
          JOIN pg_namespace an ON an.oid = a.relnamespace)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
