-- Those of the given tables that belong to a believed role, in a schema of a believed role: the owner of a schema may put
-- another table in the place of a table.
WITH believed (oid, acts_for) AS MATERIALIZED ({believed})
SELECT n.nspname || '.' || c.relname
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = ANY (%(tables)s)
   AND c.relowner IN (SELECT b.oid FROM believed b)
   AND (n.nspowner IN (SELECT b.oid FROM believed b) OR n.nspowner = 'pg_database_owner'::regrole)
