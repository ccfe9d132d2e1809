    -- The tables of the given names with their partitions, and those that a foreign key writes when these are written.
    SELECT c.oid
      FROM pg_class c
      LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
      JOIN pg_namespace n ON n.oid = COALESCE(root.relnamespace, c.relnamespace)
     WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || COALESCE(root.relname, c.relname) = ANY (%(written)s)
     UNION
    SELECT f.conrelid
      FROM pg_constraint f
      JOIN written w ON w.oid = f.confrelid
     WHERE f.contype = 'f' AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd'))
