-- Those of the given tables that LOCK TABLE can lock for this role as a writer does, written as in SQL.
SELECT format('%%I.%%I', n.nspname, c.relname)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(names)s)
   AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE')
 ORDER BY c.oid
