-- Those of the given tables that belong to no stranger, in a schema of no stranger: the owner of a schema may put another
-- table in the place of a table.
WITH stranger (oid) AS MATERIALIZED ({strangers})
SELECT n.nspname || '.' || c.relname
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname || '.' || c.relname = ANY (%(tables)s)
   AND c.relowner NOT IN (SELECT s.oid FROM stranger s)
   AND n.nspowner NOT IN (SELECT s.oid FROM stranger s)
