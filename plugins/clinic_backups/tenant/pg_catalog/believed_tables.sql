-- The given tables, with their partitions, and all tables of the given roles: name, owner and number. Temporary tables, also
-- those of other sessions, are left out.
SELECT n.nspname || '.' || c.relname, c.relowner::bigint, c.oid::bigint
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
  LEFT JOIN pg_namespace rn ON rn.oid = root.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
   AND (c.relowner = ANY (%(owners)s::oid[])
        OR n.nspname || '.' || c.relname = ANY (%(names)s) OR rn.nspname || '.' || root.relname = ANY (%(names)s))
