-- The tables of the given names, and those that a foreign key writes with them, which LOCK TABLE can lock for this role as a
-- writer does. Written as in SQL.
WITH RECURSIVE written AS (
{written_tables}
)
SELECT format('%%I.%%I', n.nspname, c.relname)
  FROM written w
  JOIN pg_class c ON c.oid = w.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE')
 ORDER BY c.oid
