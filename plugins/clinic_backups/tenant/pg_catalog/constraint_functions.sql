-- The functions of the application that the CHECK of a table calls itself: schema and name.
SELECT DISTINCT n.nspname || '.' || p.proname
  FROM pg_constraint c
  JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass
  JOIN pg_proc p ON p.oid = d.refobjid
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
 WHERE c.contype = 'c' AND c.conname = %(name)s AND c.conrelid = to_regclass(%(table)s)
 ORDER BY 1
