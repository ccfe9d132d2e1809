-- The functions, enum values and composite types, and the tables and views whose rows are values of columns. No lock
-- protects them. They are equal in two snapshots if nothing changed in between. Each statement uses the present definition
-- of a function and the present name of a value. Any change gives the row another xmin, even if it was undone. Operators,
-- casts and aggregates depend on their functions.
SELECT f.oid::bigint, n.nspname || '.' || f.proname AS name, 'function' AS kind, f.xmin::text AS version
  FROM pg_proc f
  JOIN pg_namespace n ON n.oid = f.pronamespace
 WHERE f.oid >= 16384 AND NOT starts_with(n.nspname, 'pg_temp')
 UNION ALL
SELECT v.oid::bigint, n.nspname || '.' || t.typname, 'enum', concat_ws(':', v.xmin, v.enumlabel)
  FROM pg_enum v
  JOIN pg_type t ON t.oid = v.enumtypid
  JOIN pg_namespace n ON n.oid = t.typnamespace
 UNION ALL
SELECT c.oid::bigint, n.nspname || '.' || c.relname, CASE c.relkind WHEN 'c' THEN 'composite type' ELSE 'row type' END,
       string_agg(concat_ws(':', a.attnum, a.xmin, a.attname, a.atttypid), ' ' ORDER BY a.attnum)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE (c.relkind = 'c' AND c.oid >= 16384 OR c.oid IN ({row_types})) AND a.attnum > 0
 GROUP BY c.oid, n.nspname, c.relname, c.relkind
