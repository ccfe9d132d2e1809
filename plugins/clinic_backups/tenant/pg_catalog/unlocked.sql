-- The functions and the values of enums, which no lock protects: equal in two snapshots when none changed between. Each
-- statement uses a function, and writes a value's name, as they are by then. Whatever was done to one, even twice, its
-- row has another xmin. Operators, casts and aggregates are what their functions are.
SELECT f.oid::bigint, n.nspname || '.' || f.proname AS name, 'function' AS kind, f.xmin::text AS version
  FROM pg_proc f
  JOIN pg_namespace n ON n.oid = f.pronamespace
 WHERE f.oid >= 16384 AND NOT starts_with(n.nspname, 'pg_temp')
 UNION ALL
SELECT v.oid::bigint, n.nspname || '.' || t.typname, 'enum', concat_ws(':', v.xmin, v.enumlabel)
  FROM pg_enum v
  JOIN pg_type t ON t.oid = v.enumtypid
  JOIN pg_namespace n ON n.oid = t.typnamespace
