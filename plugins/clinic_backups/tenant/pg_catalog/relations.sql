-- Every ordinary or partitioned table of the database that is not temporary, and whether it is partitioned.
SELECT n.nspname || '.' || c.relname, c.relkind = 'p'
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
